# SPDX-License-Identifier: LGPL-2.1-or-later

"""pgmaps: what they claim, what they have initialised, and whether they live."""

from __future__ import annotations

import random

import pytest
from drgn import Object, ObjectNotFoundError, Program
from drgn.helpers.linux.xarray import xa_for_each
from support.fakekernel import Altmap, FakeKernel, collision, in_flight
from support.kernels import each_layout

from drgn_zonedev.kernel.memremap import (
    dev_pagemap_info,
    dev_pagemap_ranges,
    dev_pagemap_type,
    find_dev_pagemap,
    for_each_dev_pagemap,
    for_each_pgmap_array_entry,
    get_dev_pagemap,
    percpu_ref_state,
    pgmap_altmap,
    pgmap_array_entries,
    pgmap_array_slots,
    pgmap_is_alive,
    pgmap_pfn_first,
    pgmap_pfn_valid,
    pgmap_vmemmap_shift,
    vmem_altmap_offset,
)
from drgn_zonedev.model import Altmap as AltmapData
from drgn_zonedev.model import PgmapRange, RefState


def pgmap_object(prog: Program, address: int) -> Object:
    return Object(prog, "struct dev_pagemap *", address)


def ranges_of(kernel: FakeKernel, pgmap: int) -> tuple[list[tuple[int, int]], bool]:
    ranges, in_progress = dev_pagemap_ranges(pgmap_object(kernel.program(), pgmap))
    return [(r.start_pfn, r.end_pfn) for r in ranges], in_progress


# pgmap_array.


@each_layout
def test_each_pgmap_comes_once_at_its_first_pfn(layout: str) -> None:
    kernel = FakeKernel(layout)
    # Three multi-index entries, and two more for a second range.
    first = kernel.pgmap((0x1FC000, 0x2FC000), (0x3C0000, 0x3C0041))
    second = kernel.pgmap((0x300000, 0x300001))
    prog = kernel.program()
    entries = [index for index, _ in xa_for_each(prog["pgmap_array"].address_of_())]
    assert len(entries) > 4
    found = [(pfn, pgmap.value_()) for pfn, pgmap in for_each_dev_pagemap(prog)]
    assert found == [(0x1FC000, first), (0x300000, second)]
    assert [pfn for pfn, _ in for_each_pgmap_array_entry(prog)] == entries


@pytest.mark.parametrize("seed", range(10))
def test_claims_are_the_stored_ranges(seed: int) -> None:
    numbers = random.Random(seed)
    kernel = FakeKernel()
    cuts = sorted(numbers.sample(range(1 << 20), 12))
    spans = list(zip(cuts[::3], cuts[1::3]))
    pgmap = kernel.pgmap(*spans)
    # A neighbour right behind one of them.
    kernel.pgmap((spans[0][1], cuts[2]))
    assert pgmap_array_entries(kernel.program()).spans()[pgmap] == spans


def test_claim_of_a_single_first_page() -> None:
    kernel = FakeKernel()
    pgmap = kernel.pgmap((0, 1))
    assert pgmap_array_entries(kernel.program()).spans() == {pgmap: [(0, 1)]}


@each_layout
def test_pgmap_of_a_pfn(layout: str) -> None:
    kernel = FakeKernel(layout)
    pgmap = kernel.pgmap((0x40000, 0x48000), ref="dead")
    prog = kernel.program()
    found = {pfn: find_dev_pagemap(prog, pfn).value_() for pfn in (0x3FFFF, 0x40000, 0x47FFF)}
    assert found == {0x3FFFF: 0, 0x40000: pgmap, 0x47FFF: pgmap}
    assert not find_dev_pagemap(prog, 0x48000)


def test_kernel_without_zone_device() -> None:
    kernel = FakeKernel()
    del kernel.variables["pgmap_array"]
    prog = kernel.program()
    for find in (find_dev_pagemap, get_dev_pagemap):
        assert not find(prog, 0)
        assert find(prog, 0).type_.type_name() == "struct dev_pagemap *"
        bare = kernel.program(hidden=frozenset(["struct dev_pagemap"]))
        assert not find(bare, 0)
        assert find(bare, 0).type_.type_name() == "void *"
    with pytest.raises(ObjectNotFoundError):
        list(for_each_dev_pagemap(prog))


# Ranges.


@each_layout
def test_ranges_of_a_complete_pgmap(layout: str) -> None:
    kernel = FakeKernel(layout)
    spans = [(0x40000, 0x48000), (0x60000, 0x60200), (0x70000, 0x70001)]
    pgmap = kernel.pgmap(*spans)
    assert ranges_of(kernel, pgmap) == (spans, False)


