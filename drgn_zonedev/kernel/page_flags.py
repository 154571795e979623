# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Page Flags
----------

Names the page flags. Some flags share a bit, and the use of the page decides which one
is meant: see the comments in :linux:`include/linux/page-flags.h`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

from drgn import Program

from drgn_zonedev.kernel.memmap import Pages
from drgn_zonedev.kernel.page_types import page_types

__all__ = ("PageUse", "flag_names", "page_use")


class PageUse(enum.Enum):
    """
    The use of a page, as far as the names of its flags depend on it. A tail has the use of
    its head, except that the flags of the first tail are those of the folio.
    """

    FIRST_TAIL = enum.auto()
    FREE = enum.auto()
    MOVABLE = enum.auto()
    TABLE = enum.auto()
    SLAB = enum.auto()
    ANON = enum.auto()
    SHMEM = enum.auto()
    WRITTEN_FILE = enum.auto()
    FILE = enum.auto()
    UNMAPPED = enum.auto()
    UNKNOWN = enum.auto()


# Other names of bits, by use. Otherwise, the first name that the kernel defines is right.
_NAMES = {
    # PF_SECOND, FOLIO_SECOND_PAGE
    PageUse.FIRST_TAIL: (
        *("PG_double_map", "PG_large_rmappable", "PG_partially_mapped"),
        *("PG_has_hwpoisoned", "PG_hugetlb"),
    ),
    PageUse.FREE: ("PG_reported",),
    # Pages of balloons and of zsmalloc; before these had a page type, every page with
    # PAGE_MAPPING_MOVABLE.
    PageUse.MOVABLE: ("PG_movable_ops", "PG_movable_ops_isolated", "PG_isolated"),
    # Xen guests.
    PageUse.TABLE: ("PG_pinned", "PG_savepinned"),
    PageUse.SLAB: ("PG_slob_free",),
    PageUse.ANON: ("PG_swapcache", "PG_anon_exclusive"),
    PageUse.SHMEM: ("PG_swapcache", "PG_mappedtodisk", "PG_readahead"),
    # "PG_readahead is only used for reads; PG_reclaim is only for writes".
    PageUse.WRITTEN_FILE: ("PG_checked", "PG_mappedtodisk"),
    PageUse.FILE: ("PG_checked", "PG_mappedtodisk", "PG_readahead"),
    # Pages of hotplugged RAM that store its memmap.
    PageUse.UNMAPPED: ("PG_vmemmap_self_hosted",),
}

_USES_OF_TYPES = {
    "buddy": PageUse.FREE,
    "offline": PageUse.MOVABLE,
    "zsmalloc": PageUse.MOVABLE,
    "table": PageUse.TABLE,
    "slab": PageUse.SLAB,
}

# PAGE_MAPPING_FLAGS
_MAPPING_FLAGS, _ANON, _MOVABLE = 3, 1, 2


def page_use(prog: Program, head: Pages) -> PageUse:
    """
    Decide the use of a page.

    :param head: The page or its head, alone.
    """
    flags, page_type = _set(prog, head), page_types(prog).of(head)
    if "PG_slab" in flags:
        return PageUse.SLAB
    # hugetlb pages have mappings, too.
    if page_type not in (None, "hugetlb"):
        return _USES_OF_TYPES.get(str(page_type), PageUse.UNKNOWN)
    return _use_of_mapping(int(head.words[0, head.layout.mapping_word]), flags)


def _use_of_mapping(mapping: int, flags: set[str]) -> PageUse:
    if mapping & _MAPPING_FLAGS == _MOVABLE:
        return PageUse.MOVABLE
    # PAGE_MAPPING_DAX_SHARED is 1 alone.
    if mapping & _ANON and mapping != _ANON:
        return PageUse.ANON
    return _use_of_file(flags) if mapping else PageUse.UNMAPPED


def _use_of_file(flags: set[str]) -> PageUse:
    if "PG_swapbacked" in flags:
        return PageUse.SHMEM
    return PageUse.WRITTEN_FILE if flags & {"PG_dirty", "PG_writeback"} else PageUse.FILE


def _set(prog: Program, page: Pages) -> set[str]:
    return {name for names in _names_of_bits(prog, int(page.flags[0])) for name in names}


def flag_names(prog: Program, flags: int, use: PageUse) -> tuple[str, ...]:
    """Get the names of the flags in a value of ``page->flags``, one name for each bit."""
    own = _NAMES.get(use, ())
    return tuple(
        next((name for name in names if name in own), names[0])
        for names in _names_of_bits(prog, flags)
    )


def _names_of_bits(prog: Program, flags: int) -> Iterator[list[str]]:
    # Keep the kernel's order.
    count = prog["__NR_PAGEFLAGS"]
    by_bit: dict[int, list[str]] = {}
    for name, bit in count.type_.enumerators or ():
        if bit < count.value_() and flags >> bit & 1:
            by_bit.setdefault(bit, []).append(str(name))
    yield from (by_bit[bit] for bit in sorted(by_bit))
