# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Rules of RAM
------------

What the kernel promises of the struct pages of RAM that is online. Which of the rules
are about a page depends on what it says of itself: see :mod:`.ram_window`.

The table holds what the page allocator and those beside it keep at any moment, whoever
uses the memory.
"""

from __future__ import annotations

from drgn_zonedev.kernel.memmap import PageLayout
from drgn_zonedev.kernel.page_kinds import PageKinds
from drgn_zonedev.verification.page_words import (
    LAST_ZONE,
    MAPCOUNT,
    MAPPING,
    NO_TAIL_REFERENCES,
    NODE,
    ORDER,
    PAGE_ZONE,
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
    flag_word,
)
from drgn_zonedev.verification.promises import Area, Place, Promise, RamPages, order_is_in_flags
from drgn_zonedev.verification.ram_window import RamPlace
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

__all__ = ("BUDDY_ORDER", "RAM_RULES")


def _ram(promise: Promise) -> RamPages:
    assert isinstance(promise, RamPages)
    return promise


def _place(place: Place) -> RamPlace:
    assert isinstance(place, RamPlace)
    return place


# Words.


def _excluded_by_reserved(kinds: PageKinds) -> int:
    """Flags of pages that the page allocator gave away, and can take back."""
    mapped = kinds.lru | kinds.swapbacked | kinds.unevictable | kinds.mlocked
    return mapped | kinds.slab_flag | kinds.writeback


def _excluded_of_tails(layout: PageLayout, kinds: PageKinds, *, first: bool) -> int:
    """Flags of heads that tails never have, not even while their folio is split."""
    if first and layout.order_offset == layout.flags_word * 8:
        # The order is stored over the low flags.
        return layout.pg_reserved
    return layout.pg_reserved | kinds.lru | kinds.writeback


_FLAGS_OF_USE = flag_word(
    "flags of pages in use", lambda _, promise: _excluded_by_reserved(_ram(promise).kinds)
)
_FLAGS_OF_HEADS = flag_word(
    "flags of heads",
    lambda layout, p: _excluded_of_tails(layout, _ram(p).kinds, first=False),
)
_FLAGS_OF_HEADS_IN_FIRST_TAIL = flag_word(
    "flags of heads",
    lambda layout, p: _excluded_of_tails(layout, _ram(p).kinds, first=True),
)
_PG_LRU = flag_word("PG_lru", lambda _, promise: _ram(promise).kinds.lru)
_FLAGS_OF_FREE_BLOCKS = flag_word(
    "flags", lambda _, promise: _ram(promise).kinds.at_prep & ~_ram(promise).kinds.reported
)
_FLAGS_OF_FREE_PAGES = flag_word("flags", lambda _, promise: _ram(promise).kinds.at_prep)
_TAIL_BIT = Word(
    "compound link",
    lambda layout, _: layout.compound_word * 8,
    mask=lambda layout, _: 1,
    title="compound link & 1",
)
BUDDY_ORDER = Word("page->private", lambda _, promise: _ram(promise).kinds.private_offset)
"""The order of a free block, in its first page."""

_MEMCG = Word("page->memcg_data", lambda _, promise: _ram(promise).kinds.memcg_offset)

# Values.

_NODES = Computed("the nodes that are online", lambda place: place.promise.nodes)
_ZONES = Computed("the zones that span it", lambda place: _ram(place.promise).zones or ())
_HOLE_ZONES = Computed("the zones that exist", lambda place: _ram(place.promise).hole_zones or ())
_HEAD = Computed("its head", lambda place: _place(place).link, Varies.BY_PAGE)
_SIZE = Computed(
    "the order of a compound page with as many pages as link to the head",
    lambda place: _place(place).window.compound.order,
    Varies.BY_PAGE,
)
_SOUND_ORDER = Computed(
    "one whose pages are free, and to which the PFN is aligned",
    lambda place: _place(place).window.free.order,
    Varies.BY_PAGE,
)

# Conditions.

_ZONES_KNOWN = Condition(
    "all zones can be read", lambda _, promise: _ram(promise).zones is not None
)
_ORDER_ELSEWHERE = Condition(
    "up to v6.5: later, the order is there", lambda layout, _: not order_is_in_flags(layout)
)

# Commits.

_INIT = Commit(
    "1e8ce83cd17f", "mm: meminit: move page initialization into a separate function", "v4.2"
)
_ORDERS = Commit(
    "f1e61557f023",
    "mm: pack compound_dtor and compound_order into one word in struct page",
    "v4.4",
)
_BUDDY = Commit("5f24ce5fd34c", "thp: remove PG_buddy", "v2.6.38")
_AT_PREP = Commit("79f4b7bf393e", "badpage: simplify page_alloc flag check+clear", "v2.6.29")

_PREP_HEAD, _PREP_TAIL = "prep_compound_page()", "prep_compound_tail()"
_INIT_PAGE = "__init_single_page()"
_FREE = "free_pages_prepare()"

RAM_RULES: tuple[Rule, ...] = (
    Rule(
        "ram-page-node",
        (Area.RAM,),
        NODE,
        _NODES,
        "node {value}",
        _INIT_PAGE,
        _INIT,
        Comparison.ONE_OF,
        role=Role.ORIGIN,
    ),
    Rule(
        "ram-page-device",
        (Area.RAM,),
        ZONE,
        LAST_ZONE,
        "not ZONE_DEVICE",
        "move_pfn_range_to_zone()",
        ZONES_LATE,
        Comparison.OTHER,
        role=Role.ORIGIN,
    ),
    Rule(
        "ram-page-zone",
        (Area.RAM_UNRESERVED,),
        PAGE_ZONE,
        _ZONES,
        "zone {zone} of node {nid}",
        "move_pfn_range_to_zone()",
        ZONES_LATE,
        Comparison.ONE_OF,
        _ZONES_KNOWN,
        Role.ORIGIN,
    ),
    Rule(
        "ram-hole-zone",
        (Area.RAM_RESERVED,),
        PAGE_ZONE,
        _HOLE_ZONES,
        "zone {zone} of node {nid}",
        "init_unavailable_range()",
        _INIT,
        Comparison.ONE_OF,
        _ZONES_KNOWN,
        Role.ORIGIN,
    ),
    Rule(
        "ram-tail-link",
        (Area.RAM_TAIL,),
        TAIL_LINK,
        _HEAD,
        "{value:#x}, tail of PFN {head:#x}",
        _PREP_TAIL,
        ROBUST_LINKS,
        Comparison.LEADS_TO,
        role=Role.LINK,
    ),
    Rule(
        "ram-stray-tail",
        (Area.RAM_HEAD, Area.RAM_SINGLE, Area.FREE_HEAD, Area.FREE_INSIDE),
        _TAIL_BIT,
        0,
        "no tail",
        _PREP_TAIL,
        ROBUST_LINKS,
        role=Role.LINK,
    ),
    Rule(
        "ram-head-flag",
        (Area.RAM_HEAD,),
        PG_HEAD,
        1,
        "PG_head",
        _PREP_HEAD,
        ROBUST_LINKS,
    ),
    Rule(
        "ram-stray-head",
        (Area.RAM_SINGLE, Area.RAM_OTHER_TAIL),
        PG_HEAD,
        0,
        "not PG_head",
        _PREP_HEAD,
        ROBUST_LINKS,
    ),
    Rule(
        "ram-stray-head",
        (Area.RAM_FIRST_TAIL,),
        PG_HEAD,
        0,
        "not PG_head",
        _PREP_HEAD,
        ROBUST_LINKS,
        condition=_ORDER_ELSEWHERE,
    ),
    Rule(
        "ram-compound-order",
        (Area.RAM_FIRST_TAIL,),
        ORDER,
        _SIZE,
        "order {value}",
        "prep_compound_head()",
        _ORDERS,
        Comparison.EQUAL_OR_ZERO,
    ),
    Rule(
        "ram-tail-mapping",
        (Area.RAM_IDLE_TAIL,),
        MAPPING,
        TAIL_MAPPING,
        "{value:#x}, TAIL_MAPPING",
        _PREP_TAIL,
        TAIL_POISON,
        condition=POISON_KNOWN,
    ),
    Rule(
        "ram-tail-flags",
        (Area.RAM_OTHER_TAIL,),
        _FLAGS_OF_HEADS,
        0,
        "no flags of a head",
        _PREP_TAIL,
        ROBUST_LINKS,
    ),
    Rule(
        "ram-tail-flags",
        (Area.RAM_FIRST_TAIL,),
        _FLAGS_OF_HEADS_IN_FIRST_TAIL,
        0,
        "no flags of a head",
        _PREP_TAIL,
        ROBUST_LINKS,
    ),
    Rule(
        "ram-page-refcount",
        (Area.RAM_HEAD, Area.RAM_SINGLE),
        REFCOUNT,
        0,
        "{value} or more",
        "put_page_testzero()",
        _INIT,
        Comparison.AT_LEAST,
    ),
    Rule(
        "ram-page-refcount",
        (Area.RAM_KEPT,),
        REFCOUNT,
        1,
        "{value} or more, as it is reserved",
        _INIT_PAGE,
        _INIT,
        Comparison.AT_LEAST,
    ),
    Rule(
        "ram-page-refcount",
        (Area.RAM_OWN_TAIL,),
        REFCOUNT,
        0,
        "{value}: tails have none",
        _PREP_TAIL,
        NO_TAIL_REFERENCES,
    ),
    Rule(
        "ram-page-mapcount",
        (Area.RAM_HEAD, Area.RAM_SINGLE),
        MAPCOUNT,
        -1,
        "{value} or more, or a page type",
        _INIT_PAGE,
        SPLIT_PAGE_TYPES,
        Comparison.COUNT_OR_KNOWN_TYPE,
    ),
    Rule(
        "ram-page-mapcount",
        (Area.RAM_TAIL,),
        MAPCOUNT,
        -1,
        "{value} or more: tails have no type",
        _INIT_PAGE,
        SPLIT_PAGE_TYPES,
        Comparison.AT_LEAST,
    ),
    Rule(
        "ram-reserved-flags",
        (Area.RAM_RESERVED,),
        _FLAGS_OF_USE,
        0,
        "no flags of a page in use",
        _FREE,
        _AT_PREP,
    ),
    Rule(
        "ram-reserved-flags",
        (Area.RAM_HEAD,),
        PG_RESERVED,
        0,
        "not PG_reserved: it is a head",
        _FREE,
        _AT_PREP,
    ),
    Rule(
        "ram-lru-type",
        (Area.RAM_TYPED,),
        _PG_LRU,
        0,
        "not PG_lru",
        _FREE,
        SPLIT_PAGE_TYPES,
    ),
    Rule(
        "ram-free-order",
        (Area.FREE_HEAD,),
        BUDDY_ORDER,
        _SOUND_ORDER,
        "order {value}",
        "set_buddy_order()",
        _BUDDY,
    ),
    Rule(
        "ram-free-refcount",
        (Area.FREE_HEAD, Area.FREE_INSIDE),
        REFCOUNT,
        0,
        "{value}: it is free",
        _FREE,
        _BUDDY,
    ),
    Rule(
        "ram-free-type",
        (Area.FREE_INSIDE,),
        MAPCOUNT,
        -1,
        "{value}: a page in a free block has no type and no mappings",
        "__free_one_page()",
        _BUDDY,
    ),
    Rule(
        "ram-free-flags",
        (Area.FREE_HEAD,),
        _FLAGS_OF_FREE_BLOCKS,
        0,
        "no flags but PG_hwpoison and PG_reported",
        _FREE,
        _AT_PREP,
    ),
    Rule(
        "ram-free-flags",
        (Area.FREE_INSIDE,),
        _FLAGS_OF_FREE_PAGES,
        0,
        "no flags but PG_hwpoison",
        _FREE,
        _AT_PREP,
    ),
    Rule(
        "ram-free-mapping",
        (Area.FREE_HEAD, Area.FREE_INSIDE),
        MAPPING,
        0,
        "NULL: it is free",
        _FREE,
        _AT_PREP,
    ),
    Rule(
        "ram-free-memcg",
        (Area.FREE_HEAD,),
        _MEMCG,
        0,
        "no memory cgroup: it is free",
        _FREE,
        _AT_PREP,
    ),
)
"""In the order in which they count."""
