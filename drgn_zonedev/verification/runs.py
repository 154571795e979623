# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Runs
----

Wrong struct pages that lie together. However many there are, few are kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from drgn_zonedev.kernel.memmap import Pages
from drgn_zonedev.model import Evidence
from drgn_zonedev.verification.deviations import Deviation

__all__ = ("MAX_RUNS", "Run", "Runs", "add_deviation")

# Runs of wrong pages that are reported one by one; what is more scattered than
# that becomes one finding with a count.
MAX_RUNS = 32


@dataclass(frozen=True)
class Run:
    """``words`` are those of the first page, ``evidence`` is one fact of it."""

    start_pfn: int
    end_pfn: int
    count: int
    evidence: Evidence
    words: tuple[int, ...]


@dataclass
class Runs:
    """
    Runs in ascending order: the first ones, and what they all come to.

    Those of a range that was cut in pieces can be put together again, with the
    same result.
    """

    kept: list[Run] = field(default_factory=list)
    number: int = 0
    pages: int = 0
    end_pfn: int = 0

    def extend(self, other: Runs) -> None:
        """Append runs that lie after these; a run that was cut in two becomes one."""
        if not other.number:
            return
        kept = list(other.kept)
        joined = bool(self.number) and kept[0].start_pfn == self.end_pfn
        if joined:
            first = kept.pop(0)
            if self.number == len(self.kept):
                last = self.kept[-1]
                self.kept[-1] = dataclasses.replace(
                    last, end_pfn=first.end_pfn, count=last.count + first.count
                )
        if self.number == len(self.kept):
            self.kept += kept[: MAX_RUNS - len(self.kept)]
        self.number += other.number - joined
        self.pages += other.pages
        self.end_pfn = other.end_pfn

    def reported(self) -> Iterator[Run]:
        """Go through the runs, or through one that stands for too many."""
        if self.number > MAX_RUNS:
            yield dataclasses.replace(self.kept[0], end_pfn=self.end_pfn, count=self.pages)
        else:
            yield from self.kept


def add_deviation(runs: Runs, pages: Pages, deviation: Deviation) -> None:
    """Append the pages that a deviation selects."""
    rows = np.flatnonzero(deviation.wrong)
    if not len(rows):
        return
    breaks = np.flatnonzero(np.diff(rows) > 1) + 1
    firsts, lasts = rows[np.r_[0, breaks]], rows[np.r_[breaks, len(rows)] - 1]
    # One more than is kept, as the first one may become a part of the last one.
    kept = [
        _run(pages, deviation, int(first), int(last) + 1)
        for first, last in zip(firsts[: MAX_RUNS + 1], lasts)
    ]
    runs.extend(Runs(kept, len(firsts), len(rows), pages.start_pfn + int(lasts[-1]) + 1))


def _run(pages: Pages, deviation: Deviation, first: int, end: int) -> Run:
    start = pages.start_pfn
    words = tuple(pages.words[first].tolist())
    return Run(start + first, start + end, end - first, _fact(pages, deviation, first), words)


def _fact(pages: Pages, deviation: Deviation, row: int) -> Evidence:
    rows = (len(pages.words),)
    expected = np.broadcast_to(deviation.expected, rows)
    offset = np.broadcast_to(deviation.offset, rows)
    return Evidence(
        what=f"{deviation.what} of PFN {pages.start_pfn + row:#x}",
        address=int(pages.address[row]) + int(offset[row]),
        value=int(deviation.found[row]),
        expected=int(expected[row]),
    )
