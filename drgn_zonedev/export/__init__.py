# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Exports: the part of a kernel's memory that this tool looks at, as a vmcore that
is small enough to mail and to commit, and that drgn opens like any other.
"""

from __future__ import annotations

from drgn_zonedev.export.dump import SCHEMA, Export, Options, export
from drgn_zonedev.export.text import export_text

__all__ = ("SCHEMA", "Export", "Options", "export", "export_text")
