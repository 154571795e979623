# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Exposed
-------

Which of the kernel's PFN walkers would touch one page that nobody promises.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from drgn import FaultError, Program

from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.model import Range
from drgn_zonedev.pfn_walkers import Exposure, Judgement, unreadable_by_guards, walk_all

__all__ = ("ExposedWalker", "exposed_walkers")


@dataclass(frozen=True)
class ExposedWalker:
    """
    A walker whose guard lets the page through; ``function`` is the one that reads the
    struct page, ``uses`` tells that it is not dropped after a look, ``outcome`` is what
    comes of it, in words.
    """

    name: str
    function: str
    uses: bool
    outcome: str


def exposed_walkers(
    prog: Program, snapshot: Snapshot, range_: Range | None, pfn: int
) -> tuple[ExposedWalker, ...] | str:
    """
    Let the walkers loose on one page of a range.

    :return: Those that touch it, or why that cannot be told.
    """
    if range_ is None:
        return ()
    page = dataclasses.replace(range_, start_pfn=pfn, end_pfn=pfn + 1)
    try:
        judgements = walk_all(prog, snapshot, [page])
        unreadable = unreadable_by_guards(prog, snapshot)
    except (FaultError, LookupError) as e:
        return f"what their guards ask cannot be read: {e}"
    exposed = tuple(
        _exposed(judgement, exposure)
        for judgement in judgements
        if judgement.present is not False
        for exposure in judgement.exposures
    )
    # Guards let pass what they cannot ask about, and keep out nothing else for that.
    if exposed and unreadable:
        return f"what their guards ask cannot be read: {', '.join(unreadable)}"
    return exposed


def _exposed(judgement: Judgement, exposure: Exposure) -> ExposedWalker:
    name, function = judgement.walker.name, judgement.function
    return ExposedWalker(name, function, bool(exposure.used), exposure.worst.value)
