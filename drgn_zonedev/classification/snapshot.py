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
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
from drgn import FaultError, Object, Program, ProgramFlags

from drgn_zonedev.classification.missing_debuginfo import debug_info, optional, unless_told
from drgn_zonedev.classification.unreadable import bad_address, unread_structures
from drgn_zonedev.kernel.devres import dev_pagemap_devices
from drgn_zonedev.kernel.memory_blocks import (
    MemoryBlocks,
    mem_hotplug_in_progress,
    memory_blocks,
    no_memory_blocks,
    sections_per_block,
)
from drgn_zonedev.kernel.memremap import dev_pagemap_info, need_percpu_ref, pgmap_array_entries
from drgn_zonedev.kernel.mmzone import (
    Geometry,
    SectionFlags,
    section_flags,
    sparsemem_geometry,
)
from drgn_zonedev.kernel.predicates import Predicates
from drgn_zonedev.kernel.sections import Sections, sections
from drgn_zonedev.kernel.xarray import XArrayEntries
from drgn_zonedev.kernel.zones import read_zone_device_spans
from drgn_zonedev.model import Pgmap, PgmapRange, Unjudged
from drgn_zonedev.util.intervals import Span, intersection, union

__all__ = ("Changes", "Snapshot", "changed_since", "take_snapshot", "with_devices")

# Namespaces and memory blocks come and go in milliseconds, and a reading takes
# as long. Whoever changes something at every single try is out of reach.
_MAX_TRIES = 5

# Of all pgmaps together. Those of a damaged kernel can each claim thousands.
_MAX_RANGES = 1 << 15


@dataclass(frozen=True)
class Snapshot:
    """
    One consistent reading.

    ``stray_claims`` are PFNs that ``pgmap_array`` holds a pgmap for, by its
    address, which cannot be read or has its ranges elsewhere.
    ``torn_sections`` (section numbers) and ``torn_pgmaps`` (addresses) changed
    under the reader's hands at every try. ``torn_spans`` are the PFNs of both,
    before and after. ``retries`` is how many readings did not agree with the one
    before. ``pgmap_array_gaps`` and ``memory_block_gaps`` are the PFNs that the two
    arrays could not be read for, and ``unread_zones`` the nodes whose zones could
    not be read, with the address that faulted. Spans are sorted and disjoint.
    """

    geometry: Geometry
    flags: SectionFlags
    sections: Sections
    pgmap_array: XArrayEntries
    pgmaps: tuple[Pgmap, ...]
    memory_blocks: MemoryBlocks
    sections_per_block: int
    zone_device_spans: dict[int, tuple[int, int]]
    hotplug_in_progress: bool
    unjudged: tuple[Unjudged, ...]
    stray_claims: tuple[tuple[int, PgmapRange], ...] = ()
    torn_sections: frozenset[int] = frozenset()
    torn_pgmaps: frozenset[int] = frozenset()
    torn_spans: tuple[tuple[int, int], ...] = ()
    retries: int = 0
    knows_spans: bool = True
    unread_zones: tuple[tuple[int, int], ...] = ()

    def is_told(self, start_pfn: int, end_pfn: int) -> bool:
        """Return whether all of a range is in something that could not be judged."""
        starts, ends = self._told
        i = bisect_right(starts, start_pfn)
        return i > 0 and ends[i - 1] >= end_pfn

    @cached_property
    def _told(self) -> tuple[list[int], list[int]]:
        # Where they start, and the last end of all that start no later.
        spans = sorted((u.start_pfn, u.end_pfn) for u in self.unjudged)
        return [a for a, _ in spans], list(accumulate((b for _, b in spans), max))

    @property
    def pgmap_array_gaps(self) -> tuple[tuple[int, int], ...]:
        return union((gap.start, gap.end) for gap in self.pgmap_array.gaps)

    @property
    def memory_block_gaps(self) -> tuple[tuple[int, int], ...]:
        pages = self.geometry.pages_per_section * self.sections_per_block
        return union((gap.start * pages, gap.end * pages) for gap in self.memory_blocks.gaps)

    def predicates(self, pfn: np.ndarray) -> Predicates:
        """What the kernel's predicates say of PFNs."""
        return Predicates(self.flags, self.sections, self.pgmaps, pfn)


@dataclass(frozen=True)
class Changes:
    """
    What differs between two readings: section numbers, addresses of pgmaps, and
    the PFNs of both, before and after, sorted and disjoint.
    """

    sections: frozenset[int]
    pgmaps: frozenset[int]
    spans: tuple[tuple[int, int], ...]

    def __bool__(self) -> bool:
        return bool(self.sections or self.pgmaps)


