# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Exposed Walkers
---------------

The PFN walkers of the kernel that would touch one unpromised page.
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
    A walker whose guard the page passes. ``function`` reads the struct page, ``uses`` is true
    if no filter drops it, and ``outcome`` says what happens, in words; ``dies`` is whether that
    is, or may be, an oops.
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

    :return: Those that touch it, or why that is not known.
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
    # A guard lets everything pass if it cannot read what it checks, so "exposed" may be wrong.
    if exposed and unreadable:
        return f"what their guards check cannot be read: {', '.join(unreadable)}"
    return exposed


def _exposed(judgement: Judgement, exposure: Exposure) -> ExposedWalker:
    name, function = judgement.walker.name, judgement.function
    worst = exposure.worst
    return ExposedWalker(name, function, bool(exposure.used), worst.value, worst in FATAL)
