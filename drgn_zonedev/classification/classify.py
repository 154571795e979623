# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Classification
--------------

Divide physical memory into ranges of PFNs, each with its case, from metadata alone:
sections, subsections, pgmaps, altmaps, memory blocks. No struct page is read, because
an uninitialised one can look healthy, and many dumps do not contain any.

Everything per section or subsection is done on arrays. Equal neighbouring sections are
joined, and physical memory is cut at every PFN where one of the structures changes. Between
two cuts (an *atom*), all PFNs are in the same state; neighbouring atoms in the same state
are merged into a range.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from drgn import IntegerLike, Program
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.classification.access import metadata_access
from drgn_zonedev.classification.evidence import EvidenceBuilder
from drgn_zonedev.classification.mapped import MappedParts, mapped_parts
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.kernel.arguments import require_number
from drgn_zonedev.model import Case, Memmap, Pgmap, Range, Unjudged
from drgn_zonedev.util.handles import bind
from drgn_zonedev.util.intervals import Span, union
from drgn_zonedev.util.sets import containing, sorted_set

__all__ = ("classify", "classify_pfn", "classify_snapshot", "range_of_pfn", "undecided")


class _Area(enum.IntEnum):
    """What a pgmap says about one of its intervals."""

    NONE = 0
    RESERVED = 1
    METADATA = 2
    DEVICE = 3
    INITIALIZING = 4
    TEARDOWN = 5
    UNREADABLE = 6
    STRAY = 7
    UNSURE = 8


@dataclass(frozen=True)
class _Interval:
    """A part of a range of a pgmap: ``claim`` is the number of the range, counting all pgmaps."""

    start_pfn: int
    end_pfn: int
    pgmap: int
    area: _Area
    claim: int
    in_progress: bool
    settled: bool = True


@dataclass(frozen=True)
class _Verdict:
    case: Case
    reason: str


# The decision: the first match wins. The names are those of the conditions in
# _conditions(). kernel commits: nr_range is cleared and incremented since
# b7b3c01b1915 ("mm/memremap_pages: support multiple ranges per invocation") (in
# v5.10).
_VERDICTS = {
    "torn": _Verdict(Case.UNKNOWN, "the structures changed every time they were read"),
    "stray_claim": _Verdict(
        Case.UNKNOWN, "pgmap_array holds a pgmap that is unusable or does not claim these PFNs"
    ),
    "ref_unreadable": _Verdict(Case.UNKNOWN, "the pgmap's reference cannot be read"),
    "teardown": _Verdict(Case.TEARDOWN, "the pgmap is dying: memunmap_pages() is running"),
    "initializing": _Verdict(
        Case.INITIALIZING,
        "claimed in pgmap_array, but nr_range says that memmap_init_zone_device() has not finished",
    ),
    "head_unsure": _Verdict(
        Case.UNKNOWN,
        "set aside by the altmap for the memmap: not known whether they are initialised, because a "
        "node's zones cannot be read",
    ),
    "section_unreadable": _Verdict(Case.UNKNOWN, "struct mem_section cannot be read"),
    "memmap_unsure": _Verdict(
        Case.UNKNOWN,
        "claimed by a live pgmap, but not in a populated subsection; this kernel does not record "
        "whether memremap_pages() has finished",
    ),
    "pgmap_without_memmap": _Verdict(
        Case.UNKNOWN, "the pgmap is complete, but the memory is not in a populated subsection"
    ),
    "reserved": _Verdict(
        Case.RESERVED, "the altmap's reserve: no kernel initialises these struct pages"
    ),
    "metadata": _Verdict(
        Case.METADATA, "set aside by the altmap for the memmap: initialised, but without a pgmap"
    ),
    "device_unrecorded": _Verdict(
        Case.DEVICE,
        "claimed by a live pgmap; this kernel does not record whether memmap_init_zone_device() "
        "has finished",
    ),
    "device": _Verdict(Case.DEVICE, "in an initialised range of a live pgmap"),
    "without_memmap": _Verdict(
        Case.UNKNOWN, "the section is present but has no memmap: it is being built or torn down"
    ),
    "usage_unreadable": _Verdict(Case.UNKNOWN, "the section's subsection_map cannot be used"),
    "array_unreadable": _Verdict(
        Case.UNKNOWN, "pgmap_array cannot be read here: not known whether a pgmap claims the memory"
    ),
    "block_memmap": _Verdict(
        Case.METADATA,
        "the head of a memory block, which stores the memmap of the block (memmap_on_memory)",
    ),
    "deferred_running": _Verdict(
        Case.INITIALIZING,
        "RAM whose struct pages deferred_init_memmap() is initialising: its progress is not "
        "recorded",
    ),
    "deferred": _Verdict(
        Case.INITIALIZING,
        "RAM above first_deferred_pfn: boot has not initialised its struct pages yet, except those "
        "of reserved memory",
    ),
    "online": _Verdict(Case.ONLINE, "populated subsections of an online section, no pgmap"),
    "ghost": _Verdict(
        Case.GHOST,
        "a hole in an early section where a device was removed: no pgmap, but inside ZONE_DEVICE; "
        "only struct pages show which ones it had initialised",
    ),
    "desertion_unsure": _Verdict(
        Case.UNKNOWN,
        "a hole in an early section: not known whether a device was removed there, because a "
        "node's zones cannot be read",
    ),
    "hole_beside_device": _Verdict(
        Case.PARTIAL,
        "a hole in an early section that a device shares: from boot, or left by another device; "
        "only struct pages show which",
    ),
    "hole_in_zone_device": _Verdict(
        Case.PARTIAL,
        "a hole in an early section, inside ZONE_DEVICE: from boot, or left by a device; only "
        "struct pages show which",
    ),
    "hole": _Verdict(Case.PARTIAL, "a boot-time hole in an early section"),
    "partial": _Verdict(
        Case.PARTIAL, "a part of the section without memory: the subsection is not populated"
    ),
    "block_in_transition": _Verdict(
        Case.UNKNOWN, "the memory block is online, but its section is not: one of them is changing"
    ),
    "block_state_unknown": _Verdict(
        Case.UNKNOWN, "the section is not online, and the state of its memory block is not known"
    ),
    "offline": _Verdict(Case.OFFLINE, "RAM whose section is not online"),
    "hotplug_in_flight": _Verdict(
        Case.UNKNOWN, "the section has no owner, but mem_hotplug_lock is held: it is being added"
    ),
    "orphan": _Verdict(
        Case.ORPHAN, "hot-added, but no pgmap and no memory block: memremap_pages() failed half-way"
    ),
}
_NAMES = list(_VERDICTS)


