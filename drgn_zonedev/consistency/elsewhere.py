# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Elsewhere
---------

Checks what the rest of the kernel records about device memory: zones, resources
and pageblocks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from drgn_zonedev.consistency.claims import Check, Scene
from drgn_zonedev.findings import make_finding
from drgn_zonedev.kernel.pageblock import pageblock_layout, section_migratetypes
from drgn_zonedev.kernel.resource import resource_name
from drgn_zonedev.model import Case, Evidence, Finding, Unjudged
from drgn_zonedev.util.intervals import difference, union

__all__ = ("ELSEWHERE_CHECKS",)


def _outside_zone(scene: Scene) -> Iterator[Finding]:
    spans = scene.snapshot.zone_device_spans
    if scene.snapshot.unreadable_zones:
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


def _resources(scene: Scene) -> Iterator[Finding | Unjudged]:
    if not scene.complete:
        return
    resources = scene.resources
    for address in resources.unreadable[:1]:
        reason = f"iomem_resource cannot be read (at {address:#x}): not all devices and resources"
        yield Unjudged(0, 0, f"{reason} were compared", address)
    shift = scene.snapshot.geometry.page_shift
    covered = union((r.start, r.end) for r in resources.found if r.start < r.end)
    for claim in scene.complete:
        start, end = claim.range.start_pfn << shift, claim.range.end_pfn << shift
        # A damaged resource may end before it starts.
        ram = [r for r in resources.found if r.is_ram and max(start, r.start) < min(end, r.end)]
        # A device tree has no resource around a namespace and its dax device: they are neighbours.
        around = not list(difference((start, end), covered))
        for resource in ram:
            yield make_finding(
                "device-in-ram",
                Case.DEVICE,
                max(start, resource.start) >> shift,
                # A resource may end within a page.
                -(-min(end, resource.end) >> shift),
                pgmap=claim.pgmap.address,
                evidence=(
                    Evidence(
                        "struct resource",
                        resource.address,
                        note=resource_name(scene.prog, resource),
                    ),
                    *scene.range_facts(claim),
                ),
            )
        if not (ram or around or resources.unreadable):
            yield make_finding(
                "device-without-resource",
                Case.DEVICE,
                claim.range.start_pfn,
                claim.range.end_pfn,
                pgmap=claim.pgmap.address,
                evidence=scene.range_facts(claim),
            )


def _migratetypes(scene: Scene) -> Iterator[Finding]:
    layout = pageblock_layout(scene.prog, scene.snapshot.sections)
    if layout is None:
        return
    for claim in scene.complete:
        altmap = claim.pgmap.altmap if claim.index == 0 else None
        # The kernel does not set the migratetype of a pageblock that begins in the reserve.
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


ELSEWHERE_CHECKS: tuple[Check, ...] = (
    _outside_zone,
    _resources,
    _migratetypes,
)
