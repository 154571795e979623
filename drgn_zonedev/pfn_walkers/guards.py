# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Guards
------

The checks that the walkers' guards consist of. A *step* checks the PFN and reads no
struct page; a *filter* reads the struct page and may drop it. A walker *touches* memory
that passes the steps, and *uses* memory that also passes the filters.

Each check takes the unpromised memory and returns yes or no for each run of it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from drgn import FaultError, ObjectAbsentError, Program

from drgn_zonedev.kernel.mmzone import has_generic_pfn_valid
from drgn_zonedev.pfn_walkers.kpageflags import has_kpage_read
from drgn_zonedev.pfn_walkers.memory import (
    FREE,
    HANDED_OVER,
    HELD,
    IN_NODE,
    IN_ZONE,
    MOVABLE,
    ON_LRU,
    POISONED,
    REFERENCED,
    RESERVED,
    TAIL,
    UNREADABLE,
    UnpromisedMemory,
)
from drgn_zonedev.util.sets import containing

__all__ = ("FEATURES", "FILTERS", "STEPS", "unknown_here")

Ask = Callable[[UnpromisedMemory], np.ndarray]


# If max_pfn, a node or a zone is not known, the steps that need it let everything pass.


def _below_max_pfn(memory: UnpromisedMemory) -> np.ndarray:
    if memory.max_pfn is None:
        return np.ones(len(memory.runs), bool)
    return memory.runs.start < memory.max_pfn


