# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The fake kernel against drgn's own helpers and the numbers of real kernels.

Expected values were seen on, or worked out from the sources and debug info of,
Debian's 5.10.223, 6.1.192, 6.12.107 and 7.2.12; none is the fake's own output.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from drgn import (
    FaultError,
    Object,
    ObjectNotFoundError,
    Program,
    ProgramFlags,
    TypeKind,
    cast,
    offsetof,
    sizeof,
)
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.mm import (
    PageHead,
    PageReserved,
    PageTail,
    compound_head,
    compound_nr,
    compound_order,
    decode_memory_block_state,
    decode_page_flags,
    for_each_valid_page_range,
    page_flags,
    page_to_pfn,
    pfn_to_page,
)
from drgn.helpers.linux.mmzone import (
    NODE_DATA,
    decode_section_flags,
    for_each_online_pgdat,
    for_each_present_section,
    nr_to_section,
    pfn_to_section,
    section_decode_mem_map,
)
from drgn.helpers.linux.percpu import per_cpu_ptr
from drgn.helpers.linux.xarray import xa_for_each, xa_load
from support.fakekernel import LAYOUTS, Altmap, FakeKernel, collision, in_flight, partial
from support.kernels import each_layout

PRESENT = "SECTION_MARKED_PRESENT|SECTION_HAS_MEM_MAP"
BOOT = f"{PRESENT}|SECTION_IS_ONLINE|SECTION_IS_EARLY"


def pgmap_at(prog: Program, pfn: int) -> Object:
    """The pgmap that claims a PFN, looked up by drgn."""
    entry = xa_load(prog["pgmap_array"].address_of_(), pfn)
    return cast("struct dev_pagemap *", entry)


def words(prog: Program, pfn: int) -> list[int]:
    """The words of a struct page."""
    page = pfn_to_page(prog, pfn).value_()
    return [prog.read_u64(page + 8 * i) for i in range(8)]


# The worked example: a collision frozen in memremap_pages() on Debian 6.1.192.


@each_layout
def test_sections_of_the_collision(layout: str) -> None:
    prog = in_flight(layout).program()
    flags = {nr: decode_section_flags(s) for nr, s in for_each_present_section(prog)}
    tainted = BOOT if layout == "5.10" else f"{BOOT}|SECTION_TAINT_ZONE_DEVICE"
    assert flags == {0: BOOT, 1: BOOT, 2: BOOT, 3: BOOT, 4: tainted, 5: PRESENT, 6: BOOT, 7: BOOT}


def test_section_words_of_the_collision() -> None:
    prog = in_flight("6.1").program()
    section = nr_to_section(prog, 4)
    assert section.section_mem_map & 0xFFF == 0x1F
    assert section.usage.subsection_map[0] == (1 << 64) - 1
    assert nr_to_section(prog, 5).section_mem_map & 0xFFF == 0x03


@each_layout
def test_valid_ranges_of_the_collision(layout: str) -> None:
    prog = in_flight(layout).program()
    ranges = [(start, end) for start, end, _ in for_each_valid_page_range(prog)]
    assert ranges == [(0, 0x40000)]


@each_layout
@pytest.mark.parametrize("scene", [collision, in_flight])
def test_pgmap_array_of_the_collision(layout: str, scene: Any) -> None:
    prog = scene(layout).program()
    array = prog["pgmap_array"].address_of_()
    assert [index for index, _ in xa_for_each(array)] == [0x24000]
    pgmap = pgmap_at(prog, 0x24000)
    assert pgmap
    for pfn in (0x24001, 0x24400, 0x27FFF, 0x28000, 0x2ABCD, 0x2FFFF):
        assert pgmap_at(prog, pfn) == pgmap
    for pfn in (0, 0x23FFF, 0x30000, 0x3FFFF, 0x40000, 1 << 40):
        assert not pgmap_at(prog, pfn)


