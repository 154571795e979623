# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Unreadable Structures
---------------------

The structures of a snapshot that could not be read, what is not known without them, and
the addresses that could not be read: a structure can begin in a page that is in the dump
and end in one that is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from drgn import FaultError, Object, Program, sizeof

from drgn_zonedev.classification.unsupported import unsupported_memory
from drgn_zonedev.kernel.memory_blocks import MEMMAP_UNREADABLE
from drgn_zonedev.kernel.memremap import pgmap_ref
from drgn_zonedev.model import Unjudged
from drgn_zonedev.util.sets import sorted_set
from drgn_zonedev.vmcore.reads import SMALLEST_PAGE, first_unreadable

if TYPE_CHECKING:
    from drgn_zonedev.classification.snapshot import Snapshot

__all__ = ("bad_address", "unreadable_structures")


def bad_address(prog: Program, address: int, type_name: str) -> int:
    """
    Get the first address of a structure that cannot be read, or the address of the structure
    if all of it can be read but is invalid.
    """
    unreadable = first_unreadable(prog, address, sizeof(prog.type(type_name)))
    return address if unreadable is None else unreadable


def unreadable_structures(prog: Program, snapshot: Snapshot) -> Iterator[Unjudged]:
    """Report the structures of a snapshot that could not be read, or that nothing here knows."""
    yield from _nodes(prog, snapshot)
    yield from _sections(snapshot)
    yield from _usages(prog, snapshot)
    yield from _references(prog, snapshot)
    yield from _blocks(prog, snapshot)
    yield from _block_memmaps(prog, snapshot)
    yield from _zones(snapshot)
    yield from unsupported_memory(prog)


def _nodes(prog: Program, snapshot: Snapshot) -> Iterator[Unjudged]:
    pages = snapshot.geometry.pages_per_section * snapshot.sections_per_block
    arrays = (
        ("pgmap_array", snapshot.pgmap_array, 1),
        ("memory_blocks", snapshot.memory_blocks, pages),
    )
    for name, array, scale in arrays:
        for gap in array.gaps:
            start, end = gap.start * scale, min(gap.end * scale, snapshot.geometry.max_pfn)
            where = f" (struct xa_node at {gap.node:#x})" if gap.node else ""
            if start < end and gap.reason:
                reason = f"{name} cannot be read here: {gap.reason}{where}"
                if gap.node:
                    address = bad_address(prog, gap.node, "struct xa_node")
                else:
                    address = prog[name].address_
                yield Unjudged(start, end, reason, address)


def _sections(snapshot: Snapshot) -> Iterator[Unjudged]:
    pages = snapshot.geometry.pages_per_section
    for first, end, address in snapshot.sections.unreadable:
        reason = f"struct mem_section cannot be read (at {address:#x})"
        yield Unjudged(first * pages, end * pages, reason, address or None)


def _usages(prog: Program, snapshot: Snapshot) -> Iterator[Unjudged]:
    sections, pages = snapshot.sections, snapshot.geometry.pages_per_section
    crowded = np.flatnonzero(sections.crowded)
    if len(crowded):
        reason = "subsection_map changes more often than on any machine"
        yield Unjudged(
            int(sections.nr[crowded[0]]) * pages,
            (int(sections.nr[crowded[-1]]) + 1) * pages,
            f"{reason}: in {len(crowded)} sections, it is ignored as garbage",
        )
    unreadable = ~sections.usage_readable & ~sections.crowded
    rows = np.flatnonzero(unreadable & (sections.usage != 0))
    yield from _missing_together(
        prog,
        "subsection_map",
        "struct mem_section_usage",
        sections.nr[rows] * pages,
        sections.usage[rows],
        pages,
    )


def _missing_together(
    prog: Program,
    what: str,
    type_name: str,
    start_pfns: np.ndarray,
    addresses: np.ndarray,
    pages: int,
) -> Iterator[Unjudged]:
    # One report for neighbouring structures in the same page; each structure is about ``pages``
    # PFNs, which follow those of the one before.
    page = addresses // np.uint64(SMALLEST_PAGE)
    apart = (np.diff(start_pfns) != pages) | (page[1:] != page[:-1])
    rows = np.arange(len(addresses))
    for group in np.split(rows, np.flatnonzero(apart) + 1) if len(rows) else []:
        address = int(addresses[group[0]])
        yield Unjudged(
            int(start_pfns[group[0]]),
            int(start_pfns[group[-1]]) + pages,
            f"{what} cannot be read ({type_name} at {address:#x})",
            bad_address(prog, address, type_name),
        )


