# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The structures against each other: what test_recall cannot do with a single word.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import pytest
from drgn import Program
from drgn.helpers.linux.mmzone import nr_to_section
from drgn.helpers.linux.xarray import xa_load
from support.fakekernel import FakeKernel, collision, in_flight, partial
from support.kernels import WITHOUT_ZONE_DEVICE, Device, device, each_layout
from support.layoutmachine import WITHOUT_DEVICES, layout_machine
from support.memmapmachine import (
    BLOCK,
    BLOCK_END,
    FREE,
    FREE_ORDER,
    HOLE,
    OFFLINE,
    PER_PAGE,
    SECTION,
    MemmapMachine,
    TableDefect,
    inject,
    ram_memmap_machine,
)

from drgn_zonedev.classification.classify import classify_snapshot
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.consistency import elsewhere, inconsistencies
from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.kernel.pageblock import PageblockLayout
from drgn_zonedev.kernel.resource import Resource, Resources
from drgn_zonedev.model import Finding
from drgn_zonedev.report import check

START, END = 0x40000, 0x48000

whole_section = functools.partial(device, of=Device(START, END))


def found(prog: Program) -> list[Finding]:
    snapshot = take_snapshot(prog)
    return list(inconsistencies(prog, snapshot, classify_snapshot(prog, snapshot)).findings)


def spots(kernel: FakeKernel) -> list[tuple[str, int, int]]:
    return [(f.slug, f.start_pfn, f.end_pfn) for f in found(kernel.program())]


@each_layout
@pytest.mark.parametrize("scene", [collision, in_flight, partial, whole_section])
def test_healthy_machines_are_consistent(layout: str, scene: Callable[[str], FakeKernel]) -> None:
    slugs = {slug for slug, _, _ in spots(scene(layout))}
    shared_before_taint = layout == "5.10" and scene in (collision, in_flight)
    assert slugs == ({"collision-untainted"} if shared_before_taint else set())


@each_layout
@pytest.mark.parametrize("ref", ["dead", "exited"])
def test_dying_pgmaps_are_held_to_nothing(layout: str, ref: str) -> None:
    kernel = FakeKernel(layout)
    kernel.pgmap((START + 1, END - 1), ref=ref)
    assert spots(kernel) == []


@each_layout
def test_what_is_being_added_need_not_be_populated(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.pgmap((START, END), in_flight=True)
    assert spots(kernel) == []


@each_layout
def test_overlapping_pgmaps(layout: str) -> None:
    kernel = whole_section(layout)
    kernel.pgmap((START + 0x400, START + 0x800), stored=False)
    other = kernel.pgmap((START + 0x800, START + 0x1000), stored=False)
    kernel.pgmap_array.store(START + 0x10000, other)
    kernel.section(10)
    slugs = {slug for slug, _, _ in spots(kernel)}
    assert {"pgmap-overlap", "pgmap-array-missing", "pgmap-array-entry"} <= slugs
    (overlap,) = (s for s in spots(kernel) if s[0] == "pgmap-overlap")
    assert overlap == ("pgmap-overlap", START + 0x800, START + 0x1000)


@each_layout
def test_two_pgmaps_in_one_subsection(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8, taint=True)
    kernel.pgmap((START, START + 0x300))
    kernel.pgmap((START + 0x300, END))
    assert sorted(spots(kernel)) == [
        ("pgmap-range", START, START + 0x300),
        ("pgmap-range", START + 0x300, END),
        ("subsection-two-owners", START + 0x200, START + 0x400),
    ]


@each_layout
def test_memory_block_of_a_device(layout: str) -> None:
    kernel = whole_section(layout)
    kernel.memory_block(8, "MEM_OFFLINE")
    assert spots(kernel) == [("device-memory-block", START, END)]


@each_layout
def test_memory_block_that_ram_and_a_device_share(layout: str) -> None:
    kernel = whole_section(layout)
    kernel.section(9, online=True, early=True)
    kernel.set_variable("sections_per_block", 2)
    kernel.memory_block(4)
    assert spots(kernel) == []


@each_layout
@pytest.mark.parametrize("busy", [False, True])
def test_section_without_memmap(layout: str, busy: bool) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8, has_mem_map=False)
    if busy:
        address = kernel.variables["mem_hotplug_lock"][1]
        kernel.poke_member("percpu_rw_semaphore", address, "block.counter", 1)
    assert spots(kernel) == ([] if busy else [("section-without-memmap", START, END)])


