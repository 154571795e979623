# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Rules of Devices
----------------

What the kernel promises of the struct pages of devices. The table holds only what no
driver may change later. Mappings, indices, private data, most flags and high reference
counts belong to the users of the memory.
"""

from __future__ import annotations

import numpy as np

from drgn_zonedev.kernel.memmap import PageLayout
from drgn_zonedev.verification.page_words import (
    LAST_ZONE,
    MAPCOUNT,
    MAPPING,
    NO_TAIL_REFERENCES,
    NODE,
    ORDER,
    PG_HEAD,
    PG_RESERVED,
    POISON_KNOWN,
    REFCOUNT,
    ROBUST_LINKS,
    SPLIT_PAGE_TYPES,
    TAIL_LINK,
    TAIL_MAPPING,
    TAIL_POISON,
    ZONE,
    ZONES_LATE,
)
from drgn_zonedev.verification.promises import (
    DEVICE_AREAS,
    TAIL_AREAS,
    Area,
    Place,
    Promise,
    builds_folios,
    is_idle_at_one,
    order_is_in_flags,
)
from drgn_zonedev.verification.rule import (
    Commit,
    Comparison,
    Computed,
    Condition,
    Role,
    Rule,
    Varies,
    Word,
)

__all__ = ("DEVICE_RULES",)

# Words.


def _pgmap_offset(layout: PageLayout, promise: Promise) -> int:
    return layout.pgmap_word * 8


_PGMAP_OF_PAGE = Word("pgmap of the page", _pgmap_offset, title="pgmap")
_PGMAP_OF_HEAD = Word("pgmap of the head", _pgmap_offset, title="pgmap")
_LRU_NEXT = Word("page->lru", lambda layout, _: layout.lru_offset, title="`page->lru.next`")
_LRU_PREV = Word("page->lru", lambda layout, _: layout.lru_offset + 8, title="`page->lru.prev`")

# Values.


def _link_to_head(place: Place) -> np.ndarray:
    # set_compound_head(); see PageLayout.compound_mask.
    layout, head = place.layout, place.head_address
    if not layout.compound_mask:
        return head | np.uint64(1)
    mask = ~((layout.size << place.device.vmemmap_shift) - 1) & (1 << 64) - 1
    return np.full_like(head, mask | 1)


_NODES = Computed("the nodes whose ZONE_DEVICE spans the range", lambda place: place.promise.nodes)
_PGMAP = Computed("the pgmap", lambda place: place.device.pgmap)
_HEAD_LINK = Computed("the link to its head", _link_to_head, Varies.BY_COMPOUND_PAGE)
_ITSELF = Computed(
    "`&page->lru`",
    lambda place: place.address + np.uint64(place.layout.lru_offset),
    Varies.BY_PAGE,
)
_VMEMMAP_SHIFT = Computed("`pgmap->vmemmap_shift`", lambda place: place.device.vmemmap_shift)

# Conditions.

_NODES_KNOWN = Condition("a ZONE_DEVICE spans the range", lambda _, promise: bool(promise.nodes))
_FOLIOS = Condition(
    "fsdax and device-private memory, since v6.15: drivers build folios", builds_folios
)
_NO_FOLIOS = Condition(
    "not fsdax and device-private memory since v6.15: drivers build folios",
    lambda layout, promise: not builds_folios(layout, promise),
)
_NO_FOLIOS_NO_ORDER = Condition(
    "up to v6.5: later, the order is there",
    lambda layout, promise: not (builds_folios(layout, promise) or order_is_in_flags(layout)),
)
_IDLE_AT_ONE = Condition("device-dax; up to v6.14, fsdax", is_idle_at_one)
_IDLE_AT_ZERO = Condition(
    "others: they are freed at 0", lambda layout, promise: not is_idle_at_one(layout, promise)
)

# Commits.

_INIT_ONCE = Commit(
    "966cf44f637e",
    "mm: defer ZONE_DEVICE page initialization to the point where we init pgmap",
    "v4.20",
)
_COMPOUND = Commit(
    "c4386bd8ee3a", "mm/memremap: add ZONE_DEVICE support for compound pages", "v5.17"
)
_FREED_AT_ZERO = Commit(
    "27674ef6c73f", "mm: remove the extra ZONE_DEVICE struct page refcount", "v5.18"
)

_METADATA = (Area.METADATA,)

_INIT_PAGE = "__init_zone_device_page()"
_INIT_RANGE = "memmap_init_range()"

DEVICE_RULES: tuple[Rule, ...] = (
    Rule(
        "device-page-zone",
        DEVICE_AREAS,
        ZONE,
        LAST_ZONE,
        "ZONE_DEVICE",
        _INIT_PAGE,
        _INIT_ONCE,
        role=Role.ORIGIN,
    ),
    Rule(
        "device-page-node",
        DEVICE_AREAS,
        NODE,
        _NODES,
        "node {value}",
        "move_pfn_range_to_zone()",
        ZONES_LATE,
        Comparison.ONE_OF,
        _NODES_KNOWN,
        Role.ORIGIN,
    ),
    Rule(
        "device-page-pgmap",
        (Area.BASE,),
        _PGMAP_OF_PAGE,
        _PGMAP,
        "{value:#x}",
        _INIT_PAGE,
        _INIT_ONCE,
        condition=_NO_FOLIOS,
        role=Role.LINK,
    ),
    Rule(
        "device-page-pgmap",
        (Area.BASE,),
        _PGMAP_OF_PAGE,
        _PGMAP,
        "{value:#x}, or a link to a head that has it",
        _INIT_PAGE,
        _INIT_ONCE,
        Comparison.EQUAL_OR_FOLIO,
        _FOLIOS,
        Role.LINK,
    ),
    Rule(
        "device-page-pgmap",
        (Area.HEAD,),
        _PGMAP_OF_HEAD,
        _PGMAP,
        "{value:#x}",
        _INIT_PAGE,
        _INIT_ONCE,
        role=Role.LINK,
    ),
    Rule(
        "device-tail-link",
        TAIL_AREAS,
        TAIL_LINK,
        _HEAD_LINK,
        "{value:#x}, tail of PFN {head:#x}",
        "prep_compound_tail()",
        ROBUST_LINKS,
        role=Role.LINK,
    ),
    Rule(
        "device-page-reserved",
        DEVICE_AREAS,
        PG_RESERVED,
        1,
        "PG_reserved",
        _INIT_PAGE,
        _INIT_ONCE,
    ),
    Rule(
        "device-head-flag",
        (Area.HEAD,),
        PG_HEAD,
        1,
        "PG_head",
        "memmap_init_compound()",
        _COMPOUND,
    ),
    Rule(
        "device-stray-head",
        (Area.BASE, Area.FOLIO_TAIL, Area.TAIL),
        PG_HEAD,
        0,
        "not PG_head",
        _INIT_PAGE,
        _INIT_ONCE,
        condition=_NO_FOLIOS,
    ),
    Rule(
        "device-stray-head",
        (Area.FIRST_TAIL,),
        PG_HEAD,
        0,
        "not PG_head",
        _INIT_PAGE,
        _INIT_ONCE,
        condition=_NO_FOLIOS_NO_ORDER,
    ),
    Rule(
        "device-compound-order",
        (Area.FIRST_TAIL,),
        ORDER,
        _VMEMMAP_SHIFT,
        "order {value}",
        "prep_compound_head()",
        _COMPOUND,
    ),
    Rule(
        "device-tail-mapping",
        (Area.TAIL,),
        MAPPING,
        TAIL_MAPPING,
        "{value:#x}, TAIL_MAPPING",
        "prep_compound_tail()",
        TAIL_POISON,
        condition=POISON_KNOWN,
    ),
    Rule(
        "device-page-refcount",
        (Area.BASE, Area.HEAD),
        REFCOUNT,
        1,
        "{value} or more",
        "__init_single_page()",
        _INIT_ONCE,
        Comparison.AT_LEAST,
        _IDLE_AT_ONE,
    ),
    Rule(
        "device-page-refcount",
        (Area.BASE, Area.HEAD),
        REFCOUNT,
        0,
        "{value} or more",
        "free_zone_device_folio()",
        _FREED_AT_ZERO,
        Comparison.AT_LEAST,
        _IDLE_AT_ZERO,
    ),
    Rule(
        "device-page-refcount",
        TAIL_AREAS,
        REFCOUNT,
        0,
        "{value}: tails have none",
        "prep_compound_tail()",
        NO_TAIL_REFERENCES,
    ),
    # What is below PAGE_MAPCOUNT_RESERVE is a page type. Device pages have none so far,
    # but that is for the kernel to decide.
    Rule(
        "device-page-mapcount",
        DEVICE_AREAS,
        MAPCOUNT,
        -1,
        "{value} or more, or a page type",
        "__init_single_page()",
        SPLIT_PAGE_TYPES,
        Comparison.COUNT_OR_TYPE,
    ),
    Rule(
        "metadata-page-zone",
        _METADATA,
        ZONE,
        LAST_ZONE,
        "ZONE_DEVICE",
        _INIT_RANGE,
        _INIT_ONCE,
        role=Role.ORIGIN,
    ),
    Rule(
        "metadata-page-node",
        _METADATA,
        NODE,
        _NODES,
        "node {value}",
        "move_pfn_range_to_zone()",
        ZONES_LATE,
        Comparison.ONE_OF,
        _NODES_KNOWN,
        Role.ORIGIN,
    ),
    Rule(
        "metadata-page-link",
        _METADATA,
        _LRU_NEXT,
        _ITSELF,
        "{value:#x}, itself",
        "__init_single_page()",
        _INIT_ONCE,
        role=Role.LINK,
    ),
    Rule(
        "metadata-page-link",
        _METADATA,
        _LRU_PREV,
        _ITSELF,
        "{value:#x}, itself",
        "__init_single_page()",
        _INIT_ONCE,
        role=Role.LINK,
    ),
    Rule(
        "metadata-page-reserved",
        _METADATA,
        PG_RESERVED,
        1,
        "PG_reserved",
        _INIT_RANGE,
        _INIT_ONCE,
    ),
    Rule(
        "metadata-page-refcount",
        _METADATA,
        REFCOUNT,
        1,
        "{value} or more",
        "__init_single_page()",
        _INIT_ONCE,
        Comparison.AT_LEAST,
    ),
)
"""In the order in which they count."""
