# SPDX-License-Identifier: LGPL-2.1-or-later

"""The census: every PFN of every present section is in one group."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.fakekernel import FakeKernel, collision, teardown
from support.fakekernel.ram import busy_ram
from support.kernels import PAGES_PER_SECTION, Device, each_layout, put_device

import drgn_zonedev
from drgn_zonedev.census.grouping import By, PgmapLabel
from drgn_zonedev.census.kinds import PageKind
from drgn_zonedev.census.total import Census, DeviceUse, page_census
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.export.store import StoredDump, stored_dumps

VMCORES = Path(drgn_zonedev.__file__).parent / "vmcores"
# A memory block that is offline, compound pages of a device, and a pgmap that dies.
DUMPS = [
    dump
    for dump in stored_dumps(VMCORES)
    if dump.name in ("6.12-hotplug-offline", "7.2-devdax-2m", "6.1-teardown")
]


def kinds(census: Census) -> dict[str, int]:
    return {kind.value: pages for kind, pages in census.pages_by_kind.items()}


@each_layout
def test_collision_by_kind(layout: str) -> None:
    census = page_census(collision(layout).program())
    found = kinds(census)
    # A reserve of 2 pages, metadata up to 0x400, and the rest of the device.
    assert found["uninitialised"] == 2
    assert found["metadata"] == 0x3FE
    assert found["device"] == 0x30000 - 0x24400
    assert census.total_pages == 8 * PAGES_PER_SECTION
    assert census.devices == (DeviceUse("MEMORY_DEVICE_FS_DAX", idle=0xBC00, in_use=0),)
    (device,) = (group for group in census.groups if group.kind is PageKind.DEVICE)
    assert (device.node, device.zone, device.order) == (0, "ZONE_DEVICE", None)


@pytest.mark.parametrize("layout", ["5.10", "6.12", "7.2"])
@pytest.mark.parametrize("kind", ["FS_DAX", "GENERIC", "PCI_P2PDMA", "PRIVATE"])
def test_pages_that_were_only_initialised_are_idle(layout: str, kind: str) -> None:
    kernel, type_ = FakeKernel(layout), f"MEMORY_DEVICE_{kind}"
    kernel.section(8)
    kernel.device_pages(0x40000, 0x48000, kernel.pgmap((0x40000, 0x48000), type=type_))
    (use,) = page_census(kernel.program()).devices
    assert (use.idle, use.in_use) == (0x8000, 0)
    # One more reference.
    kernel.poke_page_word(0x40007, 6, kernel.page_word(0x40007, 6) + (1 << 32))
    (use,) = page_census(kernel.program()).devices
    assert (use.idle, use.in_use) == (0x8000 - 1, 1)


def test_pages_of_a_device_that_have_users_are_in_use() -> None:
    kernel = collision("6.1")
    for pfn in range(0x25000, 0x25007):
        kernel.poke_page_word(pfn, 6, 2 << 32 | 0xFFFFFFFF)
    census = page_census(kernel.program())
    assert census.devices == (DeviceUse("MEMORY_DEVICE_FS_DAX", idle=0xBC00 - 7, in_use=7),)
    labels = {
        group.label: group.pages
        for group in page_census(kernel.program(), "pgmap").groups
        if isinstance(group.label, PgmapLabel)
    }
    assert {label.in_use: pages for label, pages in labels.items()} == {False: 0xBBF9, True: 7}
    assert {label.type for label in labels} == {"MEMORY_DEVICE_FS_DAX"}


@pytest.mark.parametrize("layout", ["6.1", "6.12", "7.2"])
def test_head_decides_for_a_compound_page_of_a_device(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.sections(0x40000, 0x48000)
    put_device(kernel, Device(0x40000, 0x48000, "MEMORY_DEVICE_GENERIC", shift=9))
    kernel.poke_page_word(0x40200, 6, 3 << 32 | 0xFFFFFFFF)
    census = page_census(kernel.program(), "order")
    assert kinds(census) == {"device": 0x8000}
    assert [group.order for group in census.groups] == [9]
    assert census.devices == (DeviceUse("MEMORY_DEVICE_GENERIC", idle=0x8000 - 512, in_use=512),)
    kernel.hide(kernel.page(0x40400), 64)
    assert kinds(page_census(kernel.program())) == {"device": 0x8000 - 512, "not-in-dump": 512}


def test_device_that_dies_is_still_a_device() -> None:
    assert kinds(page_census(teardown("6.1").program()))["device"] == 0x30000 - 0x24000


@each_layout
def test_groups_add_up_whatever_they_are_by(layout: str) -> None:
    prog = busy_ram(layout).program()
    whole = page_census(prog)
    assert whole.total_pages == 2 * PAGES_PER_SECTION
    for by in By:
        census = page_census(prog, by)
        assert census.pages_by_kind == whole.pages_by_kind
        assert len(set(census.groups)) == len(census.groups)


def test_groups_by_order_are_those_of_the_zones_free_lists() -> None:
    census = page_census(busy_ram("7.2").program(), "order")
    blocks = {
        group.order: group.pages >> group.order
        for group in census.groups
        if group.kind is PageKind.FREE and group.node == 1 and group.order is not None
    }
    assert blocks == {10: 2, **dict.fromkeys(range(9), 1)}


def test_groups_by_flags_name_those_of_the_head() -> None:
    census = page_census(busy_ram("6.1").program(), "flags")
    slabs = [group for group in census.groups if group.kind is PageKind.SLAB and group.node == 1]
    pages = {group.label: group.pages for group in slabs}
    assert pages == {("PG_slab", "PG_head"): 4 * 14, ("PG_slab",): 4}


def test_groups_by_memory_block() -> None:
    census = page_census(busy_ram("6.1").program(), "memory-block")
    pages = dict.fromkeys((8, 32), 0)
    for group in census.groups:
        assert isinstance(group.label, int)
        pages[group.label] += group.pages
    assert set(pages.values()) == {PAGES_PER_SECTION}


def test_struct_pages_that_cannot_be_read_are_not_in_the_dump() -> None:
    kernel = busy_ram("6.12")
    kernel.hide(kernel.page(0x42000), 0x100 * 64)
    found = page_census(kernel.program())
    assert kinds(found)["not-in-dump"] == 0x100
    (group,) = (g for g in found.groups if g.kind is PageKind.NOT_IN_DUMP)
    assert (group.node, group.zone) == (None, None)


def test_unknown_grouping_is_refused() -> None:
    with pytest.raises(ValueError, match="colour"):
        page_census(busy_ram("6.1").program(), "colour")


@pytest.mark.parametrize("dump", DUMPS, ids=lambda dump: dump.name)
def test_total_is_that_of_the_sections(dump: StoredDump) -> None:
    with dump.program() as prog:
        sections = take_snapshot(prog).sections
        assert page_census(prog).total_pages == len(sections) * PAGES_PER_SECTION
