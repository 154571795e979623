# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Marks
-----

The flags and bitmaps that a kernel with ``pfn_zone_device()`` would keep, built from
today's structures, for every present section. They are rounded as in the kernel, so that
the trial shows what bits per subsection cannot express.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.model import Case, Pgmap, Range
from drgn_zonedev.util.intervals import Span

__all__ = ("Marks", "mark")


def mark(snapshot: Snapshot, spans: Iterable[Span], *, outward: bool = True) -> np.ndarray:
    """
    Set the bits of spans of PFNs, in a bitmap like ``Sections.subsection_map``.

    If *outward*, a partly covered subsection also gets its bit, as in
    ``subsection_mask_set()``; otherwise, it does not. Only populated subsections can have
    a bit.
    """
    geometry, sections = snapshot.geometry, snapshot.sections
    bitmap = np.zeros_like(sections.subsection_map)
    per_section, per_bit = geometry.subsections_per_section, geometry.pages_per_subsection
    for start_pfn, end_pfn in spans:
        first = start_pfn // per_bit if outward else -(-start_pfn // per_bit)
        end = -(-end_pfn // per_bit) if outward else end_pfn // per_bit
        if first >= end:
            continue
        rows = sections.rows(first * per_bit, end * per_bit)
        if not len(rows):
            continue
        whole = np.full((len(rows), bitmap.shape[1]), np.iinfo(np.uint64).max, np.uint64)
        if sections.nr[rows[0]] == first // per_section:
            whole[0] &= _words(bitmap.shape[1], first % per_section, per_section)
        if sections.nr[rows[-1]] == (end - 1) // per_section:
            whole[-1] &= _words(bitmap.shape[1], 0, (end - 1) % per_section + 1)
        bitmap[rows] |= whole
    return bitmap & sections.subsection_map


def _words(count: int, first: int, end: int) -> np.ndarray:
    # The bits [first, end) of a bitmap, as 64-bit words.
    bits = (1 << end) - (1 << first)
    return np.array([bits >> 64 * i & (1 << 64) - 1 for i in range(count)], np.uint64)


@dataclass(frozen=True)
class Marks:
    """The bits that would be set for a program's memory, by when the kernel changes them."""

    snapshot: Snapshot
    ranges: Sequence[Range]

    @cached_property
    def early(self) -> np.ndarray:
        """Set in ``fill_subsection_map()``: hot-added for a pgmap, even if that failed later."""
        claims = [(r.start_pfn, r.end_pfn) for p in self.snapshot.pgmaps for r in p.ranges]
        return mark(self.snapshot, [*claims, *self._of(Case.ORPHAN)])

    @cached_property
    def late(self) -> np.ndarray:
        """
        As in patch 2/3 of November 2019: set for a whole range, after
        ``memmap_init_zone_device()``, and cleared in ``section_deactivate()``.

        ``nr_range`` is incremented shortly after that, so it says for which ranges the bits
        would be set; it does not change while a pgmap dies.
        """
        return mark(self.snapshot, self._initialized())

    @cached_property
    def late_data(self) -> np.ndarray:
        """
        Like ``late``, but set from the first page of data on. A subsection that holds both
        data and pages of the altmap is not marked.
        """
        return mark(self.snapshot, self._data(self.snapshot.pgmaps), outward=False)

    @cached_property
    def touchable(self) -> np.ndarray:
        """Like ``late_data``, but cleared before the struct pages of a dying pgmap are freed."""
        live = [pgmap for pgmap in self.snapshot.pgmaps if pgmap.ref.state == "live"]
        return mark(self.snapshot, self._data(live), outward=False)

    @cached_property
    def section(self) -> np.ndarray:
        """
        A flag in each section's word: set early, and cleared only with the whole word,
        because the section may have more than one device.
        """
        return self.early.any(axis=1) | self._overlapping(self._of(Case.GHOST))

    @cached_property
    def taint(self) -> np.ndarray:
        """
        ``SECTION_TAINT_ZONE_DEVICE`` of each section: as in the kernel or, if it does not have
        that flag, as ``move_pfn_range_to_zone()`` would have set it.
        """
        flags, sections = self.snapshot.flags, self.snapshot.sections
        if flags.taint:
            return (sections.word & np.uint64(flags.taint)) != 0
        pages = self.snapshot.geometry.pages_per_section
        borders = [
            pfn
            for pgmap in self.snapshot.pgmaps
            for r in pgmap.ranges
            for pfn in (r.start_pfn, r.end_pfn)
            if pfn % pages
        ]
        ghosts = self._overlapping(self._of(Case.GHOST))
        return ghosts | (self._overlapping([(p, p + 1) for p in borders]) & (sections.word != 0))

    def _of(self, case: Case) -> list[Span]:
        return [(r.start_pfn, r.end_pfn) for r in self.ranges if r.case is case]

    def _initialized(self) -> Iterator[Span]:
        for pgmap in self.snapshot.pgmaps:
            for range_ in pgmap.ranges[: pgmap.nr_range]:
                yield range_.start_pfn, range_.end_pfn

    def _data(self, pgmaps: Iterable[Pgmap]) -> Iterator[Span]:
        for pgmap in pgmaps:
            for i, range_ in enumerate(pgmap.ranges[: pgmap.nr_range]):
                yield pgmap.pfn_first(i), range_.end_pfn

    def _overlapping(self, spans: Iterable[Span]) -> np.ndarray:
        found = np.zeros(len(self.snapshot.sections), bool)
        for start, end in spans:
            found[self.snapshot.sections.rows(start, end)] = True
        return found
