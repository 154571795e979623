# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The fast path never says yes of a page with a defect, whichever page and word that is; and
says yes of idle pages, as it would not be fast otherwise.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from drgn import Program
from support.fakekernel import Altmap, FakeKernel
from support.kernels import Device, each_layout, put_device, since_compounds

from drgn_zonedev.kernel.memmap import page_layout, read_blocks
from drgn_zonedev.verification.fastpath import cached_fast_path, make_fast_path
from drgn_zonedev.verification.promises import DevicePages, MetadataPages, Promise

START, DATA, END = 0x40000, 0x40200, 0x40A00
ORDER = 9
# Words of struct page that a kernel without users has set for good, by what they are.
FLAGS, LINK, COUNTS = 0, 1, 6
ZONE_SHIFT, NODE_SHIFT = 51, 54


def kernel_of(layout: str, shift: int = 0, nid: int = 0) -> tuple[FakeKernel, int]:
    # Nothing is shared, so that a poke is about one struct page.
    kernel = FakeKernel(layout, dedup=False)
    kernel.section(8)
    altmap = Altmap(START, END - 1, reserve=2, free=DATA - START - 2)
    return kernel, put_device(kernel, Device(START, END, shift=shift, altmap=altmap, nid=nid))


def data(pgmap: int, shift: int = 0, nid: int = 0) -> DevicePages:
    return DevicePages(
        pgmap=pgmap,
        type="MEMORY_DEVICE_PCI_P2PDMA",
        first_pfn=DATA,
        end_pfn=END,
        nodes=(nid,),
        vmemmap_shift=shift,
    )


def passes(prog: Program, promise: Promise, start: int, end: int) -> bool:
    layout = page_layout(prog)
    raw = read_blocks(prog, layout, [start], end - start)
    return make_fast_path(layout, promise)(np.array([start]), end - start, raw)


@each_layout
@pytest.mark.parametrize("nid", [0, 3])
def test_idle_pages_pass(layout: str, nid: int) -> None:
    kernel, pgmap = kernel_of(layout, nid=nid)
    prog = kernel.program()
    assert passes(prog, data(pgmap, nid=nid), DATA, END)
    assert passes(prog, MetadataPages((nid,)), START + 2, DATA)
    # One page is as good as many.
    assert passes(prog, data(pgmap, nid=nid), DATA, DATA + 1)


@since_compounds
def test_idle_compound_pages_pass(layout: str) -> None:
    kernel, pgmap = kernel_of(layout, ORDER)
    prog = kernel.program()
    assert passes(prog, data(pgmap, ORDER), DATA, END)
    # And parts of one, which begin at its head or behind it.
    assert passes(prog, data(pgmap, ORDER), DATA, DATA + 100)
    assert passes(prog, data(pgmap, ORDER), DATA + 100, DATA + 300)


@each_layout
def test_pages_of_another_node_do_not_pass(layout: str) -> None:
    kernel, pgmap = kernel_of(layout, nid=1)
    prog = kernel.program()
    assert not passes(prog, data(pgmap, nid=0), DATA, END)
    assert not passes(prog, MetadataPages((0,)), START + 2, DATA)


# Defects: (word, what becomes of it).
DEFECTS: dict[str, tuple[int, Callable[[int], int]]] = {
    "zone": (FLAGS, lambda word: word ^ 1 << ZONE_SHIFT),
    "node": (FLAGS, lambda word: word ^ 1 << NODE_SHIFT),
    "zeros": (FLAGS, lambda word: 0),
    "ones": (FLAGS, lambda word: (1 << 64) - 1),
    "pgmap or link": (LINK, lambda word: word ^ 1 << 40),
    "references": (COUNTS, lambda word: word | 1 << 63),
}


def some_pfns(start: int, end: int, seed: int) -> list[int]:
    """The corners, the second pages, and some between them."""
    rng = random.Random(seed)
    corners = {start, start + 1, end - 2, end - 1}
    return sorted(corners | {rng.randrange(start, end) for _ in range(6)})


@each_layout
@pytest.mark.parametrize("defect", DEFECTS)
def test_one_wrong_device_page_does_not_pass(layout: str, defect: str) -> None:
    kernel, pgmap = kernel_of(layout)
    prog = kernel.program()
    word, change = DEFECTS[defect]
    for pfn in some_pfns(DATA, END, 1):
        before = kernel.page_word(pfn, word)
        kernel.poke_page_word(pfn, word, change(before))
        assert not passes(prog, data(pgmap), DATA, END), hex(pfn)
        kernel.poke_page_word(pfn, word, before)
    assert passes(prog, data(pgmap), DATA, END)


@each_layout
@pytest.mark.parametrize("defect", [d for d in DEFECTS if d != "ones"])
def test_one_wrong_metadata_page_does_not_pass(layout: str, defect: str) -> None:
    kernel, _ = kernel_of(layout)
    prog = kernel.program()
    word, change = DEFECTS[defect]
    for pfn in some_pfns(START + 2, DATA, 2):
        before = kernel.page_word(pfn, word)
        kernel.poke_page_word(pfn, word, change(before))
        assert not passes(prog, MetadataPages((0,)), START + 2, DATA), hex(pfn)
        kernel.poke_page_word(pfn, word, before)


@since_compounds
@pytest.mark.parametrize("defect", DEFECTS)
def test_one_wrong_page_of_a_compound_page_does_not_pass(layout: str, defect: str) -> None:
    kernel, pgmap = kernel_of(layout, ORDER)
    prog = kernel.program()
    word, change = DEFECTS[defect]
    for head in (DATA, END - (1 << ORDER)):
        for pfn in some_pfns(head, head + (1 << ORDER), 3):
            before = kernel.page_word(pfn, word)
            kernel.poke_page_word(pfn, word, change(before))
            assert not passes(prog, data(pgmap, ORDER), DATA, END), hex(pfn)
            kernel.poke_page_word(pfn, word, before)


def test_page_before_what_was_looked_at_does_not_vouch_for_it() -> None:
    # What was verified in one block is known in the next one, and nothing else.
    kernel, pgmap = kernel_of("6.1")
    prog, layout = kernel.program(), page_layout(kernel.program())
    fast_path = cached_fast_path()(layout, data(pgmap))
    good = read_blocks(prog, layout, [DATA], 8)
    assert fast_path(np.array([DATA]), 8, good)
    kernel.poke_page_word(DATA + 8, LINK, pgmap ^ 64)
    for pfn in range(DATA + 9, DATA + 16):
        kernel.poke_page_word(pfn, LINK, pgmap ^ 64)
    bad = read_blocks(prog, layout, [DATA + 8], 8)
    assert not fast_path(np.array([DATA + 8]), 8, bad)
    assert fast_path(np.array([DATA]), 8, good)


def test_fast_path_is_kept_as_long_as_the_promise_is_the_same() -> None:
    kernel, pgmap = kernel_of("6.1")
    layout = page_layout(kernel.program())
    paths = cached_fast_path()
    first = paths(layout, data(pgmap))
    assert paths(layout, data(pgmap)) is first
    assert paths(layout, data(pgmap ^ 64)) is not first