def _in_last_section(memory: UnpromisedMemory) -> np.ndarray:
    if memory.max_pfn is None:
        return np.ones(len(memory.runs), bool)
    pages = memory.snapshot.geometry.pages_per_section
    return memory.runs.start < -(-memory.max_pfn // pages) * pages


def _valid_block(memory: UnpromisedMemory) -> np.ndarray:
    assert memory.max_order_pages is not None
    first = memory.runs.start // memory.max_order_pages * memory.max_order_pages
    return memory.ask(first).pfn_valid


def _system_ram(memory: UnpromisedMemory) -> np.ndarray:
    return containing(memory.runs.start, memory.ram[:, 0], memory.ram[:, 1]) >= 0


def _system_ram_section(memory: UnpromisedMemory) -> np.ndarray:
    # Offlining refuses a memory block that has holes.
    pages = memory.snapshot.geometry.pages_per_section
    first = memory.runs.start // pages * pages
    # A section without holes lies in a single one of these spans.
    row = containing(first, memory.ram[:, 0], memory.ram[:, 1])
    return (row >= 0) & (row == containing(first + pages - 1, memory.ram[:, 0], memory.ram[:, 1]))


def _section_with_ram(memory: UnpromisedMemory) -> np.ndarray:
    pages = memory.snapshot.geometry.pages_per_section
    first = memory.runs.start // pages * pages
    found = np.zeros(len(first), bool)
    for start, end in memory.ram:
        found |= (first < end) & (first + pages > start)
    return found


def _in_zone_with_ram(memory: UnpromisedMemory) -> np.ndarray:
    found = np.full(len(memory.runs), bool(memory.zones.unreadable))
    for zone in memory.zones.found:
        inside = (memory.runs.start >= zone.start_pfn) & (memory.runs.start < zone.end_pfn)
        found |= inside & bool(zone.present_pages)
    return found


def _in_node(memory: UnpromisedMemory) -> np.ndarray:
    nodes = memory.snapshot.nodes
    found = np.full(len(memory.runs), nodes is None or bool(nodes.unreadable))
    for node in nodes.found if nodes else ():
        found |= (memory.runs.start >= node.start_pfn) & (memory.runs.start < node.end_pfn)
    return found


def _online_block(memory: UnpromisedMemory) -> np.ndarray:
    # A memory block goes online with all of its sections that are present.
    first = memory.first
    return first.has_flag(first.flags.online)


def _begins_online(memory: UnpromisedMemory) -> np.ndarray:
    assert memory.pageblock_pages is not None
    start = memory.runs.start // memory.pageblock_pages * memory.pageblock_pages
    blocks, which = np.unique(start, return_inverse=True)
    passed = memory.ask(blocks).online
    rows = np.flatnonzero(passed)
    passed[rows] = memory.is_populated(memory.zones_of(blocks[rows]), blocks[rows])
    return passed[which]


def _pageblock(memory: UnpromisedMemory) -> np.ndarray:
    """
    ``__pageblock_pfn_to_page()``: the first page is online, the last one valid, and both are
    in the zone that is compacted. The pages between are not checked.
    """
    assert memory.pageblock_pages is not None
    start = memory.runs.start // memory.pageblock_pages * memory.pageblock_pages
    blocks, which = np.unique(start, return_inverse=True)
    last = blocks + memory.pageblock_pages - 1
    passed = memory.ask(blocks).online & memory.ask(last).pfn_valid
    rows = np.flatnonzero(passed)
    zone = memory.zones_of(blocks[rows])
    passed[rows] = (zone == memory.zones_of(last[rows])) & memory.is_populated(zone, blocks[rows])
    return passed[which]


def _both_ends_online(memory: UnpromisedMemory) -> np.ndarray:
    # __reset_isolation_pfn() compares the zone of the first page only.
    assert memory.pageblock_pages is not None
    last = memory.runs.start // memory.pageblock_pages * memory.pageblock_pages
    last += memory.pageblock_pages - 1
    return _begins_online(memory) & memory.ask(last).online


def _virtio_mem(memory: UnpromisedMemory) -> np.ndarray:
    spans = memory.virtio_mem
    return containing(memory.runs.start, spans[:, 0], spans[:, 1]) >= 0


def _filters_injection(memory: UnpromisedMemory) -> np.ndarray:
    # A variable of vmlinux, or of the module; 0 until debugfs sets it.
    try:
        is_set = bool(memory.prog.variable("hwpoison_filter_enable").value_())
    except (LookupError, ObjectAbsentError, FaultError):
        is_set = False
    return np.full(len(memory.runs), is_set)


STEPS: dict[str, Ask] = {
    "pfn_valid()": lambda memory: memory.first.pfn_valid,
    "pfn_valid() of the first PFN of each MAX_ORDER block": _valid_block,
    "pfn_to_online_page()": lambda memory: memory.first.online,
    "no pfn_to_online_page()": lambda memory: ~memory.first.online,
    "get_dev_pagemap()": lambda memory: memory.first.pgmap != 0,
    "pgmap_pfn_valid()": lambda memory: memory.first.pgmap_pfn_valid,
    "in a zone with RAM": _in_zone_with_ram,
    "in a node that is online": _in_node,
    "below max_pfn": _below_max_pfn,
    "below the end of max_pfn's section": _in_last_section,
    "System RAM": _system_ram,
    "a section of System RAM without holes": _system_ram_section,
    "a section with System RAM": _section_with_ram,
    "a section that is present": lambda memory: memory.first.section_row >= 0,
    "a memory block that is online": _online_block,
    "__pageblock_pfn_to_page()": _pageblock,
    "the pageblock begins online": _begins_online,
    "both ends of the pageblock are online": _both_ends_online,
    "memory of virtio-mem": _virtio_mem,
}


# Linux kernel commit 25182f05ffed ("mm,hwpoison: fix race with hugetlb page allocation") (in
# v5.13) took movable pages for any caller, and free ones since v5.15; "mm/memory-failure.c: make
# non-LRU movable pages unhandlable" (in v5.18) takes movable ones for soft offline only.
_HANDLABLE_OR_MOVABLE = ON_LRU | FREE | MOVABLE | UNREADABLE

# A struct page that could not be read may pass any filter.
FILTERS: dict[str, Ask] = {
    "page_zone() is the zone that is walked": lambda g: g.runs.has(IN_ZONE | UNREADABLE),
    "page_to_nid() is the node that is walked": lambda g: g.runs.has(IN_NODE | UNREADABLE),
    "!PageTail()": lambda g: ~g.runs.has(TAIL),
    "!PageReserved()": lambda g: ~g.runs.has(RESERVED),
    "page_count() != 0": lambda g: g.runs.has(HELD | UNREADABLE),
    "folio_try_get()": lambda g: g.runs.has(HELD | UNREADABLE),
    "get_page_unless_zero()": lambda g: g.runs.has(REFERENCED | UNREADABLE),
    "PageLRU()": lambda g: g.runs.has(ON_LRU | UNREADABLE),
    "PageHWPoison()": lambda g: g.runs.has(POISONED | UNREADABLE),
    "HWPoisonHandlable()": lambda g: g.runs.has(ON_LRU | FREE | UNREADABLE),
    "HWPoisonHandlable() for soft offline": lambda g: g.runs.has(_HANDLABLE_OR_MOVABLE),
    "HWPoisonHandlable() of v5.13": lambda g: g.runs.has(_HANDLABLE_OR_MOVABLE),
    "KHO's magic in page->private": lambda g: g.runs.has(HANDED_OVER | UNREADABLE),
    "corrupt-filter-enable is set": _filters_injection,
    # It reads no struct page, but comes after what does.
    "pgmap_pfn_valid()": STEPS["pgmap_pfn_valid()"],
}


def _counts_errors_by_node(prog: Program) -> bool:
    # Linux kernel commit 18f41fa616ee ("mm: memory-failure: bump memory failure stats to
    # pglist_data") (in v6.3). With contig_page_data (CONFIG_NUMA=n), pfn_to_nid() is 0.
    # The member is that of CONFIG_MEMORY_FAILURE, without which there is no such walker.
    is_numa = "contig_page_data" not in prog
    return is_numa and prog.type("struct pglist_data").has_member("mf_stats")


# Features that select a guard, besides the existence of a function.
FEATURES: dict[str, Callable[[Program], bool]] = {
    "kpage_read() looks at copies": has_kpage_read,
    "memory errors are counted by node": _counts_errors_by_node,
}


def unknown_here(memory: UnpromisedMemory, step: str) -> str | None:
    """Return why a step cannot be evaluated on this kernel; ``None`` if it can."""
    if "pageblock" in step and memory.pageblock_pages is None:
        return "the size of a pageblock is not known"
    if "MAX_ORDER" in step and memory.max_order_pages is None:
        return "MAX_ORDER is not known"
    if "pfn_valid()" in step and "pgmap" not in step and not has_generic_pfn_valid(memory.prog):
        return "this kernel has a pfn_valid() of its own"
    return None
