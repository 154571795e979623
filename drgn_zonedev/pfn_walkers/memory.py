# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Unpromised Memory
-----------------

Memory with unpromised struct pages, as runs of PFNs that no guard can distinguish. It includes RAM
whose struct pages name a zone or node that does not exist. Predicates are evaluated once for each
run, so the size of the memory does not matter. The struct pages are read once, for all walkers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Optional

import numpy as np
from drgn import FaultError, Program, offsetof

from drgn_zonedev.classification.boundaries import aligned, pgmap_borders, section_borders
from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.kernel.memmap import PageLayout, Pages, page_layout, read_pages
from drgn_zonedev.kernel.page_types import page_types
from drgn_zonedev.kernel.pageblock import max_order_nr_pages, pageblock_nr_pages
from drgn_zonedev.kernel.predicates import Predicates
from drgn_zonedev.kernel.records import read_records
from drgn_zonedev.kernel.resource import with_names
from drgn_zonedev.kernel.zones import Zones, zones
from drgn_zonedev.model import CASES, Case, Memmap, Range
from drgn_zonedev.pfn_walkers.zone_lookup import false_nodes, false_zones
from drgn_zonedev.util.intervals import Span, difference, union
from drgn_zonedev.util.sets import sorted_set
from drgn_zonedev.verification.context import Progress, no_progress
from drgn_zonedev.verification.patterns import Contents, page_contents

__all__ = ("UNPROMISED", "PfnRuns", "UnpromisedMemory", "suspects", "unpromised_memory")

# Cases whose struct pages the kernel does not promise. Those of METADATA are initialised,
# but do not point to a pgmap.
UNPROMISED = (
    Case.OFFLINE,
    Case.PARTIAL,
    Case.INITIALIZING,
    Case.RESERVED,
    Case.METADATA,
    Case.TEARDOWN,
    Case.ORPHAN,
    Case.GHOST,
)

CONTENTS = tuple(Contents)

# Properties of a run's struct pages, as bits above the index into CONTENTS: first of their
# own words, then of the page that their compound link points to.
TAIL, IN_ZONE, REFERENCED, RESERVED, POISONED, CHARGED = (1 << bit for bit in range(8, 14))
WILD, NEAR, HELD, ON_LRU, FREE, MOVABLE = (1 << bit for bit in range(14, 20))
# The struct pages exist, but could not be read here.
UNREADABLE = 1 << 20
# Their zone or node does not exist; reading what is taken for the zone, or its per-CPU pagesets,
# faults.
FALSE_ZONE, FAULTING_ZONE = 1 << 21, 1 << 22
# A kexec handed the page over: KHO_PAGE_MAGIC in the lower half of page->private.
HANDED_OVER = 1 << 23
# Their node can never exist.
FALSE_NODE = 1 << 24
# The node that they name spans them.
IN_NODE = 1 << 25
_KHO_MAGIC = 0x4B484F50
_CONTENTS_MASK = 0xFF

# MAX_FOLIO_NR_PAGES is a macro; in no configuration is it larger than this: 16 GiB.
_FAR = 1 << 22


@dataclass(frozen=True)
class PfnRuns:
    """
    Columns, a row per run. ``case`` is an index into ``CASES``, ``mapped`` is whether the
    struct pages exist, ``page`` describes them (see above).
    """

    start: np.ndarray
    end: np.ndarray
    case: np.ndarray
    mapped: np.ndarray
    page: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    def pages(self) -> np.ndarray:
        """Number of PFNs of each run."""
        return self.end - self.start

    def contents(self) -> np.ndarray:
        """Index into ``CONTENTS`` of each run."""
        return self.page & _CONTENTS_MASK

    def has(self, bit: int) -> np.ndarray:
        """Whether the struct pages of each run have a property, given as a bit."""
        return (self.page & bit) != 0


