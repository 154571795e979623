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
from drgn_zonedev.vmcore.reads import read_word

__all__ = (
    "MAX_FOLIO_ORDER",
    "CompoundColumns",
    "compound_before",
    "find_compound_pages",
    "is_unwritten",
    "link_to",
    "linked_heads",
    "said_orders",
)

# PAGE_POISON_PATTERN, and PAGE_UNUSED of x86.
_PATTERNS = np.array([0, (1 << 64) - 1, 0xFDFDFDFDFDFDFDFD], np.uint64)

MAX_FOLIO_ORDER = 22
"""16 GiB in pages of 4 KiB: the largest that any kernel has, and a macro."""


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
    layout = pages.layout
    offset = pages.head - np.uint64(layout.vmemmap)
    pfn = (offset // np.uint64(layout.size)).astype(np.int64)
    sound = pages.is_tail & (offset % np.uint64(layout.size) == 0)
    sound &= (pfn < pages.pfn) & (pages.pfn - pfn < 1 << MAX_FOLIO_ORDER)
    if layout.compound_mask:
        # All ones down to the size of the compound page's struct pages: split_folio_to_order()
        # leaves tails with the mask of a larger one, which leads to the same head.
        zeros = ~(pages.words[:, layout.compound_word] & ~np.uint64(1))
        sound &= (zeros & zeros + np.uint64(1)) == 0
    return np.where(sound, pfn, -1)


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
    links = np.where(free, -1, linked_heads(pages))
    found = [*_outer(prog, pages, kinds, links), *_inner(prog, pages, kinds, links, free)]
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


def _outer(prog: Program, pages: Pages, kinds: PageKinds, links: np.ndarray) -> list[_Compound]:
    # A compound page that begins before these pages, if most of the links to there agree.
    outside = links[(links >= 0) & (links < pages.start_pfn)]
    if not len(outside):
        return []
    values, counts = np.unique(outside, return_counts=True)
    head = int(values[counts.argmax()])
    last = int(np.flatnonzero(links == head)[-1])
    if 2 * int(counts.max()) <= last + 1:
        # The tails of a real head would be all pages up to the last one.
        return []
    first = next(read_pages(prog, head, head + 2, layout=pages.layout))
    if not isinstance(first, Pages) or len(first.words) < 2:
        # Only its tails show how far it goes.
        return [_Compound(head, (pages.start_pfn + last - head).bit_length(), False)]
    if int(linked_heads(first)[1]) != head and not _has_head_flag(first)[0]:
        return []
    reach = pages.start_pfn + last - head
    order = max(int(said_orders(first)[0]), reach.bit_length())
    return [_Compound(head, order, bool(_is_optimized(first, kinds)[0]))]


def _inner(
    prog: Program, pages: Pages, kinds: PageKinds, links: np.ndarray, free: np.ndarray
) -> list[_Compound]:
    flagged = _has_head_flag(pages) & ~pages.is_tail & ~free
    linked = np.r_[links[1:] == pages.pfn[:-1], False]
    said, optimized = said_orders(pages), _is_optimized(pages, kinds)
    found: list[_Compound] = []
    end = 0
    for row in np.flatnonzero(flagged | linked).tolist():
        if row < end:
            continue
        order = _order(prog, pages, links, row, int(said[row]))
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
    # HPageVmemmapOptimized()
    private = private_of(pages, kinds)
    flagged = (private & np.uint64(kinds.optimized)) != 0
    if kinds.hugetlb is None or not kinds.optimized:
        return flagged
    return flagged & kinds.hugetlb.matches(pages.mapcount)


def _order(prog: Program, pages: Pages, links: np.ndarray, row: int, said: int) -> int:
    # Of the compound page that begins at a row, or 0 if none does.
    pfn = pages.start_pfn + row
    if said and _agrees(prog, pages, links, row, said):
        return said
    linked = np.flatnonzero(links == pfn)
    reach = int(linked[-1]) - row + 1 if len(linked) else 1
    if row + reach == len(links) and reach > 1:
        orders = range((reach - 1).bit_length(), MAX_FOLIO_ORDER + 1)
        return next((o for o in orders if _agrees(prog, pages, links, row, o)), orders[0])
    if reach > 1:
        return (reach - 1).bit_length()
    known = row + 1 < len(links) and (said == 1 or is_unwritten(pages)[row + 1])
    return int(known and _was_tail(pages, row + 1))


def _agrees(prog: Program, pages: Pages, links: np.ndarray, row: int, order: int) -> bool:
    # Most tails of that order link to the head, and the page after them does not.
    pfn, size = pages.start_pfn + row, 1 << order
    tails = links[row + 1 : row + size]
    if pfn & size - 1 or 2 * int((tails == pfn).sum()) <= len(tails):
        return False
    if row + size < len(links):
        return bool(links[row + size] != pfn)
    return _link(prog, pages, pfn + size) != pfn and (
        row + size == len(links) or _link(prog, pages, pfn + size - 1) in (pfn, None)
    )


def _link(prog: Program, pages: Pages, pfn: int) -> int | None:
    # For a page outside these, if it can be read.
    page = next(read_pages(prog, pfn, pfn + 1, layout=pages.layout))
    return int(linked_heads(page)[0]) if isinstance(page, Pages) else None


def _was_tail(pages: Pages, row: int) -> bool:
    # A tail but for its link, without references or mappings and alone, or one that was lost.
    alone = row + 1 >= len(pages.words) or not pages.is_tail[row + 1]
    idle = pages.refcount[row] == 0 and pages.mapcount[row] == -1
    return bool(alone and (idle or is_unwritten(pages)[row]))
