# SPDX-License-Identifier: LGPL-2.1-or-later

"""
vmemmap
-------

Audits the memory behind struct pages: whether the page tables, including those of every task, map
all of it, and whether it can store struct pages.

Page tables decide, and where the other structures say that struct pages must be. Only whether a
page that stores some is free is decided by its own struct page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from drgn import FaultError, ProgramFlags

from drgn_zonedev.consistency.claims import Scene
from drgn_zonedev.findings import make_finding
from drgn_zonedev.kernel.free_area import free_frames
from drgn_zonedev.kernel.memmap import PageLayout, page_layout
from drgn_zonedev.kernel.pgd_list import copies_kernel_entries, task_page_tables
from drgn_zonedev.kernel.vmstat import counts_page_ext, nr_memmap, shared_tail_pages
from drgn_zonedev.model import (
    CASES,
    Case,
    Evidence,
    Finding,
    Memmap,
    MemmapMemory,
    MemmapPart,
    Range,
    Unjudged,
)
from drgn_zonedev.util.intervals import Span, union
from drgn_zonedev.util.sets import containing, sorted_set
from drgn_zonedev.vmcore.exported import leaves_out_ram
from drgn_zonedev.vmcore.pagetables import (
    UNMAPPED,
    TopLevel,
    page_mappings,
    top_level,
    walks_in_bulk,
)
from drgn_zonedev.vmcore.raw import END

__all__ = ("MemmapAudit", "audit_memmap")

# Pages of vmemmap that are looked at together: the struct pages of 16 GiB.
_WINDOW = 1 << 16

# Initialised memory that stays: a hotplug of other memory does not change it.
_SETTLED = (Case.DEVICE, Case.ONLINE)
# Unless a hotplug is in progress, these have struct pages as well.
_OTHERS = (
    Case.METADATA,
    Case.RESERVED,
    Case.OFFLINE,
    Case.PARTIAL,
    Case.GHOST,
    Case.ORPHAN,
    Case.INITIALIZING,
)

# Findings of one kind in a window. Beyond that, they are reported together.
_MAX_RUNS = 32

_MEMORIES = tuple(MemmapMemory)
_SLUGS = {
    MemmapMemory.UNMAPPED: "vmemmap-unmapped",
    MemmapMemory.ANOTHER: "vmemmap-on-other-device",
    MemmapMemory.ASTRAY: "vmemmap-astray",
}


@dataclass(frozen=True)
class MemmapAudit:
    """What the page tables say of the memory behind struct pages."""

    findings: tuple[Finding, ...] = ()
    unjudged: tuple[Unjudged, ...] = ()
    parts: tuple[MemmapPart, ...] = ()


def audit_memmap(scene: Scene) -> MemmapAudit:
    """
    Audit the memory behind the struct pages of a scene's ranges, as far as its page tables can be
    read; there are no parts if none of them can.

    :raises LookupError: if the debugging information does not have what is needed
    """
    if not _has_vmemmap(scene):
        return MemmapAudit()
    vmemmap = _Vmemmap(scene)
    findings: list[Finding] = []
    parts: list[MemmapPart] = []
    ram, frames = _Frames(), _Frames()
    for window in _windows(vmemmap):
        parts += _parts(vmemmap, window)
        findings += _misplaced(vmemmap, window)
        findings += _free(vmemmap, window)
        findings += _in_use_twice(vmemmap, window, ram)
        frames.add(window)
    unjudged: list[Unjudged] = []
    for found in _top_levels(vmemmap):
        if isinstance(found, Finding):
            findings.append(found)
        else:
            unjudged.append(found)
    if _is_complete(vmemmap, parts):
        findings += _counters(vmemmap, frames)
    parts.sort(key=lambda part: part.start_pfn)
    known = any(part.memory is not MemmapMemory.UNKNOWN for part in parts)
    return MemmapAudit(tuple(findings), tuple(unjudged), _joined(parts) if known else ())


def _has_vmemmap(scene: Scene) -> bool:
    # CONFIG_SPARSEMEM_VMEMMAP
    return scene.prog.type("struct mem_section_usage").has_member("subsection_map")


@dataclass(frozen=True)
class _Vmemmap:
    """The virtual memory that holds the struct pages of a scene's ranges."""

    scene: Scene

    @cached_property
    def layout(self) -> PageLayout:
        return page_layout(self.scene.prog)

    @property
    def page_size(self) -> int:
        return 1 << self.scene.snapshot.geometry.page_shift

    @property
    def block_pages(self) -> int:
        snapshot = self.scene.snapshot
        return snapshot.geometry.pages_per_section * snapshot.sections_per_block

    @cached_property
    def owners(self) -> list[tuple[Range, Span]]:
        """Ranges that have struct pages for sure, and the PFNs of each that are in focus."""
        cases = self._cases
        found = []
        for range_ in self.scene.ranges:
            start = max(range_.start_pfn, self.scene.focus[0])
            end = min(range_.end_pfn, self.scene.focus[1])
            if range_.case in cases and range_.memmap is Memmap.MAPPED and start < end:
                found.append((range_, (start, end)))
        return found

    @property
    def _cases(self) -> tuple[Case, ...]:
        busy = self.scene.snapshot.hotplug_in_progress
        cases = _SETTLED if busy else (*_SETTLED, *_OTHERS)
        # Elsewhere, each page takes a walk of the page tables.
        with_ram = walks_in_bulk(self.scene.prog) and not leaves_out_ram(self.scene.prog)
        return cases if with_ram else tuple(c for c in cases if c is not Case.ONLINE)

    @cached_property
    def starts(self) -> np.ndarray:
        return np.array([r.start_pfn for r in self.scene.ranges], np.int64)

    @cached_property
    def ends(self) -> np.ndarray:
        return np.array([r.end_pfn for r in self.scene.ranges], np.int64)

    # Columns with a row for each range, and one for memory that is in none.

    @cached_property
    def cases(self) -> np.ndarray:
        return np.array([*(CASES.index(r.case) for r in self.scene.ranges), -1], np.int8)

    @cached_property
    def pgmaps(self) -> np.ndarray:
        return np.array([*(r.pgmap or 0 for r in self.scene.ranges), 0], np.uint64)

    def pages(self, span: Span) -> Span:
        """Pages of vmemmap that have struct pages of some PFNs."""
        return self.layout.memmap_pages(*span, self.page_size)

    def pfns(self, first: int, end: int, within: Span) -> Span:
        """The PFNs of a span whose struct pages are in some pages of vmemmap, or begin there."""
        size, base = self.layout.size, self.layout.vmemmap
        start_pfn = (first * self.page_size - base) // size
        end_pfn = -(-(end * self.page_size - base) // size)
        return max(start_pfn, within[0]), min(end_pfn, within[1])


@dataclass(frozen=True)
class _Window:
    """
    The pages of vmemmap that hold the struct pages of a part of a range, ``first`` being the
    number of the first. ``frame`` and ``order`` are what they are mapped to and how, or ``table``
    is the page table that cannot be read; ``place`` is the index of the range that either is in,
    or -1; ``memory`` is an index of _MEMORIES.
    """

    owner: Range
    span: Span
    first: int
    frame: np.ndarray
    order: np.ndarray
    table: np.ndarray
    place: np.ndarray
    memory: np.ndarray

    def is_in(self, memory: MemmapMemory) -> np.ndarray:
        found: np.ndarray = self.memory == _MEMORIES.index(memory)
        return found


@dataclass(frozen=True)
class _Piece:
    """Pages of vmemmap of a part of a range: what becomes a window."""

    owner: Range
    span: Span
    first: int
    end: int


def _windows(vmemmap: _Vmemmap) -> Iterator[_Window]:
    for pieces in _together(vmemmap):
        first = pieces[0].first
        found = page_mappings(vmemmap.scene.prog, first, pieces[-1].end)
        if found is None:
            return
        pages = np.concatenate([np.arange(piece.first, piece.end) for piece in pieces])
        rows = pages - first
        frame, order, table = found.frame[rows], found.order[rows], found.table[rows]
        place = containing(np.maximum(frame, table), vmemmap.starts, vmemmap.ends)
        memory = _memory(vmemmap, pieces, pages, frame, table, place)
        ends = np.cumsum([piece.end - piece.first for piece in pieces])[:-1]
        columns = (np.split(column, ends) for column in (frame, order, table, place, memory))
        for piece, *part in zip(pieces, *columns):
            yield _Window(piece.owner, piece.span, piece.first, *part)


def _together(vmemmap: _Vmemmap) -> Iterator[list[_Piece]]:
    """Join pieces that are so close that they share page tables."""
    gap = _WINDOW if walks_in_bulk(vmemmap.scene.prog) else 0
    together: list[_Piece] = []
    for piece in _pieces(vmemmap):
        if together and not _are_close(together, piece, gap):
            yield together
            together = []
        together.append(piece)
    if together:
        yield together


def _are_close(together: list[_Piece], piece: _Piece, gap: int) -> bool:
    last = together[-1].end
    return last < piece.end <= together[0].first + _WINDOW and piece.first - last <= gap


def _pieces(vmemmap: _Vmemmap) -> Iterator[_Piece]:
    # RAM comes first: then it is known which page frames hold its struct pages.
    for owner, span in sorted(vmemmap.owners, key=lambda each: each[0].case is not Case.ONLINE):
        low, high = vmemmap.pages(span)
        for first in range(low, high, _WINDOW):
            yield _Piece(owner, span, first, min(first + _WINDOW, high))


def _memory(
    vmemmap: _Vmemmap,
    pieces: list[_Piece],
    page: np.ndarray,
    frame: np.ndarray,
    table: np.ndarray,
    place: np.ndarray,
) -> np.ndarray:
    counts = [piece.end - piece.first for piece in pieces]

    def of_owners(values: Iterable[int], dtype: type) -> np.ndarray:
        return np.repeat(np.array(list(values), dtype), counts)

    case, pgmap = vmemmap.cases[place], vmemmap.pgmaps[place]

    def is_case(*cases: Case) -> np.ndarray:
        return np.isin(case, [CASES.index(c) for c in cases])

    # Addresses do not fit into 64 bits with a sign.
    offset = int(page[0]) * vmemmap.page_size - vmemmap.layout.vmemmap
    pfn = (offset + (page - page[0]) * vmemmap.page_size) // vmemmap.layout.size
    pfn = np.maximum(pfn, of_owners((p.owner.start_pfn for p in pieces), np.int64))
    same = pgmap == of_owners((p.owner.pgmap or 0 for p in pieces), np.uint64)
    same_block = frame // vmemmap.block_pages == pfn // vmemmap.block_pages
    metadata = is_case(Case.METADATA)
    # An altmap's pages, before its zone is grown.
    growing = is_case(Case.INITIALIZING) & (pgmap != 0) & same
    # Blocks whose altmap cannot be read may store their memmap anywhere. A memmap_pages() that
    # failed may have left it on the device.
    failed = of_owners((p.owner.case is Case.ORPHAN for p in pieces), bool)
    open_ = is_case(Case.UNKNOWN, Case.TEARDOWN) | growing | failed
    conditions = (
        (frame == UNMAPPED, MemmapMemory.UNMAPPED),
        # A dump may miss page tables, which are RAM; but not where no section is.
        ((table >= 0) & (place < 0), MemmapMemory.ASTRAY),
        (frame < 0, MemmapMemory.UNKNOWN),
        (is_case(Case.ONLINE) | is_case(Case.INITIALIZING) & (pgmap == 0), MemmapMemory.RAM),
        (metadata & (pgmap != 0) & same, MemmapMemory.ALTMAP),
        (metadata & (pgmap == 0) & same_block, MemmapMemory.BLOCK),
        (metadata, MemmapMemory.ANOTHER),
        (open_, MemmapMemory.UNKNOWN),
    )
    masks, names = [mask for mask, _ in conditions], [name for _, name in conditions]
    codes = [_MEMORIES.index(name) for name in names]
    return np.select(masks, codes, _MEMORIES.index(MemmapMemory.ASTRAY)).astype(np.int8)


def _runs(*columns: np.ndarray) -> Iterator[Span]:
    # Half-open spans of rows with the same values.
    changes = np.zeros(len(columns[0]) - 1, bool)
    for column in columns:
        changes |= column[1:] != column[:-1]
    edges = [0, *(np.flatnonzero(changes) + 1).tolist(), len(columns[0])]
    yield from zip(edges, edges[1:])


def _parts(vmemmap: _Vmemmap, window: _Window) -> Iterator[MemmapPart]:
    for low, high in _runs(window.memory, window.order):
        start, end = vmemmap.pfns(window.first + low, window.first + high, window.span)
        order, memory = int(window.order[low]), _MEMORIES[window.memory[low]]
        size = vmemmap.page_size << order if order >= 0 else None
        if start < end:
            yield MemmapPart(start, end, memory, size)


def _joined(parts: list[MemmapPart]) -> tuple[MemmapPart, ...]:
    joined: list[MemmapPart] = []
    for part in parts:
        last = joined[-1] if joined else None
        if last and last.end_pfn >= part.start_pfn and last.is_like(part):
            joined[-1] = MemmapPart(last.start_pfn, part.end_pfn, part.memory, part.page_size)
        else:
            joined.append(part)
    return tuple(joined)


# What each page of vmemmap is mapped to.


def _misplaced(vmemmap: _Vmemmap, window: _Window) -> Iterator[Finding]:
    for memory, slug in _SLUGS.items():
        yield from _found(vmemmap, window, slug, window.is_in(memory))


def _found(vmemmap: _Vmemmap, window: _Window, slug: str, mask: np.ndarray) -> Iterator[Finding]:
    if not mask.any():
        return
    runs = [run for run in _runs(mask, np.where(mask, window.place, 0)) if mask[run[0]]]
    if len(runs) > _MAX_RUNS:
        # Garbage in place of a page table.
        pages = sum(end - start for start, end in (_pfns(vmemmap, window, run) for run in runs))
        yield from _finding(vmemmap, window, slug, (runs[0][0], runs[-1][1]), pages)
        return
    for run in runs:
        yield from _finding(vmemmap, window, slug, run)


def _pfns(vmemmap: _Vmemmap, window: _Window, rows: Span) -> Span:
    return vmemmap.pfns(window.first + rows[0], window.first + rows[1], window.span)


def _finding(
    vmemmap: _Vmemmap, window: _Window, slug: str, rows: Span, pages: int | None = None
) -> Iterator[Finding]:
    start, end = _pfns(vmemmap, window, rows)
    facts = (_frame(vmemmap, window, rows[0]), *_what_is_there(vmemmap, window, rows[0]))
    case, pgmap = window.owner.case, window.owner.pgmap
    if start < end:
        yield make_finding(slug, case, start, end, count=pages, pgmap=pgmap, evidence=facts)


def _frame(vmemmap: _Vmemmap, window: _Window, row: int) -> Evidence:
    address, frame = (window.first + row) * vmemmap.page_size, int(window.frame[row])
    if window.table[row] >= 0:
        table = int(window.table[row])
        return Evidence("PFN of the page table of the page of vmemmap", address, table)
    if frame < 0:
        return Evidence("page of vmemmap", address, note="not mapped, by the page tables")
    return Evidence("PFN of the page of vmemmap, by the page tables", address, frame)


def _what_is_there(vmemmap: _Vmemmap, window: _Window, row: int) -> Iterator[Evidence]:
    if window.frame[row] < 0 and window.table[row] < 0:
        return
    place = int(window.place[row])
    if place < 0:
        yield Evidence("memory there", note="in no section that is present")
        return
    range_ = vmemmap.scene.ranges[place]
    owned = "" if range_.pgmap is None else f", pgmap {range_.pgmap:#x}"
    note = f"[{range_.start_pfn:#x}, {range_.end_pfn:#x}) {range_.case.value}{owned}"
    yield Evidence("memory there", note=note)


def _free(vmemmap: _Vmemmap, window: _Window) -> Iterator[Finding]:
    # Pages that store struct pages must never be free. Pages on per-CPU lists do not show that they
    # are.
    rows = np.flatnonzero(window.is_in(MemmapMemory.RAM))
    if not len(rows) or leaves_out_ram(vmemmap.scene.prog):
        return
    frames = sorted_set(window.frame[rows])
    free = frames[free_frames(vmemmap.scene.prog, frames)]
    if len(free):
        yield from _found(vmemmap, window, "vmemmap-free", np.isin(window.frame, free))


@dataclass
class _Frames:
    """
    Page frames that hold struct pages, as runs, and the pages of vmemmap that are mapped to them.
    """

    def __post_init__(self) -> None:
        self._runs: list[np.ndarray] = []
        self._pages: list[Span] = []
        self._sorted: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, window: _Window) -> None:
        self._pages.append((window.first, window.first + len(window.frame)))
        breaks = np.flatnonzero(np.diff(window.frame) != 1) + 1
        edges = np.r_[0, breaks, len(window.frame)]
        runs = np.stack([window.frame[edges[:-1]], window.frame[edges[1:] - 1] + 1], axis=1)
        self._runs.append(runs[runs[:, 0] >= 0])
        self._sorted = None

    def spans(self) -> tuple[np.ndarray, np.ndarray]:
        """Of page frames and of pages: half-open, sorted and disjoint, a row each."""
        if self._sorted is None:
            frames = np.concatenate([np.empty((0, 2), np.int64), *self._runs])
            pages = np.array(self._pages, np.int64).reshape(-1, 2)
            self._sorted = (_merged(frames), _merged(pages))
        return self._sorted

    def hold(self, window: _Window) -> np.ndarray:
        """Which pages of a window are mapped to them, but for those that are the same page."""
        frames, pages = self.spans()
        inside: np.ndarray = containing(window.frame, *frames.T) >= 0
        # A page that has struct pages of both is one page.
        own = window.first + np.arange(len(window.frame))
        return inside & (containing(own, *pages.T) < 0)


