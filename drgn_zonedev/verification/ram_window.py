# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A Window of RAM
---------------

Contiguous struct pages of RAM, and what kind of page each one is. What the kernel promises about a
page depends on its kind, which only the pages together show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from drgn import Program

from drgn_zonedev.kernel.memmap import PageLayout, Pages, PagesOrGap, read_pages
from drgn_zonedev.verification.compound_links import (
    CompoundColumns,
    find_compound_pages,
    is_unwritten,
    link_to,
    linked_heads,
)
from drgn_zonedev.verification.free_blocks import FreePages, free_pages
from drgn_zonedev.verification.promises import Area, Place, RamPages

__all__ = (
    "RAM_AREAS",
    "RamPlace",
    "RamWindow",
    "first_idle_tail",
    "ram_window",
    "read_window",
    "window_around",
    "window_of",
    "window_size",
)

_NO_PAGE = -1


@dataclass(frozen=True)
class RamWindow:
    """Struct pages that begin and end where free blocks do, with what they form."""

    pages: Pages
    promise: RamPages
    compound: CompoundColumns
    free: FreePages

    @property
    def place(self) -> RamPlace:
        """Where the pages are."""
        return RamPlace(self.pages.layout, self.promise, self.pages.pfn, self)

    @cached_property
    def leads_to_head(self) -> np.ndarray:
        """Which pages have a link that leads to the head of their compound page."""
        return linked_heads(self.pages) == self.compound.head

    @cached_property
    def index(self) -> np.ndarray:
        """Index of each page in its compound page, or 0."""
        head = self.compound.head
        return np.where(head == _NO_PAGE, 0, self.pages.pfn - head)

    @cached_property
    def unwritten(self) -> np.ndarray:
        """Which pages hold only a pattern."""
        return is_unwritten(self.pages)

    @property
    def asked(self) -> np.ndarray:
        """Which pages are judged; the others help to judge them."""
        pfn = self.pages.pfn
        return (pfn >= self.promise.start_pfn) & (pfn < self.promise.end_pfn)

    def area(self, area: Area) -> np.ndarray:
        """Which pages are in an area; do not change the array."""
        if area not in self._areas:
            self._areas[area] = _AREAS[area](self)
        return self._areas[area]

    @cached_property
    def _areas(self) -> dict[Area, np.ndarray]:
        return {}

    @property
    def _flags(self) -> np.ndarray:
        return self.pages.flags

    def _has(self, mask: int) -> np.ndarray:
        return (self._flags & np.uint64(mask)) != 0

    @cached_property
    def tail(self) -> np.ndarray:
        """Which pages are tails, whatever they hold."""
        return self.index > 0

    @cached_property
    def reserved(self) -> np.ndarray:
        """Which pages are ``PG_reserved``, other than those of compound pages and free blocks."""
        return self._has(self.pages.layout.pg_reserved) & self.single

    @cached_property
    def follows(self) -> np.ndarray:
        """
        Which pages are reserved, but not the first of the block that they were allocated in, which
        alone has a reference: kimage_alloc_pages() and AGP reserve all pages of one.
        """
        found = np.zeros(len(self.pages.words), bool)
        count, lru = self.pages.refcount, self.pages.layout.lru_offset // 8
        # list_del() poisons the list of what the buddy allocator hands out.
        listed = self.pages.words[:, lru] != self.pages.address + np.uint64(8 * lru)
        ends = np.r_[~(self.reserved & (count == 0)), True].nonzero()[0]
        for row in np.flatnonzero(self.reserved & listed & (count > 0)).tolist():
            end = int(ends[np.searchsorted(ends, row + 1)])
            found[row + 1 : min(end, row + (self._alignment(row) or end))] = True
        return found

    def _alignment(self, row: int) -> int:
        pfn = self.pages.start_pfn + row
        return pfn & -pfn

    @cached_property
    def single(self) -> np.ndarray:
        """Which pages are in neither a compound page nor a free block."""
        return (self.compound.head == _NO_PAGE) & ~self.free.any

    @property
    def typed(self) -> np.ndarray:
        """Which pages have a page type, or are slab pages."""
        kinds = self.promise.kinds
        return kinds.has_type(self.pages.mapcount) | self._has(kinds.slab_flag)

    @property
    def idle_tail(self) -> np.ndarray:
        """Tails whose ``mapping`` only ``prep_compound_tail()`` writes."""
        kinds = self.promise.kinds
        # In kernels without PGTY_hugetlb, prep_compound_gigantic_page() did not write mapping.
        written = (kinds.known_types is not None) | (self.compound.order <= kinds.max_order)
        return (self.index >= first_idle_tail(self.pages.layout)) & written