@each_layout
@pytest.mark.parametrize("done", [0, 1, 2])
def test_range_in_progress_is_the_last_one_known(layout: str, done: int) -> None:
    kernel = FakeKernel(layout)
    spans = [(0x40000, 0x48000), (0x60000, 0x60200), (0x70000, 0x70001)]
    pgmap = kernel.pgmap(*spans, nr_range=done)
    assert ranges_of(kernel, pgmap) == (spans[: done + 1], True)


@each_layout
def test_range_that_is_not_claimed_yet_is_not_in_progress(layout: str) -> None:
    kernel = FakeKernel(layout)
    pgmap = kernel.pgmap((0x40000, 0x48000), (0x60000, 0x60200), nr_range=1, stored=False)
    kernel.pgmap_array.store_range(0x40000, 0x47FFF, pgmap)
    assert ranges_of(kernel, pgmap) == ([(0x40000, 0x48000)], False)


@each_layout
@pytest.mark.parametrize(
    "garbage",
    [
        (0x48000, 0x40000),  # ends before it starts
        (0x44000, 0x44200),  # in the range that is complete
        (0x50000, 0x50200),  # of another pgmap
        (0x40000, 0x48000),
        (1 << 51, (1 << 52) - 1),
    ],
)
def test_garbage_behind_a_complete_pgmap_is_no_range(layout: str, garbage: tuple[int, int]) -> None:
    kernel = FakeKernel(layout)
    kernel.pgmap((0x50000, 0x58000))
    pgmap = kernel.pgmap((0x40000, 0x48000), garbage, nr_range=1, stored=False)
    kernel.pgmap_array.store_range(0x40000, 0x47FFF, pgmap)
    assert ranges_of(kernel, pgmap) == ([(0x40000, 0x48000)], False)


@each_layout
@pytest.mark.parametrize("garbage", [(0x60000, 0x70000), (0x50000, 0x60200)])
def test_range_that_is_claimed_at_one_end_only_is_not_in_progress(
    layout: str, garbage: tuple[int, int]
) -> None:
    kernel = FakeKernel(layout)
    pgmap = kernel.pgmap((0x40000, 0x48000), garbage, nr_range=1, stored=False)
    for start, end in ((0x40000, 0x48000), (0x60000, 0x60200)):
        kernel.pgmap_array.store_range(start, end - 1, pgmap)
    assert ranges_of(kernel, pgmap) == ([(0x40000, 0x48000)], False)


@each_layout
def test_nothing_readable_behind_a_complete_pgmap(layout: str) -> None:
    kernel = FakeKernel(layout)
    pgmap = kernel.pgmap((0x40000, 0x48000))
    kernel.hide(pgmap + kernel.layout.structs["dev_pagemap"].size, 16)
    assert ranges_of(kernel, pgmap) == ([(0x40000, 0x48000)], False)


@each_layout
@pytest.mark.parametrize("nr_range", [-1, -(1 << 31), 4097, (1 << 31) - 1])
def test_absurd_number_of_ranges_is_refused(layout: str, nr_range: int) -> None:
    kernel = FakeKernel(layout)
    pgmap = kernel.pgmap((0x40000, 0x48000), nr_range=1)
    kernel.poke_member("dev_pagemap", pgmap, "nr_range", nr_range)
    obj = pgmap_object(kernel.program(), pgmap)
    with pytest.raises(ValueError, match="nr_range"):
        dev_pagemap_ranges(obj)
    with pytest.raises(ValueError, match="nr_range"):
        dev_pagemap_info(obj)


# Types, altmaps and compound pages.


@each_layout
@pytest.mark.parametrize("name", ["PRIVATE", "COHERENT", "FS_DAX", "GENERIC", "PCI_P2PDMA"])
def test_types_go_by_name(layout: str, name: str) -> None:
    if (layout, name) == ("5.10", "COHERENT"):
        pytest.skip("since v6.0")
    kernel = FakeKernel(layout)
    pgmap = kernel.pgmap((0x40000, 0x48000), type=f"MEMORY_DEVICE_{name}")
    assert dev_pagemap_type(pgmap_object(kernel.program(), pgmap)) == f"MEMORY_DEVICE_{name}"


@each_layout
def test_unknown_type_is_a_number(layout: str) -> None:
    kernel = FakeKernel(layout)
    pgmap = kernel.pgmap((0x40000, 0x48000))
    kernel.poke_member("dev_pagemap", pgmap, "type", 99)
    assert dev_pagemap_type(pgmap_object(kernel.program(), pgmap)) == "99"


ALTMAP = Altmap(0x40000, 0x47FFF, reserve=2, free=510, align=3, alloc=4)


