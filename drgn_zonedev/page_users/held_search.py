# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Search for Holders
------------------

The pipes and io_urings that keep references to pages of devices, whether or not a process maps
these.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from drgn import Program

from drgn_zonedev.kernel.page_holders import PageHolder, held_pages, page_holders
from drgn_zonedev.kernel.tasks import Process
from drgn_zonedev.model import PgmapRange
from drgn_zonedev.page_users.pins import Gap, OpenedBy, Searched
from drgn_zonedev.page_users.vma_search import FAILURES, gap_of

__all__ = ("Held", "find_held")


@dataclass(frozen=True)
class Held:
    """A pipe or an io_uring, and the pages of devices that it holds: a PFN for each reference."""

    holder: PageHolder
    opened_by: tuple[OpenedBy, ...]
    pfns: np.ndarray


def find_held(
    prog: Program, processes: Iterable[Process], ranges: Sequence[PgmapRange]
) -> tuple[tuple[Held, ...], tuple[Gap, ...]]:
    """
    Find the pipes and io_urings that hold pages.

    :param ranges: Of the pages that matter.
    """
    opened: dict[PageHolder, list[OpenedBy]] = defaultdict(list)
    gaps: list[Gap] = []
    for process in processes:
        try:
            for fd, holder in page_holders(prog, process):
                opened[holder].append(OpenedBy(process, fd))
        except FAILURES as e:
            gaps.append(gap_of(Searched.OPEN_FILES, process.task, e))
    found = []
    for holder, openers in opened.items():
        try:
            pfns = _pages_of(prog, holder, ranges)
        except FAILURES as e:
            gaps.append(gap_of(Searched.OPEN_FILES, holder.address, e))
            continue
        if len(pfns):
            found.append(Held(holder, tuple(openers), pfns))
    return tuple(found), tuple(dict.fromkeys(gaps))


def _pages_of(prog: Program, holder: PageHolder, ranges: Sequence[PgmapRange]) -> np.ndarray:
    pfns = np.fromiter(held_pages(prog, holder), np.int64)
    inside = np.zeros(len(pfns), bool)
    for range_ in ranges:
        inside |= (pfns >= range_.start_pfn) & (pfns < range_.end_pfn)
    return pfns[inside]