_AREAS: Mapping[Area, Callable[[RamWindow], np.ndarray]] = {
    Area.RAM: lambda w: np.ones(len(w.pages.words), bool),
    Area.RAM_UNRESERVED: lambda w: ~w.reserved,
    Area.RAM_RESERVED: lambda w: w.reserved,
    Area.RAM_KEPT: lambda w: w.reserved & ~w.follows,
    Area.RAM_HEAD: lambda w: w.compound.head == w.pages.pfn,
    Area.RAM_SINGLE: lambda w: w.single,
    Area.RAM_TYPED: lambda w: ~w.tail & ~w.free.any & w.typed,
    Area.RAM_FIRST_TAIL: lambda w: w.index == 1,
    Area.RAM_TAIL: lambda w: w.tail,
    Area.RAM_OTHER_TAIL: lambda w: w.index > 1,
    Area.RAM_OWN_TAIL: lambda w: (
        w.tail & ~(w.compound.optimized & (w.index >= w.promise.pages_per_frame))
    ),
    Area.RAM_IDLE_TAIL: lambda w: w.idle_tail,
    Area.FREE_HEAD: lambda w: w.free.first,
    Area.FREE_INSIDE: lambda w: w.free.inside,
}
RAM_AREAS = tuple(_AREAS)


@dataclass(frozen=True)
class RamPlace(Place):
    """Where pages of RAM are, and in which compound pages."""

    window: RamWindow

    @cached_property
    def index(self) -> np.ndarray:
        """Index of each page in its compound page, 0 for others."""
        return self.window.index

    @cached_property
    def link(self) -> np.ndarray:
        """The compound link that each page must have if it is a tail."""
        compound = self.window.compound
        return link_to(self.layout, compound.head, compound.order)


def first_idle_tail(layout: PageLayout) -> int:
    """
    Get the index of the first tail in ``Area.RAM_IDLE_TAIL``: free_tail_page_prepare() does not
    check the tails that struct folio and hugetlb use.
    """
    return 3 if layout.folio_pages <= 2 else max(layout.folio_pages, 4)


def window_of(promise: RamPages, pfn: int, block: tuple[int, int]) -> tuple[int, int]:
    """
    Get the PFNs whose struct pages are read together with that of ``pfn``.

    :param block: PFNs whose struct pages can be read, none of which is an alias.
    """
    size = window_size(promise)
    start, end = pfn // size * size, pfn // size * size + size
    first = promise.around[0] if block[0] == promise.start_pfn else block[0]
    last = promise.around[1] if block[1] == promise.end_pfn else block[1]
    return max(start, first), min(end, last)


def window_size(promise: RamPages) -> int:
    """How many struct pages are read together: no free block is larger."""
    return 1 << max(promise.kinds.max_order, 9)


def read_window(
    prog: Program, layout: PageLayout, promise: RamPages, start_pfn: int, end_pfn: int
) -> list[RamWindow]:
    """Read the readable parts of a window."""
    parts: list[PagesOrGap] = list(read_pages(prog, start_pfn, end_pfn, layout=layout))
    return [ram_window(prog, part, promise) for part in parts if isinstance(part, Pages)]


def ram_window(prog: Program, pages: Pages, promise: RamPages) -> RamWindow:
    """Find the compound pages and free blocks that struct pages form."""
    free = free_pages(pages, promise.kinds, promise.zone_end)
    compound = find_compound_pages(prog, pages, promise.kinds, free.any)
    return RamWindow(pages, promise, compound, free)


def window_around(prog: Program, page: Pages, promise: RamPages) -> RamWindow:
    """Get the window around a struct page, or only that page if the window cannot be read."""
    layout, pfn = page.layout, page.start_pfn
    here = (promise.start_pfn, promise.end_pfn)
    for window in read_window(prog, layout, promise, *window_of(promise, pfn, here)):
        if window.pages.start_pfn <= pfn < window.pages.end_pfn:
            return window
    return ram_window(prog, page, promise)
