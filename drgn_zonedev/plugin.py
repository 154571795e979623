# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The drgn entry point. drgn imports this at the start of every session, whether
or not anybody wants to look at device memory: nothing heavy may be imported
until a command runs.
"""

from __future__ import annotations

from drgn import Program, ProgramFlags

__all__ = ("drgn_prog_set",)


def drgn_prog_set(prog: Program) -> None:
    """Register ``%zonedev`` as soon as somebody debugs a kernel. Called once per program."""
    if prog.flags & ProgramFlags.IS_LINUX_KERNEL:
        from drgn_zonedev.repl import register

        register()
