# SPDX-License-Identifier: LGPL-2.1-or-later

"""Zones and nodes, against each other and the RAM that there is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from support.compared import compared
from support.fakekernel import FakeKernel
from support.kernels import WITHOUT_ZONE_DEVICE, each_layout, each_layout_with_ram

from drgn_zonedev.classification.classify import classify_snapshot
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.consistency import inconsistencies, inconsistencies_at
from drgn_zonedev.kernel.resource import Resource, Resources

# Boot RAM of two nodes, and a block that was added to the second one.
FIRST, SECOND, ADDED = (1, 0x3FFE0), (0x100000, 0x110000), (0x200000, 0x208000)
DMA, DMA32, NORMAL, MOVABLE, DEVICE = range(5)
ALL_ONES = (1 << 64) - 1


def machine(layout: str) -> FakeKernel:
    kernel = FakeKernel(layout)
    for nid, (start, end) in enumerate((FIRST, SECOND)):
        for nr in range(start // 0x8000, -(-end // 0x8000)):
            kernel.section(nr, online=True, early=True)
            kernel.memory_block(nr, nid=nid)
        kernel.ram_pages(start, end, nid=nid)
    kernel.hole_pages(FIRST[1], 0x40000)
    kernel.section(ADDED[0] // 0x8000, online=True)
    kernel.memory_block(ADDED[0] // 0x8000, nid=1, zone="ZONE_MOVABLE")
    kernel.ram_pages(*ADDED, "ZONE_MOVABLE", nid=1)
    kernel.set_variable("max_pfn", ADDED[1])
    return kernel


Spot = tuple[str, int, int]


def spots(kernel: FakeKernel) -> list[Spot]:
    found = compared(kernel)
    assert found.unjudged == ()
    # What blocks say of their zones is another matter.
    return [(f.slug, f.start_pfn, f.end_pfn) for f in found.findings if f.slug != "block-zone"]


def set_zone(kernel: FakeKernel, nid: int, number: int, **members: int) -> None:
    for member, value in members.items():
        kernel.poke_member("zone", kernel.zone(nid, number), member, value)


def set_node(kernel: FakeKernel, nid: int, **members: int) -> None:
    for member, value in members.items():
        kernel.poke_member("pglist_data", kernel.nodes[nid], member, value)


@each_layout_with_ram
def test_healthy_machine(layout: str) -> None:
    assert compared(machine(layout)).findings == ()


# What becomes of a zone or a node, and all that must be found.
_DEFECTS: tuple[tuple[str, Callable[[FakeKernel], None], set[Spot]], ...] = (
    (
        "more managed pages than present ones",
        lambda k: set_zone(k, 0, DMA32, managed_pages=0x3EFE1),
        {("zone-pages", 0x1000, FIRST[1])},
    ),
    (
        "managed pages below zero",
        lambda k: set_zone(k, 0, DMA32, managed_pages=-1),
        {("zone-pages", 0x1000, FIRST[1])},
    ),
    (
        "more present pages than it spans",
        lambda k: set_zone(k, 1, NORMAL, present_pages=0x10001),
        {("zone-pages", *SECOND), ("node-pages", SECOND[0], ADDED[1])},
    ),
    (
        "present pages that its node does not count",
        lambda k: set_zone(k, 1, MOVABLE, present_pages=0x7000, managed_pages=0x7000),
        {("node-pages", SECOND[0], ADDED[1])},
    ),
    (
        "a node that counts pages that no zone has",
        lambda k: set_node(k, 0, node_present_pages=0x3FFE0),
        {("node-pages", *FIRST)},
    ),
    (
        "pages of a zone that spans none",
        lambda k: set_zone(k, 1, DMA32, present_pages=7),
        {("zone-pages", 0, 1), ("node-pages", SECOND[0], ADDED[1])},
    ),
    (
        "a zone that spans nothing any more",
        lambda k: set_zone(k, 1, MOVABLE, spanned_pages=0),
        {("zone-pages", ADDED[0], ADDED[0] + 1), ("ram-without-zone", *ADDED)},
    ),
    (
        "a zone that begins too late",
        lambda k: set_zone(k, 0, DMA32, zone_start_pfn=0x1100, spanned_pages=0x3EEE0),
        # It has 0x3efe0 pages.
        {("zone-pages", 0x1100, FIRST[1]), ("ram-without-zone", 0x1000, 0x1100)},
    ),
    (
        "a zone of boot RAM that ends too early",
        lambda k: set_zone(k, 1, NORMAL, spanned_pages=0xFFFF),
        {("zone-pages", SECOND[0], SECOND[1] - 1), ("ram-without-zone", SECOND[1] - 1, SECOND[1])},
    ),
    (
        "a zone that begins before its node",
        lambda k: set_zone(k, 1, NORMAL, zone_start_pfn=0xFFFFF, spanned_pages=0x10001),
        {("node-span", 0xFFFFF, SECOND[1])},
    ),
    (
        "a node that ends before its zone",
        lambda k: set_node(k, 1, node_spanned_pages=0x107FFF),
        {("node-span", *ADDED)},
    ),
    (
        "a node that begins after its zone",
        lambda k: set_node(k, 0, node_start_pfn=0x800, node_spanned_pages=0x3F7E0),
        {("node-span", 1, 0x1000)},
    ),
    (
        "a max_pfn within boot RAM",
        lambda k: k.set_variable("max_pfn", 0x104000),
        {("ram-beyond-max-pfn", 0x104000, SECOND[1]), ("ram-beyond-max-pfn", *ADDED)},
    ),
)
_IDS = [what for what, _, _ in _DEFECTS]


@each_layout_with_ram
@pytest.mark.parametrize(("what", "damage", "expected"), _DEFECTS, ids=_IDS)
def test_defects(
    layout: str, what: str, damage: Callable[[FakeKernel], None], expected: set[Spot]
) -> None:
    kernel = machine(layout)
    damage(kernel)
    found = spots(kernel)
    assert set(found) == expected, what
    assert len(found) == len(expected)


@each_layout
@pytest.mark.parametrize(("what", "damage", "expected"), _DEFECTS, ids=_IDS)
def test_what_a_hotplug_changes_is_compared_after_it(
    layout: str, what: str, damage: Callable[[FakeKernel], None], expected: set[Spot]
) -> None:
    kernel = machine(layout)
    damage(kernel)
    lock = kernel.variables["mem_hotplug_lock"][1]
    kernel.poke_member("percpu_rw_semaphore", lock, "block.counter", 1)
    assert spots(kernel) == [], what


@each_layout
@pytest.mark.parametrize(("what", "damage", "expected"), _DEFECTS, ids=_IDS)
def test_defects_are_held_against_their_pages(
    layout: str, what: str, damage: Callable[[FakeKernel], None], expected: set[Spot]
) -> None:
    kernel = machine(layout)
    damage(kernel)
    prog = kernel.program()
    snapshot = take_snapshot(prog)
    ranges = classify_snapshot(prog, snapshot)
    for pfn in {border for _, start, end in expected for border in (start, end - 1, end)}:
        found = inconsistencies_at(prog, snapshot, ranges, pfn)
        found = tuple(f for f in found if f.slug != "block-zone")
        slugs = {slug for slug, start, end in expected if start <= pfn < end}
        assert {f.slug for f in found} == slugs, hex(pfn)


@each_layout
def test_evidence_can_be_checked_by_hand(layout: str) -> None:
    kernel = machine(layout)
    set_node(kernel, 0, node_present_pages=0x3FFE0)
    ((finding),) = compared(kernel).findings
    node, *zones = finding.evidence
    offset, _ = kernel.layout.locate("pglist_data", "node_present_pages")
    assert node.what == "NODE_DATA(0)->node_present_pages"
    assert node.address == kernel.nodes[0] + offset
    assert (node.value, node.expected) == (0x3FFE0, 0x3FFDF)
    assert [fact.what for fact in zones] == [
        f"NODE_DATA(0)->node_zones[{name}].present_pages" for name in ("ZONE_DMA", "ZONE_DMA32")
    ]


@each_layout
def test_device_memory_is_never_present(layout: str) -> None:
    kernel = machine(layout)
    kernel.sections(0x300000, 0x308000)
    kernel.pgmap((0x300000, 0x308000), nid=1)
    assert "zone-pages" not in {slug for slug, _, _ in spots(kernel)}
    set_zone(kernel, 1, DEVICE, managed_pages=1)
    assert ("zone-pages", 0x300000, 0x308000) in spots(kernel)


@each_layout
def test_zones_and_nodes_may_overlap(layout: str) -> None:
    kernel = machine(layout)
    # Node 0 has memory behind that of node 1, and a movable zone in between.
    kernel.section(0x24, online=True, early=True)
    kernel.ram_pages(0x120000, 0x128000, nid=0)
    kernel.grow_zone("ZONE_MOVABLE", 0x30000, 0x108000, nid=0)
    assert spots(kernel) == []


@each_layout
@pytest.mark.parametrize("taken", [1, 0x8000])
def test_balloons_take_managed_pages_only(layout: str, taken: int) -> None:
    kernel = machine(layout)
    set_zone(kernel, 1, MOVABLE, managed_pages=0x8000 - taken)
    assert spots(kernel) == []


def with_resources(kernel: FakeKernel, *tree: tuple[int, int, bool]) -> list[Spot]:
    prog = kernel.program()
    found = tuple(Resource(s, e, "", 0xFFFF888000001000, ram) for s, e, ram in tree)
    snapshot = dataclasses.replace(take_snapshot(prog), resources=Resources(found))
    findings = inconsistencies(prog, snapshot, classify_snapshot(prog, snapshot)).findings
    return [(f.slug, f.start_pfn, f.end_pfn) for f in findings]


@each_layout
@pytest.mark.parametrize(
    ("tree", "missing"),
    [
        ([(ADDED[0] << 12, ADDED[1] << 12, True)], []),
        # merge_system_ram_resource() joins them, but need not.
        ([(ADDED[0] << 12, 0x204000 << 12, True), (0x204000 << 12, 1 << 40, True)], []),
        ([(ADDED[0] << 12, ADDED[1] << 12, False)], [ADDED]),
        ([(ADDED[0] << 12, 0x204000 << 12, True)], [(0x204000, ADDED[1])]),
        ([], [ADDED]),
    ],
)
@pytest.mark.parametrize("online", [True, False])
def test_hot_added_ram_is_in_the_resource_tree(
    layout: str, tree: list[tuple[int, int, bool]], missing: list[tuple[int, int]], online: bool
) -> None:
    kernel = machine(layout)
    kernel.section(ADDED[0] // 0x8000, online=online)
    kernel.memory_block(
        ADDED[0] // 0x8000, "MEM_ONLINE" if online else "MEM_OFFLINE", nid=1, zone="ZONE_MOVABLE"
    )
    expected = [("ram-without-resource", start, end) for start, end in missing]
    assert with_resources(kernel, *tree) == expected


@each_layout
def test_parts_of_pages_are_no_ram(layout: str) -> None:
    kernel = machine(layout)
    # The last page of the zone ends in mid-page, and the first one begins there.
    ram = (0x800, (FIRST[1] << 12) + 0x800, True)
    assert with_resources(kernel, ram, (ADDED[0] << 12, ADDED[1] << 12, True)) == []


@each_layout_with_ram
@pytest.mark.parametrize("count", [64, 65])
def test_many_holes_in_a_zone_are_counted_together(layout: str, count: int) -> None:
    kernel = machine(layout)
    set_zone(kernel, 0, DMA32, spanned_pages=0x1000, present_pages=0, managed_pages=0)
    set_node(kernel, 0, node_present_pages=0xFFF)
    pieces = [((0x3000 + 2 * i) << 12, (0x3001 + 2 * i) << 12, True) for i in range(count)]
    found = with_resources(kernel, *pieces, (ADDED[0] << 12, ADDED[1] << 12, True))
    if count == 65:
        assert found == [("ram-without-zone", 0x3000, 0x3000 + 2 * count - 1)]
    else:
        assert [start for _, start, _ in found] == [0x3000 + 2 * i for i in range(count)]


@each_layout_with_ram
def test_zone_that_cannot_be_read_is_not_compared(layout: str) -> None:
    kernel = machine(layout)
    zone, size = kernel.zone(1, MOVABLE), kernel.layout.structs["zone"].size
    kernel.hide(zone, size)
    found = compared(kernel)
    assert found.findings == ()
    (unjudged,) = found.unjudged
    assert unjudged.address is not None
    assert zone <= unjudged.address < zone + size


@each_layout_with_ram
def test_node_that_cannot_be_read_is_not_compared(layout: str) -> None:
    kernel = machine(layout)
    offset, _ = kernel.layout.locate("pglist_data", "node_present_pages")
    kernel.hide(kernel.nodes[1] + offset, 8)
    set_zone(kernel, 1, MOVABLE, present_pages=1, managed_pages=1)
    found = compared(kernel)
    assert found.findings == ()
    assert [u.address for u in found.unjudged] == [
        kernel.nodes[1] + kernel.layout.locate("pglist_data", "node_start_pfn")[0]
    ]


@each_layout
def test_resources_that_cannot_be_read_are_not_compared(layout: str) -> None:
    kernel = machine(layout)
    first = kernel.program()["iomem_resource"].child.value_()
    kernel.hide(first, 64)
    found = compared(kernel)
    assert found.findings == ()
    assert [u.address for u in found.unjudged] == [first]


@pytest.mark.parametrize(
    ("hidden", "missing"),
    [("max_pfn", "max_pfn"), ("iomem_resource", "iomem_resource"), ("enum zone_type", None)],
)
def test_what_the_debugging_information_does_not_have_is_said(
    hidden: str, missing: str | None
) -> None:
    kernel = machine("6.12")
    set_zone(kernel, 0, DMA32, managed_pages=-1)
    prog = kernel.program(hidden=frozenset([hidden]))
    snapshot = take_snapshot(prog)
    found = inconsistencies(prog, snapshot, classify_snapshot(prog, snapshot))
    if missing:
        assert {u.missing for u in found.unjudged} == {missing}
        assert {f.slug for f in found.findings} >= {"zone-pages"}
    else:
        assert found.unjudged


def test_zones_are_not_compared_if_nothing_says_which_one_has_devices() -> None:
    kernel = machine("6.12")
    set_zone(kernel, 0, DMA32, managed_pages=-1)
    prog = kernel.program(hidden=frozenset(["ZONE_DEVICE"]))
    assert "pgmap_array" in prog
    snapshot = take_snapshot(prog)
    found = inconsistencies(prog, snapshot, classify_snapshot(prog, snapshot))
    assert "zone-pages" not in {f.slug for f in found.findings}
    assert {u.missing for u in found.unjudged} == {"ZONE_DEVICE"}


def test_the_last_zone_without_zone_device_is_one_of_ram() -> None:
    kernel = machine(WITHOUT_ZONE_DEVICE)
    set_zone(kernel, 1, MOVABLE, managed_pages=0x8001)
    assert spots(kernel) == [("zone-pages", *ADDED)]


@each_layout
@pytest.mark.parametrize("value", [0, ALL_ONES])
def test_damage_is_survived(layout: str, value: int) -> None:
    kernel = machine(layout)
    set_zone(kernel, 0, DMA32, zone_start_pfn=value, spanned_pages=value, present_pages=value)
    set_node(kernel, 0, node_start_pfn=value, node_spanned_pages=value, node_present_pages=value)
    assert "ram-without-zone" in {f.slug for f in compared(kernel).findings}
