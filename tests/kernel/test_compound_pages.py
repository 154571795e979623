# SPDX-License-Identifier: LGPL-2.1-or-later

"""Heads and orders of compound pages: by arithmetic, and by drgn's own helpers."""

from __future__ import annotations

import numpy as np
import pytest
from drgn.helpers.linux.mm import compound_head, pfn_to_page
from support.fakekernel import LAYOUTS, FakeKernel, partial
from support.kernels import each_layout, since_compounds

from drgn_zonedev.kernel.compound_pages import CompoundPages, compound_heads, compound_pages
from drgn_zonedev.kernel.memmap import Pages, read_pages

DATA, ORDER = 0x100600, 9
STRUCT_PAGES_PER_PAGE = 64
# Word 0 of a struct page has its flags, word 1 the compound link.
FLAGS, LINK = 0, 1

# Enumerator HUGETLB_PAGE_DTOR: NULL_COMPOUND_DTOR and COMPOUND_PAGE_DTOR come before it.
HUGETLB_PAGE_DTOR = 2
before_masks = pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "7.2"])


def pages_of(kernel: FakeKernel, start_pfn: int, end_pfn: int) -> Pages:
    pages = next(read_pages(kernel.program(), start_pfn, end_pfn))
    assert isinstance(pages, Pages)
    return pages


def asked(kernel: FakeKernel, start_pfn: int, end_pfn: int) -> CompoundPages:
    return compound_pages(kernel.program(), pages_of(kernel, start_pfn, end_pfn))


@since_compounds
def test_every_page_of_a_compound_page_has_its_head_and_its_order(layout: str) -> None:
    # They begin and end inside of compound pages.
    start, end = DATA + 5, DATA + 3 * 512 - 5
    kernel = partial(layout)
    found = asked(kernel, start, end)
    pfn = np.arange(start, end)
    assert found.readable.all()
    assert found.heads.tolist() == [kernel.page(p) for p in (pfn >> ORDER << ORDER).tolist()]
    assert set(found.order.tolist()) == {ORDER}


@each_layout
def test_heads_are_those_of_drgns_helper(layout: str) -> None:
    kernel = partial(layout)
    prog = kernel.program()
    for start in (0x8000, DATA):
        heads = asked(kernel, start, start + 1024).heads.tolist()
        assert heads == [
            compound_head(pfn_to_page(prog, pfn)).value_() for pfn in range(start, start + 1024)
        ]


@each_layout
def test_single_page_is_its_own_head_and_has_order_0(layout: str) -> None:
    kernel = partial(layout)
    found = asked(kernel, 0x8000, 0x8100)
    assert found.heads.tolist() == [kernel.page(pfn) for pfn in range(0x8000, 0x8100)]
    assert set(found.order.tolist()) == {0}


@before_masks
def test_copy_of_a_head_in_a_deduplicated_memmap_is_a_tail(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(1, online=True, early=True)
    kernel.ram_pages(0x8000, 0x8200)
    for pfn in range(0x8001, 0x8200):
        kernel.poke_page_word(pfn, LINK, kernel.compound_link(0x8000, ORDER))
    head_flags = kernel.page_word(0x8000, FLAGS) | 1 << kernel.layout.constant("PG_head")
    for pfn in range(0x8000, 0x8200, STRUCT_PAGES_PER_PAGE):
        kernel.poke_page_word(pfn, FLAGS, head_flags)
        kernel.poke_page_word(pfn, LINK, 0)
    prog = kernel.program()
    # The struct page after the last copy is read, though it was not asked for.
    for end in (0x8200, 0x8200 - STRUCT_PAGES_PER_PAGE + 1):
        heads = compound_heads(prog, pages_of(kernel, 0x8000, end))
        assert set(heads.tolist()) == {kernel.page(0x8000)}


def test_order_of_a_tail_whose_head_is_none_is_0() -> None:
    kernel = partial("6.12")
    kernel.poke_page_word(DATA, FLAGS, kernel.page_links("ZONE_DEVICE"))
    assert set(asked(kernel, DATA, DATA + 512).order.tolist()) == {0}


def test_tails_whose_head_cannot_be_read_are_told_apart() -> None:
    kernel = partial("6.12")
    kernel.poke_page_word(DATA + 3, LINK, kernel.page(0x90000) | 1)
    found = asked(kernel, DATA, DATA + 8)
    assert found.readable.tolist() == [True] * 3 + [False] + [True] * 4
    assert found.order.tolist() == [ORDER] * 3 + [0] + [ORDER] * 4


@each_layout
def test_use_is_that_of_the_head(layout: str) -> None:
    kernel = partial(layout)
    kernel.ram_pages(0x8000, 0x8004)
    kernel.poke_page_word(0x8001, LINK, kernel.compound_link(0x8000, 1))
    flags = kernel.page_word(0x8000, FLAGS) | 1 << kernel.layout.constant("PG_head")
    if layout in ("5.10", "6.1"):
        kernel.poke_page_word(0x8000, FLAGS, flags | 1 << kernel.layout.constant("PG_slab"))
    else:
        kernel.poke_page_word(0x8000, FLAGS, flags)
        kernel.poke_page_word(0x8000, 6, 0xF5 << 24)  # PGTY_slab
    found = asked(kernel, 0x8000, 0x8004)
    assert found.is_slab.tolist() == [True, True, False, False]
    assert not found.is_hugetlb.any()


@each_layout
def test_hugetlb_page_is_known_by_its_destructor_or_its_type(layout: str) -> None:
    kernel = partial(layout)
    kernel.ram_pages(0x8000, 0x8004)
    kernel.poke_page_word(0x8001, LINK, kernel.compound_link(0x8000, 1))
    flags = kernel.page_word(0x8000, FLAGS) | 1 << kernel.layout.constant("PG_head")
    kernel.poke_page_word(0x8000, FLAGS, flags)
    if layout in ("5.10", "6.1"):
        # compound_dtor and compound_order are the first bytes behind the compound link.
        kernel.poke_page_word(0x8001, 2, 1 << 8 | HUGETLB_PAGE_DTOR)
    else:
        kernel.poke_page_word(0x8000, 6, 0xF4 << 24)  # PGTY_hugetlb
    found = asked(kernel, 0x8000, 0x8004)
    assert found.is_hugetlb.tolist() == [True, True, False, False]
    assert not found.is_slab.any()
