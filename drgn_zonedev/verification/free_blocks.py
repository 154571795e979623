# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Free Blocks
-----------

Blocks of the buddy allocator, as the struct pages of their first pages say
(``PageBuddy()``, and the order in ``private``), and which pages lie in them.

An impossible order is an error of the block itself, not of the pages in it:
``__free_one_page()`` and ``expand()`` never leave a block with more than one first page.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from drgn_zonedev.kernel.free_area import block_heads, private_of
from drgn_zonedev.kernel.memmap import Pages
from drgn_zonedev.kernel.page_kinds import PageKinds
from drgn_zonedev.verification.compound_links import is_unwritten

__all__ = ("FreePages", "free_pages", "may_go_on")


@dataclass(frozen=True)
class FreePages:
    """
    Columns for pages that follow each other. ``first`` marks the first page of a block, and
    ``inside`` the others; ``order`` is what that of a block must be, in its first page.
    """

    first: np.ndarray
    inside: np.ndarray
    order: np.ndarray

    @cached_property
    def any(self) -> np.ndarray:
        """Which pages are free."""
        return self.first | self.inside


def free_pages(pages: Pages, kinds: PageKinds, end_pfn: int) -> FreePages:
    """
    Find the free blocks of pages that begin and end at multiples of the largest block, or
    where what can be read does.

    :param end_pfn: Where the zone ends: no block goes beyond it.
    """
    count = len(pages.words)
    first, inside = np.zeros(count, bool), np.zeros(count, bool)
    orders = private_of(pages, kinds).copy()
    heads = block_heads(pages, kinds)
    # The number of pages up to each one that do not look as if they were in a block.
    used = np.r_[0, np.cumsum(~_looks_free(pages, kinds))]
    end = -1
    for row in heads.tolist():
        # A page in a block is not the first of another one.
        if row < end:
            continue
        order = _order(int(orders[row]), pages.start_pfn, row, used, kinds.max_order, end_pfn)
        first[row], orders[row] = True, order
        end = min(row + (1 << order), count)
        inside[row + 1 : end] = True
    return FreePages(first, inside, orders)


def may_go_on(pages: Pages, kinds: PageKinds) -> bool:
    """Return whether a free block that begins in some pages may go on after the last one."""
    heads = pages.pfn[block_heads(pages, kinds)]
    # Blocks are aligned to their size.
    possible = {pages.end_pfn >> order << order for order in range(1, kinds.max_order + 1)}
    return not possible.isdisjoint(heads.tolist())


def _looks_free(pages: Pages, kinds: PageKinds) -> np.ndarray:
    # As free_pages_prepare() leaves the pages of a block. What was wiped says nothing.
    clean = (pages.flags & np.uint64(kinds.at_prep)) == 0
    unmapped = pages.words[:, pages.layout.mapping_word] == 0
    unused = (pages.refcount == 0) & (pages.mapcount == -1)
    return (clean & unmapped & unused & ~pages.is_tail) | is_unwritten(pages)


def _order(
    said: int, start_pfn: int, row: int, used: np.ndarray, max_order: int, end_pfn: int
) -> int:
    def is_possible(order: int, most_used: int) -> bool:
        if order > max_order:
            return False
        pfn, size = start_pfn + row, 1 << order
        if pfn & size - 1 or pfn + size > end_pfn:
            return False
        end = min(row + size, len(used) - 1)
        return int(used[end] - used[row + 1]) <= most_used

    if is_possible(said, 1):
        return said
    # Any order below the largest possible one would be as good.
    return next((order for order in range(max_order, 0, -1) if is_possible(order, 0)), 0)