@each_layout
def test_altmap(layout: str) -> None:
    kernel = FakeKernel(layout)
    obj = pgmap_object(kernel.program(), kernel.pgmap((0x40000, 0x48000), altmap=ALTMAP))
    assert pgmap_altmap(obj) == AltmapData(0x40000, 0x47FFF, 2, 510, 3, 4)
    assert vmem_altmap_offset(obj.altmap) == 512


@each_layout
def test_altmap_counts_only_with_its_flag(layout: str) -> None:
    kernel = FakeKernel(layout)
    pgmap = kernel.pgmap((0x40000, 0x48000), altmap=ALTMAP)
    kernel.poke_member("dev_pagemap", pgmap, "flags", 2)
    obj = pgmap_object(kernel.program(), pgmap)
    assert pgmap_altmap(obj) is None
    assert pgmap_pfn_first(obj, 0) == 0x40000


@each_layout
def test_vmemmap_shift(layout: str) -> None:
    kernel = FakeKernel(layout)
    pgmap = kernel.pgmap((0x40000, 0x48000), vmemmap_shift=9)
    shift = pgmap_vmemmap_shift(pgmap_object(kernel.program(), pgmap))
    assert shift == (0 if layout == "5.10" else 9)


@pytest.mark.parametrize("layout", ["6.1", "x86-64-6.6-like", "7.3"])
def test_vmemmap_shift_that_only_the_debugging_information_lacks_is_not_0(layout: str) -> None:
    kernel = FakeKernel(layout)
    pgmap = kernel.pgmap((0x40000, 0x48000), vmemmap_shift=9)
    prog = kernel.program(hidden=frozenset(["struct dev_pagemap.vmemmap_shift"]))
    with pytest.raises(LookupError, match="'struct dev_pagemap' has no member 'vmemmap_shift'"):
        pgmap_vmemmap_shift(pgmap_object(prog, pgmap))


@each_layout
def test_first_pfn_of_each_range(layout: str) -> None:
    kernel = FakeKernel(layout)
    pgmap = kernel.pgmap((0x40000, 0x48000), (0x60000, 0x60200), altmap=ALTMAP)
    obj = pgmap_object(kernel.program(), pgmap)
    assert [pgmap_pfn_first(obj, i) for i in range(2)] == [0x40200, 0x60000]


@each_layout
def test_pgmap_pfn_valid_at_every_border(layout: str) -> None:
    kernel = FakeKernel(layout)
    spans = [(0x40000, 0x48000), (0x60000, 0x60200), (0x70000, 0x70001)]
    pgmap = kernel.pgmap(*spans, altmap=ALTMAP, nr_range=2)
    obj = pgmap_object(kernel.program(), pgmap)
    valid = {0x40200, 0x47FFF, 0x60000, 0x601FF}
    others = {0, 0x3FFFF, 0x40000, 0x40001, 0x40002, 0x401FF, 0x48000, 0x5FFFF, 0x60200}
    in_progress = {0x70000}
    found = {pfn for pfn in valid | others | in_progress if pgmap_pfn_valid(obj, pfn)}
    assert found == valid


@each_layout
def test_no_pfn_is_valid_while_the_only_range_is_in_progress(layout: str) -> None:
    prog = in_flight(layout).program()
    pgmap = find_dev_pagemap(prog, 0x24400)
    assert not any(pgmap_pfn_valid(pgmap, pfn) for pfn in (0x24000, 0x24400, 0x2FFFF))


# References.


def ref_of(kernel: FakeKernel, pgmap: int) -> RefState:
    return dev_pagemap_info(pgmap_object(kernel.program(), pgmap)).ref


@each_layout
@pytest.mark.parametrize("count", [0, 1, 77, 1 << 40, -1, -(1 << 40)])
def test_live_reference_is_the_sum_over_cpus(layout: str, count: int) -> None:
    # One of the fake's per-CPU counters is negative.
    kernel = FakeKernel(layout)
    pgmap = kernel.pgmap((0x40000, 0x48000), count=count)
    assert ref_of(kernel, pgmap) == RefState("live", "percpu", count)


@each_layout
@pytest.mark.parametrize("count", [5, 0, -1])
def test_dead_reference(layout: str, count: int) -> None:
    kernel = FakeKernel(layout)
    pgmap = kernel.pgmap((0x40000, 0x48000), ref="dead", count=count)
    assert ref_of(kernel, pgmap) == RefState("dead", "atomic", count)


@each_layout
def test_exited_reference_keeps_its_last_count(layout: str) -> None:
    kernel = FakeKernel(layout)
    pgmap = kernel.pgmap((0x40000, 0x48000), ref="exited", count=3)
    assert ref_of(kernel, pgmap) == RefState("exited", None, 3)


