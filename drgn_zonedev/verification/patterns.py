# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Patterns
--------

What is in a struct page that the kernel does not promise to have initialised. Without
``CONFIG_DEBUG_VM`` there is no poison: such a page holds whatever its memory
held before, which can be a perfectly plausible struct page.

An initialised page whose zone or node does not exist is not taken for other content
by its other words: the counts, and the compound link or the list head.
"""

from __future__ import annotations

import enum

import numpy as np
from drgn import Program

from drgn_zonedev.kernel.memmap import Pages, head_pgmaps

__all__ = ("Contents", "is_kernel_pointer", "page_contents", "self_link")

_ALL_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)
# PAGE_UNUSED in each byte: vmemmap_unuse_sub_pmd() of x86-64 fills what no section uses of a huge
# page of vmemmap, since "x86/vmemmap: handle unpopulated sub-pmd ranges" (in v5.13).
_UNUSED = np.uint64(0xFDFDFDFDFDFDFDFD)
# Kernel addresses of 64-bit architectures are in the upper half.
_KERNEL_HALF = np.uint64(1 << 63)
# The pages of the largest folio or hugetlb page, 16 GiB, at most.
_FAR = 1 << 22


class Contents(enum.Enum):
    """What a struct page holds; the value is for people."""

    ZERO = "all zero"
    POISON = "PAGE_POISON_PATTERN (all ones)"
    UNUSED = "PAGE_UNUSED (0xfd): vmemmap that no section uses"
    INITIALIZED = "initialised for this pgmap"
    OTHER_PGMAP = "a device page of another live pgmap"
    DANGLING_PGMAP = "a device page of a pgmap that is not found in pgmap_array"
    METADATA = "a device page without a pgmap, linked to itself"
    BOOT_PAGE = "a reserved page from boot, linked to itself"
    MISPLACED = "an initialised page, but of a zone or node that this kernel does not have"
    MEDIA = "no struct page: what the memory held before"
    OTHER = "something else"


def is_kernel_pointer(word: int) -> bool:
    """Whether a word can be the address of a structure."""
    return word >= int(_KERNEL_HALF) and word % 8 == 0


def self_link(pages: Pages) -> np.ndarray:
    """``&page->lru`` of each page, which an initialised list head points to."""
    return pages.address + np.uint64(pages.layout.lru_offset)


def _implausible(prog: Program, pages: Pages) -> np.ndarray:
    # A zone or a node that this machine does not have.
    try:
        nodes = prog["nr_node_ids"].value_()
    except LookupError:
        # CONFIG_NUMA=n
        nodes = 1
    return (pages.zone >= pages.layout.nr_zones) | (pages.node >= np.uint64(nodes))


def _is_initialized(pages: Pages) -> np.ndarray:
    # By what __init_single_page() writes besides zone and node, and what may come of it.
    link, lru = pages.layout.compound_word, pages.layout.lru_offset // 8
    near = pages.address - pages.head < np.uint64(_FAR * pages.layout.size)
    tail = near & (pages.words[:, link] >= _KERNEL_HALF)
    listed = _is_link(pages, lru) & _is_link(pages, lru + 1)
    # Below PAGE_MAPCOUNT_RESERVE it is a page type.
    counted = (pages.mapcount >= -1) | (pages.mapcount < -128)
    return (pages.refcount >= 0) & counted & np.where(pages.is_tail, tail, listed)


def _is_link(pages: Pages, word: int) -> np.ndarray:
    # list_del() leaves LIST_POISON1 and LIST_POISON2 behind.
    column, poison = pages.words[:, word], pages.layout.list_poison or ()
    pointer = ((column >> np.uint64(56)) == np.uint64(0xFF)) & (column % np.uint64(8) == 0)
    return pointer | np.isin(column, np.array(poison, np.uint64))


def page_contents(
    prog: Program, pages: Pages, pgmap: int | None, live: frozenset[int]
) -> np.ndarray:
    """
    Tell what struct pages hold.

    :param pgmap: The pgmap that claims the PFNs, if any.
    :param live: All pgmaps in ``pgmap_array``.
    :return: Index into ``list(Contents)`` for each page.
    """
    layout = pages.layout
    device = pages.zone == layout.zone_device
    word = head_pgmaps(prog, pages)
    linked_to_itself = word == self_link(pages)
    owned = word == np.uint64(pgmap) if pgmap else np.zeros(len(word), bool)
    known = np.array(sorted(live), np.uint64)
    misplaced = _implausible(prog, pages)
    conditions = {
        Contents.ZERO: (pages.words == 0).all(axis=1),
        Contents.POISON: (pages.words == _ALL_ONES).all(axis=1),
        Contents.UNUSED: (pages.words == _UNUSED).all(axis=1),
        Contents.INITIALIZED: device & owned,
        Contents.OTHER_PGMAP: device & np.isin(word, known),
        Contents.MISPLACED: misplaced & _is_initialized(pages),
        Contents.MEDIA: misplaced,
        Contents.METADATA: device & linked_to_itself,
        Contents.DANGLING_PGMAP: device & (word >= _KERNEL_HALF),
        Contents.BOOT_PAGE: ~device
        & linked_to_itself
        & ((pages.flags & np.uint64(layout.pg_reserved)) != 0),
        Contents.OTHER: np.ones(len(word), bool),
    }
    order = {contents: i for i, contents in enumerate(Contents)}
    codes = np.array([order[c] for c in conditions])
    return codes[np.argmax(np.stack(list(conditions.values())), axis=0)]
