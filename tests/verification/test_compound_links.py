# SPDX-License-Identifier: LGPL-2.1-or-later

"""Compound pages by what their pages say: one wrong word is outvoted."""

from __future__ import annotations

import random

import numpy as np
import pytest
from support.fakekernel import FakeKernel, RamBuilder
from support.kernels import each_layout

from drgn_zonedev.kernel.memmap import Pages, page_layout, read_pages
from drgn_zonedev.kernel.page_kinds import kinds_of_ram
from drgn_zonedev.verification.compound_links import (
    CompoundColumns,
    compound_before,
    find_compound_pages,
)
from drgn_zonedev.verification.free_blocks import free_pages

START, END = 0x40000, 0x40400
FLAGS, LINK, PREV = 0, 1, 2


def ram(layout: str) -> RamBuilder:
    kernel = FakeKernel(layout)
    kernel.section(8, online=True, early=True)
    found = RamBuilder(kernel, "ZONE_DMA32", 0, random.Random(layout))
    found.lru(START, 0x8000)
    return found


def found(ram: RamBuilder, start: int = START, end: int = END) -> CompoundColumns:
    prog = ram.kernel.program()
    (pages,) = read_pages(prog, start, end)
    assert isinstance(pages, Pages)
    kinds = kinds_of_ram(prog)
    free = free_pages(pages, kinds, START + 0x8000)
    return find_compound_pages(prog, pages, kinds, free.any)


def one(ram: RamBuilder, head: int, order: int) -> None:
    """There is this compound page, and no other."""
    compound = found(ram)
    rows = (compound.head >= 0).nonzero()[0]
    assert rows.tolist() == list(range(head - START, head - START + (1 << order)))
    assert set(compound.head[rows].tolist()) == {head}
    assert set(compound.order[rows].tolist()) == {order}


def set_order(ram: RamBuilder, head: int, order: int) -> None:
    word, shift = (FLAGS, 0) if ram.kernel.layout.name in ("6.12", "7.2") else (PREV, 8)
    before = ram.kernel.page_word(head + 1, word)
    after = before & ~(0xFF << shift) | order << shift
    ram.kernel.poke_page_word(head + 1, word, after)


@each_layout
@pytest.mark.parametrize("order", [1, 2, 3, 9, 10])
def test_head_and_tails_are_one_compound_page(layout: str, order: int) -> None:
    made = ram(layout)
    made.folio(START, order)
    one(made, START, order)


@each_layout
@pytest.mark.parametrize("order", [1, 2, 4, 9])
def test_head_without_its_flag_is_still_one(layout: str, order: int) -> None:
    made = ram(layout)
    made.folio(START + 0x200, order)
    flags = made.kernel.page_word(START + 0x200, FLAGS)
    made.kernel.poke_page_word(START + 0x200, FLAGS, flags & ~made.flag("head"))
    one(made, START + 0x200, order)


@each_layout
@pytest.mark.parametrize("tail", [1, 2, 5, 14, 15])
def test_tail_that_leads_elsewhere_is_still_one(layout: str, tail: int) -> None:
    made = ram(layout)
    made.folio(START + 0x10, 4)
    for link in (0, made.kernel.page(START + 0x80) | 1, 0xDEAD000000000101):
        made.kernel.poke_page_word(START + 0x10 + tail, LINK, link)
        one(made, START + 0x10, 4)


@each_layout
@pytest.mark.parametrize("said", [0, 1, 3, 5, 6, 9, 10, 18, 22, 255])
def test_order_is_what_the_tails_say(layout: str, said: int) -> None:
    made = ram(layout)
    made.folio(START + 0x200, 4)
    set_order(made, START + 0x200, said)
    one(made, START + 0x200, 4)


@each_layout
def test_first_tail_that_was_lost_is_still_one(layout: str) -> None:
    made = ram(layout)
    for order in (1, 2, 9):
        made.lru(START, END - START)
        made.folio(START + 0x200, order)
        made.kernel.fill_pages(START + 0x201, START + 0x202, 0xFF)
        one(made, START + 0x200, order)


