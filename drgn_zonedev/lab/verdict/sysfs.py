# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Compare the tool's results with what user space of a guest sees of its memory and devices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from drgn import Program

from drgn_zonedev.classification.reading import with_devices
from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.lab.truth.guest_facts import Facts, IomemEntry
from drgn_zonedev.lab.verdict.disagreement import Disagreement
from drgn_zonedev.model import Case, Pgmap, Range
from drgn_zonedev.util.intervals import difference, union

__all__ = ("system_disagreements",)

_RAM = (Case.ONLINE, Case.OFFLINE)
_BLOCK_STATES = {
    "online": "MEM_ONLINE",
    "offline": "MEM_OFFLINE",
    "going-offline": "MEM_GOING_OFFLINE",
}


def system_disagreements(
    prog: Program, snapshot: Snapshot, ranges: Sequence[Range], facts: Facts
) -> Iterator[Disagreement]:
    """Yield what contradicts the available facts."""
    if "zoneinfo" in facts:
        yield from _zones(snapshot, facts["zoneinfo"])
    if "memory_blocks" in facts:
        yield from _blocks(snapshot, facts)
    if "iomem" in facts:
        yield from _ram(snapshot, ranges, facts["iomem"])
        yield from _device_resources(snapshot, facts["iomem"])
    if "nd" in facts and "dax" in facts:
        yield from _devices(prog, snapshot, facts)


def _zones(
    snapshot: Snapshot, zones: dict[tuple[int, str], dict[str, int]]
) -> Iterator[Disagreement]:
    theirs = {
        node: zone["spanned"]
        for (node, name), zone in zones.items()
        if name == "Device" and zone.get("spanned")
    }
    ours = {node: end - start for node, (start, end) in snapshot.zone_device_spans.items()}
    if ours != theirs:
        yield Disagreement("/proc/zoneinfo: ZONE_DEVICE spans", f"{ours}", f"{theirs}")


def _blocks(snapshot: Snapshot, facts: Facts) -> Iterator[Disagreement]:
    blocks = snapshot.memory_blocks
    names = [blocks.state_names[state] for state in blocks.state.tolist()]
    ours = dict(zip(blocks.id.tolist(), names))
    theirs = {n: _BLOCK_STATES.get(s, s) for n, s in facts["memory_blocks"].items()}
    for number in sorted({*ours, *theirs}):
        states = ours.get(number, "no block"), theirs.get(number, "no block")
        if states[0] != states[1]:
            yield Disagreement(f"state of memory{number}", *states)
    size = snapshot.sections_per_block << snapshot.geometry.section_size_bits
    if size != facts.get("memory_block_size", size):
        yield Disagreement("memory block size", hex(size), hex(facts["memory_block_size"]))


def _ram(
    snapshot: Snapshot, ranges: Sequence[Range], iomem: Sequence[IomemEntry]
) -> Iterator[Disagreement]:
    size = 1 << snapshot.geometry.page_shift
    for resource in iomem:
        if not resource.name.startswith("System RAM"):
            continue
        # Pages that are RAM from end to end.
        start, end = -(-resource.start // size), resource.end // size
        left = start
        for range_ in ranges:
            low, high = max(range_.start_pfn, start), min(range_.end_pfn, end)
            if low >= high:
                continue
            if low > left:
                yield Disagreement("/proc/iomem", "nothing there", resource.name, left, low)
            if not _is_ram(range_):
                yield Disagreement("/proc/iomem", range_.case.value, resource.name, low, high)
            left = high
        if left < end:
            yield Disagreement("/proc/iomem", "nothing there", resource.name, left, end)


def _is_ram(range_: Range) -> bool:
    # RAM may store its own memmap, which belongs to no pgmap.
    return range_.case in _RAM or (range_.case is Case.METADATA and range_.pgmap is None)


def _device_resources(snapshot: Snapshot, iomem: Sequence[IomemEntry]) -> Iterator[Disagreement]:
    # A namespace and its dax device are neighbours on a device tree, with nothing around both.
    shift, covered = snapshot.geometry.page_shift, union((r.start, r.end) for r in iomem)
    for pgmap in snapshot.pgmaps:
        for range_ in pgmap.ranges:
            start, end = range_.start_pfn << shift, range_.end_pfn << shift
            if any(difference((start, end), covered)):
                yield Disagreement(
                    "/proc/iomem",
                    f"pgmap {pgmap.address:#x}",
                    "no resource around it",
                    range_.start_pfn,
                    range_.end_pfn,
                )


def _devices(prog: Program, snapshot: Snapshot, facts: Facts) -> Iterator[Disagreement]:
    pgmaps = with_devices(prog, snapshot.pgmaps)
    size = 1 << snapshot.geometry.page_shift
    for bus, name, device in _mapped_devices(facts):
        owned = [p for p in pgmaps if p.device and (p.device.kind, p.device.name) == (bus, name)]
        if len(owned) != 1:
            yield Disagreement(f"{bus} device {name}", f"{len(owned)} pgmaps", "one driver")
            continue
        start, pages = device["resource"] // size, device["size"] // size
        yield from _extent(owned[0], f"{bus} device {name}", start, pages)
        yield from _settings(prog, owned[0], f"{bus} device {name}", device, size)
    known = {("nd", name) for name in facts["nd"]} | {("dax", name) for name in facts["dax"]}
    for pgmap in pgmaps:
        where = pgmap.device
        if where and where.kind in ("nd", "dax") and (where.kind, where.name) not in known:
            yield Disagreement(f"device of pgmap {pgmap.address:#x}", where.name, "none such")


def _extent(pgmap: Pgmap, about: str, start: int, pages: int) -> Iterator[Disagreement]:
    first = pgmap.pfn_first(0)
    ours = sum(r.end_pfn - r.start_pfn for r in pgmap.ranges) - first + pgmap.ranges[0].start_pfn
    if not pgmap.altmap and first <= start:
        # The information block before the data is not part of the resource; without an altmap,
        # it belongs to the device pages.
        ours -= start - first
        first = start
    if (first, ours) != (start, pages):
        yield Disagreement(
            f"{about}: first PFN and number of data pages",
            f"{first:#x}, {ours:#x}",
            f"{start:#x}, {pages:#x}",
        )


def _mapped_devices(facts: Facts) -> Iterator[tuple[str, str, dict[str, Any]]]:
    # A namespace without an information block may be used without struct pages, so it is not
    # compared.
    for name, device in facts["nd"].items():
        if device.get("driver") == "nd_pmem" and not name.startswith("namespace"):
            yield "nd", name, device
    for name, device in facts["dax"].items():
        if device.get("driver") == "device_dax":
            yield "dax", name, device


def _settings(
    prog: Program, pgmap: Pgmap, about: str, device: dict[str, Any], size: int
) -> Iterator[Disagreement]:
    where = "on the device" if pgmap.altmap else "in RAM"
    expected = {"pmem": "on the device", "ram": "in RAM"}.get(device.get("mode", ""), where)
    if where != expected:
        yield Disagreement(f"{about}: memmap", where, expected)
    align = device.get("align")
    if not about.startswith("dax") or not isinstance(align, int):
        return
    # See pgmap_vmemmap_shift(): older kernels have no compound pages there.
    ours = size << pgmap.vmemmap_shift
    if prog.type("struct dev_pagemap").has_member("vmemmap_shift") and ours != align:
        yield Disagreement(f"{about}: alignment", hex(ours), hex(align))
