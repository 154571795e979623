# SPDX-License-Identifier: LGPL-2.1-or-later

"""Sections and subsections against drgn's helpers and the rules of each kernel."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from drgn import FindObjectFlags, Object, Program
from drgn.helpers.linux.mm import for_each_valid_page_range, pfn_to_page
from drgn.helpers.linux.mmzone import for_each_present_section, nr_to_section
from fakekernel import LAYOUTS, FakeKernel, collision, in_flight, partial

from drgn_zonedev.kernel.mmzone import (
    Sections,
    for_each_subsection,
    online_device_section,
    pfn_section_valid,
    pfn_to_online_page,
    pfn_valid,
    section_flags,
    section_subsection_map,
    section_vmemmap_preinit,
    sections,
    sparsemem_geometry,
    subsection_map_index,
    zone_device_spans,
)

each_layout = pytest.mark.parametrize("layout", LAYOUTS)
since_taint = pytest.mark.parametrize("layout", LAYOUTS[1:])

ALL_ONES = (1 << 64) - 1


def far(layout: str) -> FakeKernel:
    """Sections in three roots, with all kinds of subsection maps."""
    kernel = FakeKernel(layout)
    kernel.section(0, online=True, early=True, subsections=range(7, 60))
    kernel.section(5, has_mem_map=False, usage=False)
    kernel.section(6, present=False, has_mem_map=False, usage=False)
    kernel.section(255, subsections=[0, 2, 63])
    kernel.section(256, subsections=None)
    kernel.section(300000, online=True)
    return kernel


def without_usage(layout: str) -> FakeKernel:
    """far(), and a section with a memmap but no usage, on which drgn's helpers stumble."""
    kernel = far(layout)
    kernel.section(257, usage=False)
    return kernel


each_scene = pytest.mark.parametrize("scene", [collision, in_flight, partial, far])
Scene = Callable[[str], FakeKernel]


# Geometry and flags.


@each_layout
def test_geometry_of_x86_64(layout: str) -> None:
    geometry = sparsemem_geometry(FakeKernel(layout).program())
    assert (geometry.page_shift, geometry.section_size_bits) == (12, 27)
    assert geometry.pages_per_section == 32768
    assert geometry.pages_per_subsection == 512
    assert geometry.subsections_per_section == 64
    assert geometry.max_pfn == 1 << 34


FLAGS = {
    "5.10": (1, 2, 4, 8, 0, 0, ~0xF & ALL_ONES),
    "6.1": (1, 2, 4, 8, 16, 0, ~0x1F & ALL_ONES),
    "6.12": (1, 2, 4, 8, 16, 0, ~0x1F & ALL_ONES),
    "7.2": (1, 2, 4, 8, 16, 32, ~0x3F & ALL_ONES),
}


@each_layout
def test_section_flags(layout: str) -> None:
    flags = section_flags(FakeKernel(layout).program())
    found = (flags.present, flags.has_mem_map, flags.online, flags.early)
    assert (*found, flags.taint, flags.preinit, flags.map_mask) == FLAGS[layout]


def test_taint_was_a_macro_where_pfn_to_online_page_is_a_function() -> None:
    # v5.12 to v5.19: the flags are macros, but there are five of them.
    prog = FakeKernel("5.10").program()

    def find(
        prog: Program, name: str, flags: FindObjectFlags, filename: str | None
    ) -> Object | None:
        if name != "pfn_to_online_page" or not flags & FindObjectFlags.FUNCTION:
            return None
        return Object(prog, prog.function_type(prog.type("int"), ()), address=0xFFFFFFFF81000040)

    prog.register_object_finder("function", find, enable_index=0)
    assert section_flags(prog).taint == 16
    assert section_flags(prog).map_mask == ~0x1F & ALL_ONES


@each_layout
def test_online_device_section_needs_both_flags(layout: str) -> None:
    kernel = FakeKernel(layout)
    for nr, online, taint in ((1, False, False), (2, True, False), (3, False, True)):
        kernel.section(nr, online=online, taint=taint)
    kernel.section(4, online=True, taint=True)
    prog = kernel.program()
    found = [nr for nr in range(6) if online_device_section(nr_to_section(prog, nr))]
    assert found == ([] if layout == "5.10" else [4])