@dataclass(frozen=True)
class UnpromisedMemory:
    """
    Unpromised memory in runs, and the structures that guards check. ``zones`` are those
    that may have RAM. ``unread_ram`` are PFNs of RAM whose struct pages could not be read.
    """

    prog: Program
    snapshot: Snapshot
    runs: PfnRuns
    ram: np.ndarray
    zones: Zones
    unread_ram: tuple[Span, ...]

    def ask(self, pfn: np.ndarray) -> Predicates:
        """The kernel's predicates for PFNs."""
        return self.snapshot.predicates(pfn)

    @cached_property
    def first(self) -> Predicates:
        """The kernel's predicates for the first PFN of each run, which hold for all of it."""
        return self.ask(self.runs.start)

    @cached_property
    def layout(self) -> PageLayout:
        return page_layout(self.prog)

    @cached_property
    def max_order_pages(self) -> int | None:
        """``None`` if it is not known."""
        return max_order_nr_pages(self.prog)

    @cached_property
    def pageblock_pages(self) -> int | None:
        """``None`` if it is not known."""
        return pageblock_nr_pages(self.prog, self.snapshot.sections)

    @cached_property
    def virtio_mem(self) -> np.ndarray:
        """PFNs of memory that virtio-mem plugged, a row for each span; all RAM if not known."""
        spans = _virtio_mem(self.prog, self.snapshot)
        return self.ram if spans is None else np.array(spans, np.int64).reshape(-1, 2)

    @cached_property
    def max_pfn(self) -> int | None:
        """``None`` if it cannot be read: exports of old versions do not hold it."""
        return read_max_pfn(self.prog)

    def is_populated(self, zones_of: np.ndarray, pfn: np.ndarray) -> np.ndarray:
        """Whether the zones of PFNs (see :meth:`zones_of`) are populated and span them."""
        return _is_populated(self.zones, self.layout, zones_of, pfn)

    def zones_of(self, pfn: np.ndarray) -> np.ndarray:
        """The bits of ``page->flags`` that say node and zone; -1 if they cannot be read."""
        layout = self.layout
        page = np.uint64(layout.vmemmap) + pfn.astype(np.uint64) * np.uint64(layout.size)
        raw, readable = read_records(self.prog, page + np.uint64(layout.flags_word * 8), 8)
        return np.where(readable, _links(layout, raw.view("<u8")[:, 0]), -1)


def _virtio_mem(prog: Program, snapshot: Snapshot) -> tuple[Span, ...] | None:
    shift, resources = snapshot.geometry.page_shift, snapshot.resources
    if resources is None or resources.unreadable:
        return None
    named = with_names(prog, resources).found
    return union((r.start >> shift, r.end >> shift) for r in named if r.name == _VIRTIO_MEM)


# In /proc/iomem.
_VIRTIO_MEM = "System RAM (virtio_mem)"


def read_max_pfn(prog: Program) -> int | None:
    try:
        return int(prog["max_pfn"].value_())
    except FaultError:
        return None


def zones_with_ram(prog: Program, snapshot: Snapshot) -> Zones:
    """Get the zones of a snapshot, without an unreadable ZONE_DEVICE, which never has RAM."""
    # zones() raises an exception that says what is missing in the debugging information.
    found, zone_device = snapshot.zones or zones(prog), page_layout(prog).zone_device
    return Zones(found.found, tuple(z for z in found.unreadable if z.number != zone_device))


def _is_populated(
    zones: Zones, layout: PageLayout, links: np.ndarray, pfn: np.ndarray
) -> np.ndarray:
    # Whether the zone that a page links to spans the page, and has RAM. An unreadable zone may
    # do both.
    found = np.zeros(len(pfn), bool)
    for zone in zones.found:
        inside = (pfn >= zone.start_pfn) & (pfn < zone.end_pfn) & bool(zone.present_pages)
        found |= inside & (links == _link(layout, zone.nid, zone.number))
    for unreadable in zones.unreadable:
        found |= links == _link(layout, unreadable.nid, unreadable.number)
    return found


