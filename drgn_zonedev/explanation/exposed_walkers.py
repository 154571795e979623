# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Exposed Walkers
---------------

Finds the PFN walkers of the kernel that would touch one page that is not promised to be
initialised.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from drgn import FaultError, Program

from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.model import Range
from drgn_zonedev.pfn_walkers import FATAL, Exposure, Judgement, unreadable_by_guards, walk_all

__all__ = ("ExposedWalker", "exposed_walkers")


@dataclass(frozen=True)
class ExposedWalker:
    """
    A walker whose guard lets the page pass. ``function`` reads the struct page; ``uses`` is
    whether the walker then uses it, because no filter drops it; ``outcome`` is the consequence
    in words, and ``dies`` whether that is an oops, or may be one.
    """

    name: str
    function: str
    uses: bool
    outcome: str
    dies: bool


def exposed_walkers(
    prog: Program, snapshot: Snapshot, range_: Range | None, pfn: int
) -> tuple[ExposedWalker, ...] | str:
    """
    Judge the walkers on one page of a range.

    :return: The walkers that touch it, or why they cannot be judged.
    """
    if range_ is None:
        return ()
    page = dataclasses.replace(range_, start_pfn=pfn, end_pfn=pfn + 1)
    try:
        judgements = walk_all(prog, snapshot, [page])
        unreadable = unreadable_by_guards(prog, snapshot)
    except (FaultError, LookupError) as e:
        return f"what their guards check cannot be read: {e}"
    exposed = tuple(
        _exposed(judgement, exposure)
        for judgement in judgements
        if judgement.present is not False
        for exposure in judgement.exposures
    )
    # A guard lets everything pass if its inputs cannot be read, so "exposed" may be wrong.
    if exposed and unreadable:
        return f"what their guards check cannot be read: {', '.join(unreadable)}"
    return exposed


def _exposed(judgement: Judgement, exposure: Exposure) -> ExposedWalker:
    name, worst = judgement.walker.name, exposure.worst
    return ExposedWalker(name, judgement.function, bool(exposure.used), worst.value, worst in FATAL)