@each_layout
def test_pgmap_of_the_collision(layout: str) -> None:
    prog = in_flight(layout).program()
    pgmap = pgmap_at(prog, 0x24000)
    assert pgmap.type.format_(type_name=False) == "MEMORY_DEVICE_FS_DAX"
    assert pgmap.flags == 1
    assert pgmap.nr_range == 0
    assert (pgmap.range.start, pgmap.range.end) == (0x24000000, 0x2FFFFFFF)
    assert pgmap.ranges[0].start == 0x24000000
    names = ("base_pfn", "end_pfn", "reserve", "free", "align", "alloc")
    altmap = [pgmap.altmap.member_(name).value_() for name in names]
    assert altmap == [0x24000, 0x2FFFF, 2, 1022, 510, 512]
    assert prog.symbol(pgmap.ops.value_()).name == "fsdax_pagemap_ops"
    assert prog["mem_hotplug_lock"].block.counter == 0


@each_layout
def test_device_zone_of_the_collision(layout: str) -> None:
    prog = collision(layout).program()
    (node,) = for_each_online_pgdat(prog)
    assert node == NODE_DATA(prog, 0)
    zone = node.node_zones[prog["ZONE_DEVICE"]]
    assert (zone.zone_start_pfn, zone.spanned_pages, zone.present_pages) == (0x24000, 0xC000, 0)
    assert zone.name.string_() == b"Device"
    assert prog["zone_names"][4].string_() == b"Device"
    assert node.node_zones[1].zone_start_pfn == 0x1000


def test_struct_pages_frozen_in_flight() -> None:
    kernel = in_flight("6.1")
    prog = kernel.program()
    for pfn in (0x24000, 0x24001, 0x24400, 0x27FFF):
        lru = kernel.vmemmap + 64 * pfn + 8
        assert words(prog, pfn) == [0x000FFFFFC0001000, lru, lru, 0, 0, 0, 0x00000001FFFFFFFF, 0]
    for pfn in (0x24002, 0x243FF):
        lru = kernel.vmemmap + 64 * pfn + 8
        assert words(prog, pfn) == [0x0027FFFFC0001000, lru, lru, 0, 0, 0, 0x00000001FFFFFFFF, 0]
    for pfn in (0x28000, 0x2FFFF):
        assert words(prog, pfn) == [0] * 8


@each_layout
def test_struct_pages_when_finished(layout: str) -> None:
    prog = collision(layout).program()
    pgmap = pgmap_at(prog, 0x24400)
    flags = 0x0027FFFFC0001000 if layout in ("5.10", "6.1") else 0x0027FFFFC0002000
    count = 0x00000000FFFFFFFF if layout == "7.2" else 0x00000001FFFFFFFF
    for pfn in (0x24400, 0x27FFF, 0x28000, 0x2FFFF):
        assert words(prog, pfn) == [flags, pgmap.value_(), 0, 0, 0, 0, count, 0]
    page = pfn_to_page(prog, 0x24400)
    assert decode_page_flags(page) == "PG_reserved"
    assert page_to_pfn(page) == 0x24400
    assert not PageReserved(pfn_to_page(prog, 0x10000))


@each_layout
def test_memory_blocks_of_the_collision(layout: str) -> None:
    prog = collision(layout).program()
    blocks = dict(xa_for_each(prog["memory_blocks"].address_of_()))
    assert sorted(blocks) == [0, 1, 2, 3, 4, 6, 7]
    block = cast("struct memory_block *", blocks[4])
    assert block.start_section_nr == 4
    assert decode_memory_block_state(block) == "MEM_ONLINE"
    assert prog["sections_per_block"] == 1


# struct dev_pagemap and its reference.

OFFSETS = {
    "5.10": (152, 48, 72, 104, 108, None, 112, 120, 128, 136),
    "6.1": (152, 48, 64, 96, 100, 104, 112, 120, 128, 136),
    "6.12": (160, 56, 72, 104, 108, 112, 120, 128, 136, 144),
    "7.2": (152, 48, 64, 96, 100, 104, 112, 120, 128, 136),
}
MEMBERS = ("ref", "done", "type", "flags", "vmemmap_shift", "ops", "owner", "nr_range", "range")


@each_layout
def test_offsets_in_dev_pagemap(layout: str) -> None:
    type_ = FakeKernel(layout).program().type("struct dev_pagemap")
    found = [offsetof(type_, name) if type_.has_member(name) else None for name in MEMBERS]
    assert (sizeof(type_), *found) == OFFSETS[layout]