def _merged(runs: np.ndarray) -> np.ndarray:
    # Sorted and disjoint.
    runs = runs[np.argsort(runs[:, 0], kind="stable")]
    ends = np.maximum.accumulate(runs[:, 1])
    first = np.r_[True, runs[1:, 0] > ends[:-1]][: len(runs)]
    last = np.r_[first[1:], True][: len(runs)]
    return np.stack([runs[first, 0], ends[last]], axis=1)


def _in_use_twice(vmemmap: _Vmemmap, window: _Window, ram: _Frames) -> Iterator[Finding]:
    # The struct pages of RAM among themselves, and those of devices, are compared elsewhere.
    if window.owner.case is Case.ONLINE:
        ram.add(window)
    else:
        yield from _found(vmemmap, window, "vmemmap-alias", ram.hold(window))


# How many they are.


def _is_complete(vmemmap: _Vmemmap, parts: list[MemmapPart]) -> bool:
    scene = vmemmap.scene
    whole = scene.focus == (0, END) and walks_in_bulk(scene.prog) and not scene.torn.any()
    still = not (scene.snapshot.hotplug_in_progress or leaves_out_ram(scene.prog))
    known = all(part.memory is not MemmapMemory.UNKNOWN for part in parts)
    # Elsewhere, struct pages may or may not be mapped.
    judged = all(r.case in (*_SETTLED, *_OTHERS) for r in scene.ranges)
    return bool(parts) and whole and still and known and judged


