# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Which Struct Pages Are Mapped
-----------------------------

The struct pages of a section that was hot-added in part. A page of vmemmap is mapped as a whole: of
more than 4 KiB, it holds struct pages of several subsections, whether they are populated or not. So
page tables decide, or else the rules of the architecture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from drgn import BadDataError, Program

from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.kernel.memmap import PageLayout, page_layout
from drgn_zonedev.kernel.vmemmap import UNKNOWN, VmemmapRules, vmemmap_rules
from drgn_zonedev.util.sets import containing
from drgn_zonedev.vmcore.pagetables import page_frames

__all__ = ("MappedParts", "mapped_parts")

_NOT_KNOWN = -1


@dataclass(frozen=True)
class MappedParts:
    """
    Parts of sections, sorted and disjoint, of whose struct pages more is known than which
    subsections are populated: whether they are mapped, -1 if that is not known.
    """

    start: np.ndarray
    end: np.ndarray
    mapped: np.ndarray

    def containing(self, pfn: np.ndarray) -> np.ndarray:
        """Get the row of the part that each PFN is in, or -1."""
        return containing(pfn, self.start, self.end)


def mapped_parts(prog: Program, snapshot: Snapshot) -> MappedParts:
    """
    Find out which struct pages are mapped in sections that were hot-added in part.

    Where a page of vmemmap holds struct pages of one subsection only, and nothing larger is used,
    there is nothing to find out: its bit says it.
    """
    try:
        rules = vmemmap_rules(prog)
        rows = [] if not rules.shared else _rows(snapshot)
        parts = [part for row in rows for part in _parts_of_section(prog, snapshot, rules, row)]
    except (BadDataError, LookupError):
        # The debugging information does not say where struct pages are.
        parts = []
    columns = np.array(parts, np.int64).reshape(-1, 3)
    return MappedParts(columns[:, 0], columns[:, 1], columns[:, 2].astype(np.int8))


def _rows(snapshot: Snapshot) -> list[int]:
    # The memmap of early sections is whole.
    sections, flags = snapshot.sections, snapshot.flags
    known = np.uint64(flags.has_mem_map | flags.early)
    hot_added = (sections.word & known) == np.uint64(flags.has_mem_map)
    rows: list[int] = np.flatnonzero(sections.mixed & hot_added & sections.usage_readable).tolist()
    return rows


def _parts_of_section(
    prog: Program, snapshot: Snapshot, rules: VmemmapRules, row: int
) -> Iterator[tuple[int, int, int]]:
    layout, size = page_layout(prog), prog["PAGE_SIZE"].value_()
    pages = snapshot.geometry.pages_per_section
    start = int(snapshot.sections.nr[row]) * pages
    first, end = layout.memmap_pages(start, start + pages, size)
    populated = _holds_populated(prog, snapshot, first, end)
    otherwise = 0 if rules.base_pages else _NOT_KNOWN
    mapped = np.where(populated, 1, otherwise)
    frames = page_frames(prog, first, end)
    if frames is not None:
        mapped = np.where(frames == UNKNOWN, mapped, frames >= 0)
    borders = (np.flatnonzero(np.diff(mapped)) + 1).tolist()
    cuts = [start, *(_border(layout, size, first, mapped, i) for i in borders), start + pages]
    for low, high, i in zip(cuts, cuts[1:], [0, *borders]):
        if low < high:
            yield low, high, int(mapped[i])


def _border(layout: PageLayout, size: int, first: int, mapped: np.ndarray, i: int) -> int:
    # The PFN at a border between pages. A struct page that lies across it needs both: it is with
    # the one that is less surely mapped.
    offset = (first + i) * size - layout.vmemmap
    less = (0, _NOT_KNOWN, 1).index(mapped[i]) < (0, _NOT_KNOWN, 1).index(mapped[i - 1])
    return offset // layout.size if less else -(-offset // layout.size)


def _holds_populated(prog: Program, snapshot: Snapshot, first: int, end: int) -> np.ndarray:
    # Whether pages of vmemmap hold struct pages of populated subsections, of any section.
    layout, size = page_layout(prog), prog["PAGE_SIZE"].value_()
    sections, unit = snapshot.sections, snapshot.geometry.pages_per_subsection
    low = max((first * size - layout.vmemmap) // layout.size, 0) // unit
    high = -(-(end * size - layout.vmemmap) // (layout.size * unit))
    pfn = np.arange(low, high) * unit
    row = sections.row_of(pfn)
    early = (sections.word[row] & np.uint64(snapshot.flags.early)) != 0
    there = sections.test_bit(sections.subsection_map, row, pfn) | (early & (row >= 0))
    holds = np.zeros(end - first, bool)
    for start in pfn[there].tolist():
        page, last = layout.memmap_pages(start, start + unit, size)
        holds[max(page - first, 0) : max(last - first, 0)] = True
    return holds
