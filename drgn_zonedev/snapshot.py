# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Snapshot
--------

The structures that decide what a PFN is, read once, as arrays and plain data.

A running kernel moves while it is read. :func:`take_snapshot` reads everything
twice until two readings agree; what never agrees is marked as torn, and
everything that depends on it is unknown rather than wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from drgn import FaultError, Program, ProgramFlags

from drgn_zonedev.kernel.devres import dev_pagemap_devices
from drgn_zonedev.kernel.memory import (
    mem_hotplug_in_progress,
    memory_block_states,
    sections_per_block,
)
from drgn_zonedev.kernel.memremap import (
    dev_pagemap_claims,
    dev_pagemap_info,
    find_dev_pagemap,
    for_each_pgmap_array_entry,
)
from drgn_zonedev.kernel.mmzone import (
    Geometry,
    SectionFlags,
    Sections,
    section_flags,
    sections,
    sparsemem_geometry,
    zone_device_spans,
)
from drgn_zonedev.model import Pgmap, PgmapRange, Unjudged

__all__ = ("Snapshot", "changed_since", "take_snapshot", "with_devices")

# Namespaces and memory blocks come and go in milliseconds, and a reading takes
# as long. Whoever changes something at every single try is out of reach.
_MAX_TRIES = 5


@dataclass(frozen=True)
class Snapshot:
    """
    One consistent reading.

    ``stray_claims`` are PFNs that ``pgmap_array`` holds a pgmap for, by its
    address, which cannot be read or has its ranges elsewhere.
    ``torn_sections`` (section numbers) and ``torn_pgmaps`` (addresses) changed
    under the reader's hands at every try. ``torn_spans`` are the PFNs of both,
    before and after: sorted and disjoint.
    """

    geometry: Geometry
    flags: SectionFlags
    sections: Sections
    pgmaps: tuple[Pgmap, ...]
    memory_blocks: dict[int, tuple[int, str]]
    sections_per_block: int
    zone_device_spans: dict[int, tuple[int, int]]
    hotplug_in_progress: bool
    unjudged: tuple[Unjudged, ...]
    stray_claims: tuple[tuple[int, PgmapRange], ...] = ()
    torn_sections: frozenset[int] = frozenset()
    torn_pgmaps: frozenset[int] = frozenset()
    torn_spans: tuple[tuple[int, int], ...] = ()


def take_snapshot(prog: Program) -> Snapshot:
    """
    Read the sections, pgmaps and memory blocks of a program.

    :raises LookupError: if the debugging information lacks one of them, or the
        kernel was built without ``CONFIG_SPARSEMEM`` or ``CONFIG_ZONE_DEVICE``
    """
    snapshot = _read(prog)
    if not prog.flags & ProgramFlags.IS_LIVE:
        return snapshot
    for _ in range(_MAX_TRIES):
        before, snapshot = snapshot, _read(prog)
        torn_sections = _changed_sections(before, snapshot)
        torn_pgmaps = _changed_pgmaps(before, snapshot)
        if not torn_sections and not torn_pgmaps:
            return snapshot
    return dataclasses.replace(
        snapshot,
        torn_sections=torn_sections,
        torn_pgmaps=torn_pgmaps,
        torn_spans=_torn_spans(before, snapshot, torn_sections, torn_pgmaps),
    )


def _torn_spans(
    before: Snapshot, after: Snapshot, torn_sections: frozenset[int], torn_pgmaps: frozenset[int]
) -> tuple[tuple[int, int], ...]:
    pages = after.geometry.pages_per_section
    spans = [(nr * pages, (nr + 1) * pages) for nr in torn_sections]
    for pgmap in before.pgmaps + after.pgmaps:
        if pgmap.address in torn_pgmaps:
            spans += [(r.start_pfn, min(r.end_pfn, after.geometry.max_pfn)) for r in pgmap.ranges]
    union: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if union and start <= union[-1][1]:
            start, end = union[-1][0], max(end, union.pop()[1])
        if start < end:
            union.append((start, end))
    return tuple(union)


def changed_since(prog: Program, snapshot: Snapshot) -> frozenset[int]:
    """
    Read again, and tell which pgmaps came, went or changed.

    :return: Addresses of ``struct dev_pagemap``.
    """
    return _changed_pgmaps(snapshot, _read(prog))


