# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Zones of RAM
------------

Which zones and nodes pages of RAM may say that they are in, by the spans of the zones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from drgn import FaultError, Program

from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.kernel.masks import online_nodes
from drgn_zonedev.kernel.memmap import PageLayout, Pages, page_layout
from drgn_zonedev.kernel.memory_blocks import memory_block_zones
from drgn_zonedev.kernel.page_kinds import kinds_of_ram
from drgn_zonedev.kernel.zones import Zone, Zones
from drgn_zonedev.verification.compound_links import words_of_pages
from drgn_zonedev.verification.page_access import access_marks
from drgn_zonedev.verification.promises import RamPages, zone_id

__all__ = ("BlockZone", "hot_added_zones", "knows_zones", "ram_promises")

BlockZone = tuple[int, int, int]
"""A half-open range of PFNs of hotplugged memory blocks, and the address of their zone."""


def knows_zones(zones: Zones | None) -> bool:
    """Return whether all zones are known, so that a page can be in none of them."""
    return zones is not None and not zones.unreadable and not zones.spanless


def hot_added_zones(prog: Program, snapshot: Snapshot) -> tuple[BlockZone, ...]:
    """
    Get the zones of online memory blocks that were hotplugged, if zones overlap: online_pages()
    puts all of their pages in one zone. Blocks are left out if none of their pages seems to be in
    it: then, they are wrong, not their pages.
    """
    blocks, per_block = snapshot.memory_blocks, snapshot.sections_per_block
    device = page_layout(prog).zone_device
    of_ram = [z for z in (snapshot.zones.found if snapshot.zones else ()) if z.number != device]
    if snapshot.hotplug_in_progress or not len(blocks) or not _overlap(of_ram):
        return ()
    zones = {z.address: z for z in of_ram}
    early = (snapshot.sections.word & np.uint64(snapshot.flags.early)) != 0
    of_boot = np.unique(snapshot.sections.nr[early] // per_block).astype(np.uint64)
    online = np.array([name == "MEM_ONLINE" for name in (*blocks.state_names, "")], bool)
    address = memory_block_zones(prog, blocks)
    known = np.isin(address, np.array([*zones], np.uint64)) & ~np.isin(blocks.id, of_boot)
    rows = np.flatnonzero(known & online[blocks.state])
    pages = snapshot.geometry.pages_per_section * per_block
    starts = blocks.id[rows].astype(np.int64) * pages
    named = [zones[each] for each in address[rows].tolist()]
    found: list[BlockZone] = []
    for row in np.flatnonzero(_are_in(prog, starts, pages, named)).tolist():
        start, zone = int(starts[row]), named[row].address
        if found and found[-1][1:] == (start, zone):
            start = found.pop()[0]
        found.append((start, int(starts[row]) + pages, zone))
    return tuple(found)


def _overlap(zones: Sequence[Zone]) -> bool:
    spans = sorted((z.start_pfn, z.end_pfn) for z in zones)
    return any(end > start for (_, end), (start, _) in zip(spans, spans[1:]))


def _are_in(prog: Program, starts: np.ndarray, pages: int, named: Sequence[Zone]) -> np.ndarray:
    # Whether the first page of each block is in its zone, or the last one, or one between them.
    layout, samples = page_layout(prog), np.array([0, pages // 2, pages - 1])
    words, readable = words_of_pages(prog, layout, (starts[:, None] + samples).ravel())
    sampled = Pages(0, len(words), words, layout)
    nid, number = (
        np.repeat([(z.nid, z.number) for z in named], len(samples), axis=0).reshape(-1, 2).T
    )
    right = readable & (sampled.node == nid) & (sampled.zone == number)
    confirmed: np.ndarray = right.reshape(-1, len(samples)).any(axis=1)
    return confirmed


def ram_promises(
    prog: Program,
    zones: Zones | None,
    start_pfn: int,
    end_pfn: int,
    blocks: Sequence[BlockZone] = (),
) -> Iterator[RamPages]:
    """
    Get what is promised of pages of RAM: a promise for each part that the same zones span.
    Nothing around the pages may be looked at.

    :param zones: ``None`` if the debugging information does not have them.
    :param blocks: From :func:`hot_added_zones()`, for where zones overlap.
    :raises LookupError: if the debugging information does not have what is needed
    """
    layout, kinds, marks = page_layout(prog), kinds_of_ram(prog), access_marks(prog)
    per_frame = max(prog["PAGE_SIZE"].value_() // layout.size, 1)
    known = knows_zones(zones)
    found = [z for z in zones.found if z.number != layout.zone_device] if zones else []
    nodes = _online_nodes(prog, found)
    numbers = prog.constant("__MAX_NR_ZONES").value_()
    for part_start, part_end in _parts(found, blocks, end_pfn):
        start, end = max(part_start, start_pfn), min(part_end, end_pfn)
        if start >= end:
            continue
        spanning = [z for z in found if z.start_pfn <= start and end <= z.end_pfn]
        if len(spanning) > 1:
            spanning = _only_zone(spanning, blocks, start, end)
        allowed = tuple(zone_id(layout, z.nid, z.number) for z in spanning)
        holes = _hole_zones(layout, found, nodes, numbers, start)
        yield RamPages(
            start_pfn=start,
            end_pfn=end,
            around=(start, end),
            zone_end=part_end,
            kinds=kinds,
            zones=allowed if known else None,
            hole_zones=tuple(dict.fromkeys((*allowed, *holes))) if known else None,
            nodes=nodes,
            pages_per_frame=per_frame,
            marks=marks,
        )


def _online_nodes(prog: Program, zones: Sequence[Zone]) -> tuple[int, ...]:
    try:
        return tuple(online_nodes(prog))
    except FaultError:
        return tuple(sorted({z.nid for z in zones}))


def _only_zone(
    spanning: list[Zone], blocks: Sequence[BlockZone], start: int, end: int
) -> list[Zone]:
    named = {zone for first, last, zone in blocks if first <= start and end <= last}
    return [z for z in spanning if z.address in named] or spanning


def _parts(
    zones: Sequence[Zone], blocks: Sequence[BlockZone], end_pfn: int
) -> Iterator[tuple[int, int]]:
    # Between the borders of zones, up to the first one after the end, and of blocks in several.
    found = {border for z in zones for border in (z.start_pfn, z.end_pfn)}
    for start, end, _ in blocks:
        if sum(z.start_pfn < end and start < z.end_pfn for z in zones) > 1:
            found |= {start, end}
    borders = sorted(found - {0})
    yield from zip([0, *borders], [*borders, max(end_pfn, *borders, 0) + 1])


def _hole_zones(
    layout: PageLayout, zones: Sequence[Zone], nodes: Sequence[int], numbers: int, pfn: int
) -> Iterator[int]:
    # init_unavailable_range() gives holes the zone and node of the memory behind them, or of
    # the last memory of the node.
    before = max((z.end_pfn for z in zones if z.end_pfn <= pfn), default=None)
    behind = min((z.start_pfn for z in zones if z.start_pfn > pfn), default=None)
    near = (z for z in zones if z.end_pfn == before or z.start_pfn == behind)
    yield from (zone_id(layout, z.nid, z.number) for z in near)
    # Where there are as many zones as fit, __MAX_NR_ZONES would look like zone 0.
    if numbers < 1 << layout.zones_shift:
        others = (number for number in range(numbers) if number != layout.zone_device)
        yield from (zone_id(layout, nid, number) for number in others for nid in nodes)
