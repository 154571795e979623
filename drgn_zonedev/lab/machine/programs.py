# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Programs that a guest runs beside busybox, compiled on the host; they need no library.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from drgn_zonedev.lab.host.tools import run_tool

__all__ = ("compile_program",)

_SOURCES = Path(__file__).parents[1] / "guest"
_FLAGS = ("-nostdlib", "-static", "-ffreestanding", "-fno-stack-protector", "-O1")


def compile_program(name: str, compiler: str = "gcc") -> bytes:
    """Return the executable of ``guest/NAME.c``."""
    with tempfile.TemporaryDirectory(prefix="zonedev-lab-") as directory:
        program = Path(directory) / name
        run_tool(compiler, *_FLAGS, "-o", str(program), str(_SOURCES / f"{name}.c"))
        return program.read_bytes()
