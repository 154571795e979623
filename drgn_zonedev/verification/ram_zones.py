# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Zones of RAM
------------

Which zones and nodes pages of RAM may say that they are in, by the spans of the zones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from drgn import FaultError, Program

from drgn_zonedev.kernel.masks import online_nodes
from drgn_zonedev.kernel.memmap import PageLayout, page_layout
from drgn_zonedev.kernel.page_kinds import kinds_of_ram
from drgn_zonedev.kernel.zones import Zone, Zones
from drgn_zonedev.verification.page_access import access_marks
from drgn_zonedev.verification.promises import RamPages, zone_id

__all__ = ("knows_zones", "ram_promises")


def knows_zones(zones: Zones | None) -> bool:
    """Return whether all zones are known, so that a page can be in none of them."""
    return zones is not None and not zones.unreadable and not zones.spanless


def ram_promises(
    prog: Program, zones: Zones | None, start_pfn: int, end_pfn: int
) -> Iterator[RamPages]:
    """
    Get what is promised of pages of RAM: a promise for each part that the same zones span.
    Nothing around the pages may be looked at.

    :param zones: ``None`` if the debugging information does not have them.
    :raises LookupError: if the debugging information does not have what is needed
    """
    layout, kinds, marks = page_layout(prog), kinds_of_ram(prog), access_marks(prog)
    per_frame = max(prog["PAGE_SIZE"].value_() // layout.size, 1)
    known = knows_zones(zones)
    found = [z for z in zones.found if z.number != layout.zone_device] if zones else []
    nodes = _online_nodes(prog, found)
    numbers = prog.constant("__MAX_NR_ZONES").value_()
    for part_start, part_end in _parts(found, end_pfn):
        start, end = max(part_start, start_pfn), min(part_end, end_pfn)
        if start >= end:
            continue
        spanning = [z for z in found if z.start_pfn <= start and end <= z.end_pfn]
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


def _parts(zones: Sequence[Zone], end_pfn: int) -> Iterator[tuple[int, int]]:
    # Between the borders of zones, up to the first one after the end.
    borders = sorted({border for z in zones for border in (z.start_pfn, z.end_pfn)} - {0})
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
