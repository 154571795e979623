# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Patterns
--------

What is in a struct page that nobody promises to have initialised. Without
``CONFIG_DEBUG_VM`` there is no poison: such a page holds whatever its memory
held before, which can be a perfectly plausible struct page.
"""

from __future__ import annotations

import enum

import numpy as np
from drgn import Program

from drgn_zonedev.kernel.memmap import Pages, head_pgmaps

__all__ = ("Contents", "is_kernel_pointer", "page_contents", "self_link")

_ALL_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)
# Kernel addresses of 64-bit architectures are in the upper half.
_KERNEL_HALF = np.uint64(1 << 63)


class Contents(enum.Enum):
    """What a struct page holds; the value is for people."""

    ZERO = "all zero"
    POISON = "PAGE_POISON_PATTERN (all ones)"
    INITIALIZED = "initialised for this pgmap"
    OTHER_PGMAP = "a device page of another live pgmap"
    DANGLING_PGMAP = "a device page of a pgmap that is not found in pgmap_array"
    METADATA = "a device page without a pgmap, linked to itself"
    BOOT_PAGE = "a reserved page from boot, linked to itself"
    MEDIA = "no struct page: what the memory held before"
    OTHER = "something else"


def is_kernel_pointer(word: int) -> bool:
    """Whether a word can be the address of a structure."""
    return word >= int(_KERNEL_HALF) and word % 8 == 0


def self_link(pages: Pages) -> np.ndarray:
    """``&page->lru`` of each page, which an initialised list head points to."""
    return pages.address + np.uint64(pages.layout.lru_offset)


def _implausible(prog: Program, pages: Pages) -> np.ndarray:
    # A zone or a node that this machine does not have. ZONE_DEVICE is the last zone.
    try:
        nodes = prog["nr_node_ids"].value_()
    except LookupError:
        # CONFIG_NUMA=n
        nodes = 1
    return (pages.zone > pages.layout.zone_device) | (pages.node >= np.uint64(nodes))


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
    conditions = {
        Contents.ZERO: (pages.words == 0).all(axis=1),
        Contents.POISON: (pages.words == _ALL_ONES).all(axis=1),
        Contents.INITIALIZED: device & owned,
        Contents.OTHER_PGMAP: device & np.isin(word, known),
        Contents.MEDIA: _implausible(prog, pages),
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
