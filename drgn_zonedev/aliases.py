# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Aliases
-------

Which struct pages share their memory, as the page tables say, and which of them
may: tails of one compound device page, from the second page of its vmemmap on.

One struct page for each piece of memory is verified; the others would say the
same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from drgn import Program

from drgn_zonedev.findings import make_finding
from drgn_zonedev.kernel.memmap import UnreadablePages, page_layout
from drgn_zonedev.kernel.vmemmap import UNMAPPED, vmemmap_page_frames, vmemmap_pages
from drgn_zonedev.model import Evidence, Finding, Range

__all__ = ("NO_ALIASES", "Aliases", "Backing", "find_aliases", "illegal_aliases")


@dataclass(frozen=True)
class Backing:
    """
    A range whose struct pages are promised, and how far its compound pages of
    ``vmemmap_shift`` (0 for none) are counted from.
    """

    range: Range
    first_pfn: int
    vmemmap_shift: int


@dataclass(frozen=True)
class Aliases:
    """
    Pages of vmemmap that are backed by the same memory as an earlier one.

    Columns, sorted by ``page``, which is a virtual page number, as is ``owner``:
    the first page with the same ``frame``. ``legal`` tells whether they may.
    ``per_page`` is the number of struct pages in a page of vmemmap, and ``base``
    the page number that the struct page of PFN 0 would be in.
    """

    page: np.ndarray
    owner: np.ndarray
    frame: np.ndarray
    legal: np.ndarray
    per_page: int
    base: int

    def legal_rows(self, start_pfn: int, end_pfn: int) -> np.ndarray:
        """Rows of the legal aliases whose struct pages are in a range."""
        first = self.base + start_pfn // self.per_page
        end = self.base - (-end_pfn // self.per_page)
        rows = np.arange(np.searchsorted(self.page, first), np.searchsorted(self.page, end))
        return rows[self.legal[rows]]

    def unshared(self, start_pfn: int, end_pfn: int) -> np.ndarray:
        """Parts of a range that are no legal aliases: a row each, half-open, ascending."""
        pages = self.page[self.legal_rows(start_pfn, end_pfn)]
        starts = self._pfn(pages)
        borders = np.stack([np.r_[start_pfn, starts + self.per_page], np.r_[starts, end_pfn]])
        borders = borders.clip(start_pfn, end_pfn).T
        return borders[borders[:, 0] < borders[:, 1]]

    def absent(
        self, start_pfn: int, end_pfn: int, gaps: Sequence[UnreadablePages]
    ) -> Iterator[UnreadablePages]:
        """Legal aliases in a range whose memory could not be read."""
        rows = self.legal_rows(start_pfn, end_pfn) if gaps else _EMPTY
        owners = self._pfn(self.owner[rows])
        for gap in gaps:
            for row in rows[(owners < gap.end_pfn) & (owners + self.per_page > gap.start_pfn)]:
                start = int(self._pfn(self.page[row]))
                start, end = max(start, start_pfn), min(start + self.per_page, end_pfn)
                yield UnreadablePages(start, end, gap.address, gap.reason)

    def _pfn(self, page: np.ndarray) -> np.ndarray:
        return (page - self.base) * self.per_page

    def shared_with(self, start_pfn: int, end_pfn: int) -> int:
        """How many more struct pages have the memory of those of a range."""
        pages = self.base + np.arange(start_pfn, end_pfn) // self.per_page
        owned, count = np.unique(self.owner[self.legal], return_counts=True)
        if not len(owned):
            return 0
        row = np.minimum(np.searchsorted(owned, pages), len(owned) - 1)
        return int(count[row][owned[row] == pages].sum())


_EMPTY = np.empty(0, np.int64)

NO_ALIASES = Aliases(_EMPTY, _EMPTY, _EMPTY, np.empty(0, bool), per_page=1, base=0)
"""Nothing is shared, or nothing is known of it."""


def find_aliases(prog: Program, backings: Sequence[Backing]) -> Aliases:
    """Find the pages of vmemmap that are shared; none, if nothing can be translated."""
    if not backings:
        return NO_ALIASES
    layout, page_size = page_layout(prog), prog["PAGE_SIZE"].value_()
    if page_size % layout.size or layout.vmemmap % page_size:
        # Then struct pages lie across pages, and the kernel never shares those.
        return NO_ALIASES
    per_page, base = page_size // layout.size, layout.vmemmap // page_size
    page, frame, backing = _translate(prog, backings)
    if not len(page):
        return NO_ALIASES
    order = np.lexsort((page, frame))
    page, frame, backing = page[order], frame[order], backing[order]
    first = np.concatenate([[True], frame[1:] != frame[:-1]])
    owner = np.flatnonzero(first)[np.cumsum(first) - 1]
    compound = _compound(backings, page, backing, per_page, base)
    # The first page of a compound page's vmemmap has the head: it is nobody's.
    legal = (compound >= 0) & (compound == compound[owner]) & (backing == backing[owner])
    again = np.flatnonzero(~first)
    again = again[np.argsort(page[again], kind="stable")]
    return Aliases(page[again], page[owner[again]], frame[again], legal[again], per_page, base)


def _translate(
    prog: Program, backings: Sequence[Backing]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # Columns: page, its frame, and the backing it is of; each page once.
    columns = []
    for i, backing in enumerate(backings):
        first, end = vmemmap_pages(prog, backing.range.start_pfn, backing.range.end_pfn)
        frames = vmemmap_page_frames(prog, first, end)
        if frames is not None:
            rows = np.flatnonzero(frames != UNMAPPED)
            columns.append(np.stack([first + rows, frames[rows], np.full(len(rows), i)]))
    if not columns:
        return _EMPTY, _EMPTY, _EMPTY
    page, frame, owner = np.concatenate(columns, axis=1)
    _, once = np.unique(page, return_index=True)
    return page[once], frame[once], owner[once]


def _compound(
    backings: Sequence[Backing], page: np.ndarray, backing: np.ndarray, per_page: int, base: int
) -> np.ndarray:
    # A number for the compound page whose tails each page of vmemmap may share, or
    # -1 for pages that may share nothing.
    found = np.full(len(page), -1, np.int64)
    for i, b in enumerate(backings):
        if b.vmemmap_shift:
            rows = np.flatnonzero(backing == i)
            index = (page[rows] - base) * per_page - b.first_pfn
            inner = index % (1 << b.vmemmap_shift)
            shared = (index >= 0) & (inner >= per_page)
            found[rows[shared]] = (index >> b.vmemmap_shift)[shared]
    return found


def illegal_aliases(aliases: Aliases, backings: Sequence[Backing]) -> Iterator[Finding]:
    """Report pages of vmemmap that share what they must not share."""
    bad = np.flatnonzero(~aliases.legal)
    if not len(bad):
        return
    groups = np.split(bad, np.flatnonzero(np.diff(aliases.page[bad]) > 1) + 1)
    for backing in backings:
        for rows in groups:
            start = (int(aliases.page[rows[0]]) - aliases.base) * aliases.per_page
            end = (int(aliases.page[rows[-1]]) + 1 - aliases.base) * aliases.per_page
            start, end = max(start, backing.range.start_pfn), min(end, backing.range.end_pfn)
            if start < end:
                yield _illegal(aliases, int(rows[0]), backing, start, end)


def _illegal(aliases: Aliases, row: int, backing: Backing, start: int, end: int) -> Finding:
    other = (int(aliases.owner[row]) - aliases.base) * aliases.per_page
    page, frame = int(aliases.page[row]), int(aliases.frame[row])
    return make_finding(
        "vmemmap-alias",
        backing.range.case,
        start,
        end,
        pgmap=backing.range.pgmap,
        evidence=(
            Evidence(
                what=f"page of vmemmap {page:#x}",
                value=frame,
                note=f"the page frame that also has the struct page of PFN {other:#x}",
            ),
        ),
    )
