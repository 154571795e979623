# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Consistency
-----------

The structures that decide what a PFN is, against each other. No struct page is
read.

Only pgmaps that are live are held to anything, and most promises are kept only
once a range is complete: while memory is added or removed, everything here is
legal for a moment.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from drgn import Architecture, FaultError, Object, Program, offsetof, sizeof

from drgn_zonedev.findings import make_finding
from drgn_zonedev.kernel.memremap import (
    dev_pagemap_info,
    pgmap_array_slots,
)
from drgn_zonedev.kernel.pageblock import pageblock_layout, section_migratetypes
from drgn_zonedev.kernel.resource import iomem_resources
from drgn_zonedev.kernel.sections import common_mem_map
from drgn_zonedev.lacking import optional
from drgn_zonedev.model import Case, Evidence, Finding, Pgmap, PgmapRange, Range, Unjudged
from drgn_zonedev.sets import sorted_set
from drgn_zonedev.snapshot import Snapshot
from drgn_zonedev.spans import union

__all__ = ("inconsistencies",)

# Pgmaps for each section, on average.
_MAX_OWNERS = 4


@dataclass(frozen=True)
class _Claim:
    """One range of a live pgmap."""

    pgmap: Pgmap
    index: int
    range: PgmapRange

    @property
    def complete(self) -> bool:
        return self.index < self.pgmap.nr_range


