# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Colour
------

Colours of finished text, as an editor highlights a language: titles, severities, cases and
answers. Nothing is decided by it, and text without colour is the same.
"""

from __future__ import annotations

import re

from drgn_zonedev.model import Case, Severity
from drgn_zonedev.render.cells import case_text
from drgn_zonedev.render.picture.glyphs import MARKS, mark_of

__all__ = ("coloured_text",)

_SEVERITIES = {Severity.ERROR: "1;31", Severity.WARNING: "33", Severity.INFO: "36"}
_TITLE, _GOOD, _BAD, _OTHER = "1", "32", "1;31", "33"
_ANSWERS = {"true": _GOOD, "false": _OTHER, "NULL": _OTHER, "ok": _GOOD, "DIFFERS": _BAD}
_CELLS = {**{case_text(case): MARKS[mark_of(case)].sgr for case in Case}, **_ANSWERS}

_WORDS = {severity.value: sgr for severity, sgr in _SEVERITIES.items()}
# A severity begins a finding, and a cell of a table has two spaces or nothing around it.
_PATTERN = re.compile(
    r"^(?P<title>[A-Z][A-Z ]+)$"
    rf"|^(?:! |new: |came: |went: |changed: )?(?P<severity>{'|'.join(_WORDS)})(?=: )"
    rf"|(?<=  )(?P<cell>{'|'.join(map(re.escape, _CELLS))})(?=  |$)",
    re.MULTILINE,
)


def coloured_text(text: str) -> str:
    """Colour text for a terminal that has colours; all of it was escaped before."""
    return _PATTERN.sub(_coloured, text)


def _coloured(match: re.Match[str]) -> str:
    kind = match.lastgroup or ""
    word = match[kind]
    sgr = {"title": _TITLE, "severity": _WORDS.get(word), "cell": _CELLS.get(word)}[kind]
    return match[0].replace(word, f"\x1b[{sgr}m{word}\x1b[0m", 1)
