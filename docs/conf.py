# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sphinx: ``python -m sphinx -W docs DIRECTORY`` builds the book."""

project = "drgn_zonedev"
author = "the drgn_zonedev developers"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["examples"]
html_theme = "alabaster"
html_theme_options = {
    "description": "What does each page frame belong to, and is its struct page initialised?",
    "fixed_sidebar": True,
    "page_width": "72em",
}
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"


def setup(app: object) -> None:
    """Teach Sphinx the role that drgn's helpers use for kernel files."""
    from docutils import nodes

    def linux(name, rawtext, text, lineno, inliner, options=None, content=()):  # type: ignore
        return [nodes.literal(rawtext, text)], []

    app.add_role("linux", linux)  # type: ignore[attr-defined]