@each_layout
def test_online_section_of_a_device_and_its_evidence(layout: str) -> None:
    kernel = FakeKernel(layout)
    address = kernel.section(8, online=True)
    pgmap = kernel.pgmap((START, END))
    (finding,) = found(kernel.program())
    assert (finding.slug, finding.pgmap) == ("device-section-online", pgmap)
    (fact,) = finding.evidence
    assert fact.address == address
    assert (fact.value, fact.expected) == (kernel.vmemmap | 7, kernel.vmemmap | 3)


WITHOUT_RESOURCE = ("device-without-resource", START, END)


def resources(*found: tuple[int, int, bool]) -> Resources:
    return Resources(
        tuple(Resource(s << 12, e << 12, "", 0xFFFF888000001000, ram) for s, e, ram in found)
    )


@each_layout
@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ([(START, END, False)], []),
        ([(0, 1 << 30, False), (0, START, True), (END, 1 << 30, True)], []),
        # A namespace and its dax device on a device tree, beside each other.
        ([(START, START + 512, False), (START + 512, END, False)], []),
        ([(START, START + 512, False), (START + 513, END, False)], [WITHOUT_RESOURCE]),
        ([(START, END - 1, False)], [("device-without-resource", START, END)]),
        ([], [("device-without-resource", START, END)]),
        ([(START - 9, START + 9, True)], [("device-in-ram", START, START + 9)]),
    ],
)
def test_resources(
    layout: str,
    tree: list[tuple[int, int, bool]],
    expected: list[tuple[str, int, int]],
) -> None:
    prog = whole_section(layout).program()
    snapshot = dataclasses.replace(take_snapshot(prog), resources=resources(*tree))
    findings = inconsistencies(prog, snapshot, classify_snapshot(prog, snapshot)).findings
    assert [(f.slug, f.start_pfn, f.end_pfn) for f in findings] == expected


def told(kernel: FakeKernel) -> tuple[list[str], list[int | None]]:
    """Slugs of findings, and the addresses of what could not be compared."""
    prog = kernel.program()
    snapshot = take_snapshot(prog)
    found = inconsistencies(prog, snapshot, classify_snapshot(prog, snapshot))
    return [f.slug for f in found.findings], [u.address for u in found.unjudged]


@each_layout
def test_resources_that_cannot_be_read_are_held_against_nobody(layout: str) -> None:
    kernel = whole_section(layout)
    child = kernel.program()["iomem_resource"].child.value_()
    kernel.hide(child, 64)
    assert told(kernel) == ([], [child])


@each_layout
def test_ram_in_front_of_a_resource_that_cannot_be_read_is_still_seen(layout: str) -> None:
    kernel = whole_section(layout)
    first = kernel.program()["iomem_resource"].child.value_()
    kernel.poke_member("resource", first, "start", START << 12)
    kernel.poke_member("resource", first, "flags", 0x1000200)
    kernel.poke_member("resource", first, "sibling", 0x7FFC12345678)
    assert told(kernel) == (["device-in-ram"], [0x7FFC12345678])


