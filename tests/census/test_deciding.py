# SPDX-License-Identifier: LGPL-2.1-or-later

"""Kinds of RAM's pages: a test writes the words of a page as the kernel does, and says its kind."""

from __future__ import annotations

import numpy as np
import pytest
from support.fakekernel import FakeKernel
from support.fakekernel.ram import COUNTS, FLAGS, LINK, MAPPING, PLACES, PRIVATE, UNMAPPED, busy_ram
from support.kernels import each_layout

from drgn_zonedev.census.counting import CHUNK_PAGES, read_aligned
from drgn_zonedev.census.deciding import NO_PAGE_MARKS, Decided, PageMarks, decide
from drgn_zonedev.census.kinds import PAGE_KINDS, PageKind, kind_words
from drgn_zonedev.census.listing import list_pages
from drgn_zonedev.census.mappings import KnownMappings
from drgn_zonedev.census.query import PageQuery
from drgn_zonedev.kernel.memmap import Pages, page_layout
from drgn_zonedev.verification.columns import Buffers

# With flags and pointers, and with types and masks.
old_and_new = pytest.mark.parametrize("layout", ["6.1", "7.2"])
START, END = 0x40000, 0x48000
# A page that belongs to nobody but its owner.
PFN = START + PLACES["lru"] + 5
TAIL = START + PLACES["folio"] + 7


def decided(kernel: FakeKernel, marks: PageMarks = NO_PAGE_MARKS) -> Decided:
    prog = kernel.program()
    words = kind_words(prog)
    (pages,) = read_aligned(prog, page_layout(prog), START, END)
    assert isinstance(pages, Pages)
    return decide(prog, words, KnownMappings(prog, words), pages, marks, END, Buffers())


def kind_at(kernel: FakeKernel, pfn: int, marks: PageMarks = NO_PAGE_MARKS) -> PageKind:
    return PAGE_KINDS[decided(kernel, marks).kind[pfn - START]]


def flag(kernel: FakeKernel, name: str) -> int:
    return 1 << kernel.layout.constant(f"PG_{name}")


def single(kernel: FakeKernel, flags: int = 0, mapping: int = 0) -> None:
    """A page without a type, with one reference."""
    links = kernel.page_links("ZONE_DMA32")
    for word, value in ((FLAGS, links | flags), (MAPPING, mapping), (COUNTS, 1 << 32 | UNMAPPED)):
        kernel.poke_page_word(PFN, word, value)


@each_layout
def test_busy_machine_has_what_was_put_there(layout: str) -> None:
    kinds = decided(busy_ram(layout)).kind
    wanted = {
        PageKind.FREE: 2 * 1024 + 511,
        PageKind.OFFLINE: 16,
        PageKind.RESERVED: 0x400 + 8 + 0x20,
        PageKind.SLAB: 4 * 15,
        PageKind.PAGE_TABLE: 16,
        PageKind.HUGETLB: 512,
        PageKind.THP: 512 + 512 + 16 + 4,
        # On per-CPU lists, which only their lists say.
        PageKind.KERNEL: 1 + 31,
    }
    wanted[PageKind.ANON] = (END - START) - sum(wanted.values())
    found = {PAGE_KINDS[code]: int((kinds == code).sum()) for code in np.unique(kinds)}
    assert found == wanted


@each_layout
def test_orders_are_those_of_blocks_and_compound_pages(layout: str) -> None:
    found = decided(busy_ram(layout)).order
    assert (found[0x400:0x800] == 10).all()
    assert (found[0x800:0xE00] == 9).all()
    at = 0xE00
    for order in range(8, -1, -1):
        assert (found[at : at + (1 << order)] == order).all()
        at += 1 << order
    assert (found[0x1000:0x1020] == 3).all()
    assert found[PFN - START] == 0


@old_and_new
def test_mappings_decide_between_user_memory(layout: str) -> None:
    kernel = busy_ram(layout)
    mapping = 0xFFFF888000001000
    for bits, kind in ((1, PageKind.ANON), (2, PageKind.KERNEL), (3, PageKind.KSM)):
        single(kernel, mapping=mapping | bits)
        assert kind_at(kernel, PFN) is kind
    single(kernel, mapping=mapping)
    assert kind_at(kernel, PFN) is PageKind.FILE
    # The mapping cannot be read.
    single(kernel, flag(kernel, "swapbacked"), mapping)
    assert kind_at(kernel, PFN) is PageKind.SHMEM
    single(kernel)
    assert kind_at(kernel, PFN) is PageKind.KERNEL


@old_and_new
def test_page_that_waits_in_the_swap_cache_is_anonymous(layout: str) -> None:
    kernel = busy_ram(layout)
    single(kernel, flag(kernel, "swapbacked") | flag(kernel, "swapcache"))
    assert kind_at(kernel, PFN) is PageKind.ANON
    # PG_owner_priv_1 of another owner.
    single(kernel, flag(kernel, "swapcache"))
    assert kind_at(kernel, PFN) is PageKind.KERNEL