def _counters(vmemmap: _Vmemmap, frames: _Frames) -> Iterator[Finding]:
    prog, zones = vmemmap.scene.prog, vmemmap.scene.snapshot.zones
    counted = nr_memmap(prog)
    if counted is None or zones is None or zones.unreadable:
        return
    try:
        shared = shared_tail_pages(prog, [zone.address for zone in zones.found])
    except FaultError:
        return
    found = int(np.diff(frames.spans()[0], axis=1).sum())
    more = counted > found - shared and not counts_page_ext(prog)
    if more or counted < found - shared:
        fact = Evidence(
            "nr_memmap_pages + nr_memmap_boot_pages", value=counted, expected=found - shared
        )
        detail = f"it counts {counted} pages, and there are {found - shared}"
        # This is about RAM, whatever is at PFN 0: arm64 has no memory there.
        yield make_finding("memmap-count", Case.ONLINE, 0, 0, detail=detail, evidence=(fact,))


# Where each task has a copy of the top of the page tables.


def _top_levels(vmemmap: _Vmemmap) -> Iterator[Finding | Unjudged]:
    prog = vmemmap.scene.prog
    spans = [vmemmap.pages(span) for _, span in vmemmap.owners]
    if not spans or leaves_out_ram(prog) or vmemmap.scene.snapshot.hotplug_in_progress:
        return
    if not (walks_in_bulk(prog) and copies_kernel_entries(prog)):
        return
    # Tasks may end in the meantime: then their page tables are freed, and the list leads to other
    # pages.
    if prog.flags & ProgramFlags.IS_LIVE:
        return
    try:
        own = top_level(prog, spans[0][0], spans[-1][1])
    except FaultError:
        return
    differing: Counter[int] = Counter()
    first: dict[int, tuple[int, int]] = {}
    try:
        for pfn in task_page_tables(prog):
            theirs = top_level(prog, spans[0][0], spans[-1][1], pfn * vmemmap.page_size)
            for row in np.flatnonzero((own.entry != 0) & (own.entry != theirs.entry)).tolist():
                differing[row] += 1
                first.setdefault(row, (pfn, int(theirs.entry[row])))
    except FaultError as e:
        reason = f"not all page tables of tasks were compared with the kernel's: {e}"
        yield Unjudged(0, 0, reason, e.address)
    for row, tasks in sorted(differing.items()):
        yield from _unsynchronised(vmemmap, own, row, tasks, first[row])


def _unsynchronised(
    vmemmap: _Vmemmap, own: TopLevel, row: int, tasks: int, example: tuple[int, int]
) -> Iterator[Finding]:
    low, high = int(own.page[row]), int(own.page[row]) + (1 << own.order)
    inside = [vmemmap.pfns(low, high, span) for _, span in vmemmap.owners]
    spans = union((start, end) for start, end in inside if start < end)
    if not spans:
        return
    pfn, value = example
    pages = sum(end - start for start, end in spans)
    start = spans[0][0]
    fact = Evidence(
        f"entry for page of vmemmap {low:#x} in the page table at PFN {pfn:#x}",
        value=value,
        expected=int(own.entry[row]),
        note=f"the first of {tasks} that differ",
    )
    case = vmemmap.scene.case_at(start)
    yield make_finding(
        "vmemmap-top-entry", case, start, spans[-1][1], count=pages, evidence=(fact,)
    )
