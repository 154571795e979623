# SPDX-License-Identifier: LGPL-2.1-or-later

"""Sections and subsections against drgn's helpers and the rules of each kernel."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from drgn import FindObjectFlags, Object, Program
from drgn.helpers.linux.mm import for_each_valid_page_range, pfn_to_page
from drgn.helpers.linux.mmzone import nr_to_section
from support.fakekernel import (
    FakeKernel,
    collision,
    far,
    in_flight,
    partial,
    without_usage,
)
from support.kernels import each_layout, since_taint

from drgn_zonedev.kernel.mmzone import (
    for_each_subsection,
    online_device_section,
    pfn_section_valid,
    pfn_to_online_page,
    pfn_valid,
    section_flags,
    section_subsection_map,
    section_vmemmap_preinit,
    sparsemem_geometry,
    subsection_map_index,
)
from drgn_zonedev.kernel.predicates import Predicates
from drgn_zonedev.kernel.sections import sections

ALL_ONES = (1 << 64) - 1


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


@since_taint
def test_without_zone_device_there_is_no_taint(layout: str) -> None:
    # CONFIG_ZONE_DEVICE=n: the enumerator is not there, and those behind it move up.
    kernel = FakeKernel(layout)
    enums = {key: dict(names) for key, names in kernel.layout.enums.items()}
    bits = enums["-section_bits"]
    taint = bits.pop("SECTION_TAINT_ZONE_DEVICE_BIT")
    enums["-section_bits"] = {n: bit - (bit > taint) for n, bit in bits.items()}
    kernel.layout = dataclasses.replace(kernel.layout, enums=enums)
    del kernel.variables["pgmap_array"]
    kernel.section(1, online=True, early=True, subsections=[0])
    kernel.ram_pages(0x8000, 0x8200)
    prog = kernel.program()
    flags, with_it = section_flags(prog), FLAGS[layout]
    assert (flags.taint, flags.preinit) == (0, with_it[5] >> 1)
    assert flags.map_mask == (with_it[6] >> 1 | 1 << 63)
    # The subsection is asked for as ever: v5.12 came with both.
    assert pfn_to_online_page(prog, 0x81FF)
    assert not pfn_to_online_page(prog, 0x8200)
    online = Predicates(flags, sections(prog), (), np.array([0x81FF, 0x8200])).online
    assert online.tolist() == [True, False]


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


OUT_OF_RANGE = (1 << 34, 1 << 52, 1 << 60)


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
    borders = {pfn + i for span in ranges for pfn in span for i in (-1, 0, 1) if pfn + i >= 0}
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