@old_and_new
def test_precedence_is_that_of_the_kinds(layout: str) -> None:
    kernel = busy_ram(layout)
    free = START + PLACES["free"] + 3
    kernel.poke_page_word(free, FLAGS, kernel.page_word(free, FLAGS) | flag(kernel, "reserved"))
    assert kind_at(kernel, free) is PageKind.FREE
    single(kernel, flag(kernel, "reserved"), 0xFFFF888000001001)
    assert kind_at(kernel, PFN) is PageKind.RESERVED
    one = np.array([[PFN, PFN + 1, 0]])
    assert kind_at(kernel, PFN, PageMarks(zero=one)) is PageKind.RESERVED
    assert kind_at(kernel, PFN, PageMarks(unaccepted=one)) is PageKind.UNACCEPTED
    assert kind_at(kernel, PFN, PageMarks(pcp_free=one, unaccepted=one)) is PageKind.PCP_FREE
    both = PageMarks(pcp_free=one, vmemmap=np.array([[PFN - 2, PFN + 1, 0]]))
    assert kind_at(kernel, PFN, both) is PageKind.VMEMMAP
    single(kernel)
    assert kind_at(kernel, PFN, PageMarks(zero=one)) is PageKind.ZERO


@pytest.mark.parametrize("number", [3, 40, 400])
def test_marks_are_set_however_many_spans_they_have(number: int) -> None:
    # Spans of one to three pages in user memory, four pages apart.
    first = PFN + 4 * np.arange(number)
    spans = np.stack([first, first + 1 + np.arange(number) % 3, 0 * first], axis=1)
    before, after = (
        decided(busy_ram("6.1"), marks).kind for marks in (NO_PAGE_MARKS, PageMarks(pcp_free=spans))
    )
    wanted = before.copy()
    for start, end, _ in spans.tolist():
        wanted[start - START : end - START] = PageKind.PCP_FREE.code
    assert (before[spans[:, 0] - START] == PageKind.ANON.code).all()
    assert (after == wanted).all()


@pytest.mark.parametrize("layout", ["6.12", "7.2"])
def test_poisoned_pages_say_so_themselves(layout: str) -> None:
    kernel = busy_ram(layout)
    kernel.poke_page_word(TAIL, FLAGS, kernel.page_word(TAIL, FLAGS) | flag(kernel, "hwpoison"))
    assert kind_at(kernel, TAIL) is PageKind.HWPOISON
    assert kind_at(kernel, TAIL + 1) is PageKind.THP


@old_and_new
def test_tail_of_a_head_elsewhere_is_what_that_is(layout: str) -> None:
    # A gigantic page from before the section.
    kernel = busy_ram(layout)
    head, order = 0, 19
    kernel.map_memmap(head, head + 2)
    for i in range(2):
        source = START + PLACES["hugetlb"] + i
        for word in range(kernel.sizeof_page // 8):
            kernel.poke_page_word(head + i, word, kernel.page_word(source, word))
    if kernel.layout.name in ("6.12", "7.2"):
        flags = kernel.page_word(head + 1, FLAGS)
        kernel.poke_page_word(head + 1, FLAGS, flags & ~0xFF | order)
    kernel.poke_page_word(PFN, LINK, kernel.compound_link(head, order))
    assert kind_at(kernel, PFN) is PageKind.HUGETLB


@old_and_new
def test_block_that_says_what_cannot_be_is_judged_by_the_pages_in_it(layout: str) -> None:
    kernel = busy_ram(layout)
    kernel.poke_page_word(START + PLACES["free"], PRIVATE, 77)
    found = decided(kernel)
    assert (found.kind[0x400:0x800] == PageKind.FREE.code).all()
    assert (found.order[0x400:0x800] == 10).all()


def test_chunks_cut_no_block_wherever_a_stretch_begins() -> None:
    kernel = busy_ram("6.12")
    prog = kernel.program()
    parts = list(read_aligned(prog, page_layout(prog), START + 5, END - 3))
    assert [(p.start_pfn, p.end_pfn) for p in parts] == [(START + 5, END - 3)]
    parts = list(read_aligned(prog, page_layout(prog), START - 5, START + 9))
    assert [p.start_pfn for p in parts if isinstance(p, Pages)] == [START]
    assert START % CHUNK_PAGES == 0


@old_and_new
def test_damaged_head_is_what_its_next_page_makes_it_wherever_reading_ends(layout: str) -> None:
    # The last page of what is read: a head of anonymous memory, and its order.
    kernel = busy_ram(layout)
    at = START + 0x3FFF
    flags = kernel.page_links("ZONE_DMA32") | flag(kernel, "head")
    kernel.poke_page_word(at, FLAGS, flags)
    kernel.poke_page_word(at, MAPPING, 0xFFFF888000000001)
    # Where compound_order() is.
    word, value = (FLAGS, kernel.page_links("ZONE_DMA32") | 5) if layout == "7.2" else (2, 5 << 8)
    kernel.poke_page_word(at + 1, word, value)
    prog = kernel.program()
    for end in (at + 1, END):
        (page, *_) = list_pages(prog, PageQuery(at, end), limit=1).pages
        assert (page.kind, page.order) == (PageKind.THP, 5)
