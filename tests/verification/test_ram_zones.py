# SPDX-License-Identifier: LGPL-2.1-or-later

"""Which zones pages of RAM may be in, part by part."""

from __future__ import annotations

import pytest
from support.fakekernel import FakeKernel, busy_ram
from support.kernels import each_layout

from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.explanation.explain import explain
from drgn_zonedev.kernel.zones import Zones, zones
from drgn_zonedev.report import check
from drgn_zonedev.verification.promises import RamPages
from drgn_zonedev.verification.ram_zones import hot_added_zones, ram_promises

since_zones_of_blocks = pytest.mark.parametrize("layout", ["6.1", "6.12", "7.2"])

# zone_id(): eight numbers of zones for each node.
DMA32, NORMAL_OF_NODE_1 = 1, 8 + 2


def promises(kernel: FakeKernel, start: int, end: int) -> list[RamPages]:
    prog = kernel.program()
    return list(ram_promises(prog, zones(prog), start, end))


@each_layout
def test_each_part_has_the_zones_that_span_it(layout: str) -> None:
    found = promises(busy_ram(layout), 0x40000, 0x48000)
    parts = [(p.start_pfn, p.end_pfn, p.zones) for p in found]
    assert parts == [(0x40000, 0x47FE0, (DMA32,)), (0x47FE0, 0x48000, ())]
    (other,) = promises(busy_ram(layout), 0x100000, 0x108000)
    assert other.zones == (NORMAL_OF_NODE_1,)


def test_spans_that_overlap_are_as_good_as_each_other() -> None:
    kernel = busy_ram("6.1")
    # Nodes that take turns: a hull has the other one's memory.
    kernel.grow_zone("ZONE_DMA32", 0x40000, 0x44000, nid=1)
    found = promises(kernel, 0x40000, 0x48000)
    assert [(p.start_pfn, p.zones) for p in found] == [
        (0x40000, (DMA32, 8 + DMA32)),
        (0x44000, (DMA32,)),
        (0x47FE0, ()),
    ]


def test_device_memory_is_no_zone_of_ram() -> None:
    kernel = busy_ram("6.1")
    kernel.grow_zone("ZONE_DEVICE", 0x44000, 0x46000)
    found = promises(kernel, 0x40000, 0x47FE0)
    assert [(p.start_pfn, p.zones) for p in found] == [(0x40000, (DMA32,))]
    assert 4 not in (found[0].hole_zones or ())


def test_holes_may_have_any_zone_of_nodes_that_are_online() -> None:
    (promise,) = promises(busy_ram("6.1"), 0x47FE0, 0x48000)
    assert sorted(promise.hole_zones or ()) == [0, 1, 2, 3, 8, 9, 10, 11]
    assert promise.nodes == (0, 1)


def test_where_the_bits_wrap_a_hole_has_the_zone_of_a_neighbour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Four zones: MAX_NR_ZONES would look like ZONE_DMA.
    kernel = busy_ram("6.1")
    zone_type = dict(kernel.layout.enums["zone_type"])
    monkeypatch.setitem(kernel.layout.enums, "zone_type", zone_type)
    del zone_type["ZONE_MOVABLE"]
    zone_type.update(ZONE_DEVICE=3, __MAX_NR_ZONES=4)
    (promise,) = promises(kernel, 0x47FE0, 0x48000)
    # Two bits of zone: DMA32 of node 0 before it, Normal of node 1 behind it.
    assert sorted(promise.hole_zones or ()) == [1, 4 + 2]


def test_without_all_zones_none_is_promised() -> None:
    prog = busy_ram("6.1").program()
    found = list(ram_promises(prog, None, 0x40000, 0x48000))
    assert [(p.zones, p.hole_zones) for p in found] == [(None, None)]
    known = zones(prog)
    spanless = Zones(known.found, (), known.found[:1])
    assert {p.zones for p in ram_promises(prog, spanless, 0x40000, 0x48000)} == {None}


def overlapping(layout: str, *, zone: str = "ZONE_MOVABLE") -> FakeKernel:
    """Hotplugged blocks of ZONE_NORMAL, of another zone, and of ZONE_NORMAL again."""
    kernel = FakeKernel(layout)
    for nr, of in ((0x20, "ZONE_NORMAL"), (0x21, zone), (0x22, "ZONE_NORMAL")):
        kernel.section(nr, online=True)
        kernel.ram_pages(nr * 0x8000, (nr + 1) * 0x8000, of)
        kernel.memory_block(nr, zone=of)
    kernel.set_variable("max_pfn", 0x118000)
    return kernel


@since_zones_of_blocks
def test_hotplugged_block_is_in_its_zone_only_where_zones_overlap(layout: str) -> None:
    kernel = overlapping(layout)
    assert check(kernel.program()).findings == ()
    # ZONE_NORMAL spans the block as well.
    for pfn in (0x109000, 0x10FFFF):
        kernel.poke_page_word(pfn, 0, kernel.page_links("ZONE_NORMAL", 0))
    for pfns in (None, (0x108800, 0x110000)):
        report = check(kernel.program(), pfns=pfns)
        assert [(f.slug, f.start_pfn, f.end_pfn) for f in report.findings] == [
            ("ram-page-zone", 0x109000, 0x109001),
            ("ram-page-zone", 0x10FFFF, 0x110000),
        ]
    assert [f.slug for f in explain(kernel.program(), 0x109000).findings] == ["ram-page-zone"]


@since_zones_of_blocks
def test_block_that_names_another_zone_makes_none_of_its_pages_wrong(layout: str) -> None:
    kernel = overlapping(layout)
    kernel.memory_block(0x21, zone="ZONE_NORMAL")
    slugs = {f.slug for f in check(kernel.program()).findings}
    assert "ram-page-zone" not in slugs


@since_zones_of_blocks
def test_block_from_boot_may_have_several_zones(layout: str) -> None:
    kernel = overlapping(layout)
    for nr in (0x20, 0x21, 0x22):
        kernel.section(nr, online=True, early=True)
    prog = kernel.program()
    assert hot_added_zones(prog, take_snapshot(prog)) == ()
