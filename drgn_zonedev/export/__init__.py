# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Exports: the part of a kernel's memory that this tool looks at, as a vmcore that
is small enough to mail and to commit, and that drgn opens like any other.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drgn_zonedev.export.write import SCHEMA, Export, Options, export
    from drgn_zonedev.render.export import export_text

# Most of it is needed to write an export, and little to open one.
_HOME = {
    "SCHEMA": "write",
    "Export": "write",
    "Options": "write",
    "export": "write",
    "export_text": "render",
}

__all__ = ("SCHEMA", "Export", "Options", "export", "export_text")


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