@each_layout
def test_preinitialised_sections(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(1, preinit=True)
    kernel.section(2)
    prog = kernel.program()
    found = [nr for nr in range(4) if section_vmemmap_preinit(nr_to_section(prog, nr))]
    assert found == ([1] if layout == "7.2" else [])


# Subsections.


@each_layout
def test_subsections_of_a_section(layout: str) -> None:
    prog = far(layout).program()
    found = list(for_each_subsection(prog, 255))
    start = 255 * 32768
    assert [(a, b) for a, b, _ in found] == [
        (start + i * 512, start + (i + 1) * 512) for i in range(64)
    ]
    assert [i for i, (_, _, is_set) in enumerate(found) if is_set] == [0, 2, 63]


@each_layout
@pytest.mark.parametrize("nr", [5, 7, 256, 257, 5000])
def test_section_without_subsections(layout: str, nr: int) -> None:
    prog = without_usage(layout).program()
    assert not any(is_set for _, _, is_set in for_each_subsection(prog, nr))


@each_layout
def test_subsection_map_as_a_number(layout: str) -> None:
    prog = without_usage(layout).program()
    assert section_subsection_map(nr_to_section(prog, 255)) == 1 << 63 | 5
    assert section_subsection_map(nr_to_section(prog, 257)) == 0
    assert section_subsection_map(nr_to_section(prog, 300000)) == ALL_ONES


@each_layout
def test_subsection_of_a_pfn(layout: str) -> None:
    prog = FakeKernel(layout).program()
    pfns = (0, 511, 512, 32767, 32768, 0x114000)
    assert [subsection_map_index(prog, pfn) for pfn in pfns] == [0, 0, 1, 63, 0, 32]


# Predicates.


OUT_OF_RANGE = (-1, 1 << 34, 1 << 52, 1 << 60)


@each_layout
@pytest.mark.parametrize("pfn", OUT_OF_RANGE)
def test_pfn_out_of_range_is_nothing(layout: str, pfn: int) -> None:
    prog = collision(layout).program()
    assert not pfn_valid(prog, pfn)
    assert not pfn_to_online_page(prog, pfn)


@each_layout
@pytest.mark.parametrize("pfn", [0x1000000, 300001 * 32768])
def test_pfn_of_an_absent_root_is_nothing(layout: str, pfn: int) -> None:
    prog = far(layout).program()
    assert not pfn_valid(prog, pfn)
    assert not pfn_section_valid(prog, pfn)
    assert not pfn_to_online_page(prog, pfn)


@each_layout
def test_early_sections_are_valid_as_a_whole(layout: str) -> None:
    prog = far(layout).program()
    hole, ram = 0, 7 * 512
    assert pfn_valid(prog, hole)
    assert not pfn_section_valid(prog, hole)
    assert pfn_valid(prog, ram)
    assert pfn_section_valid(prog, ram)


@each_layout
def test_other_sections_are_valid_by_subsection(layout: str) -> None:
    prog = far(layout).program()
    start = 255 * 32768
    for pfn, expected in ((0, True), (511, True), (512, False), (1024, True), (32767, True)):
        assert pfn_valid(prog, start + pfn) == expected
        assert pfn_section_valid(prog, start + pfn) == expected


@each_layout
@pytest.mark.parametrize("nr", [5, 6, 256, 257])
def test_sections_without_memmap_or_subsections_are_not_valid(layout: str, nr: int) -> None:
    assert not pfn_valid(without_usage(layout).program(), nr * 32768)


@each_layout
@each_scene
def test_pfn_valid_agrees_with_drgn(layout: str, scene: Scene) -> None:
    prog = scene(layout).program()
    ranges = [(start, end) for start, end, _ in for_each_valid_page_range(prog)]
    borders = {pfn + i for span in ranges for pfn in span for i in (-1, 0, 1)}
    for pfn in borders:
        assert pfn_valid(prog, pfn) == any(start <= pfn < end for start, end in ranges)


@each_layout
def test_online_page_is_the_struct_page(layout: str) -> None:
    prog = collision(layout).program()
    assert pfn_to_online_page(prog, 0x23FFF) == pfn_to_page(prog, 0x23FFF)
    assert pfn_to_online_page(prog, 0x23FFF).type_.type_name() == "struct page *"


@each_layout
@pytest.mark.parametrize("scene", [collision, in_flight])
def test_collided_device_pages_are_online_before_the_taint(layout: str, scene: Scene) -> None:
    prog = scene(layout).program()
    for pfn in (0x24000, 0x24002, 0x24400, 0x27FFF):
        assert bool(pfn_to_online_page(prog, pfn)) == (layout == "5.10")
    for pfn in (0x28000, 0x2FFFF):
        assert not pfn_to_online_page(prog, pfn)


@each_layout
@pytest.mark.parametrize("ref", ["dead", "exited"])
def test_collided_device_pages_leak_while_the_device_goes(layout: str, ref: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8, online=True, early=True, taint=True)
    kernel.pgmap((0x44000, 0x48000), ref=ref)
    assert pfn_to_online_page(kernel.program(), 0x44000)


@each_layout
def test_collided_device_pages_leak_without_the_taint(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8, online=True, early=True)
    kernel.pgmap((0x44000, 0x48000))
    assert pfn_to_online_page(kernel.program(), 0x44000)


@each_layout
def test_ram_of_a_tainted_section_stays_online(layout: str) -> None:
    prog = collision(layout).program()
    assert pfn_to_online_page(prog, 0x20000)


@each_layout
def test_holes_of_early_sections_are_online_before_subsections_count(layout: str) -> None:
    prog = far(layout).program()
    assert bool(pfn_to_online_page(prog, 0)) == (layout == "5.10")
    assert pfn_to_online_page(prog, 7 * 512)


@each_layout
def test_online_section_without_usage(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8, online=True, usage=False)
    assert bool(pfn_to_online_page(kernel.program(), 0x40000)) == (layout == "5.10")


# Sections in bulk.


def as_ranges(prog: Program, found: Sections) -> list[tuple[int, int]]:
    """Valid PFNs by the bulk reading, subsection by subsection."""
    flags = section_flags(prog)
    ranges: list[tuple[int, int]] = []
    for nr, word, bitmap in zip(
        found.nr.tolist(), found.word.tolist(), found.subsection_map.tolist()
    ):
        for i in range(64):
            valid = word & flags.early or bitmap[0] >> i & 1
            if not word & flags.has_mem_map or not valid:
                continue
            start = nr * 32768 + i * 512
            if ranges and ranges[-1][1] == start:
                start = ranges.pop()[0]
            ranges.append((start, nr * 32768 + (i + 1) * 512))
    return ranges


@each_layout
@each_scene
def test_bulk_reading_agrees_with_drgn(layout: str, scene: Scene) -> None:
    prog = scene(layout).program()
    found = sections(prog)
    present = list(for_each_present_section(prog))
    assert found.nr.tolist() == [nr for nr, _ in present]
    assert found.address.tolist() == [s.value_() for _, s in present]
    assert found.word.tolist() == [s.section_mem_map.value_() for _, s in present]
    assert found.usage.tolist() == [s.usage.value_() for _, s in present]
    maps = [s.usage.subsection_map[0].value_() if s.usage else 0 for _, s in present]
    assert found.subsection_map.tolist() == [[bits] for bits in maps]
    assert found.usage_readable.all()
    assert found.unreadable == ()
    assert len(found) == len(present)


@each_layout
@each_scene
def test_bulk_reading_gives_drgns_valid_ranges(layout: str, scene: Scene) -> None:
    prog = scene(layout).program()
    expected = [(start, end) for start, end, _ in for_each_valid_page_range(prog)]
    assert as_ranges(prog, sections(prog)) == expected


@each_layout
def test_machine_without_sections(layout: str) -> None:
    found = sections(FakeKernel(layout).program())
    assert len(found) == 0
    assert found.unreadable == ()


@each_layout
def test_unreadable_root_is_reported_and_others_are_read(layout: str) -> None:
    kernel = far(layout)
    address = nr_to_section(kernel.program(), 257).value_()
    kernel.hide(address, 8)
    found = sections(kernel.program())
    assert found.unreadable == ((256, 512, address),)
    assert found.nr.tolist() == [0, 5, 255, 300000]


@each_layout
def test_section_without_usage_has_no_subsections(layout: str) -> None:
    found = sections(without_usage(layout).program())
    row = found.nr.tolist().index(257)
    assert (found.usage[row], found.usage_readable[row]) == (0, True)
    assert found.subsection_map[row].tolist() == [0]


@each_layout
def test_unreadable_usages_are_marked_and_others_are_read(layout: str) -> None:
    # All usages lie together, as those of boot sections do.
    kernel = FakeKernel(layout)
    made = [kernel.section(nr, subsections=[nr]) for nr in range(9)]
    for nr in (0, 4, 8):
        kernel.hide(kernel.member("mem_section", made[nr], "usage") + 16, 8)
    found = sections(kernel.program())
    readable = [nr not in (0, 4, 8) for nr in range(9)]
    assert found.usage_readable.tolist() == readable
    bits = [row[0] for row in found.subsection_map.tolist()]
    assert [b for b, ok in zip(bits, readable) if ok] == [1 << nr for nr in (1, 2, 3, 5, 6, 7)]
    assert found.unreadable == ()


@pytest.mark.parametrize("pointer", [8, 0xDEADBEEF, ALL_ONES, ALL_ONES - 7, 1 << 63])
def test_damaged_usage_pointer_does_not_disturb_others(pointer: int) -> None:
    kernel = FakeKernel()
    damaged = kernel.section(3)
    kernel.section(4, subsections=[9])
    kernel.poke_member("mem_section", damaged, "usage", pointer)
    found = sections(kernel.program())
    assert found.usage_readable.tolist() == [False, True]
    assert found.subsection_map[1].tolist() == [1 << 9]


@each_layout
def test_spans_of_zone_device(layout: str) -> None:
    kernel = FakeKernel(layout)
    assert zone_device_spans(kernel.program()) == {}
    kernel.grow_zone("ZONE_DEVICE", 0x40000, 0x48000)
    kernel.grow_zone("ZONE_DEVICE", 0x60000, 0x60200)
    kernel.grow_zone("ZONE_DEVICE", 0x80000, 0x90000, nid=3)
    spans = zone_device_spans(kernel.program())
    assert spans == {0: (0x40000, 0x60200), 3: (0x80000, 0x90000)}
