# SPDX-License-Identifier: LGPL-2.1-or-later

"""Free blocks that zones count, against those that there are."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from drgn import Program
from support.fakekernel import FakeKernel
from support.kernels import each_layout, each_layout_with_ram

from drgn_zonedev.classification.classify import classify_snapshot
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.kernel.free_area import count_free_blocks
from drgn_zonedev.kernel.memmap import Pages, read_pages
from drgn_zonedev.model import Case, FreeBlocks
from drgn_zonedev.verification.free_areas import FreeAreas, compare_free_areas

DMA32, NORMAL, MOVABLE = 1, 2, 3
# The zones that have memory: of node 0, and of node 1.
FIRST, SECOND = (0x1000, 0x8000), (0x8000, 0x10000)
BLOCKS = ((0x1000, 10), (0x1400, 10), (0x2000, 0), (0x2008, 3), (0x8000, 10), (0x9000, 2))


def machine(layout: str) -> FakeKernel:
    kernel = FakeKernel(layout)
    for nr, nid in ((0, 0), (1, 1)):
        kernel.section(nr, online=True, early=True)
        kernel.memory_block(nr, nid=nid)
    kernel.ram_pages(1, FIRST[1])
    kernel.ram_pages(*SECOND, nid=1)
    kernel.hole_pages(0, 1, "ZONE_DMA")
    for pfn, order in BLOCKS:
        kernel.free_block(pfn, order)
    kernel.set_variable("max_pfn", SECOND[1])
    return kernel


def count(prog: Program, *spans: tuple[int, int]) -> FreeBlocks:
    number: Counter[tuple[int, int, int]] = Counter()
    for start, end in spans or ((0, SECOND[1]),):
        for pages in read_pages(prog, start, end):
            assert isinstance(pages, Pages)
            number.update(count_free_blocks(prog, pages))
    return FreeBlocks(number)


def compare(prog: Program, blocks: FreeBlocks | None = None) -> FreeAreas:
    snapshot = take_snapshot(prog)
    ranges = classify_snapshot(prog, snapshot)
    return compare_free_areas(prog, snapshot, ranges, blocks or count(prog))


Spot = tuple[str, int, int, int]


def spots(found: FreeAreas) -> list[Spot]:
    assert found.unjudged == ()
    return [(f.slug, f.start_pfn, f.end_pfn, f.count) for f in found.findings]


@each_layout_with_ram
def test_healthy_zones(layout: str) -> None:
    found = compare(machine(layout).program())
    assert found == FreeAreas((), ())


@each_layout_with_ram
@pytest.mark.parametrize(
    ("nid", "order", "value", "pages"),
    [
        (0, 10, 3, 1 << 10),
        (0, 10, 0, 2 << 10),
        (1, 10, 0, 1 << 10),
        (0, 0, 0, 1),
        (0, 5, 7, 7 << 5),
    ],
)
def test_number_that_is_wrong(layout: str, nid: int, order: int, value: int, pages: int) -> None:
    kernel = machine(layout)
    kernel.set_nr_free(nid, DMA32, order, value)
    found = compare(kernel.program())
    assert spots(found) == [("free-area-count", *(FIRST, SECOND)[nid], pages)]
    (fact,) = found.findings[0].evidence
    assert fact.what == f"NODE_DATA({nid})->node_zones[ZONE_DMA32].free_area[{order}].nr_free"
    assert fact.address is not None
    assert int.from_bytes(kernel.memory.read(fact.address, 8), "little") == fact.value == value
    assert fact.expected == sum(
        1 for pfn, o in BLOCKS if o == order and (pfn >= SECOND[0]) == bool(nid)
    )


@each_layout
def test_block_that_says_nothing_of_being_free(layout: str) -> None:
    kernel = machine(layout)
    kernel.poke_page_word(0x2008, 6, 0xFFFFFFFF)
    assert spots(compare(kernel.program())) == [("free-area-count", *FIRST, 8)]


@each_layout
def test_block_of_another_order(layout: str) -> None:
    kernel = machine(layout)
    kernel.poke_page_word(0x2008, 5, 2)
    (finding,) = compare(kernel.program()).findings
    assert [(f.value, f.expected) for f in finding.evidence] == [(0, 1), (1, 0)]
    assert finding.count == 4 + 8
    assert "order 2, 3" in finding.message


@each_layout
def test_zone_that_counts_blocks_without_memory(layout: str) -> None:
    kernel = machine(layout)
    kernel.grow_zone("ZONE_MOVABLE", 0x20000, 0x28000, nid=1)
    kernel.set_nr_free(1, MOVABLE, 1, 1)
    assert spots(compare(kernel.program())) == [("free-area-count", 0x20000, 0x28000, 2)]


@each_layout
def test_nothing_is_held_against_a_zone_whose_lock_is_held(layout: str) -> None:
    kernel = machine(layout)
    kernel.set_nr_free(0, DMA32, 10, 3)
    kernel.set_nr_free(1, DMA32, 10, 3)
    zone = kernel.zone(1, DMA32)
    kernel.poke_member("zone", zone, "lock.rlock.raw_lock.val.counter", 1)
    found = compare(kernel.program())
    assert [(f.start_pfn, f.end_pfn) for f in found.findings] == [FIRST]
    (unjudged,) = found.unjudged
    assert (unjudged.start_pfn, unjudged.end_pfn, unjudged.address) == (*SECOND, zone)
    assert "lock" in unjudged.reason


@each_layout
def test_zone_that_was_not_all_read_is_left_out(layout: str) -> None:
    kernel = machine(layout)
    prog = kernel.program()
    partly = dataclasses.replace(count(prog, (0, 0x1400), SECOND), unread=((0x1400, 0x1401),))
    assert compare(prog, partly) == FreeAreas((), ())
    kernel.set_nr_free(1, DMA32, 10, 7)
    assert [f.start_pfn for f in compare(prog, partly).findings] == [SECOND[0]]


@each_layout
@pytest.mark.parametrize("case", [Case.UNKNOWN, Case.INITIALIZING])
def test_zone_with_memory_that_is_not_known_is_left_out(layout: str, case: Case) -> None:
    kernel = machine(layout)
    kernel.set_nr_free(0, DMA32, 10, 3)
    prog = kernel.program()
    snapshot = take_snapshot(prog)
    (range_,) = classify_snapshot(prog, snapshot)
    ranges = [
        dataclasses.replace(range_, end_pfn=0x7FFF),
        dataclasses.replace(range_, start_pfn=0x7FFF, end_pfn=0x8000, case=case),
        dataclasses.replace(range_, start_pfn=0x8000),
    ]
    assert compare_free_areas(prog, snapshot, ranges, count(prog)) == FreeAreas((), ())


@each_layout
def test_free_area_that_cannot_be_read(layout: str) -> None:
    kernel = machine(layout)
    zone = kernel.zone(1, DMA32)
    kernel.hide(zone + kernel.layout.structs["zone"].members["free_area"].offset + 100, 8)
    kernel.set_nr_free(0, DMA32, 10, 3)
    found = compare(kernel.program())
    assert [f.start_pfn for f in found.findings] == [FIRST[0]]
    assert [(u.start_pfn, u.address) for u in found.unjudged] == [(SECOND[0], zone)]


@each_layout
def test_nothing_is_compared_during_a_hotplug(layout: str) -> None:
    kernel = machine(layout)
    kernel.set_nr_free(0, DMA32, 10, 3)
    lock = kernel.variables["mem_hotplug_lock"][1]
    kernel.poke_member("percpu_rw_semaphore", lock, "block.counter", 1)
    assert compare(kernel.program()) == FreeAreas((), ())


@each_layout
def test_number_that_stays_wrong_is_wrong_on_a_running_kernel(layout: str) -> None:
    kernel = machine(layout)
    kernel.set_nr_free(0, DMA32, 10, 3)
    assert spots(compare(kernel.program(is_live=True))) == [("free-area-count", *FIRST, 1 << 10)]


@each_layout
@pytest.mark.parametrize("step", [1, -1])
def test_numbers_that_move_are_not_wrong_on_a_running_kernel(layout: str, step: int) -> None:
    kernel = machine(layout)
    kernel.set_nr_free(0, DMA32, 1, 1000)
    prog = kernel.program(is_live=True)
    blocks = count(prog)
    area = kernel.zone(0, DMA32) + kernel.layout.structs["zone"].members["free_area"].offset

    def on_read(address: int, size: int) -> None:
        if address == area:
            kernel.set_nr_free(0, DMA32, 1, kernel.nr_free(0, DMA32, 1) + step)

    kernel.on_read = on_read
    found = compare(prog, blocks)
    assert found.findings == ()
    (unjudged,) = found.unjudged
    assert (unjudged.start_pfn, unjudged.end_pfn) == FIRST


@each_layout
def test_blocks_that_were_freed_after_they_were_passed_are_found_later(layout: str) -> None:
    kernel = machine(layout)
    prog = kernel.program(is_live=True)
    before = count(prog)
    kernel.free_block(0x3000, 4)
    # Counted again, they are as many as the zone says.
    assert compare(prog, before) == FreeAreas((), ())