def _is_in_node(snapshot: Snapshot, layout: PageLayout, pages: Pages) -> np.ndarray:
    # A node that cannot be read may span anything.
    nodes, nid = snapshot.nodes, _links(layout, pages.flags) >> layout.zones_shift
    if nodes is None:
        return np.ones(len(nid), bool)
    found = np.isin(nid, [node.nid for node in nodes.unreadable])
    for node in nodes.found:
        inside = (pages.pfn >= node.start_pfn) & (pages.pfn < node.end_pfn)
        found |= inside & (nid == node.nid)
    return found


def _link(layout: PageLayout, nid: int, number: int) -> int:
    # set_page_links()
    return nid << layout.zones_shift | number


def _links(layout: PageLayout, flags: np.ndarray) -> np.ndarray:
    shift = 64 - layout.nodes_shift - layout.zones_shift
    return (flags >> np.uint64(shift)).astype(np.int64)


def unpromised_memory(
    prog: Program,
    snapshot: Snapshot,
    ranges: Sequence[Range],
    ram: Sequence[tuple[int, int]],
    progress: Progress = no_progress,
) -> UnpromisedMemory:
    """
    Read unpromised memory, and cut it into runs.

    :param ranges: If RAM is among them, all of it is read: see :func:`suspects`.
    :param ram: PFNs that are System RAM.
    :param progress: Called with the bytes of memmap that were just read, and all there are.
    """
    ranges = [_as_ram(snapshot, r) for r in ranges]
    bad = [r for r in ranges if _is_unpromised(snapshot, r) or r.case is Case.ONLINE]
    # Some walkers check a block as a whole.
    pageblock = pageblock_nr_pages(prog, snapshot.sections)
    blocks = (n for n in (max_order_nr_pages(prog), pageblock) if n)
    walked = zones_with_ram(prog, snapshot)
    edges = _edges(prog, snapshot, bad, blocks, ram, walked)
    size = page_layout(prog).size
    total = size * sum(r.pages for r in bad if r.memmap is not Memmap.UNMAPPED)

    def read(pages: int) -> None:
        progress(pages * size, total)

    describe = partial(_describe, prog, snapshot, walked)
    parts = [part for range_ in bad for part in _parts(prog, range_, edges, describe, read)]
    rows = np.array(parts, np.int64).reshape(-1, 5)
    start, end, case, mapped, page = _unpromised(rows).T
    runs = PfnRuns(start, end, case, mapped.astype(bool), page)
    spans = np.array(ram, np.int64).reshape(-1, 2)
    return UnpromisedMemory(prog, snapshot, runs, spans, walked, _unread_ram(rows))


def _unpromised(parts: np.ndarray) -> np.ndarray:
    # For RAM, only struct pages whose zone does not exist.
    case, page = parts[:, 2], parts[:, 4]
    return parts[(case != CASES.index(Case.ONLINE)) | (page & FALSE_ZONE != 0)]


def _unread_ram(parts: np.ndarray) -> tuple[Span, ...]:
    of_ram = (parts[:, 2] == CASES.index(Case.ONLINE)) & (parts[:, 4] == UNREADABLE)
    return union((start, end) for start, end in parts[of_ram, :2].tolist())


def suspects(prog: Program, snapshot: Snapshot, ranges: Sequence[Range]) -> list[Range]:
    """
    Get the ranges whose struct pages a kernel may not have initialised, or wrongly: all without a
    promise, and RAM in online sections that no zone spans, such as memory that firmware keeps after
    the end of RAM. An unreadable zone may span anything.
    """
    walked, zone_device = zones_with_ram(prog, snapshot), page_layout(prog).zone_device
    found = [r for r in ranges if _is_unpromised(snapshot, r)]
    if walked.unreadable:
        return found
    spanned = union((z.start_pfn, z.end_pfn) for z in walked.found if z.number != zone_device)
    for r in ranges:
        if r.case is Case.ONLINE:
            rest = difference((r.start_pfn, r.end_pfn), spanned)
            found += [dataclasses.replace(r, start_pfn=a, end_pfn=b) for a, b in rest]
    return sorted(found, key=lambda r: r.start_pfn)


