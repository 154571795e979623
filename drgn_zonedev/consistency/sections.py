# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Sections
--------

Compares sections, their subsections and memory blocks with the pgmaps that claim them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from drgn import offsetof

from drgn_zonedev.consistency.claims import Check, Claim, Scene
from drgn_zonedev.findings import make_finding
from drgn_zonedev.kernel.sections import common_mem_map
from drgn_zonedev.model import Case, Evidence, Finding, PgmapRange
from drgn_zonedev.util.intervals import union
from drgn_zonedev.util.sets import sorted_set

__all__ = ("SECTION_CHECKS",)


def _unpopulated(scene: Scene) -> Iterator[Finding]:
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


def _unpopulated_runs(scene: Scene, range_: PgmapRange) -> Iterator[tuple[int, int]]:
    # Look at subsections only where there are sections: a damaged range can cover all PFNs.
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


def _populated(scene: Scene, starts: np.ndarray) -> np.ndarray:
    # Subsections whose bit cannot be read count as populated.
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


def _subsection_facts(scene: Scene, row: int, pfn: int) -> tuple[Evidence, ...]:
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


def _online_devices(scene: Scene) -> Iterator[Finding]:
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
    scene: Scene, claim: Claim, row: int, slug: str, without: int = 0, with_: int = 0
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


def _without_due_taint(scene: Scene) -> frozenset[int]:
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


def _block_ids(scene: Scene) -> np.ndarray:
    ids: np.ndarray = scene.snapshot.sections.nr // scene.snapshot.sections_per_block
    return ids


def _has_block(scene: Scene) -> np.ndarray:
    return np.isin(_block_ids(scene), scene.snapshot.memory_blocks.id)


def _device_blocks(scene: Scene) -> Iterator[Finding]:
    # A block may span sections of RAM and sections of a device.
    ids = _block_ids(scene)
    ram = scene.has_flag(scene.snapshot.flags.early) | ~scene.claimed | scene.torn
    there = sorted_set(ids[scene.rows_where(_has_block(scene))])
    for block_id in np.setdiff1d(there, sorted_set(ids[ram]), assume_unique=True).tolist():
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


def _without_memmap(scene: Scene) -> Iterator[Finding]:
    if scene.snapshot.hotplug_in_progress:
        return
    flags = scene.snapshot.flags
    # Where a device is complete, device-unpopulated reports this.
    bare = ~scene.has_flag(flags.has_mem_map) & ~scene.torn & ~scene.claimed
    for row in scene.rows_where(bare):
        start, end = scene.section_span(row)
        word = int(scene.snapshot.sections.word[row])
        facts = (scene.section_word(row, word | flags.has_mem_map),)
        yield make_finding(
            "section-without-memmap", scene.case_at(start), start, end, evidence=facts
        )


def _astray(scene: Scene) -> Iterator[Finding]:
    flags, sections = scene.snapshot.flags, scene.snapshot.sections
    usual = common_mem_map(sections, flags)
    if usual is None or not scene.prog.type("struct mem_section_usage").has_member(
        "subsection_map"
    ):
        return
    other = (sections.word & np.uint64(flags.map_mask)) != np.uint64(usual)
    for row in scene.rows_where(other & scene.has_flag(flags.has_mem_map) & ~scene.torn):
        start, end = scene.section_span(row)
        kept = int(sections.word[row]) & ~flags.map_mask
        facts = (scene.section_word(row, usual | kept),)
        yield make_finding("section-mem-map", scene.case_at(start), start, end, evidence=facts)


def _without_usage(scene: Scene) -> Iterator[Finding]:
    if not scene.prog.type("struct mem_section").has_member("usage"):
        return
    sections = scene.snapshot.sections
    has_mem_map = scene.has_flag(scene.snapshot.flags.has_mem_map)
    offset = offsetof(scene.prog.type("struct mem_section"), "usage")
    for row in scene.rows_where(has_mem_map & (sections.usage == 0) & ~scene.torn):
        start, end = scene.section_span(row)
        usage = Evidence(
            f"mem_section[{sections.nr[row]}].usage", int(sections.address[row]) + offset, 0
        )
        facts = (usage, scene.section_word(row))
        yield make_finding("section-usage-null", scene.case_at(start), start, end, evidence=facts)


def _runs(starts: np.ndarray, length: int) -> Iterator[tuple[int, int]]:
    # Merges pieces of equal length, given by where they start.
    if not len(starts):
        return
    for group in np.split(starts, np.flatnonzero(np.diff(starts) != length) + 1):
        yield int(group[0]), int(group[-1]) + length


SECTION_CHECKS: tuple[Check, ...] = (
    _unpopulated,
    _online_devices,
    _device_blocks,
    _without_memmap,
    _astray,
    _without_usage,
)