def _references(prog: Program, snapshot: Snapshot) -> Iterator[Unjudged]:
    for pgmap in snapshot.pgmaps:
        if pgmap.ref.state != "unreadable":
            continue
        try:
            ref = pgmap_ref(Object(prog, "struct dev_pagemap *", pgmap.address)).value_()
            address = bad_address(prog, ref, "struct percpu_ref")
        except (AttributeError, FaultError, LookupError):
            # Missing debugging information is reported once, for all pgmaps.
            continue
        reason = f"the pgmap's reference cannot be read (struct percpu_ref at {ref:#x})"
        for range_ in pgmap.ranges:
            start, end = range_.start_pfn, min(range_.end_pfn, snapshot.geometry.max_pfn)
            if start < end:
                yield Unjudged(start, end, reason, address)


def _blocks(prog: Program, snapshot: Snapshot) -> Iterator[Unjudged]:
    # For online RAM, the sections say that it is online.
    blocks, per_block = snapshot.memory_blocks, snapshot.sections_per_block
    pages = snapshot.geometry.pages_per_section * per_block
    unreadable = blocks.state == len(blocks.state_names) - 1
    rows = np.flatnonzero(unreadable & np.isin(blocks.id, _blocks_not_online(snapshot)))
    yield from _missing_together(
        prog,
        "the state of memory",
        "struct memory_block",
        blocks.id[rows].astype(np.int64) * pages,
        blocks.address[rows],
        pages,
    )


def _block_memmaps(prog: Program, snapshot: Snapshot) -> Iterator[Unjudged]:
    blocks = snapshot.memory_blocks
    pages = snapshot.geometry.pages_per_section * snapshot.sections_per_block
    has_state = blocks.state != len(blocks.state_names) - 1
    rows = np.flatnonzero(has_state & (blocks.memmap_pages == MEMMAP_UNREADABLE))
    yield from _missing_together(
        prog,
        "where a memory block stores its memmap",
        "struct memory_block",
        blocks.id[rows].astype(np.int64) * pages,
        blocks.address[rows],
        pages,
    )


def _blocks_not_online(snapshot: Snapshot) -> np.ndarray:
    sections = snapshot.sections
    offline = (sections.word & np.uint64(snapshot.flags.online)) == 0
    return sorted_set(sections.nr[offline] // snapshot.sections_per_block).astype(np.uint64)


def _zones(snapshot: Snapshot) -> Iterator[Unjudged]:
    for nid, address in snapshot.unreadable_zones:
        reason = f"the zones of node {nid} cannot be read (at {address:#x}): its ZONE_DEVICE"
        yield Unjudged(0, 0, f"{reason} was not compared with anything", address)
        for start, end in _undecided_without_zones(snapshot):
            yield Unjudged(start, end, f"{reason} decides the case of this memory", address)


def _undecided_without_zones(snapshot: Snapshot) -> Iterator[tuple[int, int]]:
    # The altmap of a device that is being initialised, and sections where one was removed.
    for pgmap in snapshot.pgmaps:
        if pgmap.in_progress and pgmap.altmap and len(pgmap.ranges) == 1:
            range_ = pgmap.ranges[0]
            start = min(range_.start_pfn + pgmap.altmap.reserve, range_.end_pfn)
            yield start, min(range_.start_pfn + pgmap.altmap.offset, range_.end_pfn)
    sections, pages = snapshot.sections, snapshot.geometry.pages_per_section
    bits = np.uint64(snapshot.flags.early | snapshot.flags.taint)
    left = (sections.word & bits == bits) & sections.mixed & bool(snapshot.flags.taint)
    for nr in sections.nr[left].tolist():
        yield nr * pages, (nr + 1) * pages
