# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Guards
------

What the walkers' guards are made of. A *step* asks about the PFN and reads no struct
page; a *filter* looks at the struct page and may drop it. Memory that passes the steps
is touched, and what passes the filters as well is used.

Each takes the ground and says yes or no for each run of it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from drgn import Architecture, FaultError, ObjectAbsentError, Program

from drgn_zonedev.pfn_walkers.kpageflags import has_kpage_read
from drgn_zonedev.pfn_walkers.memory import (
    FREE,
    HELD,
    IN_ZONE,
    MOVABLE,
    ON_LRU,
    POISONED,
    REFERENCED,
    RESERVED,
    TAIL,
    UNREAD,
    Ground,
)
from drgn_zonedev.util.intervals import containing

__all__ = ("FEATURES", "FILTERS", "STEPS", "unknown_here")

Ask = Callable[[Ground], np.ndarray]


# What is not known, max_pfn or a zone, keeps nobody from anything.


def _below_max_pfn(ground: Ground) -> np.ndarray:
    if ground.max_pfn is None:
        return np.ones(len(ground.runs), bool)
    return ground.runs.start < ground.max_pfn


def _in_last_section(ground: Ground) -> np.ndarray:
    if ground.max_pfn is None:
        return np.ones(len(ground.runs), bool)
    pages = ground.snapshot.geometry.pages_per_section
    return ground.runs.start < -(-ground.max_pfn // pages) * pages


def _valid_block(ground: Ground) -> np.ndarray:
    assert ground.max_order_pages is not None
    first = ground.runs.start // ground.max_order_pages * ground.max_order_pages
    return ground.ask(first).pfn_valid


def _system_ram(ground: Ground) -> np.ndarray:
    return containing(ground.runs.start, ground.ram[:, 0], ground.ram[:, 1]) >= 0


def _system_ram_section(ground: Ground) -> np.ndarray:
    # Offlining refuses a memory block that has holes.
    pages = ground.snapshot.geometry.pages_per_section
    first = ground.runs.start // pages * pages
    # What is System RAM from the first page of a section to the last is in one of these.
    row = containing(first, ground.ram[:, 0], ground.ram[:, 1])
    return (row >= 0) & (row == containing(first + pages - 1, ground.ram[:, 0], ground.ram[:, 1]))


def _in_zone_with_ram(ground: Ground) -> np.ndarray:
    found = np.full(len(ground.runs), bool(ground.zones.unread))
    for zone in ground.zones.found:
        inside = (ground.runs.start >= zone.start_pfn) & (ground.runs.start < zone.end_pfn)
        found |= inside & bool(zone.present_pages)
    return found


def _begins_online(ground: Ground) -> np.ndarray:
    assert ground.pageblock_pages is not None
    start = ground.runs.start // ground.pageblock_pages * ground.pageblock_pages
    blocks, which = np.unique(start, return_inverse=True)
    passed = ground.ask(blocks).online
    rows = np.flatnonzero(passed)
    passed[rows] = ground.is_populated(ground.zones_of(blocks[rows]), blocks[rows])
    return passed[which]


def _pageblock(ground: Ground) -> np.ndarray:
    """
    ``__pageblock_pfn_to_page()``: the first page online, the last one valid, and both in
    the zone that is compacted. Only the two are looked at.
    """
    assert ground.pageblock_pages is not None
    start = ground.runs.start // ground.pageblock_pages * ground.pageblock_pages
    blocks, which = np.unique(start, return_inverse=True)
    last = blocks + ground.pageblock_pages - 1
    passed = ground.ask(blocks).online & ground.ask(last).pfn_valid
    rows = np.flatnonzero(passed)
    zone = ground.zones_of(blocks[rows])
    passed[rows] = (zone == ground.zones_of(last[rows])) & ground.is_populated(zone, blocks[rows])
    return passed[which]


def _filters_injection(ground: Ground) -> np.ndarray:
    # A variable of vmlinux, or of the module; 0 until debugfs sets it.
    try:
        is_set = bool(ground.prog.variable("hwpoison_filter_enable").value_())
    except (LookupError, ObjectAbsentError, FaultError):
        is_set = False
    return np.full(len(ground.runs), is_set)


STEPS: dict[str, Ask] = {
    "pfn_valid()": lambda ground: ground.first.pfn_valid,
    "pfn_valid() of the first PFN of each MAX_ORDER block": _valid_block,
    "pfn_to_online_page()": lambda ground: ground.first.online,
    "no pfn_to_online_page()": lambda ground: ~ground.first.online,
    "get_dev_pagemap()": lambda ground: ground.first.pgmap != 0,
    "pgmap_pfn_valid()": lambda ground: ground.first.pgmap_pfn_valid,
    "in a zone with RAM": _in_zone_with_ram,
    "below max_pfn": _below_max_pfn,
    "below the end of max_pfn's section": _in_last_section,
    "System RAM": _system_ram,
    "a section of System RAM without holes": _system_ram_section,
    "__pageblock_pfn_to_page()": _pageblock,
    "the pageblock begins online": _begins_online,
}


# What could not be read is not known to be dropped.
FILTERS: dict[str, Ask] = {
    "page_zone() is the zone that is walked": lambda g: g.runs.has(IN_ZONE | UNREAD),
    "!PageTail()": lambda g: ~g.runs.has(TAIL),
    "!PageReserved()": lambda g: ~g.runs.has(RESERVED),
    "page_count() != 0": lambda g: g.runs.has(HELD | UNREAD),
    "folio_try_get()": lambda g: g.runs.has(HELD | UNREAD),
    "get_page_unless_zero()": lambda g: g.runs.has(REFERENCED | UNREAD),
    "PageLRU()": lambda g: g.runs.has(ON_LRU | UNREAD),
    "PageHWPoison()": lambda g: g.runs.has(POISONED | UNREAD),
    "HWPoisonHandlable()": lambda g: g.runs.has(ON_LRU | FREE | UNREAD),
    "HWPoisonHandlable() for soft offline": lambda g: g.runs.has(ON_LRU | FREE | MOVABLE | UNREAD),
    "corrupt-filter-enable is set": _filters_injection,
}


# What tells guards apart, other than that a function is there.
FEATURES: dict[str, Callable[[Program], bool]] = {"kpage_read() looks at copies": has_kpage_read}


def _is_x86_64(prog: Program) -> bool:
    assert prog.platform is not None
    return prog.platform.arch == Architecture.X86_64


def unknown_here(ground: Ground, step: str) -> str | None:
    """Say why a step cannot be evaluated on the kernel at hand; ``None`` if it can."""
    if "pageblock" in step and ground.pageblock_pages is None:
        return "the size of a pageblock is known on x86-64 only"
    if "MAX_ORDER" in step and ground.max_order_pages is None:
        return "MAX_ORDER is not known"
    # Some architectures have one of their own, as arm64 had.
    if "pfn_valid()" in step and "pgmap" not in step and not _is_x86_64(ground.prog):
        return "what pfn_valid() asks is known on x86-64 only"
    return None
