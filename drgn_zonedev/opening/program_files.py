# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Files of Programs
-----------------
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from drgn import Program

from drgn_zonedev.vmcore.core_path import core_dump_path

__all__ = ("program_files",)


def program_files(prog: Program) -> Iterator[Path]:
    """Get the core dump and the debugging files of a program, whether given or found."""
    if core := core_dump_path(prog):
        yield Path(core)
    for module in prog.modules():
        for path in (module.loaded_file_path, module.debug_file_path):
            if path:
                yield Path(path)
