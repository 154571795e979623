# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Memory Blocks
-------------

Checks the zones that memory blocks name, and where memory blocks store their memmap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from drgn import offsetof, sizeof

from drgn_zonedev.consistency.claims import Check, Scene
from drgn_zonedev.consistency.ram import hot_added_ram
from drgn_zonedev.findings import make_finding
from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.kernel.memory_blocks import MEMMAP_UNREADABLE
from drgn_zonedev.kernel.records import read_records
from drgn_zonedev.kernel.zones import Zone, zones
from drgn_zonedev.model import Evidence, Finding, Unjudged
from drgn_zonedev.util.sets import containing, sorted_set
from drgn_zonedev.vmcore.pagetables import UNMAPPED, page_frames, walks_in_bulk

__all__ = ("BLOCK_CHECKS",)

# Pages to translate at once: the memmap of 8 GiB on most machines.
_BLOCKS_AT_ONCE = 64


@dataclass(frozen=True)
class _Blocks:
    """
    Memory blocks at PFNs where memory can be, a row per block; ``hot_added`` are those that did not
    exist at boot, and do not overlap a device.
    """

    scene: Scene

    @property
    def pages(self) -> int:
        geometry = self.scene.snapshot.geometry
        return geometry.pages_per_section * self.scene.snapshot.sections_per_block

    @cached_property
    def rows(self) -> np.ndarray:
        ids = self.scene.snapshot.memory_blocks.id
        first, end = (pfn // self.pages for pfn in self._focus)
        return np.flatnonzero((ids >= np.uint64(first)) & (ids < np.uint64(end)))

    @property
    def _focus(self) -> tuple[int, int]:
        # Up to the end of a block.
        start, end = self.scene.focus
        end = min(end + self.pages - 1, self.scene.snapshot.geometry.max_pfn)
        return min(start, end), end

    @cached_property
    def start(self) -> np.ndarray:
        return self.scene.snapshot.memory_blocks.id[self.rows].astype(np.int64) * self.pages

    @cached_property
    def address(self) -> np.ndarray:
        return self.scene.snapshot.memory_blocks.address[self.rows]

    @cached_property
    def memmap_pages(self) -> np.ndarray:
        return self.scene.snapshot.memory_blocks.memmap_pages[self.rows]

    @cached_property
    def online(self) -> np.ndarray:
        blocks = self.scene.snapshot.memory_blocks
        named = np.array([name == "MEM_ONLINE" for name in blocks.state_names], bool)
        online: np.ndarray = named[blocks.state[self.rows]]
        return online

    @cached_property
    def hot_added(self) -> np.ndarray:
        spans = np.array(hot_added_ram(self.scene), np.int64).reshape(-1, 2)
        inside = containing(self.start, spans[:, 0], spans[:, 1])
        ends = np.append(spans[:, 1], 0)[inside]
        return (inside >= 0) & (self.start + self.pages <= ends)

    def finding(self, slug: str, row: int, *facts: Evidence) -> Finding:
        start = int(self.start[row])
        case = self.scene.case_at(start)
        return make_finding(slug, case, start, start + self.pages, evidence=facts)

    def member(self, row: int, member: str, value: int, note: str = "") -> Evidence:
        offset = offsetof(self.scene.prog.type("struct memory_block"), member)
        what = f"memory_blocks[{int(self.start[row]) // self.pages}]->{member}"
        return Evidence(what, int(self.address[row]) + offset, value, note=note)


def _zones_of_blocks(scene: Scene) -> Iterator[Finding | Unjudged]:
    # Without CONFIG_MEMORY_HOTPLUG, the debugging information does not have their type either.
    if not len(scene.snapshot.memory_blocks):
        return
    # Since Linux kernel commit 395f6081bad4 ("drivers/base/memory: determine and store zone for
    # single-zone memory blocks") (in v5.18).
    block_type = scene.prog.type("struct memory_block")
    read = scene.snapshot.zones or zones(scene.prog)
    if not block_type.has_member("zone") or read.unreadable or scene.snapshot.hotplug_in_progress:
        return
    blocks = _Blocks(scene)
    word, readable = _column(blocks, "zone")
    nid, has_nid = _column(blocks, "nid")
    known = readable & has_nid & blocks.online
    for address in sorted_set(word[known]).tolist():
        rows = np.flatnonzero(known & (word == np.uint64(address)))
        zone = next((z for z in read.found if z.address == address), None)
        for row in rows[_misplaced(blocks, rows, zone, nid[rows])].tolist():
            facts = [blocks.member(row, "zone", address), blocks.member(row, "nid", int(nid[row]))]
            if zone:
                span = f"[{zone.start_pfn:#x}, {zone.end_pfn:#x}) of node {zone.nid}"
                facts.append(Evidence("struct zone", zone.address, note=span))
            yield blocks.finding("block-zone", row, *facts)
    yield from _unreadable(blocks, np.flatnonzero(blocks.online & ~(readable & has_nid)))


def _misplaced(blocks: _Blocks, rows: np.ndarray, zone: Zone | None, nid: np.ndarray) -> np.ndarray:
    start, hot_added = blocks.start[rows], blocks.hot_added[rows]
    end = start + blocks.pages
    if zone is None:
        # A block that existed at boot and is in several zones names none.
        named = _column(blocks, "zone")[0][rows] != 0
        return hot_added | named
    whole = (start >= zone.start_pfn) & (end <= zone.end_pfn) & (nid == np.uint64(zone.nid))
    part = (start < zone.end_pfn) & (end > zone.start_pfn)
    return np.where(hot_added, ~whole, ~part)


def _column(blocks: _Blocks, member: str) -> tuple[np.ndarray, np.ndarray]:
    prog = blocks.scene.prog
    block_type = prog.type("struct memory_block")
    size = sizeof(block_type.member(member).type)
    places = blocks.address + np.uint64(offsetof(block_type, member))
    raw, readable = read_records(prog, places, size)
    return raw.view(f"<u{size}")[:, 0].astype(np.uint64), readable


def _unreadable(blocks: _Blocks, rows: np.ndarray) -> Iterator[Unjudged]:
    if len(rows):
        address = int(blocks.address[rows[0]])
        reason = f"the zone of memory cannot be read (struct memory_block at {address:#x})"
        end = int(blocks.start[rows[-1]]) + blocks.pages
        yield Unjudged(int(blocks.start[rows[0]]), end, reason, address)


def _memmaps_of_blocks(scene: Scene) -> Iterator[Finding | Unjudged]:
    blocks, size = _Blocks(scene), page_layout(scene.prog).size
    page_size = 1 << scene.snapshot.geometry.page_shift
    rows = np.flatnonzero(blocks.hot_added & (blocks.memmap_pages != MEMMAP_UNREADABLE))
    # Otherwise, the memmaps of two blocks share a page, and neither stores its own.
    if blocks.pages * size % page_size or scene.snapshot.hotplug_in_progress:
        return
    per_block = blocks.pages * size // page_size
    for group in _neighbours(blocks, rows):
        first = page_layout(scene.prog).page_address(int(blocks.start[group[0]])) // page_size
        pages = np.arange(first, first + len(group) * per_block).reshape(len(group), per_block)
        if not walks_in_bulk(scene.prog):
            # Each page takes a walk of the page tables.
            pages = pages[:, [0, -1]]
        frames = _frames(scene, pages)
        if frames is None:
            return
        for i in np.flatnonzero(_elsewhere(blocks, group, frames)).tolist():
            yield _misstored(blocks, int(group[i]), pages[i], frames[i])


def _frames(scene: Scene, pages: np.ndarray) -> np.ndarray | None:
    parts = []
    for row in [pages.ravel()] if walks_in_bulk(scene.prog) else pages.reshape(-1, 1):
        part = page_frames(scene.prog, int(row[0]), int(row[-1]) + 1)
        if part is None:
            return None
        parts.append(part)
    return np.concatenate(parts).reshape(pages.shape)


def _neighbours(blocks: _Blocks, rows: np.ndarray) -> Iterator[np.ndarray]:
    apart = np.flatnonzero(np.diff(blocks.start[rows]) != blocks.pages) + 1
    for group in np.split(rows, apart) if len(rows) else []:
        for first in range(0, len(group), _BLOCKS_AT_ONCE):
            yield group[first : first + _BLOCKS_AT_ONCE]


def _elsewhere(blocks: _Blocks, rows: np.ndarray, frames: np.ndarray) -> np.ndarray:
    start, stored = blocks.start[rows][:, None], blocks.memmap_pages[rows][:, None]
    in_head = (frames >= start) & (frames < start + stored)
    in_block = (frames >= start) & (frames < start + blocks.pages)
    with_altmap = (stored[:, 0] > 0) & ((frames >= 0) & ~in_head).any(axis=1)
    # Hugetlb replaces single pages of the memmap by any other pages. Only a memmap that a hotplug
    # stored is contiguous.
    one_piece = (np.diff(frames, axis=1) == 1).all(axis=1)
    without = (stored[:, 0] == 0) & in_block.all(axis=1) & one_piece
    too_long = stored[:, 0] >= blocks.pages
    return with_altmap | without | too_long


def _misstored(blocks: _Blocks, row: int, pages: np.ndarray, frames: np.ndarray) -> Finding:
    block_type = blocks.scene.prog.type("struct memory_block")
    start, stored = int(blocks.start[row]), int(blocks.memmap_pages[row])
    outside = (frames >= 0) & ~((frames >= start) & (frames < start + stored))
    first = int(np.argmax(outside))
    address = int(pages[first]) << blocks.scene.snapshot.geometry.page_shift
    member = "altmap" if block_type.has_member("altmap") else "nr_vmemmap_pages"
    return blocks.finding(
        "block-memmap-elsewhere",
        row,
        Evidence(f"pages of {member} of the block", value=stored),
        _frame(address, int(frames[first])),
    )


def _frame(address: int, frame: int) -> Evidence:
    if frame < 0:
        note = (
            "not mapped, by the page tables" if frame == UNMAPPED else "its table is not readable"
        )
        return Evidence("page of the vmemmap", address, note=note)
    return Evidence("PFN of the vmemmap, by the page tables", address, frame)


BLOCK_CHECKS: tuple[Check, ...] = (_zones_of_blocks, _memmaps_of_blocks)
