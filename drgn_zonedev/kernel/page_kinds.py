# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Kinds of Pages
--------------

The ``drgn_zonedev.kernel.page_kinds`` module tells how a ``struct page`` of RAM says what
it is: which flags a kernel has, and which values of ``page->_mapcount`` are page types.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from drgn import Program, TypeKind, offsetof
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.kernel.page_types import page_types

__all__ = ("PageKinds", "PageType", "page_kinds")

_UINT = (1 << 32) - 1
_UPPER_BYTE = 0xFF << 24
# PAGE_TYPE_BASE, and that of v6.11.
_BASE, _WIDE_BASE = 0xF0000000, 0x80000000


@dataclass(frozen=True)
class PageType:
    """A page is of a type if ``mask`` of ``page->_mapcount`` (a ``u32``) is ``value``."""

    mask: int
    value: int

    def matches(self, mapcount: np.ndarray) -> np.ndarray:
        """Which pages are of this type: ``PageBuddy()``, ``PageOffline()`` …"""
        bits = mapcount.view("<u4")
        return (bits & np.uint32(self.mask)) == np.uint32(self.value)


@dataclass(frozen=True)
class PageKinds:
    """
    What pages of RAM say of themselves.

    Flags are masks of ``page->flags``, and 0 in a kernel that does not have them.
    ``at_prep`` is ``PAGE_FLAGS_CHECK_AT_PREP``: what no free page has. ``optimized`` is
    ``HPG_vmemmap_optimized`` of a hugetlb page's ``private``. ``known_types`` are all page
    types, ``None`` where the debugging information does not have them: then it is one bit
    that is clear, and an ``int`` in ``[least_type, end_of_types)``. ``hugetlb`` is ``None``
    where that is no page type, and ``memcg_offset`` in a kernel without ``page->memcg_data``;
    offsets are in bytes.
    """

    at_prep: int
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
            clear = ~mapcount.view("<u4")
            one = (clear & clear - np.uint32(1)) == 0
            found: np.ndarray = one & (signed >= self.least_type) & (signed < self.end_of_types)
            return found
        known = np.zeros(256, bool)
        known[list(self.known_types)] = True
        return known[mapcount.view("<u4") >> np.uint32(24)]


@takes_program_or_default
def page_kinds(prog: Program) -> PageKinds:
    """
    Get how pages say what they are in this kernel.

    :raises LookupError: if the debugging information does not have ``enum pageflags``
    """
    try:
        return prog.cache["zonedev_page_kinds"]
    except KeyError:
        return prog.cache.setdefault("zonedev_page_kinds", _page_kinds(prog))


def _page_kinds(prog: Program) -> PageKinds:
    page, types = prog.type("struct page"), page_types(prog)
    info = prog["VMCOREINFO"].string_()
    all_flags = (1 << prog.constant("__NR_PAGEFLAGS").value_()) - 1
    buddy = _exported_type(info, b"BUDDY") or _encoded(types.typed, types.values["buddy"])
    # PAGE_MAPCOUNT_RESERVE is -128, and ~0xffff in v6.11, whose PAGE_TYPE_BASE is 1 << 31.
    wide = buddy.value == _WIDE_BASE
    return PageKinds(
        at_prep=all_flags & ~_flag(prog, "PG_hwpoison"),
        lru=_flag(prog, "PG_lru"),
        slab_flag=_flag(prog, "PG_slab"),
        swapbacked=_flag(prog, "PG_swapbacked"),
        unevictable=_flag(prog, "PG_unevictable"),
        mlocked=_flag(prog, "PG_mlocked"),
        writeback=_flag(prog, "PG_writeback"),
        reported=_flag(prog, "PG_reported"),
        buddy=buddy,
        hugetlb=_exported_type(info, b"HUGETLB"),
        known_types=tuple(sorted(types.values.values())) if types.typed else None,
        least_type=-(1 << 31) if wide else -(1 << 28),
        end_of_types=-(1 << 16) if wide else -128,
        optimized=_flag(prog, "HPG_vmemmap_optimized"),
        max_order=_max_order(prog),
        private_offset=offsetof(page, "private"),
        memcg_offset=offsetof(page, "memcg_data") if page.has_member("memcg_data") else None,
    )


def _flag(prog: Program, name: str) -> int:
    try:
        return 1 << int(prog.constant(name).value_())
    except LookupError:
        return 0


def _encoded(typed: bool, value: int) -> PageType:
    if typed:
        return PageType(_UPPER_BYTE, value << 24)
    return PageType(_BASE | value, _BASE)


def _exported_type(info: bytes, name: bytes) -> PageType | None:
    # The numbers of bits changed in v6.9 to v6.11, and those are macros, but VMCOREINFO has
    # what a page of some types holds.
    found = re.search(rb"^NUMBER\(PAGE_%s_MAPCOUNT_VALUE\)=(-?[0-9]{1,11})$" % name, info, re.M)
    if not found:
        return None
    value = int(found[1]) & _UINT
    if value & ~_UPPER_BYTE == 0:
        return PageType(_UPPER_BYTE, value)
    # The bit of the type is clear.
    bit = ~value & _UINT
    base = _BASE if bit < 1 << 24 else _WIDE_BASE
    return PageType(base | bit, base)


def _max_order(prog: Program) -> int:
    # MAX_PAGE_ORDER, or MAX_ORDER - 1: macros, but zone->free_area has a list for each order.
    zone = prog.type("struct zone")
    if not zone.has_member("free_area"):
        return 10
    areas = zone.member("free_area").type
    return int(areas.length or 11) - 1 if areas.kind == TypeKind.ARRAY else 10
