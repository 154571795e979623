# SPDX-License-Identifier: LGPL-2.1-or-later

"""Memory blocks: the zones that they name, and where they store their memmap."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from drgn import Program
from support.compared import compared
from support.fakekernel import FakeKernel
from support.kernels import WITHOUT_ZONE_DEVICE, each_layout, each_layout_with_ram

from drgn_zonedev.classification.classify import classify_snapshot
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.consistency import inconsistencies, memory_blocks
from drgn_zonedev.vmcore.pagetables import UNKNOWN, UNMAPPED

# Two blocks that were added to node 1, of which the second is offline.
ONLINE, OFFLINE = 0x40, 0x41
PAGES = 0x8000
# 2 MiB of struct pages.
HEAD = 512
SPAN = (ONLINE * PAGES, (ONLINE + 1) * PAGES)
since_zone = pytest.mark.parametrize("layout", ["6.1", "6.12", "7.2"])
since_zone_with_ram = pytest.mark.parametrize("layout", ["6.1", "6.12", "7.2", WITHOUT_ZONE_DEVICE])


def machine(layout: str, memmap_pages: int = 0) -> FakeKernel:
    kernel = FakeKernel(layout)
    kernel.section(0, online=True, early=True)
    kernel.ram_pages(1, PAGES)
    kernel.memory_block(0, nid=0)
    kernel.section(1, online=True, early=True)
    kernel.ram_pages(PAGES, 2 * PAGES)
    kernel.memory_block(1, zone="ZONE_DMA32")
    kernel.section(ONLINE, online=True)
    kernel.ram_pages(*SPAN, "ZONE_NORMAL", nid=1)
    kernel.memory_block(ONLINE, nid=1, zone="ZONE_NORMAL", memmap_pages=memmap_pages)
    kernel.section(OFFLINE)
    kernel.system_ram(OFFLINE * PAGES, (OFFLINE + 1) * PAGES)
    kernel.memory_block(OFFLINE, "MEM_OFFLINE", nid=1, memmap_pages=memmap_pages)
    kernel.set_variable("max_pfn", (OFFLINE + 1) * PAGES)
    return kernel


Spot = tuple[str, int, int]


def spots(kernel: FakeKernel) -> list[Spot]:
    found = compared(kernel)
    assert found.unjudged == ()
    return [(f.slug, f.start_pfn, f.end_pfn) for f in found.findings]


def block(kernel: FakeKernel, nr: int) -> int:
    entries = kernel.program()["memory_blocks"]
    from drgn.helpers.linux.xarray import xa_load

    return int(xa_load(entries.address_of_(), nr).value_())


def set_block(kernel: FakeKernel, nr: int, **members: int) -> None:
    for member, value in members.items():
        kernel.poke_member("memory_block", block(kernel, nr), member, value)


@each_layout_with_ram
def test_healthy_machine(layout: str) -> None:
    assert spots(machine(layout)) == []


_ZONES: tuple[tuple[str, int, Callable[[FakeKernel], dict[str, int]]], ...] = (
    ("none", ONLINE, lambda k: {"zone": 0}),
    ("a zone of another node", ONLINE, lambda k: {"zone": k.zone(0, 1)}),
    ("another zone of its node, which spans nothing", ONLINE, lambda k: {"zone": k.zone(1, 3)}),
    ("anything", ONLINE, lambda k: {"zone": 0xFFFF888012345678}),
    ("its zone, but another node", ONLINE, lambda k: {"nid": 0}),
    ("a zone that is elsewhere, at boot", 1, lambda k: {"zone": k.zone(0, 0)}),
    ("anything, at boot", 1, lambda k: {"zone": 0xFFFF888012345678}),
)


@since_zone_with_ram
@pytest.mark.parametrize(("what", "nr", "change"), _ZONES, ids=[what for what, *_ in _ZONES])
def test_block_that_names_the_wrong_zone(
    layout: str, what: str, nr: int, change: Callable[[FakeKernel], dict[str, int]]
) -> None:
    kernel = machine(layout)
    set_block(kernel, nr, **change(kernel))
    assert spots(kernel) == [("block-zone", nr * PAGES, (nr + 1) * PAGES)], what


@since_zone
def test_zone_that_spans_a_part_of_an_added_block(layout: str) -> None:
    kernel = machine(layout)
    zone = kernel.zone(1, 2)
    for member in ("spanned_pages", "present_pages", "managed_pages"):
        kernel.poke_member("zone", zone, member, PAGES - 1)
    kernel.poke_member("pglist_data", kernel.nodes[1], "node_present_pages", PAGES - 1)
    assert ("block-zone", *SPAN) in spots(kernel)


@since_zone
def test_blocks_of_boot_may_name_no_zone_or_be_there_in_part(layout: str) -> None:
    kernel = machine(layout)
    # Boot RAM that ends in the block, which so has a part of the zone.
    kernel.poke_member("zone", kernel.zone(0, 1), "spanned_pages", 2 * PAGES - 0x1000 - 33)
    kernel.poke_member("zone", kernel.zone(0, 1), "present_pages", 0xEFDF)
    kernel.poke_member("zone", kernel.zone(0, 1), "managed_pages", 0xEFDF)
    assert "block-zone" not in {slug for slug, _, _ in spots(kernel)}
    set_block(kernel, 1, zone=0)
    assert "block-zone" not in {slug for slug, _, _ in spots(kernel)}


@since_zone
@pytest.mark.parametrize("state", ["MEM_OFFLINE", "MEM_GOING_OFFLINE", "MEM_GOING_ONLINE"])
def test_zone_of_a_block_that_is_not_online_means_nothing(layout: str, state: str) -> None:
    kernel = machine(layout)
    set_block(kernel, OFFLINE, state=kernel.layout.constant(state), zone=0xFFFF888012345678)
    assert spots(kernel) == []


@since_zone
def test_zones_of_blocks_are_compared_after_a_hotplug(layout: str) -> None:
    kernel = machine(layout)
    set_block(kernel, ONLINE, zone=0)
    lock = kernel.variables["mem_hotplug_lock"][1]
    kernel.poke_member("percpu_rw_semaphore", lock, "block.counter", 1)
    assert spots(kernel) == []


@since_zone
def test_block_whose_zone_cannot_be_read(layout: str) -> None:
    kernel = machine(layout)
    address = block(kernel, ONLINE)
    kernel.hide(address + kernel.layout.locate("memory_block", "zone")[0], 8)
    found = compared(kernel)
    assert found.findings == ()
    assert [(u.start_pfn, u.end_pfn, u.address) for u in found.unjudged] == [(*SPAN, address)]


# Page tables: of each PFN, the one whose page stores its struct page.
_Store = Callable[[int], int]


def store(monkeypatch: pytest.MonkeyPatch, kernel: FakeKernel, where: _Store) -> None:
    def page_frames(prog: Program, first: int, end: int) -> np.ndarray:
        pages = range(first - (kernel.vmemmap >> 12), end - (kernel.vmemmap >> 12))
        return np.array([where(64 * page) for page in pages], np.int64)

    monkeypatch.setattr(memory_blocks, "page_frames", page_frames)


def in_own_head(pfn: int) -> int:
    return pfn // PAGES * PAGES + pfn % PAGES // 64


def in_boot_ram(pfn: int) -> int:
    return 0x1000 + pfn // 64 % 0x1000


each_that_stores = pytest.mark.parametrize("layout", ["6.1", "6.12", "7.2"])


@each_that_stores
@pytest.mark.parametrize(("length", "where"), [(HEAD, in_own_head), (0, in_boot_ram)])
def test_memmap_that_is_where_the_block_says(
    layout: str, length: int, where: _Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = machine(layout, length)
    assert kernel.stores_block_memmaps
    store(monkeypatch, kernel, where)
    assert spots(kernel) == []


_BOTH = [("block-memmap-elsewhere", nr * PAGES, (nr + 1) * PAGES) for nr in (ONLINE, OFFLINE)]


@each_that_stores
@pytest.mark.parametrize(
    ("length", "where"),
    [
        (HEAD, in_boot_ram),
        (0, in_own_head),
        (HEAD - 1, in_own_head),
        (PAGES, in_own_head),
        (1 << 63, in_own_head),
        # All but one page.
        (HEAD, lambda pfn: 0x1234 if pfn % PAGES == 64 else in_own_head(pfn)),
    ],
)
def test_memmap_that_is_elsewhere(
    layout: str, length: int, where: _Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = machine(layout, length)
    store(monkeypatch, kernel, where)
    assert spots(kernel) == _BOTH


@since_zone_with_ram
def test_only_the_block_that_is_wrong_is_reported(
    layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = machine(layout, HEAD)
    store(monkeypatch, kernel, lambda pfn: 7 if pfn == SPAN[1] else in_own_head(pfn))
    (finding,) = compared(kernel).findings
    assert (finding.start_pfn, finding.end_pfn) == (OFFLINE * PAGES, (OFFLINE + 1) * PAGES)
    frame = finding.evidence[-1]
    assert (frame.address, frame.value) == (kernel.page(SPAN[1]), 7)


@each_that_stores
@pytest.mark.parametrize("frame", [UNKNOWN, UNMAPPED])
def test_page_tables_that_are_not_there_prove_nothing(
    layout: str, frame: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = machine(layout, HEAD)
    store(monkeypatch, kernel, lambda pfn: frame)
    assert spots(kernel) == []


@each_that_stores
@pytest.mark.parametrize(
    ("frame", "note"),
    [(UNKNOWN, "its table is not readable"), (UNMAPPED, "not mapped, by the page tables")],
)
def test_what_stands_for_no_frame_is_not_shown_as_one(
    layout: str, frame: int, note: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A block cannot store more than itself.
    kernel = machine(layout, PAGES)
    store(monkeypatch, kernel, lambda pfn: frame)
    assert spots(kernel) == _BOTH
    fact = compared(kernel).findings[0].evidence[-1]
    assert (fact.value, fact.note) == (None, note)


@each_that_stores
def test_pages_that_hugetlb_gave_back_may_be_of_the_block(
    layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = machine(layout, 0)
    # Any pages, one by one: here, every second one of the block.
    store(monkeypatch, kernel, lambda pfn: pfn // PAGES * PAGES + 2 * (pfn % PAGES // 64))
    assert spots(kernel) == []


@each_that_stores
def test_many_blocks_are_translated_together(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = machine(layout, HEAD)
    first, count = 0x100, 100
    for nr in range(first, first + count):
        kernel.section(nr)
        kernel.memory_block(nr, "MEM_OFFLINE", nid=1, memmap_pages=HEAD)
    kernel.system_ram(first * PAGES, (first + count) * PAGES)
    asked: list[int] = []

    def where(pfn: int) -> int:
        asked.append(pfn)
        return 7 if pfn // PAGES == first + 70 else in_own_head(pfn)

    store(monkeypatch, kernel, where)
    wrong = (first + 70) * PAGES
    assert spots(kernel) == [("block-memmap-elsewhere", wrong, wrong + PAGES)]
    assert len(asked) == len(set(asked)) == (count + 2) * HEAD


@each_layout_with_ram
def test_kernel_without_memory_blocks(layout: str) -> None:
    # CONFIG_MEMORY_HOTPLUG=n
    hidden = frozenset(["memory_blocks", "sections_per_block", "struct memory_block"])
    prog = machine(layout).program(hidden=hidden)
    snapshot = take_snapshot(prog)
    found = inconsistencies(prog, snapshot, classify_snapshot(prog, snapshot))
    assert (found.findings, found.unjudged) == ((), ())


@each_layout
def test_memory_blocks_that_cannot_be_read(layout: str) -> None:
    kernel = machine(layout)
    kernel.hide(kernel.variables["memory_blocks"][1], 16)
    assert compared(kernel).findings == ()
