# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Free Areas
----------

Compares each zone's count of free blocks with the blocks found among its struct pages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from drgn import FaultError, Object, Program, ProgramFlags, offsetof, sizeof

from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.findings import make_finding
from drgn_zonedev.kernel.free_area import count_free_blocks, spin_is_locked, zone_nr_free
from drgn_zonedev.kernel.memmap import Pages, page_layout, read_pages
from drgn_zonedev.kernel.zones import Zone, zone_type_name, zones
from drgn_zonedev.model import Case, Evidence, Finding, FreeBlocks, Range, Unjudged
from drgn_zonedev.util.intervals import Span, intersection, union

__all__ = ("FreeAreas", "compare_free_areas")

# Of a running kernel, blocks come and go while they are counted: these are counted again.
_RECOUNTS = 2

_Blocks = Mapping[tuple[int, int, int], int]


@dataclass(frozen=True)
class FreeAreas:
    """The result of the comparison."""

    findings: tuple[Finding, ...] = ()
    unjudged: tuple[Unjudged, ...] = ()


def compare_free_areas(
    prog: Program, snapshot: Snapshot, ranges: Sequence[Range], blocks: FreeBlocks
) -> FreeAreas:
    """
    Compare the free blocks that zones count with those that were found. A zone is left out if
    not all of its memory was read, which is reported where it could not be read.

    :raises LookupError: if the debugging information does not have free areas, or locks
    """
    results = list(_compare_zones(prog, snapshot, ranges, blocks))
    return FreeAreas(
        tuple(r for r in results if isinstance(r, Finding)),
        tuple(r for r in results if isinstance(r, Unjudged)),
    )


def _compare_zones(
    prog: Program, snapshot: Snapshot, ranges: Sequence[Range], blocks: FreeBlocks
) -> Iterator[Finding | Unjudged]:
    if snapshot.hotplug_in_progress:
        return
    lost, device = _lost(ranges, blocks), page_layout(prog).zone_device
    for zone in (snapshot.zones or zones(prog)).found:
        span = zone.start_pfn, zone.end_pfn
        if zone.number == device or next(intersection(span, lost), None):
            continue
        try:
            yield from _compare(prog, zone, ranges, blocks.number)
        except FaultError as e:
            reason = f"free_area of {_name(prog, zone)} cannot be read (at {e.address:#x})"
            yield Unjudged(*span, reason, zone.address)


def _lost(ranges: Sequence[Range], blocks: FreeBlocks) -> tuple[Span, ...]:
    # Where there may be free blocks that were not counted.
    unsure = (r for r in ranges if r.case in (Case.UNKNOWN, Case.INITIALIZING))
    return union((*blocks.unread, *((r.start_pfn, r.end_pfn) for r in unsure)))


def _compare(
    prog: Program, zone: Zone, ranges: Sequence[Range], blocks: _Blocks
) -> Iterator[Finding | Unjudged]:
    span = zone.start_pfn, zone.end_pfn
    held = spin_is_locked(Object(prog, "struct zone", address=zone.address).lock)
    if held is not False:
        state = "is held" if held else "is of an unknown kind"
        reason = f"zone->lock of {_name(prog, zone)} {state}: its free_area may be changing"
        yield Unjudged(*span, reason, zone.address)
        return
    counted = zone_nr_free(prog, zone.address)
    found = _found(zone, blocks, len(counted))
    if counted == found:
        return
    if not prog.flags & ProgramFlags.IS_LIVE:
        yield _finding(prog, zone, counted, found)
        return
    lasts = _lasts(prog, zone, ranges, _difference(counted, found))
    if lasts is None:
        reason = f"free_area of {_name(prog, zone)} changed each time that it was compared"
        yield Unjudged(*span, reason, zone.address)
    elif lasts:
        yield _finding(prog, zone, counted, found)


def _found(zone: Zone, blocks: _Blocks, orders: int) -> tuple[int, ...]:
    return tuple(blocks.get((zone.nid, zone.number, order), 0) for order in range(orders))


def _lasts(
    prog: Program,
    zone: Zone,
    ranges: Sequence[Range],
    wrong: tuple[int, ...],
) -> bool | None:
    # Whether a zone keeps a difference, or None if its counts keep changing.
    for _ in range(_RECOUNTS):
        before = zone_nr_free(prog, zone.address)
        found = _found(zone, _recount(prog, zone, ranges), len(before))
        if before != zone_nr_free(prog, zone.address):
            return None
        difference = _difference(before, found)
        if not any(difference):
            return False
        if difference != wrong:
            return None
    return True


def _difference(counted: tuple[int, ...], found: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a - b for a, b in zip(counted, found))


def _recount(prog: Program, zone: Zone, ranges: Sequence[Range]) -> _Blocks:
    online = union((r.start_pfn, r.end_pfn) for r in ranges if r.case is Case.ONLINE)
    number: Counter[tuple[int, int, int]] = Counter()
    for start, end in intersection((zone.start_pfn, zone.end_pfn), online):
        for pages in read_pages(prog, start, end):
            if isinstance(pages, Pages):
                number.update(count_free_blocks(prog, pages))
    return number


def _finding(
    prog: Program, zone: Zone, counted: tuple[int, ...], found: tuple[int, ...]
) -> Finding:
    wrong = [order for order, number in enumerate(_difference(counted, found)) if number]
    return make_finding(
        "free-area-count",
        Case.ONLINE,
        zone.start_pfn,
        zone.end_pfn,
        count=sum(abs(counted[order] - found[order]) << order for order in wrong),
        detail=f"order {', '.join(map(str, wrong))}",
        evidence=tuple(_nr_free(prog, zone, n, counted[n], found[n]) for n in wrong),
    )


def _nr_free(prog: Program, zone: Zone, order: int, counted: int, found: int) -> Evidence:
    member = prog.type("struct zone").member("free_area")
    area = member.type.type
    address = zone.address + member.offset + order * sizeof(area) + offsetof(area, "nr_free")
    what = f"{_name(prog, zone)}.free_area[{order}].nr_free"
    return Evidence(what, address, counted, found, note="expected: blocks with PageBuddy()")


def _name(prog: Program, zone: Zone) -> str:
    return f"NODE_DATA({zone.nid})->node_zones[{zone_type_name(prog, zone.number)}]"
