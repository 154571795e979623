# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A drgn session on a guest.
"""

from __future__ import annotations

from typing import Any

from drgn_zonedev.lab.machine.boot import Guest
from drgn_zonedev.lab.verdict.matrix import debug_guest


def run_shell(guest: Guest) -> None:
    """Start drgn's REPL on a guest, with our helpers loaded; returns when the user exits."""
    from drgn.cli import run_interactive

    from drgn_zonedev.repl.repl import COMMAND_NAMES, register

    register()
    prog = debug_guest(guest)
    scenario = guest.scenario

    def banner(drgn_banner: str) -> str:
        return (
            f"{drgn_banner}\n"
            f"{guest.kernel.release}: {scenario.name}, {scenario.summary}\n"
            f"%zonedev {COMMAND_NAMES}; `guest` is the guest, and ends with this session."
        )

    def globals_(symbols: dict[str, Any]) -> dict[str, Any]:
        import drgn_zonedev

        helpers = {name: getattr(drgn_zonedev, name) for name in drgn_zonedev.__all__}
        return {**symbols, **helpers, "guest": guest}

    run_interactive(prog, banner_func=banner, globals_func=globals_)
