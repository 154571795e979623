# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Kinds of Pages
--------------

The ``drgn_zonedev.kernel.page_kinds`` module tells how a ``struct page`` of RAM says what
it is: which flags a kernel has, and which values of ``page->_mapcount`` are page types.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from drgn import Program, TypeKind, offsetof
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.kernel.page_types import PageType, PageTypes, page_types
from drgn_zonedev.util.once import once_per_program

__all__ = ("PageKinds", "flag_mask", "kinds_of_ram")


@dataclass(frozen=True)
class PageKinds:
    """
    What pages of RAM say of themselves.

    Flags are masks of ``page->flags``, and 0 in a kernel that does not have them.
    ``at_prep`` is ``PAGE_FLAGS_CHECK_AT_PREP``: what no free page has. ``optimized`` is
    ``HPG_vmemmap_optimized`` of a hugetlb page's ``private``. ``known_types`` are all page
    types, ``None`` where the debugging information does not have them: then it is one bit
    that is clear, besides ``beside_others``, and an ``int`` in ``[least_type, end_of_types)``.
    ``hugetlb`` is ``None``
    where that is not a page type, and ``memcg_offset`` in a kernel without ``page->memcg_data``;
    offsets are in bytes.
    """

    at_prep: int
    locked: int
    lru: int
    slab_flag: int
    swapbacked: int
    unevictable: int
    mlocked: int
    writeback: int
    reported: int
    buddy: PageType
    hugetlb: PageType | None
    known_types: tuple[int, ...] | None
    beside_others: int
    least_type: int
    end_of_types: int
    optimized: int
    max_order: int
    private_offset: int
    memcg_offset: int | None

    def has_type(self, mapcount: np.ndarray) -> np.ndarray:
        """Which pages have a page type that the kernel knows."""
        signed = mapcount.view("<i4")
        if self.known_types is None:
            # One bit is clear.
            clear = ~mapcount.view("<u4") & ~np.uint32(self.beside_others)
            one = (clear & clear - np.uint32(1)) == 0
            found: np.ndarray = one & (signed >= self.least_type) & (signed < self.end_of_types)
            return found
        known = np.zeros(256, bool)
        known[list(self.known_types)] = True
        return known[mapcount.view("<u4") >> np.uint32(24)]


@takes_program_or_default
@once_per_program
def kinds_of_ram(prog: Program) -> PageKinds:
    """
    Get how pages say what they are in this kernel.

    :raises LookupError: if the debugging information does not have ``enum pageflags``
    """
    page, types = prog.type("struct page"), page_types(prog)
    all_flags = (1 << prog.constant("__NR_PAGEFLAGS").value_()) - 1
    upper_bytes = tuple(sorted(t.value >> 24 for t in types.by_name.values()))
    return PageKinds(
        at_prep=all_flags & ~flag_mask(prog, "PG_hwpoison"),
        locked=flag_mask(prog, "PG_locked"),
        lru=flag_mask(prog, "PG_lru"),
        slab_flag=flag_mask(prog, "PG_slab"),
        swapbacked=flag_mask(prog, "PG_swapbacked"),
        unevictable=flag_mask(prog, "PG_unevictable"),
        mlocked=flag_mask(prog, "PG_mlocked"),
        writeback=flag_mask(prog, "PG_writeback"),
        reported=flag_mask(prog, "PG_reported"),
        buddy=types.by_name["buddy"],
        hugetlb=types.by_name.get("hugetlb"),
        known_types=upper_bytes if types.typed else None,
        beside_others=_beside_others(types),
        least_type=types.least,
        end_of_types=types.end,
        optimized=flag_mask(prog, "HPG_vmemmap_optimized"),
        max_order=_max_order(prog),
        private_offset=offsetof(page, "private"),
        memcg_offset=offsetof(page, "memcg_data") if page.has_member("memcg_data") else None,
    )


@takes_program_or_default
def flag_mask(prog: Program, name: str) -> int:
    """
    Get the mask of a flag of ``page->flags``, or of ``page->private`` of a hugetlb page; 0 in a
    kernel that does not have it.
    """
    try:
        bit = int(prog.constant(name).value_())
    except LookupError:
        return 0
    # PG_slab is a page type since Linux kernel commit 46df8e73a4a3 ("mm: free up PG_slab") (in
    # v6.10), and an enumerator of enum pagetype in v6.10 and v6.11.
    return 1 << bit if bit < 64 else 0


def _beside_others(types: PageTypes) -> int:
    # Up to v5.10, __memcg_kmem_charge_page() marks what is charged, and page tables are.
    kmemcg = types.by_name.get("kmemcg")
    return 0 if kmemcg is None else kmemcg.mask & ~kmemcg.value


def _max_order(prog: Program) -> int:
    # MAX_PAGE_ORDER, or MAX_ORDER - 1: macros, but zone->free_area has a list for each order.
    zone = prog.type("struct zone")
    if not zone.has_member("free_area"):
        return 10
    areas = zone.member("free_area").type
    return int(areas.length or 11) - 1 if areas.kind == TypeKind.ARRAY else 10
