# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Compound Links
--------------

Finds the compound pages that pages form. ``PG_head``, the order in the first tail, and the links of
all tails say the same three times, so a single wrong word is outvoted.

A link is the address of the head, or since Linux kernel commit 8c846c879e22 ("mm: rework
compound_head() for power-of-2 sizeof(struct page)") (in v7.1) a mask for the address of
the tail itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from drgn import FaultError, Program

from drgn_zonedev.kernel.free_area import private_of
from drgn_zonedev.kernel.memmap import PageLayout, Pages, read_pages
from drgn_zonedev.kernel.page_kinds import PageKinds
from drgn_zonedev.kernel.records import read_records
from drgn_zonedev.util.sets import sorted_set
from drgn_zonedev.vmcore.reads import read_word

__all__ = (
    "MAX_FOLIO_ORDER",
    "CompoundColumns",
    "compound_before",
    "ends_with",
    "find_compound_pages",
    "heads_of",
    "is_unwritten",
    "link_to",
    "linked_heads",
    "said_orders",
    "words_of_pages",
)

# PAGE_POISON_PATTERN, and PAGE_UNUSED of x86.
_PATTERNS = np.array([0, (1 << 64) - 1, 0xFDFDFDFDFDFDFDFD], np.uint64)

MAX_FOLIO_ORDER = 22
"""16 GiB in pages of 4 KiB: the largest that any kernel has, and a macro."""


# More links to a head, from pages behind its compound page, are no damage of one page.
_STRAY = 1


@dataclass(frozen=True)
class CompoundColumns:
    """
    Columns for pages that follow each other. ``head`` is the PFN of the head of the
    compound page that each is in, itself included, or -1; ``order`` is the order of that.
    ``optimized`` marks the pages of hugetlb pages whose vmemmap is shared.
    """

    head: np.ndarray
    order: np.ndarray
    optimized: np.ndarray


@dataclass(frozen=True)
class _Compound:
    head: int
    order: int
    optimized: bool


@dataclass(frozen=True)
class _Links:
    """
    Where pages that follow each other link to: PFNs, or -1. Those that hold only a pattern
    say nothing.
    """

    head: np.ndarray
    unwritten: np.ndarray

    def number(self, pfn: int, start: int, end: int) -> int:
        """How many of some rows link to a PFN."""
        return int((self.head[start:end] == pfn).sum())

    def most(self, pfn: int, start: int, end: int) -> bool:
        """Whether most of some rows, of those that say anything, link to a PFN."""
        return 2 * self.number(pfn, start, end) > int((~self.unwritten[start:end]).sum())


def is_unwritten(pages: Pages) -> np.ndarray:
    """Which struct pages hold only a pattern, as they do before they are initialised."""
    first = pages.words[:, 0]
    unwritten = np.any([first == pattern for pattern in _PATTERNS], axis=0)
    rows = np.flatnonzero(unwritten)
    unwritten[rows] = (pages.words[rows] == first[rows, np.newaxis]).all(axis=1)
    return unwritten


def link_to(layout: PageLayout, head: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The compound links of the tails of heads (PFNs) and orders: ``set_compound_head()``."""
    if layout.compound_mask:
        size = np.uint64(layout.size) << order.astype(np.uint64)
        return ~(size - np.uint64(1)) | np.uint64(1)
    address = np.uint64(layout.vmemmap) + head.astype(np.uint64) * np.uint64(layout.size)
    return address | np.uint64(1)


def linked_heads(pages: Pages) -> np.ndarray:
    """PFNs that the links of tails lead to; -1 for other pages, and where a link is garbage."""
    return heads_of(pages.layout, pages.pfn, pages.words)


def words_of_pages(
    prog: Program, layout: PageLayout, pfn: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Get the words of struct pages here and there, and which of these could be read."""
    address = np.uint64(layout.vmemmap) + pfn.astype(np.uint64) * np.uint64(layout.size)
    raw, readable = read_records(prog, address, layout.size)
    return np.ascontiguousarray(raw).view("<u8"), readable


def heads_of(layout: PageLayout, pfn: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Like :func:`linked_heads()`, for struct pages here and there."""
    link = words[:, layout.compound_word]
    base, size = np.uint64(layout.vmemmap), np.uint64(layout.size)
    address = base + pfn.astype(np.uint64) * size
    offset = (address & link if layout.compound_mask else link - np.uint64(1)) - base
    head = (offset // size).astype(np.int64)
    sound = ((link & np.uint64(1)) != 0) & (offset % size == 0)
    sound &= (head < pfn) & (pfn - head < 1 << MAX_FOLIO_ORDER)
    if layout.compound_mask:
        # All ones down to the size of the compound page's struct pages: split_folio_to_order()
        # leaves tails with the mask of a larger one, which leads to the same head.
        zeros = ~(link & ~np.uint64(1))
        sound &= (zeros & zeros + np.uint64(1)) == 0
    return np.where(sound, head, -1)


def ends_with(prog: Program, layout: PageLayout, head: int, size: int) -> bool:
    """
    Return whether a head (a PFN) has a compound page of that many pages, by the links of the last
    one, and of those that would be in one of twice as many.
    """

    def leads_to_it(pfn: int) -> bool:
        try:
            link = read_word(prog, layout.page_address(pfn) + 8 * layout.compound_word)
        except FaultError:
            return False
        address = layout.page_address(pfn) & link if layout.compound_mask else link - 1
        return bool(link & 1) and address == layout.page_address(head)

    # An optimised hugetlb page has copies of its head among its tails, each 64 pages.
    goes_on = leads_to_it(head + size + 1) and leads_to_it(head + 2 * size - 1)
    return leads_to_it(head + size - 1) and not goes_on


def find_compound_pages(
    prog: Program, pages: Pages, kinds: PageKinds, free: np.ndarray
) -> CompoundColumns:
    """
    Find the compound pages of pages that begin and end at multiples of the largest block of
    the buddy allocator. Heads of larger compound pages are read.

    :param free: Which pages are in free blocks, and so in no compound page.
    """
    count = len(pages.words)
    head, order = np.full(count, -1), np.zeros(count, np.int64)
    optimized = np.zeros(count, bool)
    links = _Links(np.where(free, -1, linked_heads(pages)), is_unwritten(pages))
    found = _outer(prog, pages, kinds, links)
    end = max((c.head + (1 << c.order) - pages.start_pfn for c in found), default=0)
    found += _inner(prog, pages, kinds, links, free, end)
    for compound in found:
        start = max(compound.head - pages.start_pfn, 0)
        end = compound.head + (1 << compound.order) - pages.start_pfn
        head[start:end], order[start:end] = compound.head, compound.order
        optimized[start:end] = compound.optimized
    return CompoundColumns(head, order, optimized)


def compound_before(prog: Program, layout: PageLayout, pfn: int) -> tuple[int, int] | None:
    """
    Get the head and the end of the compound page that a PFN is in, if that begins before it, by the
    page before it and the head.
    """
    if not pfn or not _may_be_compound(prog, layout, pfn - 1):
        return None
    page = next(read_pages(prog, pfn - 1, pfn, layout=layout))
    if not isinstance(page, Pages):
        return None
    head = int(linked_heads(page)[0]) if page.is_tail[0] else pfn - 1
    first = next(read_pages(prog, head, head + 2, layout=layout)) if head >= 0 else None
    if not isinstance(first, Pages) or len(first.words) < 2 or not _has_head_flag(first)[0]:
        return None
    end = head + (1 << int(said_orders(first)[0]))
    return (head, end) if end > pfn else None


def _may_be_compound(prog: Program, layout: PageLayout, pfn: int) -> bool:
    # Two words rule out most pages.
    address = layout.page_address(pfn)
    try:
        return bool(
            read_word(prog, address + 8 * layout.compound_word) & 1
            or read_word(prog, address + 8 * layout.flags_word) & layout.pg_head
        )
    except FaultError:
        return False


def _outer(prog: Program, pages: Pages, kinds: PageKinds, links: _Links) -> list[_Compound]:
    # A compound page that begins before these pages, if most of the links to there agree.
    outside = links.head[(links.head >= 0) & (links.head < pages.start_pfn)]
    if not len(outside):
        return []
    values, counts = np.unique(outside, return_counts=True)
    head = int(values[counts.argmax()])
    rows = np.flatnonzero(links.head == head)
    first = _first_two(prog, pages, head)
    if first and int(linked_heads(first)[1]) != head and not _has_head_flag(first)[0]:
        return []
    said = int(said_orders(first)[0]) if first else 0
    end = head + (1 << said) - pages.start_pfn
    if said and int((rows >= end).sum()) <= _STRAY:
        rows, order = rows[rows < end], said
    else:
        # Only its tails show how far it goes.
        order = max(said, (pages.start_pfn + int(rows[-1]) - head).bit_length())
    if not len(rows) or not links.most(head, 0, int(rows[-1]) + 1):
        # The tails of a real head would be all pages up to the last one.
        return []
    return [_Compound(head, order, bool(first and _is_optimized(first, kinds)[0]))]


def _first_two(prog: Program, pages: Pages, head: int) -> Pages | None:
    # Outside of these pages, if they can be read.
    first = next(read_pages(prog, head, head + 2, layout=pages.layout))
    return first if isinstance(first, Pages) and len(first.words) == 2 else None


def _inner(
    prog: Program,
    pages: Pages,
    kinds: PageKinds,
    links: _Links,
    free: np.ndarray,
    start: int,
) -> list[_Compound]:
    heads = _has_head_flag(pages) & ~pages.is_tail & ~free
    linked = links.head[links.head >= pages.start_pfn] - pages.start_pfn
    linked = linked[~free[linked]]
    said, optimized = said_orders(pages), _is_optimized(pages, kinds)
    found: list[_Compound] = []
    end = start
    for row in sorted_set(np.r_[np.flatnonzero(heads), linked]).tolist():
        if row < end:
            continue
        order = _order(prog, pages, links, row, int(said[row]), bool(heads[row]))
        if order:
            found.append(_Compound(pages.start_pfn + row, order, bool(optimized[row])))
            end = row + (1 << order)
    return found


def _has_head_flag(pages: Pages) -> np.ndarray:
    return (pages.flags & np.uint64(pages.layout.pg_head)) != 0


def said_orders(pages: Pages) -> np.ndarray:
    """``compound_order()`` of each page, if it were a head; 0 if it cannot be."""
    orders = np.zeros(len(pages.words), np.int64)
    offset = pages.layout.order_offset
    if offset is not None:
        orders[:-1] = np.ascontiguousarray(pages.words[1:]).view(np.uint8)[:, offset]
    orders[orders > MAX_FOLIO_ORDER] = 0
    return orders


def _is_optimized(pages: Pages, kinds: PageKinds) -> np.ndarray:
    # HPageVmemmapOptimized(). A head that was wiped may have been optimised.
    private = private_of(pages, kinds)
    flagged = (private & np.uint64(kinds.optimized)) != 0
    if kinds.hugetlb is not None and kinds.optimized:
        flagged &= kinds.hugetlb.matches(pages.mapcount)
    return flagged | is_unwritten(pages) if kinds.optimized else flagged


def _order(prog: Program, pages: Pages, links: _Links, row: int, said: int, flagged: bool) -> int:
    # Of the compound page that begins at a row, or 0 if none does.
    pfn = pages.start_pfn + row
    if said and _agrees(prog, pages, links, row, said):
        return said
    linked = np.flatnonzero(links.head == pfn)
    if not len(linked):
        known = row + 1 < len(links.head) and (said == 1 or links.unwritten[row + 1])
        return int(flagged and known and _was_tail(pages, row + 1))
    order = (int(linked[-1]) - row).bit_length()
    if int(linked[-1]) + 1 == len(links.head):
        orders, least = range(order, MAX_FOLIO_ORDER + 1), max(order, said)
        order = next((o for o in orders if _agrees(prog, pages, links, row, o)), least)
    # One link alone makes no head of a page that does not say that it is one.
    is_head = flagged or (order > 1 and links.most(pfn, row + 1, row + (1 << order)))
    return order if is_head else 0


def _agrees(prog: Program, pages: Pages, links: _Links, row: int, order: int) -> bool:
    # Most tails of that order link to the head, and the pages after them do not.
    pfn, size = pages.start_pfn + row, 1 << order
    if pfn & size - 1 or not links.most(pfn, row + 1, row + size):
        return False
    if row + size < len(links.head):
        return links.number(pfn, row + size, row + 2 * size) <= _STRAY
    behind = [_link(prog, pages, pfn + size + i) for i in range(3)]
    last = [_link(prog, pages, pfn + size - i) for i in (1, 2)]
    # What cannot be read proves nothing.
    ends = behind.count(pfn) <= _STRAY and behind.count(None) <= _STRAY
    return ends and (row + size == len(links.head) or pfn in last)


def _link(prog: Program, pages: Pages, pfn: int) -> int | None:
    # For a page outside these, if it can be read.
    page = next(read_pages(prog, pfn, pfn + 1, layout=pages.layout))
    return int(linked_heads(page)[0]) if isinstance(page, Pages) else None


def _was_tail(pages: Pages, row: int) -> bool:
    # A tail but for its link, without references or mappings and alone, or one that was lost.
    alone = row + 1 >= len(pages.words) or not pages.is_tail[row + 1]
    idle = pages.refcount[row] == 0 and pages.mapcount[row] == -1
    return bool(alone and (idle or is_unwritten(pages)[row]))