@takes_program_or_default
def classify(prog: Program) -> list[Range]:
    """
    Divide physical memory into ranges of PFNs with the same case.

    The ranges are sorted, do not overlap, and cover every present section and
    every pgmap.

    :raises LookupError: if a type or symbol is missing in the debugging information
    """
    return [bind(prog, r) for r in classify_snapshot(prog, take_snapshot(prog))]


def classify_snapshot(prog: Program, snapshot: Snapshot) -> list[Range]:
    """Like :func:`classify`, but from a snapshot."""
    intervals = _pgmap_intervals(snapshot)
    parts = mapped_parts(prog, snapshot)
    atoms = _cut(snapshot, intervals, parts)
    verdict = _decide(snapshot, intervals, atoms, parts)
    return _merge(prog, snapshot, intervals, atoms, verdict)


def undecided(ranges: Iterable[Range]) -> tuple[Unjudged, ...]:
    """Get the ranges whose case is unknown, and why."""
    unknown = (r for r in ranges if r.case is Case.UNKNOWN)
    return tuple(Unjudged(r.start_pfn, r.end_pfn, r.reason) for r in unknown)


@takes_program_or_default
def classify_pfn(prog: Program, pfn: IntegerLike) -> Range | None:
    """
    Get the range that contains a PFN, with the evidence for this PFN.

    :return: ``None`` if there is neither a present section nor a pgmap.
    :raises LookupError: if the debugging information does not have what is needed
    """
    snapshot = take_snapshot(prog)
    found = range_of_pfn(prog, snapshot, classify_snapshot(prog, snapshot), require_number(pfn))
    return found and bind(prog, found)


def range_of_pfn(prog: Program, snapshot: Snapshot, ranges: list[Range], pfn: int) -> Range | None:
    """
    Get the range that contains a PFN, with the evidence for this PFN.

    :return: ``None`` if there is neither a present section nor a pgmap.
    """
    range_ = next((r for r in ranges if r.start_pfn <= pfn < r.end_pfn), None)
    if range_ is None:
        return None
    rows = snapshot.sections.rows(pfn, pfn + 1)
    evidence = EvidenceBuilder(prog, snapshot).of_range(pfn, rows, range_.pgmap)
    return dataclasses.replace(range_, evidence=evidence)