def _is_unpromised(snapshot: Snapshot, range_: Range) -> bool:
    if range_.case is Case.METADATA and range_.pgmap is None:
        # The head of a memory block counts as RAM.
        return not snapshot.is_online(range_.start_pfn)
    return range_.case in UNPROMISED


def _as_ram(snapshot: Snapshot, range_: Range) -> Range:
    of_block = range_.case is Case.METADATA and range_.pgmap is None
    if of_block and snapshot.is_online(range_.start_pfn):
        return dataclasses.replace(range_, case=Case.ONLINE)
    return range_


def _edges(
    prog: Program,
    snapshot: Snapshot,
    bad: Sequence[Range],
    block_pages: Iterable[int],
    ram: Sequence[tuple[int, int]],
    walked: Zones,
) -> np.ndarray:
    # Everywhere that the answer of a predicate can change. Within a range, that is where
    # sections, subsections and pgmaps begin and end; where the case also changes, one range
    # ends and another begins.
    geometry = snapshot.geometry
    edges = {pfn for r in bad for pfn in (r.start_pfn, r.end_pfn)}
    edges |= {pfn for span in ram for pfn in span} | pgmap_borders(snapshot)
    for zone in walked.found:
        edges |= {zone.start_pfn, zone.end_pfn}
    for node in snapshot.nodes.found if snapshot.nodes else ():
        edges |= {node.start_pfn, node.end_pfn}
    max_pfn = read_max_pfn(prog)
    if max_pfn is not None:
        edges |= {max_pfn, -(-max_pfn // geometry.pages_per_section) * geometry.pages_per_section}
    found = aligned(edges, (*block_pages, geometry.pages_per_subsection))
    return sorted_set(np.concatenate([found, section_borders(snapshot)]))


_Part = tuple[int, int, int, int, int]
_Describe = Callable[[Pages, Optional[int]], np.ndarray]


def _parts(
    prog: Program,
    range_: Range,
    edges: np.ndarray,
    describe: _Describe,
    read: Callable[[int], None],
) -> Iterator[_Part]:
    case = CASES.index(range_.case)
    first, last = np.searchsorted(edges, [range_.start_pfn + 1, range_.end_pfn])
    inside = edges[first:last].tolist()
    borders = [range_.start_pfn, *inside, range_.end_pfn]
    if range_.memmap is Memmap.UNMAPPED:
        for start, end in zip(borders, borders[1:]):
            yield start, end, case, 0, 0
        return
    for start, end, page in _read(prog, range_, describe, read):
        cuts = [start, *(b for b in inside if start < b < end), end]
        for cut, next_cut in zip(cuts, cuts[1:]):
            yield cut, next_cut, case, 1, page


def _read(
    prog: Program, range_: Range, describe: _Describe, read: Callable[[int], None]
) -> Iterator[tuple[int, int, int]]:
    for part in read_pages(prog, range_.start_pfn, range_.end_pfn):
        read(part.end_pfn - part.start_pfn)
        if not isinstance(part, Pages):
            yield part.start_pfn, part.end_pfn, UNREADABLE
            continue
        code = describe(part, range_.pgmap)
        first = np.flatnonzero(np.diff(code, prepend=code[:1] + 1))
        last = np.append(first[1:], len(code))
        for i, j in zip(first.tolist(), last.tolist()):
            yield part.start_pfn + i, part.start_pfn + j, int(code[i])


def _describe(
    prog: Program, snapshot: Snapshot, walked: Zones, pages: Pages, pgmap: int | None
) -> np.ndarray:
    live = frozenset(p.address for p in snapshot.pgmaps)
    code = page_contents(prog, pages, pgmap, live).astype(np.int64)
    tail, layout = pages.is_tail, pages.layout
    wild = tail & ~_in_memmap(snapshot, pages)
    heads, known = _heads(prog, pages, wild)
    false, faulting = false_zones(prog, pages)
    bits = {
        TAIL: tail,
        IN_ZONE: _is_populated(walked, layout, _links(layout, pages.flags), pages.pfn),
        REFERENCED: pages.refcount != 0,
        RESERVED: _flag(prog, pages, "PG_reserved"),
        POISONED: _flag(prog, pages, "PG_hwpoison"),
        CHARGED: _is_charged(prog, pages),
        WILD: wild,
        NEAR: pages.address - pages.head < np.uint64(_FAR * pages.layout.size),
        # A head that could not be read may have any property.
        HELD: (heads.refcount != 0) | ~known,
        ON_LRU: _flag(prog, heads, "PG_lru") | ~known,
        # is_free_buddy_page() also looks at earlier pages.
        FREE: page_types(prog).has(heads, "buddy") | ~known,
        MOVABLE: _is_movable(prog, heads) | ~known,
        FALSE_ZONE: false,
        HANDED_OVER: _is_handed_over(prog, pages),
        FAULTING_ZONE: faulting,
        FALSE_NODE: false_nodes(prog, pages),
        IN_NODE: _is_in_node(snapshot, layout, pages),
    }
    for bit, column in bits.items():
        code |= np.where(column, bit, 0)
    return code


def _heads(prog: Program, pages: Pages, wild: np.ndarray) -> tuple[Pages, np.ndarray]:
    """Get the struct pages that compound links point to, a row per page, and which are known."""
    layout = pages.layout
    first = np.uint64(layout.page_address(pages.start_pfn))
    row = (pages.head - first) // np.uint64(layout.size)
    known = ~wild
    inside = known & (row < np.uint64(len(wild)))
    words = pages.words[np.where(inside, row, 0).astype(np.int64)]
    elsewhere = np.flatnonzero(known & ~inside)
    if len(elsewhere):
        heads, which = np.unique(pages.head[elsewhere], return_inverse=True)
        raw, readable = read_records(prog, heads, layout.size)
        words[elsewhere] = raw.view("<u8")[which]
        known[elsewhere] = readable[which]
    return Pages(pages.start_pfn, pages.end_pfn, words, layout), known


def _flag(prog: Program, pages: Pages, name: str) -> np.ndarray:
    try:
        bit = np.uint64(prog.constant(name).value_())
    except LookupError:
        # PAGEFLAG_FALSE(): the kernel is not configured for it.
        return np.zeros(len(pages.words), bool)
    return (pages.flags >> bit & np.uint64(1)).astype(bool)


def _is_charged(prog: Program, pages: Pages) -> np.ndarray:
    # Renamed in Linux kernel commit bcfe06bf2622 ("mm: memcontrol: Use helpers to read
    # page's memcg data") (in v5.11). If bit 0 is set, the word has never been a
    # memcg, and page_cgroup_ino() ignores it.
    page = prog.type("struct page")
    for name in ("memcg_data", "mem_cgroup"):
        if page.has_member(name):
            memcg = pages.words[:, offsetof(page, name) // 8]
            return (memcg != 0) & (memcg & np.uint64(1) == 0)
    return np.zeros(len(pages.words), bool)


def _is_handed_over(prog: Program, pages: Pages) -> np.ndarray:
    private = pages.words[:, offsetof(prog.type("struct page"), "private") // 8]
    return (private & np.uint64(0xFFFFFFFF)) == np.uint64(_KHO_MAGIC)


def _is_movable(prog: Program, pages: Pages) -> np.ndarray:
    # page_has_movable_ops(), or __PageMovable().
    try:
        prog.constant("PG_movable_ops")
    except LookupError:
        mapping = pages.words[:, pages.layout.mapping_word]
        return (mapping & np.uint64(3)) == np.uint64(2)
    return _flag(prog, pages, "PG_movable_ops")


def _in_memmap(snapshot: Snapshot, pages: Pages) -> np.ndarray:
    """Whether each page's head is a struct page of a present section."""
    layout = pages.layout
    # Unsigned: an address below the memmap wraps to far above it.
    offset = pages.head - np.uint64(layout.vmemmap)
    pfn = offset // np.uint64(layout.size)
    good = (offset % np.uint64(layout.size) == 0) & (pfn < np.uint64(snapshot.geometry.max_pfn))
    return good & snapshot.predicates(np.where(good, pfn, 0).astype(np.int64)).pfn_valid
