# SPDX-License-Identifier: LGPL-2.1-or-later

"""Lists of pages, and kinds as arrays."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from support.fakekernel import FakeKernel, collision
from support.fakekernel.ram import FLAGS, MAPPING, PLACES, busy_ram
from support.schema import validated

from drgn_zonedev import for_each_page_of_kind, page_census, page_kinds
from drgn_zonedev.census.kinds import PageKind
from drgn_zonedev.census.listing import NOWHERE, list_pages
from drgn_zonedev.census.query import PageQuery, parse_count_test
from drgn_zonedev.explanation.explain import explain
from drgn_zonedev.render.as_json import render
from drgn_zonedev.render.page_list import (
    page_list_csv,
    page_list_document,
    page_list_json,
    page_list_lines,
    page_list_text,
)
from drgn_zonedev.render.screen import Screen

START, END = 0x40000, 0x48000
# An address of a struct address_space.
FILE = 0xFFFF888000000000


@pytest.fixture(scope="module")
def kernel() -> FakeKernel:
    return busy_ram("7.2")


def pfns(kernel: FakeKernel, query: PageQuery) -> list[int]:
    return [page.pfn for page in list_pages(kernel.program(), query).pages]


def test_each_page_is_listed_with_what_it_says(kernel: FakeKernel) -> None:
    at = START + PLACES["folio"]
    listed = list_pages(kernel.program(), PageQuery(at, at + 2))
    assert listed.matching == 2
    for pfn, page in zip((at, at + 1), listed.pages):
        assert (page.pfn, page.address, page.kind) == (pfn, kernel.page(pfn), PageKind.THP)
        # Of a tail, the head says it.
        assert (page.refcount, page.mapcount, page.order) == (2, 0, 9)
        assert set(page.flags or ()) == {"PG_head", "PG_uptodate", "PG_lru", "PG_swapbacked"}
        assert page.range.case.value == "online"


# Pages by their offsets: mapping, and flags by the names that apply.
FLAGGED: dict[int, tuple[int, set[str]]] = {
    # Of a file, and while it is written; of the swap cache.
    PLACES["lru"]: (FILE, {"mappedtodisk", "readahead", "checked"}),
    PLACES["lru"] + 1: (FILE, {"dirty", "reclaim"}),
    PLACES["lru"] + 2: (0, {"swapbacked", "swapcache"}),
    # Large folios of a file, of shared memory, and of processes.
    PLACES["folio"]: (FILE, {"head", "lru", "mappedtodisk", "checked"}),
    PLACES["mapped"]: (FILE, {"head", "lru", "swapbacked", "swapcache", "reclaim"}),
    PLACES["hugetlb"]: (FILE | 1, {"head", "anon_exclusive"}),
}


@pytest.mark.parametrize("layout", ["6.1", "7.2"])
def test_flags_have_the_names_that_apply_to_the_page_everywhere(layout: str) -> None:
    kernel = busy_ram(layout)
    for offset, (mapping, names) in FLAGGED.items():
        flags = sum(1 << kernel.layout.constant(f"PG_{name}") for name in names)
        flags |= kernel.page_links("ZONE_DMA32")
        kernel.poke_page_word(START + offset, FLAGS, flags)
        kernel.poke_page_word(START + offset, MAPPING, mapping)
    prog = kernel.program()
    groups = {group.label for group in page_census(prog, "flags").groups}
    for offset, (_, names) in FLAGGED.items():
        pfn, wanted = START + offset, {f"PG_{name}" for name in names}
        (page,) = list_pages(prog, PageQuery(pfn, pfn + 1)).pages
        explained = explain(prog, pfn).page
        assert explained is not None
        assert set(page.flags or ()) == set(explained.flags) == wanted
        assert page.flags in groups


def test_filters_leave_what_fits(kernel: FakeKernel) -> None:
    tables = range(START + PLACES["table"], START + PLACES["table"] + 16)
    assert pfns(kernel, PageQuery(START, END, kind=PageKind.PAGE_TABLE)) == list(tables)
    three = parse_count_test(">=3")
    here = PageQuery(START + 0x1238, START + 0x1250, PageKind.RESERVED, refcount=three)
    assert pfns(kernel, here) == list(range(START + 0x1240, START + 0x1248))
    head = 1 << kernel.layout.constant("PG_head")
    folios = PageQuery(START + 0x1200, START + 0x1240, flag=head)
    assert pfns(kernel, folios) == list(range(START + 0x1200, START + 0x1214))


def test_pgmap_that_does_not_exist_is_refused(kernel: FakeKernel) -> None:
    with pytest.raises(ValueError, match="no pgmap is at 0x1: zonedev pgmaps"):
        pfns(kernel, PageQuery(START, START + 9, pgmap=1))


def test_poisoned_page_is_found_by_its_own_flag_and_not_by_that_of_its_head() -> None:
    kernel = busy_ram("6.12")
    poison = 1 << kernel.layout.constant("PG_hwpoison")
    head = START + PLACES["folio"]
    for pfn in (head, head + 5):
        kernel.poke_page_word(pfn, 0, kernel.page_word(pfn, 0) | poison)
    listed = list_pages(kernel.program(), PageQuery(head, head + 512, flag=poison))
    assert [page.pfn for page in listed.pages] == [head, head + 5]
    assert all("PG_hwpoison" in (page.flags or ()) for page in listed.pages)
    tail = list_pages(kernel.program(), PageQuery(head + 1, head + 2)).pages[0]
    assert "PG_hwpoison" not in (tail.flags or ())


def test_limit_counts_the_others(kernel: FakeKernel) -> None:
    listed = list_pages(kernel.program(), PageQuery(START, END, kind=PageKind.HUGETLB), 5)
    assert (listed.matching, len(listed.pages)) == (512, 5)
    assert "507 of them not listed" in page_list_text(listed)


def test_pages_of_a_device_have_it_as_owner() -> None:
    kernel = collision("6.1")
    prog = kernel.program()
    listed = list_pages(prog, PageQuery(0x243FF, 0x24402))
    assert [page.kind.value for page in listed.pages] == ["metadata", "device", "device"]
    owner = listed.pages[1].owner
    assert owner is not None
    assert owner.type == "pgmap"
    found = pfns(kernel, PageQuery(0x24000, 0x24500, pgmap=owner.address))
    assert found == list(range(0x24400, 0x24500))


def test_block_that_a_list_begins_in_is_seen_as_a_whole(kernel: FakeKernel) -> None:
    at = START + PLACES["free"] + 77
    (page,) = list_pages(kernel.program(), PageQuery(at, at + 1)).pages
    assert (page.kind, page.order) == (PageKind.FREE, 10)


def test_documents_are_valid(kernel: FakeKernel) -> None:
    listed = list_pages(kernel.program(), PageQuery(START + 0x1000, START + 0x1130))
    document = validated(page_list_document(listed))
    assert document["matching"] == len(document["pages"]) == 0x130
    # Each line is a piece of its own.
    lines = list(page_list_csv(listed))
    assert len(lines) == 0x131
    rows = list(csv.DictReader("".join(lines).splitlines()))
    assert [int(row["pfn"]) for row in rows] == [page.pfn for page in listed.pages]
    assert {row["kind"] for row in rows} == {page.kind.value for page in listed.pages}
    screen = Screen(20, 100)
    lines = page_list_text(listed, screen=screen).split("\n")
    assert len(lines) <= screen.lines
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("count", [0, 1, 3])
def test_pieces_of_a_list_make_its_document(kernel: FakeKernel, count: int) -> None:
    listed = list_pages(kernel.program(), PageQuery(START + 1, START + 1 + count))
    document = page_list_document(listed)
    assert len(document["pages"]) == count
    pieces = list(page_list_json(listed))
    # No piece is about more than one page.
    assert "".join(pieces) == render(document)
    assert len(pieces) == (count + 1 if count else 1)
    header, *pages = map(json.loads, "".join(page_list_lines(listed)).split("\n"))
    assert header["matching"] == count
    assert pages == [{"record": "page", **page} for page in document["pages"]]


def test_arrays_have_the_kinds_of_the_census(kernel: FakeKernel) -> None:
    prog = kernel.program()
    columns = page_kinds(prog, START - 8, 0x108000)
    assert (columns.kind[:8] == NOWHERE).all()
    for kind, pages in page_census(prog).pages_by_kind.items():
        assert len(columns.where(kind)) == pages
    assert columns.pfn[0] == START - 8
    wanted = columns.where("page-table")
    layout_size = np.uint64(kernel.sizeof_page)
    found = [page.value_() for page in for_each_page_of_kind(prog, "page-table")]
    assert found == (np.uint64(kernel.vmemmap) + wanted.astype(np.uint64) * layout_size).tolist()


@pytest.mark.parametrize("span", [(5, 5), (6, 5)])
def test_range_without_pages_is_refused(kernel: FakeKernel, span: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no PFN"):
        page_kinds(kernel.program(), *span)


@pytest.mark.parametrize("end", [(1 << 32) + 1, 1 << 45, 1 << 64])
def test_more_pages_than_an_array_can_have_are_refused(kernel: FakeKernel, end: int) -> None:
    with pytest.raises(ValueError, match="0x100000000 at a time"):
        page_kinds(kernel.program(), 0, end)