@each_layout
def test_flag_alone_makes_no_compound_page(layout: str) -> None:
    made = ram(layout)
    flags = made.kernel.page_word(START + 6, FLAGS)
    made.kernel.poke_page_word(START + 6, FLAGS, flags | made.flag("head"))
    assert (found(made).head == -1).all()


@each_layout
def test_page_larger_than_a_window_is_known_in_each(layout: str) -> None:
    made = ram(layout)
    made.hugetlb(START, 13)
    for start in (START, START + 0x400, START + 0x1C00):
        compound = found(made, start, start + 0x400)
        assert set(compound.head.tolist()) == {START}
        assert set(compound.order.tolist()) == {13}
    assert (found(made, START + 0x2000, START + 0x2400).head == -1).all()


@each_layout
def test_wrong_order_of_a_large_page_is_seen_where_its_head_is(layout: str) -> None:
    made = ram(layout)
    made.hugetlb(START, 13)
    for said in (10, 12, 14):
        set_order(made, START, said)
        assert set(found(made).order.tolist()) == {13}


@each_layout
def test_page_in_front_tells_what_goes_on(layout: str) -> None:
    made = ram(layout)
    made.hugetlb(START, 13)
    prog = made.kernel.program()
    layout_ = page_layout(prog)
    assert compound_before(prog, layout_, START + 0x1000) == (START, START + 0x2000)
    for pfn in (0, START, START + 0x2000, START + 0x3000):
        assert compound_before(prog, layout_, pfn) is None


@each_layout
@pytest.mark.parametrize("order", [1, 2, 9, 10])
@pytest.mark.parametrize("distance", [0, 1])
def test_page_behind_that_leads_to_the_head_does_not_make_it_larger(
    layout: str, order: int, distance: int
) -> None:
    made = ram(layout)
    made.folio(START, order)
    made.kernel.poke_page_word(
        START + (1 << order) + distance, LINK, made.kernel.compound_link(START, order + 1)
    )
    one(made, START, order)


@each_layout
def test_page_that_leads_to_the_one_before_it_is_no_compound_page(layout: str) -> None:
    made = ram(layout)
    made.kernel.poke_page_word(START + 7, LINK, made.kernel.compound_link(START + 6, 1))
    assert not (found(made).head >= 0).any()


@each_layout
@pytest.mark.parametrize("index", [0x401, 0x600, 0x7FF])
def test_tail_that_leads_to_the_one_before_it_is_in_the_larger_page(
    layout: str, index: int
) -> None:
    made = ram(layout)
    made.folio(START, 11)
    link = made.kernel.compound_link(START + index - 1, 1)
    made.kernel.poke_page_word(START + index, LINK, link)
    compound = found(made, END, END + 0x400)
    assert set(compound.head.tolist()) == {START}


@each_layout
def test_page_behind_does_not_make_a_page_of_several_windows_larger(layout: str) -> None:
    made = ram(layout)
    made.folio(START, 11)
    link = made.kernel.compound_link(START, 12)
    made.kernel.poke_page_word(START + 0x800, LINK, link)
    assert not (found(made, START + 0x800, START + 0xC00).head >= 0).any()


@each_layout
def test_page_of_vmemmap_that_was_wiped_says_nothing_against_the_others(layout: str) -> None:
    made = ram(layout)
    made.folio(START + 0x80, 7)
    made.kernel.memory.put_pages(START + 0xC0, np.zeros((64, 8), np.uint64))
    one(made, START + 0x80, 7)


@each_layout
@pytest.mark.parametrize("byte", [0, 1, 9])
def test_page_of_a_free_block_is_no_head(layout: str, byte: int) -> None:
    made = ram(layout)
    made.free(START, 4)
    made.free(START + 16, 4)
    # A page behind the first block leads into it, and one of its bytes may look like an order.
    made.kernel.poke_page_word(START + 16, PREV, 0xFFFF888000000000 | byte << 8)
    made.kernel.poke_page_word(START + 16, LINK, made.kernel.compound_link(START + 15, 1))
    assert not (found(made).head >= 0).any()
