# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Zones and Nodes
---------------

Compares what zones and nodes say about RAM with each other, with the memory that is online, with
``System RAM`` in the resource tree, and with ``max_pfn``.

All of these change under ``mem_hotplug_lock``, so nothing is compared while it is held. Zones and
nodes span holes, and may overlap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from drgn import offsetof

from drgn_zonedev.consistency.claims import Check, Scene
from drgn_zonedev.consistency.ram import (
    common,
    hot_added_ram,
    missing,
    online_ram,
    ram_blocks,
    system_ram,
)
from drgn_zonedev.findings import make_finding
from drgn_zonedev.kernel.nodes import Node, Nodes, nodes
from drgn_zonedev.kernel.zones import Zone, Zones, zone_device_number, zone_type_name, zones
from drgn_zonedev.model import Evidence, Finding, Unjudged
from drgn_zonedev.util.intervals import Span, union

__all__ = ("ZONE_CHECKS",)

# Damaged resources can divide RAM into any number of parts.
_MAX_PARTS = 64


def _zones(scene: Scene) -> Zones:
    return scene.snapshot.zones or zones(scene.prog)


def _nodes(scene: Scene) -> Nodes:
    return scene.snapshot.nodes or nodes(scene.prog)


def _is_device(scene: Scene, zone: Zone) -> bool:
    return zone.number == zone_device_number(scene.prog)


def _unreadable(scene: Scene) -> Iterator[Unjudged]:
    # The snapshot reports an unreadable ZONE_DEVICE.
    device = zone_device_number(scene.prog)
    lost = {z.nid: z.address for z in _zones(scene).unreadable if z.number != device}
    lost.update({n.nid: n.address for n in _nodes(scene).unreadable})
    for nid, address in lost.items():
        reason = f"the zones of node {nid} cannot be read (at {address:#x})"
        yield Unjudged(0, 0, f"{reason}: they were not compared with its memory", address)


def _counts(scene: Scene) -> Iterator[Finding]:
    if scene.snapshot.hotplug_in_progress:
        return
    read = _zones(scene)
    for zone in (*read.found, *read.spanless):
        facts = tuple(_impossible_counts(scene, zone))
        if facts:
            yield _of_zone(scene, "zone-pages", zone, facts)


def _impossible_counts(scene: Scene, zone: Zone) -> Iterator[Evidence]:
    if _is_device(scene, zone):
        # Nothing onlines device memory.
        if zone.present_pages or zone.managed_pages:
            yield _zone_member(scene, zone, "present_pages", zone.present_pages, 0)
            yield _zone_member(scene, zone, "managed_pages", zone.managed_pages, 0)
        return
    if zone.present_pages > zone.spanned_pages:
        yield _zone_member(scene, zone, "present_pages", zone.present_pages)
        yield _zone_member(scene, zone, "spanned_pages", zone.spanned_pages)
    if zone.managed_pages > zone.present_pages:
        yield _zone_member(scene, zone, "managed_pages", zone.managed_pages)
        yield _zone_member(scene, zone, "present_pages", zone.present_pages)


def _of_zone(scene: Scene, slug: str, zone: Zone, facts: tuple[Evidence, ...]) -> Finding:
    end = max(zone.end_pfn, zone.start_pfn + 1)
    case = scene.case_at(zone.start_pfn)
    return make_finding(slug, case, zone.start_pfn, end, evidence=facts)


def _zone_member(
    scene: Scene, zone: Zone, member: str, value: int, expected: int | None = None
) -> Evidence:
    name = zone_type_name(scene.prog, zone.number)
    address = zone.address + offsetof(scene.prog.type("struct zone"), member)
    what = f"NODE_DATA({zone.nid})->node_zones[{name}].{member}"
    return Evidence(what, address, value, expected)


def _node_member(
    scene: Scene, node: Node, member: str, value: int, expected: int | None = None
) -> Evidence:
    address = node.address + offsetof(scene.prog.type("struct pglist_data"), member)
    return Evidence(f"NODE_DATA({node.nid})->{member}", address, value, expected)


