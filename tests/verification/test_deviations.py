# SPDX-License-Identifier: LGPL-2.1-or-later

"""Which rows of a chunk deviate from which promise."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
import pytest
from drgn import Program
from support.fakekernel import LAYOUTS, FakeKernel
from support.kernels import each_layout, since_compounds

from drgn_zonedev.kernel.memmap import Pages, read_pages
from drgn_zonedev.verification.deviations import Deviation, deviations
from drgn_zonedev.verification.promises import DevicePages, MetadataPages

START, END = 0x40000, 0x40400
DANGLING = 0xFFFF8880DEADBE00
GENERIC, PRIVATE = "MEMORY_DEVICE_GENERIC", "MEMORY_DEVICE_PRIVATE"
FS_DAX = "MEMORY_DEVICE_FS_DAX"


def machine(
    layout: str, shift: int = 0, nid: int = 0, type: str = GENERIC
) -> tuple[FakeKernel, DevicePages]:
    """1024 device pages, and what is promised for them."""
    kernel = FakeKernel(layout, dedup=False)
    kernel.section(8)
    pgmap = kernel.pgmap((START, END), type=type, vmemmap_shift=shift, nid=nid)
    kernel.device_pages(START, END, pgmap, nid=nid)
    promise = DevicePages(
        pgmap=pgmap,
        type=type,
        first_pfn=START,
        end_pfn=END,
        nodes=(nid,),
        vmemmap_shift=shift if layout != "5.10" else 0,
    )
    return kernel, promise


def chunk(prog: Program, start: int = START, end: int = END) -> Pages:
    (pages,) = read_pages(prog, start, end)
    assert isinstance(pages, Pages)
    return pages


def wrong(found: Iterable[Deviation], start: int = START) -> dict[str, list[int]]:
    """PFNs by what is wrong with them."""
    return {d.slug: [start + int(row) for row in d.wrong.nonzero()[0]] for d in found}


def judged(kernel: FakeKernel, promise: DevicePages) -> dict[str, list[int]]:
    prog = kernel.program()
    return wrong(deviations(prog, chunk(prog), promise))


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
    assert wrong(deviations(prog, pages, promise)) == {}


@pytest.mark.parametrize("layout", LAYOUTS[1:])
@pytest.mark.parametrize("order", [8, 10])
def test_compound_pages_of_the_wrong_order(layout: str, order: int) -> None:
    kernel, promise = machine(layout, order)
    found = judged(kernel, dataclasses.replace(promise, vmemmap_shift=9))
    tails = [pfn for pfn in range(START, END) if pfn % 512]
    if layout == "7.2":
        # A link is a mask, which depends on the order.
        assert found["device-tail-link"] == tails
        assert found.get("device-page-pgmap", []) == ([START + 512] if order == 10 else [])
    elif order == 8:
        # Each second half links to itself instead.
        second = [pfn for pfn in range(START, END) if pfn % 512 >= 256]
        firsts = [START + 1, START + 513]
        assert found == {"device-tail-link": second, "device-compound-order": firsts}
    else:
        # The second head is a tail, as are all that should link to it.
        assert found["device-tail-link"] == list(range(START + 513, END))
        assert found["device-page-pgmap"] == [START + 512]
        assert found["device-compound-order"] == [START + 1]


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_expected_link_is_what_the_kernel_writes(layout: str) -> None:
    kernel, promise = machine(layout, 9)
    for pfn in range(START, END):
        if pfn % 512:
            kernel.poke_page_word(pfn, 1, DANGLING)
    prog = kernel.program()
    (links,) = deviations(prog, chunk(prog), promise)
    assert links.slug == "device-tail-link"
    assert links.expected.tolist() == [
        kernel.compound_link(pfn // 512 * 512, 9) for pfn in range(START, END)
    ]


def since_folios(pages: Pages, promise: DevicePages) -> tuple[Pages, DevicePages]:
    """The same of a kernel between v6.15 and v7.0: folio->pgmap, and links that are pointers."""
    layout = dataclasses.replace(pages.layout, pgmap_in_folio=True)
    return dataclasses.replace(pages, layout=layout), dataclasses.replace(promise, type=FS_DAX)


def judged_folios(
    kernel: FakeKernel, promise: DevicePages, start: int = START
) -> dict[str, list[int]]:
    prog = kernel.program()
    return wrong(deviations(prog, *since_folios(chunk(prog, start), promise)), start)


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
    found = judged_folios(kernel, promise)
    assert found == ({} if good else {"device-page-pgmap": [START + 77]})


def test_folio_head_outside_of_the_chunk_is_looked_up() -> None:
    kernel, promise = machine("6.12")
    folio(kernel, START + 5, START + 600)
    folio(kernel, START + 6, START + 601)
    kernel.poke_page_word(START + 6, 1, DANGLING)
    found = judged_folios(kernel, promise, START + 512)
    assert found == {"device-page-pgmap": [START + 601]}


@pytest.mark.parametrize("link", [1, 0xA5A5A5A5A5A5A5A5, DANGLING | 1, (1 << 64) - 1])
def test_folio_tail_that_links_nowhere_is_wrong(link: int) -> None:
    kernel, promise = machine("6.12")
    kernel.poke_page_word(START + 77, 1, link)
    assert judged_folios(kernel, promise) == {"device-page-pgmap": [START + 77]}


def judged_metadata(kernel: FakeKernel, nodes: tuple[int, ...] = (0,)) -> dict[str, list[int]]:
    prog = kernel.program()
    return wrong(deviations(prog, chunk(prog), MetadataPages(nodes)))


@each_layout
def test_metadata_pages(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    kernel.metadata_pages(START, END)
    assert judged_metadata(kernel) == {}
    kernel.fill_pages(START, START + 2, 0)
    kernel.hole_pages(START + 2, START + 4)
    kernel.device_pages(START + 4, START + 6, DANGLING)
    assert judged_metadata(kernel) == {
        "metadata-page-uninitialized": [START, START + 1],
        "metadata-page-zone": [START + 2, START + 3],
        "metadata-page-link": [START + 4, START + 5],
    }


@each_layout
@pytest.mark.parametrize("word", [1, 2])
def test_either_link_of_a_metadata_page(layout: str, word: int) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    kernel.metadata_pages(START, END)
    kernel.poke_page_word(START + 3, word, DANGLING)
    prog = kernel.program()
    (found,) = deviations(prog, chunk(prog), MetadataPages((0,)))
    assert found.slug == "metadata-page-link"
    offset = np.broadcast_to(found.offset, found.wrong.shape)
    assert (offset[3], found.found[3]) == (8 * word, DANGLING)


@each_layout
def test_metadata_pages_belong_to_a_node_are_reserved_and_referenced(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    kernel.metadata_pages(START, END)
    assert judged_metadata(kernel, ()) == {}
    assert judged_metadata(kernel, (3,)) == {"metadata-page-node": list(range(START, END))}
    clear_flag(kernel, START + 1, "PG_reserved")
    set_counts(kernel, START + 2, 0, -1)
    assert judged_metadata(kernel) == {
        "metadata-page-reserved": [START + 1],
        "metadata-page-refcount": [START + 2],
    }


# What is written once.


def set_flag(kernel: FakeKernel, pfn: int, name: str) -> None:
    bit = 1 << kernel.layout.constant(name)
    kernel.poke_page_word(pfn, 0, kernel.page_word(pfn, 0) | bit)


def clear_flag(kernel: FakeKernel, pfn: int, name: str) -> None:
    bit = 1 << kernel.layout.constant(name)
    kernel.poke_page_word(pfn, 0, kernel.page_word(pfn, 0) & ~bit)


def set_counts(kernel: FakeKernel, pfn: int, references: int, mappings: int) -> None:
    kernel.poke_page_word(pfn, 6, (references % (1 << 32)) << 32 | mappings % (1 << 32))


@each_layout
@pytest.mark.parametrize("shift", [0, 9])
@pytest.mark.parametrize("index", [0, 1, 2, 77])
def test_device_pages_are_reserved(layout: str, shift: int, index: int) -> None:
    kernel, promise = machine(layout, shift)
    clear_flag(kernel, START + index, "PG_reserved")
    assert judged(kernel, promise) == {"device-page-reserved": [START + index]}


@each_layout
@pytest.mark.parametrize("type", [GENERIC, FS_DAX, PRIVATE])
def test_base_pages_are_heads_only_where_drivers_build_folios(layout: str, type: str) -> None:
    kernel, promise = machine(layout, type=type)
    set_flag(kernel, START + 5, "PG_head")
    found, folios = judged(kernel, promise), layout == "7.2" and type != GENERIC
    assert found == ({} if folios else {"device-stray-head": [START + 5]})


@since_compounds
def test_tails_are_no_heads(layout: str) -> None:
    kernel, promise = machine(layout, 9)
    for index in (0, 1, 2, 511):
        set_flag(kernel, START + index, "PG_head")
    found = judged(kernel, promise)
    if layout == "6.1":
        assert found == {"device-stray-head": [START + 1, START + 2, START + 511]}
    else:
        # In the first tail, the bit is one of the order.
        assert found == {
            "device-stray-head": [START + 2, START + 511],
            "device-compound-order": [START + 1],
        }


@since_compounds
@pytest.mark.parametrize("index", [1, 2, 3, 4, 63, 511])
def test_mapping_of_tails_is_poison_behind_the_folio(layout: str, index: int) -> None:
    kernel, promise = machine(layout, 9)
    kernel.poke_page_word(START + index, 3, DANGLING)
    first = {"6.1": 2, "6.12": 3, "7.2": 4}[layout]
    found = {"device-tail-mapping": [START + index]} if index >= first else {}
    assert judged(kernel, promise) == found


REFERENCES = [
    # shift, index, references, whether that is wrong if the fewest are one, and none.
    (0, 0, -1, True, True),
    (0, 0, 0, True, False),
    (0, 5, 1, False, False),
    (0, 5, 0x7FFFFFFF, False, False),
    (9, 0, 0, True, False),
    (9, 0, 1000, False, False),
    (9, 7, 1, True, True),
    (9, 7, -1, True, True),
]


@since_compounds
@pytest.mark.parametrize(("shift", "index", "references", "with_one", "with_none"), REFERENCES)
def test_references_that_pages_cannot_have(
    layout: str, shift: int, index: int, references: int, with_one: bool, with_none: bool
) -> None:
    kernel, promise = machine(layout, shift)
    for pfn in range(START, END):
        is_tail = shift and pfn % 512
        set_counts(kernel, pfn, 0 if is_tail else 1, -1)
    set_counts(kernel, START + index, references, -1)
    for type, wrong_ in ((GENERIC, with_one), (PRIVATE, with_none)):
        found = judged(kernel, dataclasses.replace(promise, type=type))
        assert found == ({"device-page-refcount": [START + index]} if wrong_ else {})


@each_layout
@pytest.mark.parametrize(
    ("mappings", "good"),
    [
        (-1, True),
        (0, True),
        (9, True),
        (-2, False),
        (-128, False),
        (-129, True),
        (-(1 << 31), True),
    ],
)
def test_mapcount_may_be_a_type_but_no_underflow(layout: str, mappings: int, good: bool) -> None:
    kernel, promise = machine(layout)
    set_counts(kernel, START + 9, 1, mappings)
    assert judged(kernel, promise) == ({} if good else {"device-page-mapcount": [START + 9]})
