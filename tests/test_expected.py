# SPDX-License-Identifier: LGPL-2.1-or-later

"""Which rows of a chunk deviate from which promise."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import pytest
from drgn import Program
from fakekernel import LAYOUTS, FakeKernel

from drgn_zonedev.expected import (
    Deviation,
    DevicePages,
    device_deviations,
    metadata_deviations,
)
from drgn_zonedev.kernel.memmap import Pages, read_pages

each_layout = pytest.mark.parametrize("layout", LAYOUTS)

START, END = 0x40000, 0x40400
DANGLING = 0xFFFF8880DEADBE00


def machine(layout: str, shift: int = 0, nid: int = 0) -> tuple[FakeKernel, DevicePages]:
    """1024 device pages, and what is promised for them."""
    kernel = FakeKernel(layout, dedup=False)
    kernel.section(8)
    pgmap = kernel.pgmap((START, END), vmemmap_shift=shift, nid=nid)
    kernel.device_pages(START, END, pgmap, nid=nid)
    promise = DevicePages(
        pgmap=pgmap,
        first_pfn=START,
        end_pfn=END,
        nodes=(nid,),
        vmemmap_shift=shift if layout != "5.10" else 0,
        folios=False,
    )
    return kernel, promise


def chunk(prog: Program, start: int = START, end: int = END) -> Pages:
    (pages,) = read_pages(prog, start, end)
    assert isinstance(pages, Pages)
    return pages


def wrong(deviations: Iterable[Deviation], start: int = START) -> dict[str, list[int]]:
    """PFNs by what is wrong with them."""
    return {
        d.slug: [start + int(row) for row in d.wrong.nonzero()[0]]
        for d in deviations
        if d.wrong.any()
    }


def judged(kernel: FakeKernel, promise: DevicePages) -> dict[str, list[int]]:
    prog = kernel.program()
    return wrong(device_deviations(prog, chunk(prog), promise))


@each_layout
@pytest.mark.parametrize("shift", [0, 9])
@pytest.mark.parametrize("nid", [0, 3])
def test_pages_as_the_kernel_makes_them_keep_every_promise(
    layout: str, shift: int, nid: int
) -> None:
    assert judged(*machine(layout, shift, nid)) == {}


@each_layout
def test_any_promised_node_is_good(layout: str) -> None:
    kernel, promise = machine(layout, nid=3)
    assert judged(kernel, dataclasses.replace(promise, nodes=(0, 3))) == {}
    assert judged(kernel, dataclasses.replace(promise, nodes=())) == {}
    others = judged(kernel, dataclasses.replace(promise, nodes=(0, 2)))
    assert others == {"device-page-node": list(range(START, END))}


@each_layout
@pytest.mark.parametrize("shift", [0, 9])
def test_page_of_another_pgmap_leads_elsewhere(layout: str, shift: int) -> None:
    kernel, promise = machine(layout, shift)
    found = judged(kernel, dataclasses.replace(promise, pgmap=DANGLING))
    holders = range(START, END, 512) if promise.vmemmap_shift else range(START, END)
    assert found == {"device-page-pgmap": list(holders)}


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_compound_pages_are_counted_from_the_first_pfn(layout: str) -> None:
    # A chunk that begins in the middle of a compound page.
    kernel, promise = machine(layout, 9)
    prog = kernel.program()
    pages = chunk(prog, START + 100, START + 600)
    assert wrong(device_deviations(prog, pages, promise)) == {}


@pytest.mark.parametrize("layout", LAYOUTS[1:])
@pytest.mark.parametrize("order", [8, 10])
def test_compound_pages_of_the_wrong_order(layout: str, order: int) -> None:
    kernel, promise = machine(layout, order)
    found = judged(kernel, dataclasses.replace(promise, vmemmap_shift=9))
    if order == 8:
        # Each second half links to itself instead.
        second = [pfn for pfn in range(START, END) if pfn % 512 >= 256]
        assert found == {"device-tail-link": second}
    else:
        # The second head is a tail, as are all that should link to it.
        assert found["device-tail-link"] == list(range(START + 513, END))
        assert found["device-page-pgmap"] == [START + 512]


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_expected_link_is_what_the_kernel_writes(layout: str) -> None:
    kernel, promise = machine(layout, 9)
    prog = kernel.program()
    pages = chunk(prog)
    links = [d for d in device_deviations(prog, pages, promise) if d.slug == "device-tail-link"]
    assert links[0].expected.tolist() == [
        kernel.compound_link(pfn // 512 * 512, 9) for pfn in range(START, END)
    ]


def folio(kernel: FakeKernel, head: int, tail: int) -> None:
    kernel.poke_page_word(tail, 1, kernel.page(head) | 1)


@pytest.mark.parametrize(
    ("head", "good"),
    [(START, True), (START + 0x3FF, True), (START - 1, False), (END, False)],
)
def test_folio_heads_lie_within_the_range(head: int, good: bool) -> None:
    # With links that are pointers, any page can be the head.
    kernel, promise = machine("6.12")
    kernel.section(7)
    kernel.device_pages(START - 64, START, promise.pgmap)
    kernel.device_pages(END, END + 64, promise.pgmap)
    folio(kernel, head, START + 77)
    found = judged(kernel, dataclasses.replace(promise, folios=True))
    assert found == ({} if good else {"device-page-pgmap": [START + 77]})


def test_folio_head_outside_of_the_chunk_is_looked_up() -> None:
    kernel, promise = machine("6.12")
    folio(kernel, START + 5, START + 600)
    folio(kernel, START + 6, START + 601)
    kernel.poke_page_word(START + 6, 1, DANGLING)
    prog = kernel.program()
    pages = chunk(prog, START + 512, END)
    found = device_deviations(prog, pages, dataclasses.replace(promise, folios=True))
    assert wrong(found, START + 512) == {"device-page-pgmap": [START + 601]}


@pytest.mark.parametrize("link", [1, 0xA5A5A5A5A5A5A5A5, DANGLING | 1, (1 << 64) - 1])
def test_folio_tail_that_links_nowhere_is_wrong(link: int) -> None:
    kernel, promise = machine("6.12")
    kernel.poke_page_word(START + 77, 1, link)
    found = judged(kernel, dataclasses.replace(promise, folios=True))
    assert found == {"device-page-pgmap": [START + 77]}


@each_layout
def test_metadata_pages(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    kernel.metadata_pages(START, END)
    assert wrong(metadata_deviations(chunk(kernel.program()))) == {}
    kernel.fill_pages(START, START + 2, 0)
    kernel.hole_pages(START + 2, START + 4)
    kernel.device_pages(START + 4, START + 6, DANGLING)
    assert wrong(metadata_deviations(chunk(kernel.program()))) == {
        "metadata-page-uninitialized": [START, START + 1],
        "metadata-page-zone": [START + 2, START + 3],
        "metadata-page-link": [START + 4, START + 5],
    }
