# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Struct pages of hugetlb pages that share their memory: nothing is wrong with them, and
each piece of memory is looked at once. Nobody else may share.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
from drgn import FaultError, Program
from support.fakekernel import FakeKernel, RamBuilder, busy_ram
from support.kernels import since_compounds

from drgn_zonedev.explanation.explain import explain
from drgn_zonedev.model import Case, PageCounts, Report
from drgn_zonedev.report import check
from drgn_zonedev.verification import ram_aliases
from drgn_zonedev.verification.ram_aliases import owner_of_alias

START = 0x40000
# In front of it there are slabs, behind it pages on the LRU lists.
HUGE, ORDER, PER_PAGE = START + 0x2000, 9, 64


class Tables:
    """Page tables in which pages of vmemmap, by a PFN in them, have the frame of another."""

    def __init__(self, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.base = kernel.vmemmap >> 12
        self.same: dict[int, int] = {}
        monkeypatch.setattr(ram_aliases, "vmemmap_page_frames", self.frames)

    def share(self, pfn: int, with_pfn: int) -> None:
        self.same[self.base + pfn // PER_PAGE] = self.base + with_pfn // PER_PAGE

    def frames(self, prog: Program, first: int, end: int) -> np.ndarray:
        return np.array([self.same.get(page, page) - self.base for page in range(first, end)])


def optimized(
    layout: str, monkeypatch: pytest.MonkeyPatch, *heads: int
) -> tuple[FakeKernel, Tables]:
    """Hugetlb pages as hugetlb_vmemmap_optimize_folio() leaves them."""
    kernel = busy_ram(layout)
    tables = Tables(kernel, monkeypatch)
    ram = RamBuilder(kernel, "ZONE_DMA32", 0, random.Random(1))
    for head in heads:
        ram.hugetlb(head, ORDER, optimized=True)
        for pfn in range(head + PER_PAGE, head + (1 << ORDER), PER_PAGE):
            # Copies of the head up to v7.0; tails of the zone, which boot may have given a
            # reference, since.
            shared = heads[0] + PER_PAGE if layout == "7.2" else head
            tables.share(pfn, shared)
            words = np.array(
                [
                    [kernel.page_word(shared + i, word) for word in range(8)]
                    for i in range(PER_PAGE)
                ],
                np.uint64,
            )
            if layout == "7.2":
                words[:, 6] = 1 << 32 | 0xFFFFFFFF
            kernel.memory.put_pages(pfn, words)
    return kernel, tables


def errors(report: Report) -> list[tuple[str, int, int]]:
    return [(f.slug, f.start_pfn, f.end_pfn) for f in report.findings]


@since_compounds
def test_shared_tails_are_looked_at_once(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, _ = optimized(layout, monkeypatch, HUGE, HUGE + 512, HUGE + 2048)
    report = check(kernel.program())
    assert errors(report) == []
    coverage = report.coverage
    assert coverage.by_case == {Case.ONLINE: PageCounts(verified=0x10000)}
    # Seven of eight pages of vmemmap each; of one hugetlb page since v7.1, one less.
    assert coverage.aliases_skipped == 3 * 7 * PER_PAGE - (layout == "7.2") * PER_PAGE


@since_compounds
def test_defects_of_optimised_pages_are_found(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, _ = optimized(layout, monkeypatch, HUGE)
    kernel.poke_page_word(HUGE + 9, 1, 0)
    kernel.poke_page_word(HUGE + 10, 6, 5 << 32 | 0xFFFFFFFF)
    assert errors(check(kernel.program())) == [
        ("ram-tail-link", HUGE + 9, HUGE + 10),
        ("ram-page-refcount", HUGE + 10, HUGE + 11),
    ]


@since_compounds
def test_nobody_else_may_share(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, tables = optimized(layout, monkeypatch, HUGE)
    tables.share(START + 0x3040, START + 0x3000)
    assert errors(check(kernel.program())) == [("vmemmap-alias", START + 0x3040, START + 0x3080)]


def move(kernel: FakeKernel, tables: Tables, pfn: int, with_pfn: int) -> None:
    """Map the struct pages from a PFN on to those of another one."""
    tables.share(pfn, with_pfn)
    for i in range(PER_PAGE):
        words = [kernel.page_word(with_pfn + i, word) for word in range(8)]
        kernel.memory.put_pages(pfn + i, np.array([words], np.uint64))


@since_compounds
@pytest.mark.parametrize("index", [0, 3, 7])
def test_a_hugetlb_page_shares_nothing_of_another_one(
    layout: str, monkeypatch: pytest.MonkeyPatch, index: int
) -> None:
    kernel, tables = optimized(layout, monkeypatch, HUGE, HUGE + 512)
    wrong = HUGE + 512 + index * PER_PAGE
    move(kernel, tables, wrong, HUGE)
    found = errors(check(kernel.program()))
    # Without its own head, the second page of its vmemmap is not what it was.
    assert [e for e in found if e[0] == "vmemmap-alias"] == [
        ("vmemmap-alias", wrong, wrong + PER_PAGE)
    ]
    assert not index or len(found) == 1


@since_compounds
def test_wrong_page_of_vmemmap_says_nothing_of_those_after_it(
    layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, tables = optimized(layout, monkeypatch, HUGE, HUGE + 512)
    wrong = HUGE + 512 + 3 * PER_PAGE
    # A frame of its own, that holds no struct pages.
    del tables.same[tables.base + wrong // PER_PAGE]
    kernel.memory.put_pages(wrong, np.zeros((PER_PAGE, 8), np.uint64))
    assert errors(check(kernel.program())) == [("ram-page-uninitialized", wrong, wrong + PER_PAGE)]


@since_compounds
@pytest.mark.parametrize("index", [PER_PAGE - 1, PER_PAGE // 2])
def test_damaged_tail_does_not_make_a_legal_alias_illegal(
    layout: str, monkeypatch: pytest.MonkeyPatch, index: int
) -> None:
    kernel, _ = optimized(layout, monkeypatch, HUGE)
    # All struct pages with the same memory are damaged at once.
    shared = HUGE + (PER_PAGE if layout == "7.2" else 0)
    for start in (shared, *range(HUGE + PER_PAGE, HUGE + 512, PER_PAGE)):
        kernel.poke_page_word(start + index, 1, 0)
    assert errors(check(kernel.program())) == [
        ("ram-tail-link", shared + index, shared + index + 1)
    ]


@since_compounds
@pytest.mark.parametrize("order", [1, 6, 8, 10, 18])
def test_wrong_order_of_an_optimised_page_is_found(
    layout: str, monkeypatch: pytest.MonkeyPatch, order: int
) -> None:
    kernel, _ = optimized(layout, monkeypatch, HUGE)
    word, shift = (2, 8) if layout == "6.1" else (0, 0)
    starts = range(HUGE, HUGE + 512, PER_PAGE) if layout != "7.2" else (HUGE,)
    for start in starts:
        before = kernel.page_word(start + 1, word)
        kernel.poke_page_word(start + 1, word, before & ~(0xFF << shift) | order << shift)
    assert errors(check(kernel.program())) == [("ram-compound-order", HUGE + 1, HUGE + 2)]


@since_compounds
@pytest.mark.parametrize("index", [0, 1])
def test_head_that_was_wiped_does_not_make_its_aliases_illegal(
    layout: str, monkeypatch: pytest.MonkeyPatch, index: int
) -> None:
    kernel, _ = optimized(layout, monkeypatch, HUGE)
    starts = range(HUGE, HUGE + 512, PER_PAGE) if layout != "7.2" else (HUGE,)
    for start in starts:
        kernel.memory.put_pages(start + index, np.zeros((1, 8), np.uint64))
    assert errors(check(kernel.program())) == [
        ("ram-page-uninitialized", HUGE + index, HUGE + index + 1)
    ]


@since_compounds
def test_order_is_believed_if_the_tails_cannot_be_read(
    layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, _ = optimized(layout, monkeypatch, HUGE)
    prog = kernel.program()

    def fail(address: int, count: int, offset: int, physical: bool) -> bytes:
        raise FaultError("not in the dump", address)

    first = HUGE + PER_PAGE * 2
    prog.add_memory_segment(kernel.page(first), 64 * (HUGE + 512 - first), fail, False)
    assert errors(check(prog)) == []


@since_compounds
def test_aliases_cannot_be_read_if_their_memory_is_missing(
    layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, _ = optimized(layout, monkeypatch, HUGE, HUGE + 512)
    prog = kernel.program()

    def fail(address: int, count: int, offset: int, physical: bool) -> bytes:
        raise FaultError("not in the dump", address)

    # The tails of both, or all of the first one.
    missing = [(HUGE, HUGE + 512)]
    if layout == "7.2":
        missing = [(head + PER_PAGE, head + 512) for head in (HUGE, HUGE + 512)]
    for start, end in missing:
        prog.add_memory_segment(kernel.page(start), 64 * (end - start), fail, False)
    report = check(prog)
    assert errors(report) == []
    lost = sum(end - start for start, end in missing)
    assert report.coverage.by_case[Case.ONLINE] == PageCounts(0x10000 - lost, lost)
    gaps = [(u.start_pfn, u.end_pfn) for u in report.unjudged if "not in the dump" in u.reason]
    assert gaps == missing
    # Without the page that they share.
    part = check(prog, pfns=(HUGE + 128, HUGE + 192))
    assert part.coverage.by_case[Case.ONLINE] == PageCounts(unreadable=64)
    assert [(u.start_pfn, u.end_pfn) for u in part.unjudged] == [(HUGE + 128, HUGE + 192)]


@since_compounds
def test_verdict_about_an_alias_is_that_about_its_memory(
    layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, tables = optimized(layout, monkeypatch, HUGE, HUGE + 512)
    healthy = explain(kernel.program(), HUGE + 138)
    assert healthy.verdict == "RAM, online. A walker may read the struct page."
    # Page 10 of the memory that the tails of the first hugetlb page share.
    owner = HUGE + (PER_PAGE if layout == "7.2" else 0)
    assert owner_of_alias(kernel.program(), HUGE + 138) == owner + 10
    assert owner_of_alias(kernel.program(), owner + 10) is None
    reserved = 1 << kernel.layout.constant("PG_reserved")
    for page, same in [*tables.same.items(), (tables.base + owner // PER_PAGE,) * 2]:
        if same == tables.base + owner // PER_PAGE:
            pfn = (page - tables.base) * PER_PAGE + 10
            kernel.poke_page_word(pfn, 0, kernel.page_word(pfn, 0) | reserved)
    prog = kernel.program()
    assert errors(check(prog)) == [("ram-tail-flags", owner + 10, owner + 11)]
    verdict = explain(prog, HUGE + 138).verdict
    assert f"the struct page of PFN {owner + 10:#x}, which is the same memory," in verdict
    assert "ram-tail-flags" in verdict
