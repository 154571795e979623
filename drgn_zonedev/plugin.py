# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The drgn entry point. drgn imports this at the start of every session, whether
or not anybody wants to look at device memory: nothing heavy may be imported
until a command runs.
"""

from __future__ import annotations

import contextlib
import importlib
import sys

from drgn import Program, ProgramFlags

__all__ = ("drgn_prog_set",)


def drgn_prog_set(prog: Program) -> None:
    """
    Register ``%zonedev`` as soon as a kernel is debugged, and what finds its types and
    symbols without vmlinux. Called once per program.
    """
    if prog.flags & ProgramFlags.IS_LINUX_KERNEL:
        from drgn_zonedev.debuginfo.finders import offer_builtin_finders
        from drgn_zonedev.repl.repl import register

        register()
        # Reads nothing until something is asked for that vmlinux would have said.
        offer_builtin_finders(prog)
        if "drgn_tools" in sys.modules:
            _register_with_corelens()


def _register_with_corelens() -> None:
    # drgn-tools is a plugin of drgn, too. It takes for a module whatever class is known
    # by the time that %corelens runs.
    with contextlib.suppress(ImportError):
        importlib.import_module("drgn_zonedev.repl.corelens")
