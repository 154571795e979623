# SPDX-License-Identifier: LGPL-2.1-or-later

"""
``python child.py MEMORY PARENT ARGUMENT...`` is ``zonedev ARGUMENT...`` with limits, which ends
when the process that started it does.

It is run by its path: with ``-m``, Python would import what lies in the working directory, which
may be full of files of strangers.
"""

from __future__ import annotations

import ctypes
import os
import resource
import runpy
import signal
import sys
from pathlib import Path

__all__ = ("DATA_FACTOR", "main")

DATA_FACTOR = 2
"""
Limit of allocated memory, as a multiple of the limit of used memory, which the parent process
watches.
"""

_PR_SET_PDEATHSIG = 1
# No report is larger, nor is a file of an export.
_MAX_FILE = 5 << 30


def main(arguments: list[str]) -> None:
    """Set the limits, and run ``zonedev``."""
    memory, parent = int(arguments[0]), int(arguments[1])
    _end_with(parent)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, _MAX_FILE)
    if memory:
        _limit(resource.RLIMIT_DATA, DATA_FACTOR * memory)
    sys.argv[1:] = arguments[2:]
    # In place of this directory.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    runpy.run_module("drgn_zonedev", run_name="__main__", alter_sys=True)


def _end_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # It ended before that.
        sys.exit(1)


def _limit(which: int, most: int) -> None:
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(which, (most, most))


if __name__ == "__main__":
    main(sys.argv[1:])
