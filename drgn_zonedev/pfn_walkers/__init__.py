# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Walkers
-------

A *PFN walker* is code of the kernel that reads struct pages by PFN. Before it reads one,
it checks the PFN with its *guard*. *Unpromised* struct pages are those that the kernel does
not promise to be initialised, and those of altmaps, which are initialised but point to no
pgmap: all but those of the cases ``online`` and ``device``. Struct pages of RAM whose zone or
node does not exist are unpromised, too. For each walker, this room finds the unpromised memory
that passes the guard, and what would happen there.

``table.py`` holds the walkers as data, ``guards.py`` the checks that guards consist of,
``memory.py`` the unpromised memory, ``outcome.py`` what can happen, and ``judge.py`` puts
these together.
"""

from __future__ import annotations

from drgn_zonedev.pfn_walkers.judge import (
    Exposure,
    Judgement,
    WalkersReport,
    unreadable_by_guards,
    walk_all,
    walkers,
)
from drgn_zonedev.pfn_walkers.memory import suspects
from drgn_zonedev.pfn_walkers.outcome import FATAL, Act, WalkOutcome
from drgn_zonedev.pfn_walkers.table import WALKERS, Walker

__all__ = (
    "FATAL",
    "WALKERS",
    "Act",
    "Exposure",
    "Judgement",
    "WalkOutcome",
    "Walker",
    "WalkersReport",
    "suspects",
    "unreadable_by_guards",
    "walk_all",
    "walkers",
)
