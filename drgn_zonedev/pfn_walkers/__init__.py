# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Walkers
-------

Code of the kernel that looks at struct pages by PFN: the guard that each piece of
it applies, the memory that passes the guard although nobody promises its struct
pages, and what would come of it.

``table.py`` holds the walkers as data, ``guards.py`` what their guards are made of,
``memory.py`` the memory that they are let loose on, ``outcome.py`` what can happen.
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
from drgn_zonedev.pfn_walkers.outcome import Act, WalkOutcome
from drgn_zonedev.pfn_walkers.table import WALKERS, Walker

__all__ = (
    "WALKERS",
    "Act",
    "Exposure",
    "Judgement",
    "WalkOutcome",
    "Walker",
    "WalkersReport",
    "unreadable_by_guards",
    "walk_all",
    "walkers",
)