def ref_of(pgmap: Object) -> Object:
    """The reference of a pgmap, which 5.10 points to."""
    ref = pgmap.ref
    return ref if ref.type_.kind == TypeKind.POINTER else ref.address_of_()


def percpu_total(ref: Object) -> int:
    """percpu_ref_is_zero()'s arithmetic, on a reference in per-CPU mode."""
    prog = ref.prog_
    counters = cast("unsigned long *", ref.percpu_count_ptr & ~3)
    cpus = [per_cpu_ptr(counters, cpu)[0].value_() for cpu in for_each_possible_cpu(prog)]
    assert len(cpus) == 2
    return int(ref.data.count.counter.value_() - (1 << 63) + sum(cpus)) % (1 << 64)


@each_layout
def test_live_reference(layout: str) -> None:
    flight, done = in_flight(layout).program(), collision(layout).program()
    for prog, total in ((flight, 1), (done, 1 + 0x30000 - 0x24400)):
        ref = ref_of(pgmap_at(prog, 0x24000))
        flag_bits = prog["__PERCPU_REF_ATOMIC"] | prog["__PERCPU_REF_DEAD"]
        assert not ref.percpu_count_ptr & flag_bits
        assert percpu_total(ref) == total
    compounds = (0x114000 - 0x100600) // (1 if layout == "5.10" else 512)
    assert percpu_total(ref_of(pgmap_at(partial(layout).program(), 0x100000))) == 1 + compounds