@pytest.mark.parametrize("bits", [4, 8])
def test_migratetypes(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # The first pageblock begins in the reserve, and so is never made movable.
    kernel = partial("7.2")
    for nr in (0x20, 0x21, 0x22):
        kernel.pageblock_flags(nr, bytes(64))
    monkeypatch.setattr(
        elsewhere, "pageblock_layout", lambda prog, sections: PageblockLayout(bits, 512, 1)
    )
    (finding,) = found(kernel.program())
    assert finding.slug == "device-migratetype"
    # Of everything but the first pageblock, as nothing was ever set.
    assert (finding.start_pfn, finding.end_pfn) == (0x100200, 0x114000)
    assert finding.count == 0x114000 - 0x100200


@each_layout
@pytest.mark.parametrize("bit", [6, 20, 47])
def test_section_whose_memmap_is_elsewhere_misleads_nobody(layout: str, bit: int) -> None:
    kernel = FakeKernel(layout)
    for nr in range(3):
        kernel.section(nr)
    healthy = kernel.program()
    # drgn takes vmemmap from the first section.
    word = nr_to_section(healthy, 0).section_mem_map
    kernel.poke(word.address_, (word.value_() ^ 1 << bit).to_bytes(8, "little"))
    prog = kernel.program()
    assert [(f.slug, f.start_pfn, f.end_pfn) for f in found(prog)] == [
        ("section-mem-map", 0, 0x8000)
    ]
    assert page_layout(prog).vmemmap == page_layout(healthy).vmemmap


# Kernels without CONFIG_ZONE_DEVICE.

NORMAL = 2
# Where ZONE_DMA32 begins, at 16 MiB.
DMA32 = 0x1000
_PRESENT = 1
_Spots = set[tuple[str, int, int]]
_Damage = Callable[[MemmapMachine], None]


def ram_spots(machine: MemmapMachine) -> _Spots:
    report = check(machine.tables.program())
    assert report.unjudged == ()
    return {(f.slug, f.start_pfn, f.end_pfn) for f in report.findings}


def set_zone(member: str, value: int) -> _Damage:
    """Of the zone that memory was added to."""

    def damage(machine: MemmapMachine) -> None:
        kernel = machine.kernel
        kernel.poke_member("zone", kernel.zone(0, NORMAL), member, value)

    return damage


def set_entry(pfn: int, entry: int) -> _Damage:
    """Of the page of vmemmap that has the struct page of a PFN."""

    def damage(machine: MemmapMachine) -> None:
        inject(machine, TableDefect("", machine.tables.page(pfn), 1, entry, frozenset()))

    return damage


def set_present(machine: MemmapMachine) -> None:
    kernel = machine.kernel
    kernel.poke_member("pglist_data", kernel.nodes[0], "node_present_pages", 7)


def set_block(machine: MemmapMachine) -> None:
    kernel = machine.kernel
    address = xa_load(machine.tables.program()["memory_blocks"].address_of_(), BLOCK // SECTION)
    kernel.poke_member("memory_block", int(address), "zone", kernel.zone(0, NORMAL - 1))


def of_page(slug: str, pfn: int) -> _Spots:
    """PFNs whose struct pages share a page of vmemmap."""
    return {(slug, pfn, pfn + PER_PAGE)}


# What becomes of a structure, and all that must be found.
_RAM_DEFECTS: tuple[tuple[str, _Damage, _Spots], ...] = (
    (
        "a node that counts pages that no zone has",
        set_present,
        {("node-pages", 0, BLOCK_END)},
    ),
    (
        "more managed pages than present ones",
        set_zone("managed_pages", BLOCK_END - BLOCK + 1),
        {("zone-pages", BLOCK, BLOCK_END)},
    ),
    (
        "a zone that ends too early",
        set_zone("spanned_pages", BLOCK_END - BLOCK - 1),
        {
            ("zone-pages", BLOCK, BLOCK_END - 1),
            ("ram-without-zone", BLOCK_END - 1, BLOCK_END),
            ("block-zone", BLOCK, BLOCK_END),
            ("ram-page-zone", BLOCK_END - 1, BLOCK_END),
        },
    ),
    (
        "a max_pfn below RAM",
        lambda machine: machine.kernel.set_variable("max_pfn", BLOCK),
        {("ram-beyond-max-pfn", BLOCK, BLOCK_END)},
    ),
    ("a block that names another zone", set_block, {("block-zone", BLOCK, BLOCK_END)}),
    (
        "a free block that a zone does not count",
        lambda machine: machine.kernel.set_nr_free(0, NORMAL - 1, FREE_ORDER, 0),
        {("free-area-count", DMA32, 8 * SECTION)},
    ),
    (
        "struct pages of RAM that are not mapped",
        set_entry(7 * SECTION, 0),
        of_page("vmemmap-unmapped", 7 * SECTION),
    ),
    (
        "struct pages of a block that are not mapped",
        set_entry(BLOCK + 0x4000, 0),
        of_page("vmemmap-unmapped", BLOCK + 0x4000),
    ),
    (
        "struct pages in offline memory",
        set_entry(OFFLINE, (OFFLINE + 7) << 12 | _PRESENT),
        of_page("vmemmap-astray", OFFLINE),
    ),
    (
        "struct pages where no memory is",
        set_entry(OFFLINE, HOLE << 12 | _PRESENT),
        of_page("vmemmap-astray", OFFLINE),
    ),
    (
        "struct pages in a free page",
        set_entry(OFFLINE, (FREE + 7) << 12 | _PRESENT),
        of_page("vmemmap-free", OFFLINE),
    ),
)


@pytest.mark.parametrize("name", WITHOUT_DEVICES)
def test_all_is_compared_without_zone_device(name: str) -> None:
    report = check(layout_machine(name).kernel.program())
    assert (report.findings, report.unjudged) == ((), ())
    assert ram_spots(ram_memmap_machine(WITHOUT_ZONE_DEVICE)) == set()


@pytest.mark.parametrize(
    ("what", "damage", "expected"), _RAM_DEFECTS, ids=[what for what, *_ in _RAM_DEFECTS]
)
def test_what_is_wrong_with_ram_is_found_without_zone_device(
    what: str, damage: _Damage, expected: _Spots
) -> None:
    machine = ram_memmap_machine(WITHOUT_ZONE_DEVICE)
    damage(machine)
    assert ram_spots(machine) == expected, what