def with_devices(prog: Program, pgmaps: tuple[Pgmap, ...]) -> tuple[Pgmap, ...]:
    """Name the devices that pgmaps belong to. This is for people: nothing is decided by it."""
    devices = dev_pagemap_devices(prog, frozenset(p.address for p in pgmaps))
    return tuple(dataclasses.replace(p, device=devices.get(p.address)) for p in pgmaps)


def _read(prog: Program) -> Snapshot:
    pgmaps, stray_claims, unjudged = _read_pgmaps(prog)
    return Snapshot(
        geometry=sparsemem_geometry(prog),
        flags=section_flags(prog),
        sections=sections(prog),
        pgmaps=pgmaps,
        memory_blocks=memory_block_states(prog),
        sections_per_block=sections_per_block(prog),
        zone_device_spans=zone_device_spans(prog),
        hotplug_in_progress=mem_hotplug_in_progress(prog),
        unjudged=unjudged,
        stray_claims=stray_claims,
    )


_PgmapReading = tuple[tuple[Pgmap, ...], tuple[tuple[int, PgmapRange], ...], tuple[Unjudged, ...]]


def _read_pgmaps(prog: Program) -> _PgmapReading:
    pgmaps: dict[int, Pgmap] = {}
    strays: dict[int, str] = {}
    for pfn, pgmap in for_each_pgmap_array_entry(prog):
        address = pgmap.value_()
        if address in strays:
            continue
        try:
            if address not in pgmaps:
                pgmaps[address] = dev_pagemap_info(pgmap)
        except (FaultError, ValueError) as e:
            strays[address] = f"pgmap_array holds {address:#x}, which is no usable pgmap: {e}"
            continue
        if not _covers(pgmaps[address], pfn):
            strays[address] = f"pgmap_array holds pgmap {address:#x}, whose ranges lie elsewhere"
    for address, known in pgmaps.items():
        if address not in strays and _claimed_beyond(prog, known):
            strays[address] = f"pgmap_array holds pgmap {address:#x}, whose ranges lie elsewhere"
    claims = [
        (address, part)
        for address in strays
        for start, end in dev_pagemap_claims(prog, address)
        for part in _outside(PgmapRange(start, end), pgmaps.get(address))
    ]
    unjudged = [Unjudged(c.start_pfn, c.end_pfn, strays[address]) for address, c in claims]
    return tuple(pgmaps.values()), tuple(claims), tuple(unjudged)


def _claimed_beyond(prog: Program, pgmap: Pgmap) -> bool:
    # Whether pgmap_array holds the pgmap right in front of, or behind, its ranges.
    borders = [pfn for r in pgmap.ranges for pfn in (r.start_pfn - 1, r.end_pfn)]
    return any(
        find_dev_pagemap(prog, pfn).value_() == pgmap.address
        for pfn in borders
        if 0 <= pfn < 1 << 64 and not _covers(pgmap, pfn)
    )


def _outside(claim: PgmapRange, pgmap: Pgmap | None) -> Iterator[PgmapRange]:
    # The parts of a claim that are not in the pgmap's ranges.
    start = claim.start_pfn
    ranges = sorted(pgmap.ranges, key=lambda r: r.start_pfn) if pgmap else []
    for range_ in ranges:
        if start < min(range_.start_pfn, claim.end_pfn):
            yield PgmapRange(start, min(range_.start_pfn, claim.end_pfn))
        start = max(start, min(range_.end_pfn, claim.end_pfn))
    if start < claim.end_pfn:
        yield PgmapRange(start, claim.end_pfn)


def _covers(pgmap: Pgmap, pfn: int) -> bool:
    return any(r.start_pfn <= pfn < r.end_pfn for r in pgmap.ranges)


def _changed_sections(a: Snapshot, b: Snapshot) -> frozenset[int]:
    rows_a, rows_b = _section_rows(a.sections), _section_rows(b.sections)
    differing = rows_a.symmetric_difference(rows_b)
    return frozenset(row[0] for row in differing)


def _section_rows(s: Sections) -> set[tuple[int, ...]]:
    columns = [s.nr.astype(np.uint64), s.word, s.usage, *s.subsection_map.T]
    return set(zip(*(column.tolist() for column in columns)))


def _changed_pgmaps(a: Snapshot, b: Snapshot) -> frozenset[int]:
    # The reference count moves all the time and decides nothing.
    def essence(p: Pgmap) -> Pgmap:
        return dataclasses.replace(p, ref=dataclasses.replace(p.ref, count=None, mode=None))

    differing = {essence(p) for p in a.pgmaps} ^ {essence(p) for p in b.pgmaps}
    return frozenset(p.address for p in differing)
