# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Words
-----

The words of ``struct page`` that rules about all kinds of pages are about, and what else
these rules share: conditions, a value, and commits.
"""

from __future__ import annotations

from collections.abc import Callable

from drgn_zonedev.kernel.memmap import PageLayout
from drgn_zonedev.verification.promises import Promise
from drgn_zonedev.verification.rule import Commit, Computed, Condition, Word

__all__ = (
    "LAST_ZONE",
    "MAPCOUNT",
    "MAPPING",
    "NODE",
    "NO_TAIL_REFERENCES",
    "ORDER",
    "PAGE_ZONE",
    "PG_HEAD",
    "PG_RESERVED",
    "POISON_KNOWN",
    "REFCOUNT",
    "ROBUST_LINKS",
    "SPLIT_PAGE_TYPES",
    "TAIL_LINK",
    "TAIL_MAPPING",
    "TAIL_POISON",
    "ZONE",
    "ZONES_LATE",
    "flag_word",
)


def _flags(layout: PageLayout, promise: Promise) -> int:
    return layout.flags_word * 8


def _zone_mask(layout: PageLayout, promise: Promise) -> int:
    return layout.zone_mask << 64 - layout.nodes_shift - layout.zones_shift


def _node_mask(layout: PageLayout, promise: Promise) -> int:
    return (1 << layout.nodes_shift) - 1 << 64 - layout.nodes_shift


def flag_word(name: str, mask: Callable[[PageLayout, Promise], int]) -> Word:
    """Some flags of a page."""
    return Word(name, _flags, mask=mask, flag=True)


ZONE = Word("page_zonenum()", _flags, mask=_zone_mask)
NODE = Word("page_to_nid()", _flags, mask=_node_mask)
PAGE_ZONE = Word(
    "page_zone()", _flags, mask=lambda layout, p: _zone_mask(layout, p) | _node_mask(layout, p)
)
PG_RESERVED = flag_word("PG_reserved", lambda layout, _: layout.pg_reserved)
PG_HEAD = flag_word("PG_head", lambda layout, _: layout.pg_head)
TAIL_LINK = Word(
    "compound link of the tail", lambda layout, _: layout.compound_word * 8, title="compound link"
)
ORDER = Word(
    "order of the compound page, in its first tail,",
    lambda layout, _: layout.order_offset,
    1,
    title="compound order",
)
MAPPING = Word("page->mapping", lambda layout, _: layout.mapping_word * 8)
REFCOUNT = Word("page->_refcount", lambda layout, _: layout.refcount_offset, 4)
MAPCOUNT = Word("page->_mapcount", lambda layout, _: layout.mapcount_offset, 4)

TAIL_MAPPING = Computed("`TAIL_MAPPING`", lambda place: place.layout.tail_mapping or 0)

POISON_KNOWN = Condition("x86-64 and arm64", lambda layout, _: layout.tail_mapping is not None)

LAST_ZONE = Computed("`ZONE_DEVICE`", lambda place: place.layout.zone_device)

NO_TAIL_REFERENCES = Commit("58a84aa92723", "thp: set compound tail page _count to zero", "v3.2")
ROBUST_LINKS = Commit("1d798ca3f164", "mm: make compound_head() robust", "v4.4")
SPLIT_PAGE_TYPES = Commit("6e292b9be7f4", "mm: split page_type out from _mapcount", "v4.18")
TAIL_POISON = Commit("1c290f642101", "mm: sanitize page->mapping for tail pages", "v4.5")
ZONES_LATE = Commit(
    "f1dd2cd13c4b",
    "mm, memory_hotplug: do not associate hotadded memory to zones until online",
    "v4.13",
)
