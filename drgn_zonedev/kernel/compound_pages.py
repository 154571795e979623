# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Compound Pages
--------------

The ``drgn_zonedev.kernel.compound_pages`` module finds the heads and orders of
compound pages in bulk, as the kernel's ``compound_head()`` and ``compound_order()`` do for
one page, and what they are used for. drgn's helpers of these names take one page, and take
the copies of a head in a deduplicated memmap for heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from drgn import Program, offsetof, sizeof
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.kernel.memmap import Pages
from drgn_zonedev.kernel.page_kinds import flag_mask
from drgn_zonedev.kernel.page_types import page_types
from drgn_zonedev.kernel.records import read_records

__all__ = ("CompoundPages", "compound_heads", "compound_pages")


@takes_program_or_default
def compound_heads(prog: Program, pages: Pages) -> np.ndarray:
    """
    Get the address of each page's head: ``compound_head()``.

    Where the memmap of a hugetlb page is deduplicated, the first struct page of each page of
    its memmap reads like the head, since Linux kernel commit e7d324850bfc ("mm: hugetlb: free
    the 2nd vmemmap page associated with each HugeTLB page") (in v5.18). The struct page after it
    leads to the head (``page_fixed_fake_head()``). Where compound links are masks, such struct
    pages are tails, and there are no copies.
    """
    heads = pages.head.copy()
    if pages.layout.compound_mask:
        return heads
    rows = np.flatnonzero(_may_be_copies(prog, pages))
    links = _links_after(prog, pages, rows)
    linked = (links & np.uint64(1)).astype(bool)
    heads[rows[linked]] = links[linked] - np.uint64(1)
    return heads


def _may_be_copies(prog: Program, pages: Pages) -> np.ndarray:
    page_size = np.uint64(prog["PAGE_SIZE"].value_())
    is_head = (pages.flags & np.uint64(pages.layout.pg_head)) != 0
    return is_head & ~pages.is_tail & (pages.address % page_size == 0)


def _links_after(prog: Program, pages: Pages, rows: np.ndarray) -> np.ndarray:
    column = pages.words[:, pages.layout.compound_word]
    links = column[np.minimum(rows + 1, len(column) - 1)]
    outside = rows == len(column) - 1
    address = pages.address[rows[outside]] + np.uint64(
        pages.layout.size + pages.layout.compound_word * 8
    )
    links[outside] = read_records(prog, address, 8)[0].view("<u8")[:, 0]
    return links


@dataclass(frozen=True)
class CompoundPages:
    """
    The heads of pages; each column has an element per page.

    ``head`` and ``second`` are the struct page that ``heads`` leads to, and the one after it; zeros
    where they cannot be read, as ``readable`` says.
    """

    prog: Program
    heads: np.ndarray
    head: Pages
    second: Pages
    readable: np.ndarray

    @property
    def order(self) -> np.ndarray:
        """
        ``compound_order()`` of the head (``np.int64``); 0 for pages that are not compound.

        :raises LookupError: if the debugging information does not say where the order is
        """
        offset = self.head.layout.order_offset
        if offset is None:
            raise LookupError(
                "the debugging information does not say where folios hold their order"
            )
        return np.where(self._is_large, self.second.words.view(np.uint8)[:, offset], 0)

    @property
    def _is_large(self) -> np.ndarray:
        return (self.head.flags & np.uint64(self.head.layout.pg_head)) != 0

    @property
    def is_slab(self) -> np.ndarray:
        """``PageSlab()``"""
        flag = flag_mask(self.prog, "PG_slab")
        if not flag:
            return page_types(self.prog).has(self.head, "slab")
        return (self.head.flags & np.uint64(flag)) != 0

    @property
    def is_hugetlb(self) -> np.ndarray:
        """``PageHuge()``"""
        offset, value = self._destructor()
        # Between the destructor and the page type, since Linux kernel commit d99e3140a4d3 ("mm:
        # turn folio_test_hugetlb into a PageType") (in v6.9), a flag of the first tail.
        flag = flag_mask(self.prog, "PG_hugetlb")
        if offset is None and flag:
            return self._is_large & ((self.second.flags & np.uint64(flag)) != 0)
        if offset is None:
            return page_types(self.prog).has(self.head, "hugetlb")
        return self._is_large & (self.second.words.view(np.uint8)[:, offset] == value)

    def _destructor(self) -> tuple[int | None, int]:
        # Until Linux kernel commit 9c5ccf2db04b ("mm: remove HUGETLB_PAGE_DTOR") (in v6.6); in
        # struct folio since 1c5509be58f6 ("mm: remove 'First tail page' members from struct
        # page") (in v6.3).
        page = self.prog.type("struct page")
        try:
            value = int(self.prog.constant("HUGETLB_PAGE_DTOR").value_())
        except LookupError:
            return None, 0
        if page.has_member("compound_dtor"):
            return offsetof(page, "compound_dtor"), value
        return offsetof(self.prog.type("struct folio"), "_folio_dtor") - sizeof(page), value


@takes_program_or_default
def compound_pages(prog: Program, pages: Pages) -> CompoundPages:
    """Read the heads of pages, which may lie outside of them."""
    heads = compound_heads(prog, pages)
    unique, which = np.unique(heads, return_inverse=True)
    raw, readable = read_records(prog, unique, pages.layout.size)
    # Apart from the first read: after the last page, there may be no memmap.
    after, _ = read_records(prog, unique + np.uint64(pages.layout.size), pages.layout.size)
    head, second = (
        Pages(pages.start_pfn, pages.end_pfn, words.view("<u8")[which], pages.layout)
        for words in (raw, after)
    )
    return CompoundPages(prog, heads, head, second, readable[which])