@dataclass(frozen=True)
class _Scene:
    """
    What the checks look at; ``ranges`` are those of the classification. ``told`` gets
    what could not be compared.
    """

    prog: Program
    snapshot: Snapshot
    ranges: Sequence[Range]
    told: list[Unjudged]

    @cached_property
    def claims(self) -> list[_Claim]:
        """Of live pgmaps, in ascending order."""
        found = [c for c in self.all_claims if c.range.start_pfn < c.range.end_pfn]
        found.sort(key=lambda c: (c.range.start_pfn, c.range.end_pfn))
        kept = self._affordable(found)
        if kept < len(found):
            start, end = found[kept].range.start_pfn, max(c.range.end_pfn for c in found)
            reason = "too many pgmaps claim the same sections: only some were compared with them"
            self.told.append(Unjudged(start, end, reason))
        return found[:kept]

    def _affordable(self, claims: Sequence[_Claim]) -> int:
        # Each section belongs to few claims. Damaged ones can all be of everything.
        sections, pages = self.snapshot.sections, self.snapshot.geometry.pages_per_section
        starts = np.array([c.range.start_pfn // pages for c in claims], np.int64)
        ends = np.array([(c.range.end_pfn - 1) // pages for c in claims], np.int64)
        touched = np.searchsorted(sections.nr, ends, side="right")
        touched -= np.searchsorted(sections.nr, starts)
        most = _MAX_OWNERS * (len(sections) + len(claims))
        return int(np.searchsorted(np.cumsum(touched), most, side="right"))

    @property
    def all_claims(self) -> list[_Claim]:
        """Those of damaged pgmaps, too, whose ranges may be empty."""
        return [
            _Claim(pgmap, i, range_)
            for pgmap in self.snapshot.pgmaps
            if pgmap.ref.state == "live" and pgmap.address not in self.snapshot.torn_pgmaps
            for i, range_ in enumerate(pgmap.ranges)
        ]

    @cached_property
    def complete(self) -> list[_Claim]:
        """Claims that are initialised."""
        return [c for c in self.claims if c.complete]

    @cached_property
    def torn(self) -> np.ndarray:
        """Which rows of the sections changed under the reader's hands."""
        return np.isin(self.snapshot.sections.nr, list(self.snapshot.torn_sections))

    def has_flag(self, flag: int) -> np.ndarray:
        """Which sections have a flag."""
        return (self.snapshot.sections.word & np.uint64(flag)) != 0

    def rows(self, start_pfn: int, end_pfn: int) -> np.ndarray:
        """Rows of the present sections that a PFN range touches."""
        return self.snapshot.sections.rows(start_pfn, end_pfn)

    @cached_property
    def claimed(self) -> np.ndarray:
        """Which sections have PFNs of a live pgmap."""
        found = np.zeros(len(self.snapshot.sections), bool)
        for claim in self.claims:
            found[self.rows(claim.range.start_pfn, claim.range.end_pfn)] = True
        return found

    def section_span(self, row: int) -> tuple[int, int]:
        """PFNs of a section."""
        start = int(self.snapshot.sections.nr[row]) * self.snapshot.geometry.pages_per_section
        return start, start + self.snapshot.geometry.pages_per_section

    def section_word(self, row: int, expected: int | None = None) -> Evidence:
        sections = self.snapshot.sections
        offset = offsetof(self.prog.type("struct mem_section"), "section_mem_map")
        return Evidence(
            what=f"mem_section[{sections.nr[row]}].section_mem_map",
            address=int(sections.address[row]) + offset,
            value=int(sections.word[row]),
            expected=expected,
        )

    def pgmap_member(
        self, pgmap: Pgmap, member: str, value: int, expected: int | None = None
    ) -> Evidence:
        address = pgmap.address + offsetof(self.prog.type("struct dev_pagemap"), member)
        return Evidence(f"pgmap->{member}", address, value, expected)

    def range_facts(self, claim: _Claim) -> tuple[Evidence, Evidence]:
        """The bytes that a pgmap's range was read from."""
        shift = self.snapshot.geometry.page_shift
        base = claim.pgmap.address + offsetof(self.prog.type("struct dev_pagemap"), "range")
        base += claim.index * sizeof(self.prog.type("struct range"))
        what, range_ = f"pgmap->ranges[{claim.index}]", claim.range
        start, end = range_.start_pfn << shift, (range_.end_pfn << shift) - 1
        return (
            Evidence(f"{what}.start", base, start),
            # A range that ends in the first page is damaged.
            Evidence(f"{what}.end", base + 8, max(end, 0)),
        )

    def case_at(self, pfn: int) -> Case:
        """What the classification made of a PFN."""
        i = bisect.bisect_right([r.start_pfn for r in self.ranges], pfn) - 1
        if i >= 0 and pfn < self.ranges[i].end_pfn:
            return self.ranges[i].case
        return Case.UNKNOWN


def inconsistencies(
    prog: Program,
    snapshot: Snapshot,
    ranges: Sequence[Range],
    lacks: list[Unjudged] | None = None,
) -> list[Finding]:
    """
    Compare the structures with each other.

    :param ranges: What the classification made of them.
    :param lacks: Gets what could not be compared, because it cannot be read, or the
        debugging information lacks something.
    """
    told = [] if lacks is None else lacks
    scene = _Scene(prog, snapshot, ranges, told)
    findings: list[Finding] = []
    for check in _CHECKS:
        nothing: list[Finding] = []
        findings += optional(
            told, "not all structures were compared", nothing, functools.partial(_all, check, scene)
        )
    return findings


def _all(check: Callable[[_Scene], Iterator[Finding]], scene: _Scene) -> list[Finding]:
    return list(check(scene))


def _runs(starts: np.ndarray, length: int) -> Iterator[tuple[int, int]]:
    # Merges pieces of equal length, given by where they start.
    if not len(starts):
        return
    for group in np.split(starts, np.flatnonzero(np.diff(starts) != length) + 1):
        yield int(group[0]), int(group[-1]) + length


# --- pgmap_array ------------------------------------------------------------------------


def _array_entries(scene: _Scene) -> Iterator[Finding]:
    torn = scene.snapshot.torn_pgmaps
    notes = {a: _stray_note(scene, a) for a in {a for a, _ in scene.snapshot.stray_claims} - torn}
    for address, span in scene.snapshot.stray_claims:
        note = notes.get(address)
        if note:
            start, end = span.start_pfn, span.end_pfn
            entry = Evidence(f"pgmap_array[{start:#x}]", value=address, note=note)
            yield make_finding(
                "pgmap-array-entry", Case.UNKNOWN, start, end, pgmap=address, evidence=(entry,)
            )


def _stray_note(scene: _Scene, address: int) -> str | None:
    # A pgmap that cannot be read says nothing: it is unjudged.
    try:
        return _ranges_note(dev_pagemap_info(Object(scene.prog, "struct dev_pagemap *", address)))
    except FaultError:
        return None
    except ValueError as e:
        return str(e)


def _ranges_note(pgmap: Pgmap) -> str:
    ranges = (f"[{r.start_pfn:#x}, {r.end_pfn:#x})" for r in pgmap.ranges)
    return f"nr_range is {pgmap.nr_range}; its ranges: {', '.join(ranges)}"


def _array_missing(scene: _Scene) -> Iterator[Finding]:
    array = scene.snapshot.pgmap_array
    for claim in scene.claims:
        address = claim.pgmap.address
        run: tuple[int, int, int] | None = None
        for start, end in pgmap_array_slots(claim.range.start_pfn, claim.range.end_pfn):
            found = array.find(start)
            if found == address or (not found and array.in_gap(start)):
                continue
            if run and run[1] == start:
                run = run[0], end, run[2]
                continue
            if run:
                yield _missing(scene, claim, *run)
            run = start, end, found
        if run:
            yield _missing(scene, claim, *run)


def _missing(scene: _Scene, claim: _Claim, start: int, end: int, found: int) -> Finding:
    address = claim.pgmap.address
    return make_finding(
        "pgmap-array-missing",
        Case.DEVICE,
        start,
        end,
        pgmap=address,
        evidence=(
            Evidence(f"pgmap_array[{start:#x}]", value=found, expected=address),
            *scene.range_facts(claim),
        ),
    )


def _overlaps(scene: _Scene) -> Iterator[Finding]:
    before: _Claim | None = None
    per_subsection = scene.snapshot.geometry.pages_per_subsection
    for claim in scene.claims:
        if before:
            start, end = claim.range.start_pfn, min(claim.range.end_pfn, before.range.end_pfn)
            slug = "pgmap-overlap"
            if start >= before.range.end_pfn:
                slug = "subsection-two-owners"
                start = start // per_subsection * per_subsection
                end = start + per_subsection
            if slug == "pgmap-overlap" or start < before.range.end_pfn:
                yield make_finding(
                    slug,
                    scene.case_at(start),
                    start,
                    end,
                    pgmap=claim.pgmap.address,
                    evidence=scene.range_facts(before) + scene.range_facts(claim),
                )
        if before is None or claim.range.end_pfn > before.range.end_pfn:
            before = claim


def _odd_ranges(scene: _Scene) -> Iterator[Finding]:
    per_subsection = scene.snapshot.geometry.pages_per_subsection
    for claim in (c for c in scene.all_claims if c.complete):
        start, end = claim.range.start_pfn, claim.range.end_pfn
        if start >= end or start % per_subsection or end % per_subsection:
            yield make_finding(
                "pgmap-range",
                Case.DEVICE,
                start,
                max(end, start + 1),
                pgmap=claim.pgmap.address,
                evidence=scene.range_facts(claim),
            )


# --- sections ---------------------------------------------------------------------------


def _unpopulated(scene: _Scene) -> Iterator[Finding]:
    for claim in scene.complete:
        for start, end in _unpopulated_runs(scene, claim.range):
            rows = scene.rows(start, start + 1)
            yield make_finding(
                "device-unpopulated",
                scene.case_at(start),
                max(start, claim.range.start_pfn),
                min(end, claim.range.end_pfn),
                pgmap=claim.pgmap.address,
                evidence=_subsection_facts(scene, int(rows[0]), start) if len(rows) else (),
            )


def _unpopulated_runs(scene: _Scene, range_: PgmapRange) -> Iterator[tuple[int, int]]:
    # A damaged range can cover all that the kernel can express, so subsections are
    # looked at only where there are sections.
    geometry = scene.snapshot.geometry
    unit, pages = geometry.pages_per_subsection, geometry.pages_per_section
    low = range_.start_pfn // unit * unit
    high = min(-(-range_.end_pfn // unit) * unit, geometry.max_pfn)
    if low >= high:
        return
    sections = scene.snapshot.sections.nr[scene.rows(low, high)] * pages
    starts = (sections[:, None] + np.arange(geometry.subsections_per_section) * unit).ravel()
    starts = starts[(starts >= low) & (starts < high)]
    missing = list(_runs(starts[~_populated(scene, starts)], unit))
    known = [*_runs(sections, pages)]
    known += [(a * pages, b * pages) for a, b, _ in scene.snapshot.sections.unreadable]
    for start, end in sorted(known):
        missing.append((low, min(start, high)))
        low = max(low, end)
    missing.append((low, high))
    yield from union(missing)


def _populated(scene: _Scene, starts: np.ndarray) -> np.ndarray:
    # Subsections of which it is not known count as populated.
    snapshot, geometry = scene.snapshot, scene.snapshot.geometry
    sections = snapshot.sections
    nr = starts // geometry.pages_per_section
    unknown = np.zeros(len(starts), bool)
    for first, end, _ in sections.unreadable:
        unknown |= (nr >= first) & (nr < end)
    if not len(sections):
        return unknown
    row = sections.row_of(starts)
    present = row >= 0
    is_set = sections.test_bit(sections.subsection_map, row, starts)
    is_set &= scene.has_flag(snapshot.flags.has_mem_map)[row]
    unknown |= present & (scene.torn[row] | ~sections.usage_readable[row])
    return unknown | is_set


def _subsection_facts(scene: _Scene, row: int, pfn: int) -> tuple[Evidence, ...]:
    geometry, sections = scene.snapshot.geometry, scene.snapshot.sections
    bit = geometry.subsection_map_index(pfn)
    usage = int(sections.usage[row])
    fact = Evidence(
        what=f"mem_section[{sections.nr[row]}].usage->subsection_map",
        address=usage or None,
        value=int(sections.subsection_map[row, bit // 64]),
        note=f"bit {bit}",
    )
    return scene.section_word(row), fact


def _online_devices(scene: _Scene) -> Iterator[Finding]:
    # In an online section without the taint, pfn_to_online_page() does not ask
    # for a pgmap. Kernels before v5.12 have no taint at all.
    flags = scene.snapshot.flags
    online, tainted = scene.has_flag(flags.online), scene.has_flag(flags.taint)
    only_device = online & ~scene.has_flag(flags.early) & ~_has_block(scene)
    missing = _without_due_taint(scene)
    for claim in scene.claims:
        rows = scene.rows(claim.range.start_pfn, claim.range.end_pfn)
        for row in rows[~scene.torn[rows]].tolist():
            if only_device[row]:
                yield _in_section(scene, claim, row, "device-section-online", flags.online, 0)
            elif row in missing:
                yield _in_section(scene, claim, row, "section-taint-missing", 0, flags.taint)
            elif online[row] and not tainted[row]:
                yield _in_section(scene, claim, row, "collision-untainted")


def _in_section(
    scene: _Scene, claim: _Claim, row: int, slug: str, without: int = 0, with_: int = 0
) -> Finding:
    start, end = scene.section_span(row)
    start, end = max(claim.range.start_pfn, start), min(claim.range.end_pfn, end)
    word = int(scene.snapshot.sections.word[row])
    expected = (word & ~without) | with_
    return make_finding(
        slug,
        Case.DEVICE,
        start,
        end,
        pgmap=claim.pgmap.address,
        evidence=(scene.section_word(row, expected if expected != word else None),),
    )


def _without_due_taint(scene: _Scene) -> frozenset[int]:
    # move_pfn_range_to_zone() taints the first and last section of a range if the
    # range does not begin, or end, with it.
    flags, pages = scene.snapshot.flags, scene.snapshot.geometry.pages_per_section
    tainted = scene.has_flag(flags.taint)
    due = [
        pfn
        for claim in scene.complete
        for border, pfn in (
            (claim.range.start_pfn, claim.range.start_pfn),
            (claim.range.end_pfn, claim.range.end_pfn - 1),
        )
        if border % pages and flags.taint
    ]
    rows = (row for pfn in due for row in scene.rows(pfn, pfn + 1).tolist())
    return frozenset(row for row in rows if not tainted[row])


def _block_ids(scene: _Scene) -> np.ndarray:
    ids: np.ndarray = scene.snapshot.sections.nr // scene.snapshot.sections_per_block
    return ids


def _has_block(scene: _Scene) -> np.ndarray:
    return np.isin(_block_ids(scene), scene.snapshot.memory_blocks.id)


def _device_blocks(scene: _Scene) -> Iterator[Finding]:
    # A block may span sections that RAM has and sections that a device has.
    ids = _block_ids(scene)
    ram = scene.has_flag(scene.snapshot.flags.early) | ~scene.claimed | scene.torn
    there, ram_ids = sorted_set(ids[_has_block(scene)]), sorted_set(ids[ram])
    for block_id in np.setdiff1d(there, ram_ids, assume_unique=True).tolist():
        rows = np.flatnonzero(ids == block_id)
        start, end = scene.section_span(int(rows[0]))[0], scene.section_span(int(rows[-1]))[1]
        address, state = scene.snapshot.memory_blocks.find(block_id) or (0, "")
        yield make_finding(
            "device-memory-block",
            Case.DEVICE,
            start,
            end,
            evidence=(
                Evidence(f"memory_blocks[{block_id}]", value=address, expected=0, note=state),
            ),
        )


def _without_memmap(scene: _Scene) -> Iterator[Finding]:
    if scene.snapshot.hotplug_in_progress:
        return
    flags = scene.snapshot.flags
    # Where a device is complete, that is device-unpopulated.
    bare = ~scene.has_flag(flags.has_mem_map) & ~scene.torn & ~scene.claimed
    for row in np.flatnonzero(bare).tolist():
        start, end = scene.section_span(row)
        word = int(scene.snapshot.sections.word[row])
        facts = (scene.section_word(row, word | flags.has_mem_map),)
        yield make_finding(
            "section-without-memmap", scene.case_at(start), start, end, evidence=facts
        )


def _astray(scene: _Scene) -> Iterator[Finding]:
    flags, sections = scene.snapshot.flags, scene.snapshot.sections
    usual = common_mem_map(sections, flags)
    if usual is None or not scene.prog.type("struct mem_section_usage").has_member(
        "subsection_map"
    ):
        return
    other = (sections.word & np.uint64(flags.map_mask)) != np.uint64(usual)
    for row in np.flatnonzero(other & scene.has_flag(flags.has_mem_map) & ~scene.torn).tolist():
        start, end = scene.section_span(row)
        kept = int(sections.word[row]) & ~flags.map_mask
        facts = (scene.section_word(row, usual | kept),)
        yield make_finding("section-mem-map", scene.case_at(start), start, end, evidence=facts)


def _without_usage(scene: _Scene) -> Iterator[Finding]:
    if not scene.prog.type("struct mem_section").has_member("usage"):
        return
    sections = scene.snapshot.sections
    has_mem_map = scene.has_flag(scene.snapshot.flags.has_mem_map)
    offset = offsetof(scene.prog.type("struct mem_section"), "usage")
    for row in np.flatnonzero(has_mem_map & (sections.usage == 0) & ~scene.torn).tolist():
        start, end = scene.section_span(row)
        usage = Evidence(
            f"mem_section[{sections.nr[row]}].usage", int(sections.address[row]) + offset, 0
        )
        facts = (usage, scene.section_word(row))
        yield make_finding("section-usage-null", scene.case_at(start), start, end, evidence=facts)


# --- zones, altmaps, resources, pageblocks ----------------------------------------------


def _outside_zone(scene: _Scene) -> Iterator[Finding]:
    spans = scene.snapshot.zone_device_spans
    if scene.snapshot.unread_zones:
        return
    for claim in scene.complete if scene.snapshot.knows_spans else ():
        start, end = claim.range.start_pfn, claim.range.end_pfn
        if any(first <= start and end <= last for first, last in spans.values()):
            continue
        facts = tuple(
            Evidence(f"NODE_DATA({nid})->node_zones[ZONE_DEVICE]", note=f"[{a:#x}, {b:#x})")
            for nid, (a, b) in spans.items()
        )
        yield make_finding(
            "zone-device-span", Case.DEVICE, start, end, pgmap=claim.pgmap.address, evidence=facts
        )


def _altmaps(scene: _Scene) -> Iterator[Finding]:
    for claim in scene.complete:
        altmap, pgmap = claim.pgmap.altmap, claim.pgmap
        if claim.index or not altmap:
            continue
        start, end = claim.range.start_pfn, claim.range.end_pfn
        facts: list[Evidence] = []
        slug = "altmap-range"
        if altmap.base_pfn != start:
            facts.append(scene.pgmap_member(pgmap, "altmap.base_pfn", altmap.base_pfn, start))
        if altmap.offset > end - start:
            facts.append(scene.pgmap_member(pgmap, "altmap.reserve", altmap.reserve))
            facts.append(scene.pgmap_member(pgmap, "altmap.free", altmap.free))
        if not facts:
            slug, facts = _account(scene, claim)
        if facts:
            yield make_finding(
                slug, Case.METADATA, start, end, pgmap=pgmap.address, evidence=tuple(facts)
            )


def _account(scene: _Scene, claim: _Claim) -> tuple[str, list[Evidence]]:
    altmap, pgmap = claim.pgmap.altmap, claim.pgmap
    assert altmap is not None
    if altmap.alloc + altmap.align > altmap.free:
        return "altmap-account", [
            scene.pgmap_member(pgmap, "altmap.alloc", altmap.alloc),
            scene.pgmap_member(pgmap, "altmap.align", altmap.align),
            scene.pgmap_member(pgmap, "altmap.free", altmap.free),
        ]
    expected = _expected_alloc(scene, claim)
    if expected is None or expected == altmap.alloc:
        return "", []
    return "altmap-unaccounted", [scene.pgmap_member(pgmap, "altmap.alloc", altmap.alloc, expected)]


def _expected_alloc(scene: _Scene, claim: _Claim) -> int | None:
    # vmemmap_populate() of x86-64 takes the altmap for whole sections only, and
    # section_activate() reuses the memmap of early ones.
    prog, geometry = scene.prog, scene.snapshot.geometry
    assert prog.platform is not None
    if prog.platform.arch != Architecture.X86_64 or scene.snapshot.sections.unreadable:
        return None
    pages = geometry.pages_per_section
    whole = scene.rows(claim.range.start_pfn, claim.range.end_pfn)
    starts = scene.snapshot.sections.nr[whole] * pages
    taken = (starts >= claim.range.start_pfn) & (starts + pages <= claim.range.end_pfn)
    taken &= ~scene.has_flag(scene.snapshot.flags.early)[whole]
    memmap = pages * sizeof(prog.type("struct page"))
    return int(taken.sum()) * (memmap >> geometry.page_shift)


def _resources(scene: _Scene) -> Iterator[Finding]:
    if not scene.complete:
        return
    resources = iomem_resources(scene.prog)
    for address in resources.unread[:1]:
        reason = f"iomem_resource cannot be read (at {address:#x}): not all devices and resources"
        scene.told.append(Unjudged(0, 0, f"{reason} were compared", address))
    shift = scene.snapshot.geometry.page_shift
    for claim in scene.complete:
        start, end = claim.range.start_pfn << shift, claim.range.end_pfn << shift
        ram = [r for r in resources.found if r.is_ram and r.start < end and start < r.end]
        around = any(r.start <= start and end <= r.end for r in resources.found)
        for resource in ram:
            yield make_finding(
                "device-in-ram",
                Case.DEVICE,
                max(start, resource.start) >> shift,
                min(end, resource.end) >> shift,
                pgmap=claim.pgmap.address,
                evidence=(
                    Evidence("struct resource", resource.address, note=resource.name),
                    *scene.range_facts(claim),
                ),
            )
        if not (ram or around or resources.unread):
            yield make_finding(
                "device-without-resource",
                Case.DEVICE,
                claim.range.start_pfn,
                claim.range.end_pfn,
                pgmap=claim.pgmap.address,
                evidence=scene.range_facts(claim),
            )


def _migratetypes(scene: _Scene) -> Iterator[Finding]:
    layout = pageblock_layout(scene.prog)
    if layout is None:
        return
    for claim in scene.complete:
        altmap = claim.pgmap.altmap if claim.index == 0 else None
        # A pageblock that begins in the reserve is never set.
        reserve_end = claim.range.start_pfn + (altmap.reserve if altmap else 0)
        wrong: list[int] = []
        first: Evidence | None = None
        for row in scene.rows(claim.range.start_pfn, claim.range.end_pfn).tolist():
            usage = int(scene.snapshot.sections.usage[row])
            types = section_migratetypes(scene.prog, usage, layout) if usage else None
            if types is None or scene.torn[row]:
                continue
            starts = scene.section_span(row)[0] + np.arange(len(types)) * layout.pages
            inside = (starts >= reserve_end) & (starts < claim.range.end_pfn)
            odd = inside & (types != layout.movable)
            if odd.any() and first is None:
                value = int(types[odd][0])
                first = Evidence(
                    f"migratetype of the pageblock of PFN {int(starts[odd][0]):#x}",
                    value=value,
                    expected=layout.movable,
                )
            wrong += starts[odd].tolist()
        if first:
            yield make_finding(
                "device-migratetype",
                Case.DEVICE,
                wrong[0],
                wrong[-1] + layout.pages,
                count=len(wrong) * layout.pages,
                pgmap=claim.pgmap.address,
                evidence=(first,),
            )


_CHECKS: tuple[Callable[[_Scene], Iterator[Finding]], ...] = (
    _array_entries,
    _array_missing,
    _overlaps,
    _odd_ranges,
    _unpopulated,
    _online_devices,
    _device_blocks,
    _without_memmap,
    _astray,
    _without_usage,
    _outside_zone,
    _altmaps,
    _resources,
    _migratetypes,
)