def _nodes_of_zones(scene: Scene) -> Iterator[Finding]:
    if scene.snapshot.hotplug_in_progress:
        return
    read = _zones(scene)
    lost = {zone.nid for zone in read.unreadable}
    for node in _nodes(scene).found:
        yield from _outside_node(scene, node, [z for z in read.found if z.nid == node.nid])
        if node.nid not in lost:
            own = [z for z in (*read.found, *read.spanless) if z.nid == node.nid]
            yield from _miscounted(scene, node, own)


def _outside_node(scene: Scene, node: Node, own: Sequence[Zone]) -> Iterator[Finding]:
    for zone in own:
        end = zone.start_pfn + zone.spanned_pages
        if not (node.start_pfn <= zone.start_pfn and end <= node.end_pfn):
            facts = (
                _node_member(scene, node, "node_start_pfn", node.start_pfn),
                _node_member(scene, node, "node_spanned_pages", node.spanned_pages),
                _zone_member(scene, zone, "zone_start_pfn", zone.start_pfn),
                _zone_member(scene, zone, "spanned_pages", zone.spanned_pages),
            )
            yield _of_zone(scene, "node-span", zone, facts)


def _miscounted(scene: Scene, node: Node, own: Sequence[Zone]) -> Iterator[Finding]:
    total = sum(zone.present_pages for zone in own)
    if total != node.present_pages:
        facts = [_node_member(scene, node, "node_present_pages", node.present_pages, total)]
        facts += [_zone_member(scene, z, "present_pages", z.present_pages) for z in own]
        start = min(node.start_pfn, scene.snapshot.geometry.max_pfn)
        end = max(min(node.end_pfn, scene.snapshot.geometry.max_pfn), start + 1)
        yield make_finding("node-pages", scene.case_at(start), start, end, evidence=tuple(facts))


def _ram_without_zone(scene: Scene) -> Iterator[Finding]:
    read = _zones(scene)
    if scene.snapshot.hotplug_in_progress or read.unreadable:
        return
    ram_zones = [z for z in read.found if not _is_device(scene, z)]
    spans = union((z.start_pfn, z.end_pfn) for z in ram_zones)
    facts = tuple(
        Evidence(
            f"NODE_DATA({z.nid})->node_zones[{zone_type_name(scene.prog, z.number)}]",
            z.address,
            note=f"[{z.start_pfn:#x}, {z.end_pfn:#x})",
        )
        for z in ram_zones
    )
    yield from _parts(scene, "ram-without-zone", missing(online_ram(scene), spans), facts)


def _ram_without_resource(scene: Scene) -> Iterator[Finding | Unjudged]:
    if scene.snapshot.hotplug_in_progress:
        return
    hot_added = common(hot_added_ram(scene), ram_blocks(scene))
    if not hot_added:
        return
    for address in scene.resources.unreadable[:1]:
        reason = (
            f"iomem_resource cannot be read (at {address:#x}): not all RAM was looked for in it"
        )
        yield Unjudged(0, 0, reason, address)
        return
    yield from _parts(scene, "ram-without-resource", missing(hot_added, system_ram(scene)), ())


def _ram_beyond_max_pfn(scene: Scene) -> Iterator[Finding]:
    if scene.snapshot.hotplug_in_progress:
        return
    max_pfn = scene.prog["max_pfn"]
    value = max_pfn.value_()
    beyond = common(online_ram(scene), ((value, scene.snapshot.geometry.max_pfn),))
    if beyond:
        facts = (Evidence("max_pfn", max_pfn.address_, value),)
        yield from _parts(scene, "ram-beyond-max-pfn", beyond, facts)


def _parts(
    scene: Scene, slug: str, spans: Sequence[Span], facts: tuple[Evidence, ...]
) -> Iterator[Finding]:
    if len(spans) > _MAX_PARTS:
        start, end = spans[0][0], spans[-1][1]
        count = sum(b - a for a, b in spans)
        yield make_finding(slug, scene.case_at(start), start, end, count=count, evidence=facts)
        return
    for start, end in spans:
        yield make_finding(slug, scene.case_at(start), start, end, evidence=facts)


ZONE_CHECKS: tuple[Check, ...] = (
    _unreadable,
    _counts,
    _nodes_of_zones,
    _ram_without_zone,
    _ram_without_resource,
    _ram_beyond_max_pfn,
)
