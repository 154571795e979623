# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import pytest
from drgn.helpers.linux.mmzone import NODE_DATA
from support.fakekernel import FakeKernel
from support.kernels import each_layout

from drgn_zonedev.kernel.mmzone import sparsemem_geometry
from drgn_zonedev.kernel.zones import (
    UnreadableZone,
    Zone,
    read_zone_device_spans,
    zone_device_spans,
    zone_type_name,
    zones,
)

NORMAL, DEVICE = 2, 4


def two_nodes(layout: str) -> FakeKernel:
    kernel = FakeKernel(layout)
    kernel.grow_zone("ZONE_NORMAL", 0x1000, 0x9000)
    kernel.grow_zone("ZONE_DEVICE", 0x40000, 0x48000)
    kernel.grow_zone("ZONE_DEVICE", 0x80000, 0x90000, nid=3)
    return kernel


@each_layout
def test_spans_of_zone_device(layout: str) -> None:
    kernel = FakeKernel(layout)
    assert zone_device_spans(kernel.program()) == {}
    kernel.grow_zone("ZONE_DEVICE", 0x40000, 0x48000)
    kernel.grow_zone("ZONE_DEVICE", 0x60000, 0x60200)
    kernel.grow_zone("ZONE_DEVICE", 0x80000, 0x90000, nid=3)
    spans = zone_device_spans(kernel.program())
    assert spans == {0: (0x40000, 0x60200), 3: (0x80000, 0x90000)}


@each_layout
def test_zones_that_span_anything(layout: str) -> None:
    kernel = two_nodes(layout)
    kernel.poke_member("zone", kernel.zone(0, NORMAL), "present_pages", 0x7FFF)
    kernel.poke_member("zone", kernel.zone(0, NORMAL), "managed_pages", 0x7000)
    found = zones(kernel.program())
    assert found.found == (
        Zone(0, NORMAL, 0x1000, 0x9000, 0x7FFF, 0x8000, 0x7000, kernel.zone(0, NORMAL)),
        Zone(0, DEVICE, 0x40000, 0x48000, 0, 0x8000, 0, kernel.zone(0, DEVICE)),
        Zone(3, DEVICE, 0x80000, 0x90000, 0, 0x10000, 0, kernel.zone(3, DEVICE)),
    )
    assert (found.unreadable, found.spanless) == ((), ())


@each_layout
@pytest.mark.parametrize("member", ["present_pages", "managed_pages"])
def test_zone_that_has_pages_but_spans_nothing(layout: str, member: str) -> None:
    kernel = two_nodes(layout)
    whole = zones(kernel.program()).found
    kernel.poke_member("zone", kernel.zone(3, NORMAL), member, 1)
    found = zones(kernel.program())
    assert found.found == whole
    (spanless,) = found.spanless
    assert (spanless.nid, spanless.number, spanless.spanned_pages) == (3, NORMAL, 0)


@each_layout
def test_names_are_those_of_the_kernel(layout: str) -> None:
    prog = FakeKernel(layout).program()
    names = [zone_type_name(prog, number) for number in range(6)]
    assert names[:5] == ["ZONE_DMA", "ZONE_DMA32", "ZONE_NORMAL", "ZONE_MOVABLE", "ZONE_DEVICE"]
    assert names[5] == "5"


@each_layout
@pytest.mark.parametrize("member", ["zone_start_pfn", "spanned_pages", "managed_pages"])
def test_zone_that_cannot_be_read_is_none_of_the_others(layout: str, member: str) -> None:
    kernel = two_nodes(layout)
    whole, zone = zones(kernel.program()), kernel.zone(0, NORMAL)
    address = NODE_DATA(kernel.program(), 0).node_zones[NORMAL].member_(member).address_
    assert address is not None
    kernel.hide(address, 8)
    prog = kernel.program()
    found = zones(prog)
    assert found.found == whole.found[1:]
    (unreadable,) = found.unreadable
    assert (unreadable.nid, unreadable.number) == (0, NORMAL)
    assert zone <= unreadable.address < zone + kernel.layout.structs["zone"].size
    # Nobody who asks for devices is bothered with it.
    assert read_zone_device_spans(prog) == ({0: (0x40000, 0x48000), 3: (0x80000, 0x90000)}, ())


@each_layout
def test_node_that_cannot_be_read_leaves_the_others(layout: str) -> None:
    kernel = two_nodes(layout)
    whole = zones(kernel.program())
    address = kernel.program()["node_data"][3].address_
    assert address is not None
    kernel.hide(address, 8)
    prog = kernel.program()
    assert zones(prog).found == whole.found[:2]
    assert zones(prog).unreadable == tuple(
        UnreadableZone(3, number, address) for number in range(5)
    )
    assert read_zone_device_spans(prog) == ({0: (0x40000, 0x48000)}, ((3, address),))


@each_layout
@pytest.mark.parametrize("start", [0x1000, (1 << 64) - 1])
def test_damaged_zone_ends_where_memory_can(layout: str, start: int) -> None:
    kernel = two_nodes(layout)
    zone = kernel.zone(0, NORMAL)
    kernel.poke_member("zone", zone, "zone_start_pfn", start)
    kernel.poke_member("zone", zone, "spanned_pages", (1 << 64) - 1)
    prog = kernel.program()
    end = sparsemem_geometry(prog).max_pfn
    found = zones(prog).found[0]
    assert (found.start_pfn, found.end_pfn) == (min(start, end), end)
