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
from dataclasses import dataclass

import numpy as np
from drgn import Program
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.kernel.memmap import Pages
from drgn_zonedev.kernel.page_kinds import flag_mask
from drgn_zonedev.kernel.page_types import PageTypes, page_types
from drgn_zonedev.util.once import once_per_program

__all__ = ("PageUse", "PageUses", "flag_names", "page_use", "page_uses")


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
    # Dropping caches gives PG_reclaim to what is dirty, as shared memory is: see
    # invalidate_mapping_pages(). It has PG_readahead only while it is in the swap cache.
    PageUse.SHMEM: ("PG_swapcache", "PG_mappedtodisk"),
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


@dataclass(frozen=True)
class PageUses:
    """
    Which words of heads decide their uses, as plain data: masks of ``page->flags``, and page types.
    """

    slab: int
    swapcache: int
    swapbacked: int
    written: int
    types: PageTypes

    def of(self, heads: Pages) -> np.ndarray:
        """
        Decide the uses of pages: the values of :class:`PageUse`, as ``np.uint8``.

        :param heads: The pages, or their heads.
        """
        flags, mapping = heads.flags, heads.words[:, heads.layout.mapping_word]
        bits, is_mapped = mapping & np.uint64(_MAPPING_FLAGS), mapping != 0
        swapbacked = (flags & np.uint64(self.swapbacked)) != 0
        in_swap = swapbacked & ((flags & np.uint64(self.swapcache)) != 0)
        # PAGE_MAPPING_DAX_SHARED is 1 alone.
        is_anon = ((bits & np.uint64(_ANON)) != 0) & (mapping != _ANON)
        # From the last that decides to the first.
        tests = [
            (PageUse.FILE, is_mapped),
            (PageUse.WRITTEN_FILE, is_mapped & ((flags & np.uint64(self.written)) != 0)),
            (PageUse.SHMEM, is_mapped & swapbacked),
            # A page of the swap cache need not have a mapping.
            (PageUse.ANON, is_anon | (in_swap & ~is_mapped)),
            (PageUse.MOVABLE, bits == _MOVABLE),
            *self._of_types(heads),
            (PageUse.SLAB, (flags & np.uint64(self.slab)) != 0),
        ]
        found = np.full(len(flags), PageUse.UNMAPPED.value, np.uint8)
        for use, fits in tests:
            found[fits] = use.value
        return found

    def _of_types(self, heads: Pages) -> Iterator[tuple[PageUse, np.ndarray]]:
        for name, type_ in reversed(tuple(self.types.by_name.items())):
            # hugetlb pages have mappings, too.
            if name != "hugetlb":
                use = _USES_OF_TYPES.get(name, PageUse.UNKNOWN)
                yield use, type_.matches(heads.mapcount)


@takes_program_or_default
@once_per_program
def page_uses(prog: Program) -> PageUses:
    """
    Get what decides the uses of this kernel's pages.

    :raises LookupError: if the debugging information does not have ``enum pageflags``
    """
    return PageUses(
        slab=flag_mask(prog, "PG_slab"),
        swapcache=flag_mask(prog, "PG_swapcache"),
        swapbacked=flag_mask(prog, "PG_swapbacked"),
        written=flag_mask(prog, "PG_dirty") | flag_mask(prog, "PG_writeback"),
        types=page_types(prog),
    )


def page_use(prog: Program, head: Pages) -> PageUse:
    """
    Decide the use of a page.

    :param head: The page or its head, alone.
    """
    return PageUse(page_uses(prog).of(head)[0])


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
