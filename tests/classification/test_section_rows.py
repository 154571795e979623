# SPDX-License-Identifier: LGPL-2.1-or-later

"""Sections as they are, decoded: a row for each that is present."""

from __future__ import annotations

from support.fakekernel import FakeKernel, collision, far
from support.kernels import each_layout

from drgn_zonedev.classification.section_rows import section_rows

ALL = (1 << 64) - 1


@each_layout
def test_only_present_sections_have_a_row(layout: str) -> None:
    # far() has section 6, which is not present, and one in the third root.
    rows = list(section_rows(far(layout).program()))
    assert [row.nr for row in rows] == [0, 5, 255, 256, 300000]
    for row in rows:
        assert (row.start_pfn, row.end_pfn) == (row.nr * 0x8000, (row.nr + 1) * 0x8000)


@each_layout
def test_subsections_are_the_bits_that_are_set(layout: str) -> None:
    rows = {row.nr: row for row in section_rows(far(layout).program())}
    assert rows[0].subsections == (sum(1 << bit for bit in range(7, 60)),)
    assert rows[255].subsections == (1 | 1 << 2 | 1 << 63,)
    assert rows[256].subsections == (0,)
    assert rows[300000].subsections == (ALL,)
    # It has no usage, and so no subsection.
    assert rows[5].usage == 0
    assert rows[5].subsections in (None, (0,))
    assert {row.subsections_per_section for row in rows.values()} == {64}


@each_layout
def test_flags_are_named(layout: str) -> None:
    rows = {row.nr: row for row in section_rows(collision(layout).program())}
    ram = ("MARKED_PRESENT", "HAS_MEM_MAP", "IS_ONLINE", "IS_EARLY")
    assert rows[0].flags == ram
    assert rows[4].flags == (ram if layout == "5.10" else (*ram, "TAINT_ZONE_DEVICE"))
    assert rows[5].flags == ("MARKED_PRESENT", "HAS_MEM_MAP")


@each_layout
def test_word_and_addresses_are_those_of_the_structures(layout: str) -> None:
    kernel = FakeKernel(layout)
    section = kernel.section(8, online=True, early=True)
    (row,) = section_rows(kernel.program())
    assert row.address == section
    assert row.word == kernel.member("mem_section", section, "section_mem_map")
    assert row.usage == kernel.member("mem_section", section, "usage")


def test_memory_block_is_that_of_the_section() -> None:
    kernel = FakeKernel("6.1")
    for nr in (8, 9, 10):
        kernel.section(nr)
    kernel.memory_block(8)
    kernel.memory_block(9, "MEM_OFFLINE")
    states = [row.memory_block for row in section_rows(kernel.program())]
    assert states == ["MEM_ONLINE", "MEM_OFFLINE", None]


def test_memory_block_may_have_many_sections() -> None:
    kernel = FakeKernel("6.1")
    kernel.set_variable("sections_per_block", 16)
    for nr in (15, 16, 31, 32):
        kernel.section(nr)
    # Of the second block: sections 16 to 31.
    kernel.memory_block(1)
    blocks = [row.memory_block is not None for row in section_rows(kernel.program())]
    assert blocks == [False, True, True, False]


def test_usage_that_cannot_be_read_is_not_taken_for_empty() -> None:
    kernel = FakeKernel("6.1")
    section = kernel.section(8)
    kernel.hide(kernel.member("mem_section", section, "usage"), 64)
    (row,) = section_rows(kernel.program())
    assert row.usage
    assert row.subsections is None


def test_kernel_without_sections_has_no_row() -> None:
    assert list(section_rows(FakeKernel("6.1").program())) == []