def take_snapshot(prog: Program) -> Snapshot:
    """
    Read the sections, pgmaps and memory blocks of a program.

    :raises LookupError: if the debugging information lacks one of them, or the
        kernel was built without ``CONFIG_SPARSEMEM`` or ``CONFIG_ZONE_DEVICE``
    """
    if not prog.flags & ProgramFlags.IS_LIVE:
        return _read(prog)
    snapshot = _read_moving(prog)
    for retries in range(_MAX_TRIES):
        before, snapshot = snapshot, _read_moving(prog)
        # A section that was being added when it was read looks abandoned if that
        # was over when the lock was.
        busy = before.hotplug_in_progress or snapshot.hotplug_in_progress
        changes = _changes(before, snapshot)
        # A node that was freed while it was read leaves a gap.
        gaps = snapshot.pgmap_array.gaps or snapshot.memory_blocks.gaps
        if not changes and (not gaps or retries == _MAX_TRIES - 1):
            return dataclasses.replace(snapshot, hotplug_in_progress=busy, retries=retries)
    return dataclasses.replace(
        snapshot,
        hotplug_in_progress=busy,
        torn_sections=changes.sections,
        torn_pgmaps=changes.pgmaps,
        torn_spans=changes.spans,
        retries=_MAX_TRIES,
    )


def _read_moving(prog: Program) -> Snapshot:
    # A structure that goes away while it is followed leads anywhere.
    for _ in range(_MAX_TRIES):
        try:
            return _read(prog)
        except FaultError as e:
            fault = e
    raise fault


def _changes(before: Snapshot, after: Snapshot) -> Changes:
    sections = _changed_sections(before, after) | _sections_of_changed_blocks(before, after)
    pgmaps = _changed_pgmaps(before, after)
    return Changes(sections, pgmaps, _changed_spans(before, after, sections, pgmaps))


def _changed_spans(
    before: Snapshot, after: Snapshot, sections: frozenset[int], pgmaps: frozenset[int]
) -> tuple[tuple[int, int], ...]:
    pages = after.geometry.pages_per_section
    spans = [(nr * pages, (nr + 1) * pages) for nr in sections]
    for pgmap in before.pgmaps + after.pgmaps:
        if pgmap.address in pgmaps:
            spans += [(r.start_pfn, min(r.end_pfn, after.geometry.max_pfn)) for r in pgmap.ranges]
    return union(spans)


def changed_since(prog: Program, snapshot: Snapshot) -> Changes:
    """Read again, and tell what came, went or changed."""
    return _changes(snapshot, _read_moving(prog))


def with_devices(prog: Program, pgmaps: tuple[Pgmap, ...]) -> tuple[Pgmap, ...]:
    """Name the devices that pgmaps belong to. This is for people: nothing is decided by it."""
    devices = dev_pagemap_devices(prog, frozenset(p.address for p in pgmaps))
    return tuple(dataclasses.replace(p, device=devices.get(p.address)) for p in pgmaps)


def _read(prog: Program) -> Snapshot:
    geometry = sparsemem_geometry(prog)
    array = pgmap_array_entries(prog)
    pgmaps, stray_claims, unjudged = _read_pgmaps(prog, array)
    lacks: list[Unjudged] = []
    known = optional(
        lacks,
        "whether RAM is online or offline is not known",
        None,
        lambda: _read_blocks(prog),
    )
    spans = optional(
        lacks, "which nodes have device memory is not known", None, lambda: _zone_spans(prog)
    )
    if any(pgmap.ref.state == "unreadable" for pgmap in pgmaps):
        optional(
            lacks, "whether pgmaps are alive is not known", None, lambda: need_percpu_ref(prog)
        )
    # What the debugging information lacks is told already.
    blocks, per_block = known or (no_memory_blocks(""), 1)
    zones, unread_zones = spans or ({}, ())
    snapshot = Snapshot(
        geometry=geometry,
        flags=section_flags(prog),
        sections=sections(prog),
        pgmap_array=array,
        pgmaps=pgmaps,
        memory_blocks=blocks,
        sections_per_block=per_block,
        zone_device_spans=zones,
        knows_spans=spans is not None,
        unread_zones=unread_zones,
        hotplug_in_progress=mem_hotplug_in_progress(prog),
        unjudged=unjudged,
        stray_claims=stray_claims,
    )
    unread = unread_structures(prog, snapshot)
    return dataclasses.replace(snapshot, unjudged=unless_told((*unjudged, *lacks, *unread)))


