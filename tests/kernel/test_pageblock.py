# SPDX-License-Identifier: LGPL-2.1-or-later

"""Migratetypes, four or eight bits to a pageblock."""

from __future__ import annotations

import dataclasses

import pytest
from drgn import Program
from support.fakekernel import FakeKernel
from support.fakekernel.layouts import Member
from support.kernels import each_layout

from drgn_zonedev.kernel.pageblock import (
    PageblockLayout,
    pageblock_layout,
    pageblock_nr_pages,
    present_migratetypes,
    section_migratetypes,
)
from drgn_zonedev.kernel.sections import sections


def usage(kernel: FakeKernel) -> int:
    section = kernel.section(8)
    return kernel.member("mem_section", section, "usage")


@pytest.mark.parametrize(
    ("bits", "word", "first"),
    [(4, 0x9A10, [0, 1, 2, 1]), (8, 0x090A1110, [0, 1, 2, 1])],
)
def test_migratetype_is_in_the_low_bits(bits: int, word: int, first: list[int]) -> None:
    # The bits above it say whether to skip the pageblock, or to isolate it.
    kernel = FakeKernel("7.2" if bits == 8 else "6.1")
    address = usage(kernel)
    offset = kernel.layout.structs["mem_section_usage"].members["pageblock_flags"].offset
    kernel.poke(address + offset, word.to_bytes(8 * bits, "little"))
    layout = PageblockLayout(bits, 512, 1)
    types = section_migratetypes(kernel.program(), address, layout)
    assert types is not None
    assert types.tolist() == first + [0] * 60


@pytest.mark.parametrize(
    ("layout", "bits", "word", "first"),
    [("6.1", 4, 0x9A14, [4, 1, 2, 1]), ("7.2", 8, 0x090A1109, [1, 5, 2, 1])],
)
def test_isolated_pageblock_has_no_other_migratetype(
    layout: str, bits: int, word: int, first: list[int]
) -> None:
    # MIGRATE_ISOLATE is 4 on 6.1 (without CMA), and 5 on 7.2, where it is a bit of its own.
    kernel = FakeKernel(layout)
    address = usage(kernel)
    offset = kernel.layout.structs["mem_section_usage"].members["pageblock_flags"].offset
    kernel.poke(address + offset, word.to_bytes(8 * bits, "little"))
    prog, pageblocks = kernel.program(), PageblockLayout(bits, 512, 1)
    types = present_migratetypes(prog, address, pageblocks)
    assert types is not None
    assert types.tolist() == first + [0] * 60
    assert kernel.layout.constant("MIGRATE_ISOLATE") in first


@each_layout
def test_unreadable(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    assert (
        section_migratetypes(kernel.program(), 0xFFFFC00000000000, PageblockLayout(4, 512, 1))
        is None
    )


@each_layout
def test_debug_info_without_migratetypes(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    assert layout_of(kernel.program()) is not None
    assert layout_of(kernel.program(hidden=frozenset(["MIGRATE_MOVABLE"]))) is None


def layout_of(prog: Program) -> PageblockLayout | None:
    return pageblock_layout(prog, sections(prog))


def size_of(kernel: FakeKernel) -> int | None:
    prog = kernel.program()
    return pageblock_nr_pages(prog, sections(prog))


SIZES = {"6.1": 9, "7.2": 9, "arm64-5.16": 9, "arm64-16k": 11, "arm64-64k": 13}


def with_orders(kernel: FakeKernel, orders: int) -> FakeKernel:
    """Give zones so many orders: MAX_PAGE_ORDER + 1."""
    zone = kernel.layout.structs["zone"]
    members = {**zone.members, "free_area": Member(f"unsigned long [{orders}]", 0)}
    structs = {**kernel.layout.structs, "zone": dataclasses.replace(zone, members=members)}
    kernel.layout = dataclasses.replace(kernel.layout, structs=structs)
    return kernel


@pytest.mark.parametrize(("layout", "order"), SIZES.items())
@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_pageblock_is_what_a_pmd_maps(layout: str, order: int, count: int) -> None:
    kernel = with_orders(FakeKernel(layout), 14)
    for nr in range(4, 4 + count):
        kernel.section(nr, early=True, online=True)
    assert size_of(kernel) == 1 << order


def test_a_pageblock_is_no_larger_than_the_largest_free_block() -> None:
    assert size_of(with_orders(FakeKernel("arm64-64k"), 11)) == 1 << 10


@pytest.mark.parametrize("order", [5, 7, 8, 10])
def test_room_for_flags_shows_pageblocks_of_another_size(order: int) -> None:
    # CONFIG_PAGE_BLOCK_MAX_ORDER, or no hugepages.
    kernel = FakeKernel("6.1")
    kernel.macros = dataclasses.replace(kernel.macros, pageblock_order=order)
    for nr in range(4):
        kernel.section(nr, early=True)
    assert size_of(kernel) == 1 << order


def test_one_word_of_flags_does_not_tell_what_a_pageblock_is() -> None:
    # 4 or 16 pageblocks of a section have their flags in one word.
    kernel = with_orders(FakeKernel("arm64-16k"), 14)
    kernel.macros = dataclasses.replace(kernel.macros, pageblock_order=13)
    for nr in range(4):
        kernel.section(nr, early=True)
    assert size_of(kernel) == 1 << 11
    kernel = with_orders(FakeKernel("6.1"), 11)
    kernel.macros = dataclasses.replace(kernel.macros, pageblock_order=12)
    for nr in range(4):
        kernel.section(nr, early=True)
    assert size_of(kernel) is None


def test_sections_that_are_no_neighbours_show_nothing() -> None:
    kernel = FakeKernel("6.1")
    kernel.macros = dataclasses.replace(kernel.macros, pageblock_order=5)
    for nr in (1, 3, 7):
        kernel.section(nr, early=True)
    kernel.section(8)
    assert size_of(kernel) == 1 << 9


def test_a_damaged_usage_does_not_outvote_the_others() -> None:
    kernel = FakeKernel("6.1")
    kernel.macros = dataclasses.replace(kernel.macros, pageblock_order=5)
    made = [kernel.section(nr, early=True) for nr in range(6)]
    kernel.poke_member("mem_section", made[3], "usage", 0xDEAD000000000000)
    assert size_of(kernel) == 1 << 5


def test_powerpc_has_a_variable() -> None:
    kernel = FakeKernel("ppc64-6.14")
    assert size_of(kernel) is None
    kernel.add_variable("pageblock_order", "unsigned int", 5)
    assert size_of(kernel) == 1 << 5
    kernel.set_variable("pageblock_order", 0xFFFF)
    assert size_of(kernel) is None
