# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Work
----

Struct pages to go through, and the results, as plain data, so that this process or another one
can do it.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from drgn_zonedev.kernel.memmap import UnreadablePages
from drgn_zonedev.model import Unjudged
from drgn_zonedev.verification.page_access import AccessSpan
from drgn_zonedev.verification.promises import Promise
from drgn_zonedev.verification.references import BrokenFolio
from drgn_zonedev.verification.runs import Runs

__all__ = ("Scanned", "Work", "batches")


@dataclass(frozen=True)
class Work:
    """
    Struct pages to read and to compare with a promise.

    ``spans`` are half-open ranges of PFNs in ascending order, a row each.
    """

    promise: Promise
    spans: np.ndarray

    @property
    def pages(self) -> int:
        """Number of struct pages."""
        return int((self.spans[:, 1] - self.spans[:, 0]).sum())


@dataclass
class Scanned:
    """
    The result of a scan. ``torn`` counts pages that looked wrong, and changed while they were read
    again; ``free`` counts free blocks by zone ID and order; ``access`` has pages whose memory
    must not be read; ``in_use`` counts pages of folios with references, where the pgmap has one
    for each, and ``broken_folios`` are kinds of findings about folios, each with its PFNs.
    """

    runs: dict[str, Runs] = field(default_factory=dict)
    gaps: list[UnreadablePages] = field(default_factory=list)
    unconfirmed: list[Unjudged] = field(default_factory=list)
    pages_read: int = 0
    bytes_read: int = 0
    torn: int = 0
    free: Counter[tuple[int, int]] = field(default_factory=Counter)
    access: list[AccessSpan] = field(default_factory=list)
    in_use: int = 0
    broken_folios: list[BrokenFolio] = field(default_factory=list)

    def extend(self, other: Scanned) -> None:
        """Append the result of the work after this."""
        for slug, runs in other.runs.items():
            self.runs.setdefault(slug, Runs()).extend(runs)
        self.append_gaps(other.gaps)
        self.unconfirmed += other.unconfirmed
        self.pages_read += other.pages_read
        self.bytes_read += other.bytes_read
        self.torn += other.torn
        self.free += other.free
        self.access += other.access
        self.in_use += other.in_use
        self.broken_folios += other.broken_folios

    def append_gaps(self, gaps: Iterable[UnreadablePages]) -> None:
        """
        Append gaps in ascending order; those that touch become one, which keeps the
        words of its first part.
        """
        for gap in gaps:
            if self.gaps and self.gaps[-1].end_pfn == gap.start_pfn:
                self.gaps[-1] = dataclasses.replace(self.gaps[-1], end_pfn=gap.end_pfn)
            else:
                self.gaps.append(gap)

    def insert_gaps(self, gaps: Iterable[UnreadablePages]) -> None:
        """Like :meth:`append_gaps`, wherever they belong."""
        ordered = sorted([*self.gaps, *gaps], key=lambda gap: gap.start_pfn)
        self.gaps = []
        self.append_gaps(ordered)


def batches(spans: np.ndarray, size: int, chunk: int) -> Iterator[tuple[np.ndarray, int]]:
    """
    Get the starts and the common length of spans that are read together: neighbours, alike,
    at the same place of their compound pages of *size*, and short.
    """
    counts, place = spans[:, 1] - spans[:, 0], spans[:, 0] % size
    differ = (counts[1:] != counts[:-1]) | (place[1:] != place[:-1])
    borders = [0, *(differ.nonzero()[0] + 1).tolist(), len(spans)]
    for first, end in zip(borders, borders[1:]):
        if first < end:
            count = int(counts[first])
            number = max(1, chunk // count)
            for i in range(first, end, number):
                yield spans[i : min(i + number, end), 0], count