def _pgmap_intervals(snapshot: Snapshot) -> list[_Interval]:
    limit = snapshot.geometry.max_pfn
    intervals: list[_Interval] = []
    for interval in sorted(_all_intervals(snapshot), key=lambda i: i.start_pfn):
        # Overlaps exist only in damaged structures: the lower range keeps its PFNs.
        floor = intervals[-1].end_pfn if intervals else 0
        start, end = max(interval.start_pfn, floor), min(interval.end_pfn, limit)
        if start < end:
            intervals.append(dataclasses.replace(interval, start_pfn=start, end_pfn=end))
    return intervals


def _all_intervals(snapshot: Snapshot) -> Iterator[_Interval]:
    claims = itertools.count()
    for address, range_ in snapshot.stray_claims:
        yield _Interval(
            range_.start_pfn, range_.end_pfn, address, _Area.STRAY, next(claims), in_progress=False
        )
    for pgmap in snapshot.pgmaps:
        for i in range(len(pgmap.ranges)):
            in_progress = pgmap.in_progress and i == pgmap.nr_range
            claim = next(claims)
            for start, end, area in _areas(snapshot, pgmap, i, in_progress):
                yield _Interval(
                    start, end, pgmap.address, area, claim, in_progress, pgmap.is_settled
                )


def _areas(
    snapshot: Snapshot, pgmap: Pgmap, index: int, in_progress: bool
) -> Iterator[tuple[int, int, _Area]]:
    start, end = pgmap.ranges[index].start_pfn, pgmap.ranges[index].end_pfn
    whole = _whole_range_area(pgmap)
    if whole is not _Area.NONE:
        yield start, end, whole
        return
    # The kernel refuses an altmap for all ranges but the first.
    if index == 0 and pgmap.altmap:
        reserve_end = min(start + pgmap.altmap.reserve, end)
        head_end = min(start + pgmap.altmap.offset, end)
        head = _Area.METADATA
        if in_progress and not _hot_added(snapshot, reserve_end):
            sure = snapshot.hotplug_in_progress or not snapshot.unreadable_zones
            head = _Area.INITIALIZING if sure else _Area.UNSURE
        yield start, reserve_end, _Area.RESERVED
        yield reserve_end, head_end, head
        start = head_end
    yield start, end, _Area.INITIALIZING if in_progress else _Area.DEVICE


def _whole_range_area(pgmap: Pgmap) -> _Area:
    if pgmap.ref.state == "unreadable":
        return _Area.UNREADABLE
    return _Area.NONE if pgmap.ref.state == "live" else _Area.TEARDOWN


def _hot_added(snapshot: Snapshot, pfn: int) -> bool:
    # memmap_init_range() runs right after the zone has grown. But an earlier device may have
    # grown it, so nothing is certain while a memory hotplug is in progress.
    grown = any(start <= pfn < end for start, end in snapshot.zone_device_spans.values())
    return grown and not snapshot.hotplug_in_progress


@dataclass(frozen=True)
class _Atoms:
    """
    Columns; ``section`` and ``interval`` are indices, -1 for none. An atom may consist of
    many equal sections; ``section`` is the first of them. The others say whether the atom is inside
    such spans.
    """

    start: np.ndarray
    end: np.ndarray
    section: np.ndarray
    interval: np.ndarray
    unreadable: np.ndarray
    torn: np.ndarray
    array_gap: np.ndarray
    block_gap: np.ndarray
    deferred: np.ndarray
    deferred_running: np.ndarray
    block_memmap: np.ndarray


def _cut(snapshot: Snapshot, intervals: list[_Interval], parts: MappedParts) -> _Atoms:
    pages = snapshot.geometry.pages_per_section
    spans = _spans(snapshot)
    interval_spans = _columns((i.start_pfn, i.end_pfn) for i in intervals)
    borders = np.concatenate([s.ravel() for s in (*spans.values(), interval_spans)])
    first, last = _section_runs(snapshot, borders)
    run_start = snapshot.sections.nr[first] * pages
    run_end = (snapshot.sections.nr[last] + 1) * pages
    inside = [_subsection_edges(snapshot), parts.start, parts.end]
    edges = sorted_set(np.concatenate([run_start, run_end, *inside, borders]))
    start, end = edges[:-1], edges[1:]
    section = np.append(first, -1)[containing(start, run_start, run_end)]
    interval = containing(start, interval_spans[:, 0], interval_spans[:, 1])
    flags = {name: containing(start, s[:, 0], s[:, 1]) >= 0 for name, s in spans.items()}
    keep = (section >= 0) | (interval >= 0) | flags["unreadable"] | flags["torn"]
    columns = (column[keep] for column in (start, end, section, interval))
    return _Atoms(*columns, **{name: column[keep] for name, column in flags.items()})


