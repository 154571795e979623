# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Claims
------

The input of the checks, and the evidence that they take from it.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Union

import numpy as np
from drgn import Program, offsetof, sizeof

from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.kernel.resource import Resources, unnamed_iomem_resources
from drgn_zonedev.model import Case, Evidence, Finding, Pgmap, PgmapRange, Range, Unjudged
from drgn_zonedev.util.intervals import Span
from drgn_zonedev.vmcore.raw import END

__all__ = ("Check", "Claim", "Scene")

# Pgmaps for each section, on average.
_MAX_OWNERS = 4


@dataclass(frozen=True)
class Claim:
    """One range of a live pgmap."""

    pgmap: Pgmap
    index: int
    range: PgmapRange

    @property
    def complete(self) -> bool:
        return self.index < self.pgmap.nr_range and self.pgmap.is_settled


@dataclass(frozen=True)
class Scene:
    """
    The input of the checks; ``ranges`` are the result of the classification. Structures
    without PFNs in ``focus`` are not checked.
    """

    prog: Program
    snapshot: Snapshot
    ranges: Sequence[Range]
    focus: Span = (0, END)

    def is_near(self, start_pfn: int, end_pfn: int) -> bool:
        """Return whether a range is in focus; an empty one counts as the PFN where it is."""
        return start_pfn < self.focus[1] and self.focus[0] < max(end_pfn, start_pfn + 1)

    @cached_property
    def claims(self) -> list[Claim]:
        """Claims of live pgmaps, in ascending order, as many as can be compared."""
        kept = self._sorted_claims[: self._most_claims]
        return [c for c in kept if self.is_near(c.range.start_pfn, c.range.end_pfn)]

    @property
    def not_compared(self) -> tuple[Unjudged, ...]:
        """The claims that were not compared because there are too many."""
        left = self._sorted_claims[self._most_claims :]
        if not left:
            return ()
        start, end = left[0].range.start_pfn, max(c.range.end_pfn for c in self._sorted_claims)
        reason = "too many pgmaps claim the same sections: only some were compared with them"
        return (Unjudged(start, end, reason),)

    @cached_property
    def _sorted_claims(self) -> list[Claim]:
        found = [c for c in self.all_claims if c.range.start_pfn < c.range.end_pfn]
        return sorted(found, key=lambda c: (c.range.start_pfn, c.range.end_pfn))

    @cached_property
    def _most_claims(self) -> int:
        # Each section has few claims, unless damaged pgmaps all claim everything.
        sections, pages = self.snapshot.sections, self.snapshot.geometry.pages_per_section
        starts = np.array([c.range.start_pfn // pages for c in self._sorted_claims], np.int64)
        ends = np.array([(c.range.end_pfn - 1) // pages for c in self._sorted_claims], np.int64)
        touched = np.searchsorted(sections.nr, ends, side="right")
        touched -= np.searchsorted(sections.nr, starts)
        most = _MAX_OWNERS * (len(sections) + len(starts))
        return int(np.searchsorted(np.cumsum(touched), most, side="right"))

    @property
    def all_claims(self) -> list[Claim]:
        """All claims, including those of damaged pgmaps, which may be empty."""
        return [
            Claim(pgmap, i, range_)
            for pgmap in self.snapshot.pgmaps
            if pgmap.ref.state == "live" and pgmap.address not in self.snapshot.torn_pgmaps
            for i, range_ in enumerate(pgmap.ranges)
        ]

    @cached_property
    def complete(self) -> list[Claim]:
        """Claims that are initialised."""
        return [c for c in self.claims if c.complete]

    @cached_property
    def resources(self) -> Resources:
        """
        :raises LookupError: if the debugging information does not have them
        """
        return self.snapshot.resources or unnamed_iomem_resources(self.prog)

    @cached_property
    def torn(self) -> np.ndarray:
        """Mask of the rows of sections that changed while they were read."""
        return np.isin(self.snapshot.sections.nr, list(self.snapshot.torn_sections))

    def has_flag(self, flag: int) -> np.ndarray:
        """Mask of the sections that have a flag."""
        return (self.snapshot.sections.word & np.uint64(flag)) != 0

    def rows_where(self, condition: np.ndarray) -> list[int]:
        """Rows of the sections that a mask selects and that are in focus."""
        near = self.rows(self.focus[0], min(self.focus[1], self.snapshot.geometry.max_pfn))
        found: list[int] = near[condition[near]].tolist()
        return found

    def rows(self, start_pfn: int, end_pfn: int) -> np.ndarray:
        """Rows of the present sections that a PFN range touches."""
        return self.snapshot.sections.rows(start_pfn, end_pfn)

    @cached_property
    def claimed(self) -> np.ndarray:
        """Mask of the sections that have PFNs of a live pgmap."""
        found = np.zeros(len(self.snapshot.sections), bool)
        for claim in self.claims:
            found[self.rows(claim.range.start_pfn, claim.range.end_pfn)] = True
        return found

    def section_span(self, row: int) -> tuple[int, int]:
        """PFNs of a section."""
        start = int(self.snapshot.sections.nr[row]) * self.snapshot.geometry.pages_per_section
        return start, start + self.snapshot.geometry.pages_per_section

    def section_word(self, row: int, expected: int | None = None) -> Evidence:
        sections = self.snapshot.sections
        offset = offsetof(self.prog.type("struct mem_section"), "section_mem_map")
        return Evidence(
            what=f"mem_section[{sections.nr[row]}].section_mem_map",
            address=int(sections.address[row]) + offset,
            value=int(sections.word[row]),
            expected=expected,
        )

    def pgmap_member(
        self, pgmap: Pgmap, member: str, value: int, expected: int | None = None
    ) -> Evidence:
        address = pgmap.address + offsetof(self.prog.type("struct dev_pagemap"), member)
        return Evidence(f"pgmap->{member}", address, value, expected)

    def range_facts(self, claim: Claim) -> tuple[Evidence, Evidence]:
        """Evidence of a pgmap's range: the words it was read from."""
        shift = self.snapshot.geometry.page_shift
        # struct resource begins like struct range.
        recorded = claim.pgmap.records_progress
        member = "range" if recorded else "res"
        what = f"pgmap->ranges[{claim.index}]" if recorded else "pgmap->res"
        base = claim.pgmap.address + offsetof(self.prog.type("struct dev_pagemap"), member)
        base += claim.index * sizeof(self.prog.type("struct range"))
        range_ = claim.range
        start, end = range_.start_pfn << shift, (range_.end_pfn << shift) - 1
        return (
            Evidence(f"{what}.start", base, start),
            # A range that ends in the first page is damaged.
            Evidence(f"{what}.end", base + 8, max(end, 0)),
        )

    def case_at(self, pfn: int) -> Case:
        """The range that the classification put a PFN into."""
        i = bisect.bisect_right([r.start_pfn for r in self.ranges], pfn) - 1
        if i >= 0 and pfn < self.ranges[i].end_pfn:
            return self.ranges[i].case
        return Case.UNKNOWN


Check = Callable[[Scene], Iterator[Union[Finding, Unjudged]]]