@each_layout
def test_killed_and_exited_references(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.pgmap((0x40000, 0x48000), ref="dead", count=5)
    kernel.pgmap((0x48000, 0x50000), ref="exited", count=0)
    prog = kernel.program()
    dead, exited = (ref_of(pgmap_at(prog, pfn)) for pfn in (0x40000, 0x48000))
    assert dead.percpu_count_ptr & 3 == 3
    assert dead.data.count.counter == 5
    assert exited.percpu_count_ptr == 3
    assert not exited.data


def test_null_reference() -> None:
    kernel = FakeKernel("5.10")
    kernel.pgmap((0x40000, 0x48000), ref="null")
    assert not pgmap_at(kernel.program(), 0x40000).ref


def test_external_reference() -> None:
    kernel = FakeKernel("5.10")
    kernel.pgmap((0x40000, 0x48000), ref="external", count=77)
    pgmap = pgmap_at(kernel.program(), 0x40000)
    assert pgmap.ref != pgmap.internal_ref.address_of_()
    assert percpu_total(pgmap.ref) == 77


@each_layout
def test_several_ranges(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.pgmap((0x40000, 0x48000), (0x60000, 0x60200), nr_range=1, owner=0x1234)
    prog = kernel.program()
    pgmap = pgmap_at(prog, 0x601FF)
    assert pgmap == pgmap_at(prog, 0x40000)
    assert (pgmap.ranges[1].start, pgmap.ranges[1].end) == (0x60000000, 0x601FFFFF)
    assert (pgmap.nr_range, pgmap.owner.value_()) == (1, 0x1234)
    assert not pgmap_at(prog, 0x48000)


# The XArray.


def entries(prog: Program) -> Iterator[tuple[int, int, int]]:
    """(index, shift, siblings) of each entry in pgmap_array, read node by node."""
    stack = [(prog["pgmap_array"].xa_head.value_(), 0)]
    while stack:
        head, base = stack.pop()
        node = Object(prog, "struct xa_node *", head - 2)
        shift = node.shift.value_()
        slots = [slot.value_() for slot in node.slots]
        assert node.count == sum(map(bool, slots))
        for offset, entry in enumerate(slots):
            index = base + (offset << shift)
            if entry & 3 == 2 and entry > 4096:
                child = Object(prog, "struct xa_node *", entry - 2)
                assert (child.parent, child.offset) == (node, offset)
                assert child.array == prog["pgmap_array"].address_of_()
                stack.append((entry, index))
            elif entry and entry & 3 == 0:
                yield index, shift, slots.count(offset << 2 | 2)


def test_one_gigabyte_is_one_entry() -> None:
    kernel = FakeKernel()
    kernel.pgmap((0x240000, 0x280000))
    assert list(entries(kernel.program())) == [(0x240000, 18, 0)]


def test_multi_index_entries() -> None:
    kernel = FakeKernel()
    kernel.pgmap((0x1FC000, 0x2FC000))
    prog = kernel.program()
    assert sorted(entries(prog)) == [(0x1FC000, 12, 3), (0x200000, 18, 2), (0x2C0000, 12, 59)]
    assert [i for i, _ in xa_for_each(prog["pgmap_array"].address_of_())] == [
        0x1FC000,
        0x200000,
        0x2C0000,
    ]


def random_ranges(seed: int) -> list[tuple[int, int]]:
    """Disjoint ranges of all sizes, some adjacent, in random order."""
    numbers = random.Random(seed)
    ranges = []
    pfn = numbers.choice([0, 1, 0x200])
    for _ in range(12):
        unit = 1 << numbers.choice([0, 6, 9, 12, 15, 18])
        start = -(-pfn // unit) * unit
        pfn = start + numbers.randrange(1, 70) * unit
        ranges.append((start, pfn))
    numbers.shuffle(ranges)
    return ranges


@pytest.mark.parametrize("seed", range(20))
def test_every_boundary_resolves(seed: int) -> None:
    kernel = FakeKernel()
    owner = {r: kernel.pgmap(r) for r in random_ranges(seed)}
    prog = kernel.program()
    assert list(entries(prog))
    for start, end in owner:
        for pfn in (start - 1, start, start + 1, (start + end) // 2, end - 1, end):
            claims = [pgmap for (a, b), pgmap in owner.items() if a <= pfn < b]
            assert pfn < 0 or pgmap_at(prog, pfn).value_() == sum(claims)


# Compound pages.


@each_layout
def test_compound_pages(layout: str) -> None:
    prog = partial(layout).program()
    pgmap = pgmap_at(prog, 0x100000)
    shift = 0 if layout == "5.10" else 9
    for pfn in (0x100600, 0x100601, 0x10067F, 0x1007FF, 0x100800, 0x113E00, 0x113FFF):
        page = pfn_to_page(prog, pfn)
        head = compound_head(page)
        assert page_to_pfn(head) == pfn >> shift << shift
        assert compound_order(head) == shift
        assert compound_nr(head) == 1 << shift
        assert PageTail(page) == (head != page)
        assert PageHead(page) == (shift > 0 and head == page)
        assert prog.read_u64(head.value_() + 8) == pgmap.value_()


def test_compound_link_is_a_pointer_or_a_mask() -> None:
    for layout in ("6.1", "6.12"):
        prog = partial(layout).program()
        assert words(prog, 0x100601)[1] == pfn_to_page(prog, 0x100600).value_() + 1
    assert words(partial("7.2").program(), 0x100601)[1] == 0xFFFFFFFFFFFF8001


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_tail_pages(layout: str) -> None:
    prog = partial(layout).program()
    found = words(prog, 0x1007FF)
    flags = 0x0027FFFFC0001000 if layout == "6.1" else 0x0027FFFFC0002000
    assert found[0] == flags
    assert found[3] == 0xDEAD000000000400
    assert found[6] == 0x00000000FFFFFFFF
    heads = {"6.1": 0x0027FFFFC0011000, "6.12": 0x0027FFFFC0002040, "7.2": 0x0027FFFFC0002040}
    assert words(prog, 0x100600)[0] == heads[layout]


def test_initialisation_stops_within_a_compound_page() -> None:
    for layout, last in (("6.1", 3), ("6.12", 2), ("7.2", 512)):
        kernel = FakeKernel(layout)
        kernel.section(8)
        pgmap = kernel.pgmap((0x40000, 0x48000), vmemmap_shift=9, in_flight=True)
        prog = kernel.program()
        head = pfn_to_page(prog, 0x40000)
        kernel.map_memmap(0x40000, 0x48000)
        kernel.device_pages(0x40000, 0x40000 + last - 1, pgmap)
        order = compound_order(head)
        assert order != 9
        kernel.device_pages(0x40000, 0x40000 + last, pgmap)
        assert compound_order(head) == 9
        assert words(prog, 0x40000 + last) == [0] * 8


def test_deduplicated_memmap_shares_pokes() -> None:
    kernel = FakeKernel("6.1")
    kernel.section(8)
    kernel.device_pages(0x40000, 0x48000, kernel.pgmap((0x40000, 0x48000), vmemmap_shift=9))
    kernel.poke_page_word(0x40200 + 200, 5, 42)
    written = {pfn for pfn in range(0x40200, 0x40400) if kernel.page_word(pfn, 5) == 42}
    assert written == {pfn for pfn in range(0x40240, 0x40400) if pfn % 64 == 200 % 64}
    assert kernel.page_word(0x40200 + 8, 5) == 0


@pytest.mark.parametrize(("dedup", "early"), [(False, False), (True, True)])
def test_memmap_that_is_not_deduplicated(dedup: bool, early: bool) -> None:
    kernel = FakeKernel("6.1", dedup=dedup)
    kernel.section(8, early=early)
    kernel.device_pages(0x40000, 0x48000, kernel.pgmap((0x40000, 0x48000), vmemmap_shift=9))
    kernel.poke_page_word(0x40000 + 200, 5, 42)
    assert kernel.page_word(0x40000 + 264, 5) == 0


def test_altmap_is_not_deduplicated() -> None:
    kernel = partial("6.1")
    kernel.poke_page_word(0x100600 + 200, 5, 42)
    assert kernel.page_word(0x100600 + 264, 5) == 0


REFCOUNTS = {
    "MEMORY_DEVICE_PRIVATE": (1, 0, 0, 0),
    "MEMORY_DEVICE_COHERENT": (None, 0, 0, 0),
    "MEMORY_DEVICE_FS_DAX": (1, 1, 1, 0),
    "MEMORY_DEVICE_GENERIC": (1, 1, 1, 1),
    "MEMORY_DEVICE_PCI_P2PDMA": (1, 1, 1, 0),
}


@pytest.mark.parametrize("type_", REFCOUNTS)
@each_layout
def test_idle_refcounts(layout: str, type_: str) -> None:
    expected = REFCOUNTS[type_][LAYOUTS.index(layout)]
    kernel = FakeKernel(layout)
    if expected is None:
        with pytest.raises(KeyError):
            kernel.pgmap((0x40000, 0x48000), type=type_)
        return
    kernel.section(8)
    kernel.device_pages(0x40000, 0x48000, kernel.pgmap((0x40000, 0x48000), type=type_))
    page = pfn_to_page(kernel.program(), 0x40123)
    assert page._refcount.counter == expected
    assert page._mapcount.counter == -1


# What differs between versions, and what drgn needs to know.


@each_layout
def test_pgmap_of_a_page(layout: str) -> None:
    prog = collision(layout).program()
    page = pfn_to_page(prog, 0x2ABCD)
    if layout == "7.2":
        assert not prog.type("struct page").has_member("pgmap")
        page = cast("struct folio *", page)
    assert page.pgmap == pgmap_at(prog, 0x2ABCD)
    assert page_flags(page) >> 51 & 7 == prog["ZONE_DEVICE"]


@each_layout
def test_constants(layout: str) -> None:
    prog = FakeKernel(layout).program()
    old = layout in ("5.10", "6.1")
    assert prog["PG_reserved"] == (12 if old else 13)
    assert prog["PG_head"] == (16 if old else 6)
    # Up to 6.1, with that of CONFIG_MEMORY_FAILURE.
    assert prog["__NR_PAGEFLAGS"] == (24 if layout == "6.12" else 25)
    assert prog["MEMORY_DEVICE_FS_DAX"] == (2 if layout == "5.10" else 3)
    assert ("MEMORY_DEVICE_COHERENT" in prog) == (layout != "5.10")
    assert ("MEM_OFFLINE" in prog) == (layout == "7.2")
    assert ("SECTION_IS_VMEMMAP_PREINIT_BIT" in prog) == (layout == "7.2")
    assert (prog["ZONE_DEVICE"], prog["__MAX_NR_ZONES"]) == (4, 5)
    assert len(prog["node_data"]) == 1024


def test_section_flags_were_macros() -> None:
    prog = FakeKernel("5.10").program()
    with pytest.raises(ObjectNotFoundError):
        prog["SECTION_MARKED_PRESENT_BIT"]


def test_map_last_bit() -> None:
    found = {name: FakeKernel(name).program()["SECTION_MAP_LAST_BIT"] for name in LAYOUTS[1:]}
    assert found == {"6.1": 5, "6.12": 5, "7.2": 6}


@each_layout
def test_all_types_are_complete(layout: str) -> None:
    kernel = FakeKernel(layout)
    prog = kernel.program()
    for name, struct in kernel.layout.structs.items():
        type_ = prog.type(name if struct.anonymous else f"struct {name}")
        for member in type_.unaliased().members or ():
            size = 0 if member.type.kind == TypeKind.ARRAY else sizeof(member.type)
            assert member.offset + size <= sizeof(type_), f"{name}.{member.name}"


SIZES = {
    "struct page": (64, 64, 64, 64),
    "struct folio": (None, 112, 192, 256),
    "struct mem_section": (16, 16, 16, 16),
    "struct vmem_altmap": (48, 48, 56, 48),
    "struct xa_node": (576, 576, 576, 576),
}


@pytest.mark.parametrize("name", SIZES)
@each_layout
def test_sizes(layout: str, name: str) -> None:
    prog = FakeKernel(layout).program()
    expected = SIZES[name][LAYOUTS.index(layout)]
    if expected is None:
        with pytest.raises(LookupError):
            prog.type(name)
    else:
        assert sizeof(prog.type(name)) == expected


@each_layout
def test_memory_block_states(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.memory_block(3, "MEM_OFFLINE")
    kernel.memory_block(70, "MEM_GOING_OFFLINE")
    prog = kernel.program()
    blocks = [cast("struct memory_block *", e) for _, e in xa_for_each(prog["memory_blocks"])]
    assert [decode_memory_block_state(b) for b in blocks] == ["MEM_OFFLINE", "MEM_GOING_OFFLINE"]
    assert blocks[0].state == (2 if layout == "7.2" else 4)


@each_layout
def test_machine_constants(layout: str) -> None:
    prog = collision(layout).program()
    assert prog["PAGE_SIZE"] == 4096
    assert prog["SECTION_SIZE_BITS"] == 27
    assert prog["MAX_PHYSMEM_BITS"] == 46
    assert prog["SECTIONS_PER_ROOT"] == 256
    assert prog["NR_SECTION_ROOTS"] == 2048
    assert prog["vmemmap"].value_() == prog["vmemmap_base"].value_() == 0xFFFFEA0000000000
    memmap = section_decode_mem_map(pfn_to_section(prog, 0x28000), 5)
    assert memmap == pfn_to_page(prog, 0x28000)


# Memory.


@each_layout
def test_partial_section(layout: str) -> None:
    prog = partial(layout).program()
    ranges = [(start, end) for start, end, _ in for_each_valid_page_range(prog)]
    assert ranges == [(0, 0x10000), (0x100000, 0x114000)]
    assert pfn_to_section(prog, 0x113FFF).usage.subsection_map[0] == (1 << 32) - 1
    assert pfn_to_page(prog, 0x113FFF).read_()
    with pytest.raises(FaultError) as error:
        page_flags(pfn_to_page(prog, 0x114000)).value_()
    assert error.value.address == 0xFFFFEA0000000000 + 64 * 0x114000


@each_layout
def test_far_sections(layout: str) -> None:
    kernel = FakeKernel(layout)
    for nr in (1000, 300000):
        kernel.section(nr, subsections=[0, 63])
    kernel.section(5, has_mem_map=False, usage=False)
    prog = kernel.program()
    assert [nr for nr, _ in for_each_present_section(prog)] == [5, 1000, 300000]
    assert not nr_to_section(prog, 5).usage
    ranges = [(start, end) for start, end, _ in for_each_valid_page_range(prog)]
    starts = [nr * 32768 + extra for nr in (1000, 300000) for extra in (0, 32768 - 512)]
    assert ranges == [(start, start + 512) for start in starts]


def test_bulk_read_across_sections() -> None:
    prog = collision("6.1").program()
    start = pfn_to_page(prog, 0x27FFF).value_()
    data = prog.read(start + 8, 2 * 64)
    assert data == prog.read(start + 8, 56) + prog.read(start + 64, 72)
    with pytest.raises(FaultError) as error:
        prog.read(pfn_to_page(prog, 0x3FFFF).value_(), 65)
    assert error.value.address == pfn_to_page(prog, 0x40000).value_()


def test_pokes_show_in_a_running_program() -> None:
    kernel = collision("6.1")
    prog = kernel.program()
    pgmap = pgmap_at(prog, 0x24400)
    kernel.poke_page_word(0x2ABCD, 1, 0xDEAD)
    assert pfn_to_page(prog, 0x2ABCD).pgmap.value_() == 0xDEAD
    assert kernel.page_word(0x2ABCD, 1) == 0xDEAD
    kernel.poke_member("dev_pagemap", pgmap.value_(), "nr_range", 0)
    assert pgmap.nr_range == 0
    kernel.poke(pgmap.value_(), b"\xff" * 8)
    assert pgmap.altmap.base_pfn == (1 << 64) - 1
    kernel.fill_pages(0x2FF00, 0x30000, 0xFF)
    assert words(prog, 0x2FFFF) == [(1 << 64) - 1] * 8
    kernel.set_variable("max_pfn", 7)
    assert prog["max_pfn"] == 7


def test_memory_changes_between_reads() -> None:
    kernel = collision("6.1")
    prog = kernel.program(is_live=True)
    assert ProgramFlags.IS_LIVE in prog.flags
    seen: list[tuple[int, int]] = []

    def on_read(address: int, count: int) -> None:
        kernel.set_variable("max_pfn", len(seen))
        seen.append((address, count))

    kernel.on_read = on_read
    address = prog["max_pfn"].address_
    assert [prog["max_pfn"].value_() for _ in range(3)] == [0, 1, 2]
    assert seen == [(address, 8)] * 3


def test_added_variable() -> None:
    kernel = FakeKernel()
    kernel.add_variable("page_init_poisoning", "bool", 1)
    assert kernel.program()["page_init_poisoning"].value_() is True


def test_hidden_and_unmapped_memory_faults() -> None:
    kernel = collision("6.1")
    prog = kernel.program()
    pgmap = pgmap_at(prog, 0x24400)
    kernel.hide(pgmap.value_(), 8)
    with pytest.raises(FaultError):
        pgmap.altmap.base_pfn.value_()
    kernel.unmap_memmap(0x24000, 0x24040)
    with pytest.raises(FaultError):
        words(prog, 0x2403F)
    assert words(prog, 0x24040)
    kernel.map_memmap(0x24000, 0x24040)
    assert words(prog, 0x2403F)[0] == 0x0027FFFFC0001000


def test_pgmap_may_stay_unstored() -> None:
    kernel = FakeKernel()
    gone = kernel.pgmap((0x40000, 0x48000), stored=False)
    kernel.section(8, early=True, subsections=None)
    kernel.device_pages(0x40000, 0x48000, gone)
    prog = kernel.program()
    assert not pgmap_at(prog, 0x40000)
    assert pfn_to_page(prog, 0x40000).pgmap.value_() == gone


def test_altmap_offset() -> None:
    assert Altmap(0x24000, 0x2FFFF, 2, 1022).offset == 0x400


def test_nodes() -> None:
    kernel = FakeKernel()
    kernel.section(8)
    pgmap = kernel.pgmap((0x40000, 0x48000), nid=3)
    kernel.device_pages(0x40000, 0x48000, pgmap, nid=3)
    prog = kernel.program()
    assert [node.node_id.value_() for node in for_each_online_pgdat(prog)] == [0, 3]
    assert page_flags(pfn_to_page(prog, 0x40000)) >> 54 == 3
    assert NODE_DATA(prog, 3).node_zones[4].spanned_pages == 0x8000


def test_sections_of_a_range() -> None:
    kernel = FakeKernel()
    kernel.sections(0x3C000, 0x4C200, online=True)
    prog = kernel.program()
    maps = {nr: hex(s.usage.subsection_map[0]) for nr, s in for_each_present_section(prog)}
    assert maps == {7: "0xffffffff00000000", 8: "0xffffffffffffffff", 9: "0x1ffffffff"}