def _spans(snapshot: Snapshot) -> dict[str, np.ndarray]:
    # Disjoint spans, by the column of _Atoms that says which atoms are inside them.
    pages, deferred = snapshot.geometry.pages_per_section, snapshot.deferred
    return {
        "unreadable": _columns((a * pages, b * pages) for a, b, _ in snapshot.sections.unreadable),
        "torn": _columns(snapshot.torn_spans),
        "array_gap": _clipped(snapshot, snapshot.pgmap_array_gaps),
        "block_gap": _clipped(snapshot, snapshot.memory_block_gaps),
        "deferred": _clipped(snapshot, [(d.start_pfn, d.end_pfn) for d in deferred]),
        "deferred_running": _clipped(
            snapshot, [(d.start_pfn, d.end_pfn) for d in deferred if d.running]
        ),
        "block_memmap": _clipped(snapshot, snapshot.block_memmaps),
    }


def _columns(spans: Iterable[Span]) -> np.ndarray:
    return np.array(list(spans), np.int64).reshape(-1, 2)


def _section_runs(snapshot: Snapshot, borders: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # First and last rows of runs of equal neighbouring sections: a machine can have half a
    # million sections, but only a few thousand runs. ``borders`` are PFNs at which another
    # structure begins or ends.
    sections, flags = snapshot.sections, snapshot.flags
    if not len(sections):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    pages = snapshot.geometry.pages_per_section
    known = np.uint64(flags.has_mem_map | flags.early | flags.online | flags.taint)
    mixed = sections.mixed
    joined = np.diff(sections.nr) == 1
    joined &= ~(mixed[1:] | mixed[:-1])
    joined &= (sections.word[1:] ^ sections.word[:-1]) & known == 0
    joined &= sections.usage_readable[1:] == sections.usage_readable[:-1]
    joined &= (sections.subsection_map[1:] == sections.subsection_map[:-1]).all(axis=1)
    device_borders = np.array(list(snapshot.zone_device_spans.values()), np.int64).ravel()
    borders = np.concatenate([borders, device_borders, _block_borders(snapshot)])
    # A section with a border inside is a run of its own.
    cuts = np.searchsorted(sections.nr, np.append(borders // pages, -(-borders // pages)))
    joined[cuts[(cuts > 0) & (cuts < len(sections))] - 1] = False
    first = np.flatnonzero(np.append(True, ~joined))
    return first, np.append(first[1:], len(sections)) - 1


def _block_borders(snapshot: Snapshot) -> np.ndarray:
    # PFNs at which memory blocks begin and end, or their states change.
    pages = snapshot.geometry.pages_per_section * snapshot.sections_per_block
    ids, state = _possible_blocks(snapshot)
    if not len(ids):
        return ids
    changes = (np.diff(ids) != 1) | (np.diff(state) != 0)
    first = ids[np.append(True, changes)]
    behind = ids[np.append(changes, True)] + 1
    borders = np.concatenate([first, behind])
    return borders[borders <= snapshot.geometry.max_pfn // pages] * pages


def _clipped(snapshot: Snapshot, spans: Iterable[Span]) -> np.ndarray:
    limit = snapshot.geometry.max_pfn
    return _columns((start, min(end, limit)) for start, end in union(spans) if start < limit)


def _subsection_edges(snapshot: Snapshot) -> np.ndarray:
    # Nearly all bitmaps are all ones; only the others need to be unpacked.
    geometry = snapshot.geometry
    sections = snapshot.sections
    rows = np.flatnonzero(sections.mixed)
    bits = sections.unpacked(sections.subsection_map[rows])
    row, bit = np.nonzero(np.diff(bits.astype(np.int8), axis=1))
    start = sections.nr[rows[row]] * geometry.pages_per_section
    return start + (bit + 1) * geometry.pages_per_subsection


@dataclass(frozen=True)
class _Decision:
    """Columns: index into ``_NAMES``, and whether struct pages are mapped (-1: unknown)."""

    verdict: np.ndarray
    mapped: np.ndarray


def _decide(
    snapshot: Snapshot, intervals: list[_Interval], atoms: _Atoms, parts: MappedParts
) -> _Decision:
    flags, sections = snapshot.flags, snapshot.sections
    has_section = atoms.section >= 0
    # Without a section, use row 0; has_section masks it out.
    row = np.maximum(atoms.section, 0)
    word = np.where(has_section, _take(sections.word, row), 0).astype(np.uint64)
    usage_readable = ~has_section | _take(sections.usage_readable, row)
    has_mem_map = (word & np.uint64(flags.has_mem_map)) != 0
    early = (word & np.uint64(flags.early)) != 0
    online = (word & np.uint64(flags.online)) != 0
    bit = sections.test_bit(sections.subsection_map, atoms.section, atoms.start)
    populated = usage_readable & bit
    area = np.array([i.area for i in intervals] + [_Area.NONE])[atoms.interval]
    claimed = area != _Area.NONE
    in_progress = np.array([i.in_progress for i in intervals] + [False])[atoms.interval]
    settled = np.array([i.settled for i in intervals] + [True])[atoms.interval]
    without_memmap = ~(has_mem_map & (populated | ~usage_readable))
    block_exists, block_online, block_known = _blocks(snapshot, atoms)

    conditions = {
        "torn": atoms.torn,
        "stray_claim": area == _Area.STRAY,
        "ref_unreadable": area == _Area.UNREADABLE,
        "teardown": area == _Area.TEARDOWN,
        "initializing": (area == _Area.INITIALIZING) | (in_progress & without_memmap),
        "head_unsure": area == _Area.UNSURE,
        "section_unreadable": atoms.unreadable,
        "memmap_unsure": claimed & without_memmap & ~settled,
        "pgmap_without_memmap": claimed & without_memmap,
        "reserved": area == _Area.RESERVED,
        "metadata": area == _Area.METADATA,
        "device_unrecorded": (area == _Area.DEVICE) & ~settled,
        "device": area == _Area.DEVICE,
        "without_memmap": ~has_mem_map,
        "usage_unreadable": ~usage_readable,
        "array_unreadable": atoms.array_gap & ~_surely_ram(snapshot, word, populated),
        "block_memmap": atoms.block_memmap & populated & ~early,
        "deferred_running": atoms.deferred_running & online & populated & early,
        "deferred": atoms.deferred & online & populated & early,
        "online": online & populated,
        "ghost": early & ~populated & _deserted(snapshot, atoms, word, claimed, row),
        "desertion_unsure": early
        & ~populated
        & bool(snapshot.unreadable_zones)
        & _perhaps_deserted(snapshot, atoms, word, claimed, row),
        "hole_beside_device": early & ~populated & _shared(atoms, claimed, row),
        "hole_in_zone_device": early
        & ~populated
        & (not snapshot.flags.taint)
        & _in_zone_device(snapshot, atoms),
        "hole": early & ~populated,
        "partial": ~populated,
        "block_in_transition": block_exists & block_online,
        "block_state_unknown": (block_exists & ~block_known) | atoms.block_gap,
        "offline": block_exists | early,
        "hotplug_in_flight": np.full(len(row), snapshot.hotplug_in_progress),
        "orphan": np.ones(len(row), bool),
    }
    assert list(conditions) == _NAMES
    verdict = np.argmax(np.stack(list(conditions.values())), axis=0)
    mapped = (has_mem_map & (early | populated)).astype(np.int8)
    # What is populated is promised to be mapped.
    part = np.where(populated, -1, parts.containing(atoms.start))
    mapped = np.where(part >= 0, np.append(parts.mapped, 0)[part], mapped)
    mapped[atoms.unreadable | (~usage_readable & ~early)] = -1
    return _Decision(verdict, mapped)


def _surely_ram(snapshot: Snapshot, word: np.ndarray, populated: np.ndarray) -> np.ndarray:
    # pfn_to_online_page() returns this memory without calling get_dev_pagemap().
    flags = snapshot.flags
    online_untainted = (word & np.uint64(flags.online | flags.taint)) == np.uint64(flags.online)
    return populated & online_untainted & bool(flags.taint)


def _take(column: np.ndarray, row: np.ndarray) -> np.ndarray:
    if not len(column):
        return np.zeros(len(row), column.dtype)
    return column[row]


def _possible_blocks(snapshot: Snapshot) -> tuple[np.ndarray, np.ndarray]:
    # IDs and states. A damaged array can hold blocks beyond all possible memory.
    blocks = snapshot.memory_blocks
    ids = blocks.id[blocks.id < 1 << 62].astype(np.int64)
    return ids, blocks.state[: len(ids)]


def _blocks(snapshot: Snapshot, atoms: _Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # Whether there is a block, whether it is online, and whether its state is known by name.
    per_block = snapshot.geometry.pages_per_section * snapshot.sections_per_block
    block_id = atoms.start // per_block
    blocks = snapshot.memory_blocks
    ids, state = _possible_blocks(snapshot)
    state = np.append(state, len(blocks.state_names))
    online = np.array([*(name == "MEM_ONLINE" for name in blocks.state_names), False])[state]
    known = np.array([*(name.startswith("MEM_") for name in blocks.state_names), False])[state]
    index = containing(block_id, ids, ids + 1)
    exists = index >= 0
    return exists, exists & online[index], exists & known[index]


def _shared(atoms: _Atoms, claimed: np.ndarray, row: np.ndarray) -> np.ndarray:
    # Whether a pgmap claims a part of the atom's section.
    with_device = np.zeros(int(row.max(initial=0)) + 1, bool)
    with_device[row[claimed & (atoms.section >= 0)]] = True
    return with_device[row]


def _deserted(
    snapshot: Snapshot, atoms: _Atoms, word: np.ndarray, claimed: np.ndarray, row: np.ndarray
) -> np.ndarray:
    # A removed device that covered a part of an early section is still in ZONE_DEVICE's span.
    in_span = _in_zone_device(snapshot, atoms)
    return in_span & _perhaps_deserted(snapshot, atoms, word, claimed, row)


def _in_zone_device(snapshot: Snapshot, atoms: _Atoms) -> np.ndarray:
    found = np.zeros(len(atoms.start), bool)
    for start, end in snapshot.zone_device_spans.values():
        found |= (atoms.start < end) & (atoms.end > start)
    return found


def _perhaps_deserted(
    snapshot: Snapshot, atoms: _Atoms, word: np.ndarray, claimed: np.ndarray, row: np.ndarray
) -> np.ndarray:
    # The section also keeps its taint. If another device is still in the section, or if the
    # kernel has no taint, only the struct pages can show whether a device was removed.
    tainted = (word & np.uint64(snapshot.flags.taint)) != 0
    return tainted & ~_shared(atoms, claimed, row)


def _merge(
    prog: Program,
    snapshot: Snapshot,
    intervals: list[_Interval],
    atoms: _Atoms,
    decision: _Decision,
) -> list[Range]:
    if not len(atoms.start):
        return []
    claim = np.array([i.claim for i in intervals] + [-1])[atoms.interval]
    key = np.stack([decision.verdict, decision.mapped, claim])
    same = (key[:, 1:] == key[:, :-1]).all(axis=0) & (atoms.start[1:] == atoms.end[:-1])
    first = np.flatnonzero(np.concatenate([[True], ~same]))
    last = np.append(first[1:], len(atoms.start)) - 1
    evidencer = EvidenceBuilder(prog, snapshot)
    types = {p.address: p.type for p in snapshot.pgmaps}
    ranges = []
    for i, j in zip(first.tolist(), last.tolist()):
        verdict = _VERDICTS[_NAMES[decision.verdict[i]]]
        interval = int(atoms.interval[i])
        pgmap = intervals[interval].pgmap if interval >= 0 else None
        start, end = int(atoms.start[i]), int(atoms.end[j])
        ranges.append(
            Range(
                start_pfn=start,
                end_pfn=end,
                case=verdict.case,
                memmap=_MEMMAP[int(decision.mapped[i])],
                reason=verdict.reason,
                pgmap=pgmap,
                evidence=evidencer.of_range(start, snapshot.sections.rows(start, end), pgmap),
                access=metadata_access(verdict.case, None if pgmap is None else types.get(pgmap)),
            )
        )
    return ranges


_MEMMAP = {1: Memmap.MAPPED, 0: Memmap.UNMAPPED, -1: Memmap.UNKNOWN}