def _zone_spans(
    prog: Program,
) -> tuple[dict[int, tuple[int, int]], tuple[tuple[int, int], ...]]:
    # Without the number of the zone, there would be none.
    prog.constant("ZONE_DEVICE")
    return read_zone_device_spans(prog)


def _read_blocks(prog: Program) -> tuple[MemoryBlocks, int]:
    # Which block is whose depends on how large they are.
    try:
        return memory_blocks(prog), sections_per_block(prog)
    except (FaultError, ValueError) as e:
        return no_memory_blocks(str(e)), 1


_PgmapReading = tuple[tuple[Pgmap, ...], tuple[tuple[int, PgmapRange], ...], tuple[Unjudged, ...]]


def _read_pgmaps(prog: Program, array: XArrayEntries) -> _PgmapReading:
    pgmap_type = prog.type("struct dev_pagemap *")
    pgmaps: dict[int, Pgmap] = {}
    claims: list[tuple[int, PgmapRange]] = []
    unjudged: list[Unjudged] = []
    spans, ranges = array.spans(), 0
    for address in sorted(spans, key=lambda address: spans[address][0]):
        unread = None
        try:
            if ranges > _MAX_RANGES:
                raise ValueError("those in front of it have more ranges than any machine's")
            with debug_info():
                pgmap = dev_pagemap_info(Object(prog, pgmap_type, address))
            ranges += len(pgmap.ranges)
            pgmaps[address] = pgmap
            reason = f"pgmap_array holds pgmap {address:#x}, whose ranges lie elsewhere"
        except (FaultError, ValueError, LookupError) as e:
            reason = f"pgmap_array holds {address:#x}, which is no usable pgmap: {e}"
            if isinstance(e, FaultError):
                unread = bad_address(prog, address, "struct dev_pagemap")
        known = pgmaps[address].ranges if address in pgmaps else ()
        inside = union((r.start_pfn, r.end_pfn) for r in known)
        for span in spans[address]:
            for start, end in _outside(span, inside):
                claims.append((address, PgmapRange(start, end)))
                unjudged.append(Unjudged(start, end, reason, unread))
    return tuple(pgmaps.values()), tuple(claims), tuple(unjudged)


def _outside(span: Span, others: Sequence[Span]) -> Iterator[Span]:
    # The parts of a span that are not in others, which are sorted and disjoint.
    start, end = span
    for inside_start, inside_end in intersection(span, others):
        if start < inside_start:
            yield start, inside_start
        start = inside_end
    if start < end:
        yield start, end


def _changed_sections(a: Snapshot, b: Snapshot) -> frozenset[int]:
    # Sections that came or went, and those of both whose words differ.
    both, in_a, in_b = np.intersect1d(
        a.sections.nr, b.sections.nr, assume_unique=True, return_indices=True
    )
    same = np.ones(len(both), bool)
    for name in ("word", "usage", "subsection_map"):
        differs = getattr(a.sections, name)[in_a] != getattr(b.sections, name)[in_b]
        same &= ~differs.reshape(len(both), -1).any(axis=1)
    one = np.setxor1d(a.sections.nr, b.sections.nr, assume_unique=True)
    return frozenset(one.tolist() + both[~same].tolist())


def _sections_of_changed_blocks(a: Snapshot, b: Snapshot) -> frozenset[int]:
    ids = [block for block, _, _ in _block_rows(a) ^ _block_rows(b)]
    nr = np.union1d(a.sections.nr, b.sections.nr)
    return frozenset(nr[np.isin(nr // b.sections_per_block, ids)].tolist())


def _block_rows(snapshot: Snapshot) -> set[tuple[int, int, str]]:
    blocks = snapshot.memory_blocks
    names = [blocks.state_names[state] for state in blocks.state.tolist()]
    return set(zip(blocks.id.tolist(), blocks.address.tolist(), names))


def _changed_pgmaps(a: Snapshot, b: Snapshot) -> frozenset[int]:
    # The reference count moves all the time and decides nothing.
    def essence(p: Pgmap) -> Pgmap:
        return dataclasses.replace(p, ref=dataclasses.replace(p.ref, count=None, mode=None))

    differing = {essence(p) for p in a.pgmaps} ^ {essence(p) for p in b.pgmaps}
    return frozenset(p.address for p in differing)
