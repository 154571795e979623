# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Paths of Dumps
--------------

Replaces ``Program.core_dump_path`` of drgn, which raises an error for a path that is not
UTF-8. Linux allows such paths.
"""

from __future__ import annotations

import os

from drgn import Program

__all__ = ("core_dump_path",)


def core_dump_path(prog: Program) -> str | None:
    """Get the path of a program's core dump as :func:`os.fsdecode()` does."""
    try:
        return prog.core_dump_path
    except UnicodeDecodeError as e:
        return os.fsdecode(e.object)