def test_reference_that_5_10_has_already_cleaned_up() -> None:
    kernel = FakeKernel("5.10")
    pgmap = kernel.pgmap((0x40000, 0x48000), ref="null")
    assert ref_of(kernel, pgmap) == RefState("none", None, None)


def test_reference_of_the_driver() -> None:
    kernel = FakeKernel("5.10")
    pgmap = kernel.pgmap((0x40000, 0x48000), ref="external", count=77)
    assert ref_of(kernel, pgmap) == RefState("live", "percpu", 77)


@each_layout
@pytest.mark.parametrize(("ref", "mode"), [("live", "percpu"), ("dead", "atomic")])
def test_state_is_known_when_the_count_is_not(layout: str, ref: str, mode: str) -> None:
    kernel = FakeKernel(layout)
    pgmap = kernel.pgmap((0x40000, 0x48000), ref=ref)
    member = "internal_ref" if layout == "5.10" else "ref"
    kernel.hide(kernel.member("dev_pagemap", pgmap, f"{member}.data"), 8)
    assert ref_of(kernel, pgmap) == RefState(ref, mode, None)


def test_unreadable_reference() -> None:
    prog = FakeKernel().program()
    ref = Object(prog, "struct percpu_ref *", 0xFFFF8880DEADBE00)
    assert percpu_ref_state(ref) == RefState("unreadable", None, None)


@each_layout
@pytest.mark.parametrize("ref", ["live", "external", "dead", "exited", "null"])
def test_dead_pgmaps_are_not_handed_out(layout: str, ref: str) -> None:
    if ref in ("external", "null") and layout != "5.10":
        pytest.skip("only 5.10 points to the reference")
    kernel = FakeKernel(layout)
    pgmap = kernel.pgmap((0x40000, 0x48000), ref=ref)
    prog = kernel.program()
    alive = ref in ("live", "external")
    assert pgmap_is_alive(pgmap_object(prog, pgmap)) == alive
    assert get_dev_pagemap(prog, 0x40000).value_() == (pgmap if alive else 0)
    assert not get_dev_pagemap(prog, 0x48000)


@each_layout
def test_pgmap_in_flight_is_handed_out(layout: str) -> None:
    assert get_dev_pagemap(in_flight(layout).program(), 0x2FFFF)


# All of it.


@each_layout
def test_pgmap_of_the_collision(layout: str) -> None:
    prog = collision(layout).program()
    info = dev_pagemap_info(find_dev_pagemap(prog, 0x24000))
    assert info.type == "MEMORY_DEVICE_FS_DAX"
    assert (info.nr_range, info.in_progress) == (1, False)
    assert info.ranges == (PgmapRange(0x24000, 0x30000),)
    assert info.altmap == AltmapData(0x24000, 0x2FFFF, 2, 1022, 510, 512)
    assert info.ref == RefState("live", "percpu", 1 + 0x30000 - 0x24400)
    assert info.ops == "fsdax_pagemap_ops"
    assert (info.owner, info.owner_address, info.flags) == (None, 0, 1)
    assert info.device is None


@each_layout
def test_owner_that_is_no_symbol_stays_an_address(layout: str) -> None:
    kernel = FakeKernel(layout)
    pgmap = kernel.pgmap((0x40000, 0x48000), owner=0x1234, ops=0x5678)
    info = dev_pagemap_info(pgmap_object(kernel.program(), pgmap))
    assert (info.owner, info.owner_address) == (None, 0x1234)
    assert (info.ops, info.ops_address) == (None, 0x5678)


# The slots of pgmap_array.


@pytest.mark.parametrize(
    ("start", "end", "slots"),
    [
        (0x240000, 0x280000, [(0x240000, 0x280000)]),
        (5, 7, [(5, 6), (6, 7)]),
        (0x40000, 0x40040, [(0x40000, 0x40040)]),
        (0x1FC000, 0x201000, [(0x1FC000 + 0x1000 * i, 0x1FD000 + 0x1000 * i) for i in range(5)]),
    ],
)
def test_slots_of_a_range(start: int, end: int, slots: list[tuple[int, int]]) -> None:
    assert list(pgmap_array_slots(start, end)) == slots


def test_slots_are_those_of_the_xarray() -> None:
    # One entry of 4 slots, one of 3, one of 60: see xa_store_range().
    slots = list(pgmap_array_slots(0x1FC000, 0x2FC000))
    sizes = [end - start for start, end in slots]
    assert sizes == [0x1000] * 4 + [0x40000] * 3 + [0x1000] * 60
