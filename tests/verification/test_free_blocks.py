# SPDX-License-Identifier: LGPL-2.1-or-later

"""Which pages lie in free blocks, and what a block's order must be."""

from __future__ import annotations

import random

import numpy as np
import pytest
from drgn import Program
from support.fakekernel import FakeKernel, RamBuilder
from support.kernels import each_layout

from drgn_zonedev.kernel.memmap import Pages, read_pages
from drgn_zonedev.kernel.page_kinds import kinds_of_ram
from drgn_zonedev.verification.free_blocks import FreePages, free_pages

START, END = 0x40000, 0x40400


def ram(layout: str) -> RamBuilder:
    kernel = FakeKernel(layout)
    kernel.section(8, online=True, early=True)
    found = RamBuilder(kernel, "ZONE_DMA32", 0, random.Random(layout))
    found.lru(START, END - START)
    return found


def found(ram: RamBuilder, start: int = START, end: int = END, zone_end: int = END) -> FreePages:
    prog: Program = ram.kernel.program()
    (pages,) = read_pages(prog, start, end)
    assert isinstance(pages, Pages)
    return free_pages(pages, kinds_of_ram(prog), zone_end)


@each_layout
@pytest.mark.parametrize("order", [0, 1, 4, 10])
def test_block_has_as_many_pages_as_its_order_says(layout: str, order: int) -> None:
    made = ram(layout)
    made.free(START, order)
    free = found(made)
    assert free.first.nonzero()[0].tolist() == [0]
    assert free.inside.nonzero()[0].tolist() == list(range(1, 1 << order))
    assert int(free.order[0]) == order


@each_layout
def test_one_page_that_is_used_does_not_make_the_order_wrong(layout: str) -> None:
    made = ram(layout)
    made.free(START, 6)
    made.lru(START + 9, 1)
    free = found(made)
    assert int(free.order[0]) == 6
    assert free.inside[9]


@each_layout
@pytest.mark.parametrize("said", [5, 11, 1 << 40])
def test_order_that_cannot_be_is_the_largest_one_that_can(layout: str, said: int) -> None:
    made = ram(layout)
    made.free(START, 4)
    made.kernel.poke_page_word(START, 5, said)
    assert int(found(made).order[0]) == 4


@each_layout
def test_order_is_one_that_the_pfn_is_aligned_to(layout: str) -> None:
    made = ram(layout)
    made.free(START + 4, 2)
    made.per_cpu(START + 8, 4)
    made.kernel.poke_page_word(START + 4, 5, 3)
    assert int(found(made).order[4]) == 2


@each_layout
def test_block_ends_within_its_zone(layout: str) -> None:
    made = ram(layout)
    made.free(START, 5)
    assert int(found(made, zone_end=START + 32).order[0]) == 5
    assert int(found(made, zone_end=START + 31).order[0]) == 4


@each_layout
def test_block_whose_end_cannot_be_read_is_as_it_says(layout: str) -> None:
    made = ram(layout)
    made.free(START, 8)
    free = found(made, end=START + 64)
    assert int(free.order[0]) == 8
    assert free.any.all()


@each_layout
def test_wiped_struct_pages_say_nothing_against_the_order(layout: str) -> None:
    made = ram(layout)
    made.free(START, 7)
    made.kernel.memory.put_pages(START + 64, np.zeros((64, 8), np.uint64))
    free = found(made)
    assert int(free.order[0]) == 7
    assert free.inside[1:128].all()
