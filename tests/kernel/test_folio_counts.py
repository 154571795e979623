# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import pytest
from support.fakekernel import FakeKernel, Users
from support.usedpages import END, START

from drgn_zonedev.kernel.folio_counts import FolioCounts, folio_counts, idle_references
from drgn_zonedev.kernel.memmap import Pages, read_pages

LAYOUTS = ("5.10", "6.1", "6.12", "7.2")


def counts(kernel: FakeKernel, start: int, end: int) -> FolioCounts:
    prog = kernel.program()
    (pages,) = read_pages(prog, start, end)
    assert isinstance(pages, Pages)
    return folio_counts(prog, pages)


def device(layout: str, type: str, shift: int = 0) -> FakeKernel:
    kernel = FakeKernel(layout, users=True)
    kernel.section(START // 0x8000)
    pgmap = kernel.pgmap((START, END), type=type, vmemmap_shift=shift)
    kernel.device_pages(START, END, pgmap)
    return kernel


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["FS_DAX", "GENERIC", "PCI_P2PDMA", "PRIVATE"])
def test_idle_pages_have_the_references_that_initialising_them_leaves(
    layout: str, kind: str
) -> None:
    type = f"MEMORY_DEVICE_{kind}"
    kernel = device(layout, type)
    found = counts(kernel, START, START + 4)
    assert found.references.tolist() == [idle_references(kernel.program(), type)] * 4
    assert found.pins.tolist() == found.mappings.tolist() == found.order.tolist() == [0] * 4


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("references", "pins"), [(1023, 0), (1024, 1), (1025, 1), (3 * 1024 + 5, 3), (-1, 0)]
)
def test_a_pin_of_a_page_is_many_references(layout: str, references: int, pins: int) -> None:
    kernel = device(layout, "MEMORY_DEVICE_FS_DAX")
    Users(kernel).count(START, references % (1 << 32))
    found = counts(kernel, START, START + 1)
    assert (found.references[0], found.pins[0], found.mappings[0]) == (references, pins, 0)


def test_a_page_that_many_map_is_not_pinned() -> None:
    kernel = device("7.2", "MEMORY_DEVICE_FS_DAX")
    Users(kernel).count(START, 5000, 5000)
    assert counts(kernel, START, START + 1).pins.tolist() == [0]
    Users(kernel).count(START, 5000 + 1024, 5000)
    assert counts(kernel, START, START + 1).pins.tolist() == [1]


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_heads_stand_for_their_folios(layout: str) -> None:
    kernel = device(layout, "MEMORY_DEVICE_GENERIC", shift=9)
    # The first pages are tails of a folio before them.
    found = counts(kernel, START + 100, START + 2 * 512)
    assert found.pfn.tolist() == [START + 512]
    assert (found.order.tolist(), found.pins.tolist()) == ([9], [0])
    assert found.readable.all()


def test_a_folio_whose_further_pages_are_missing_is_said_to_be() -> None:
    kernel = device("7.2", "MEMORY_DEVICE_GENERIC", shift=9)
    kernel.hide(kernel.page(START + 513), 64)
    found = counts(kernel, START + 512, START + 513)
    assert found.readable.tolist() == [False]


def test_a_page_type_is_no_mapping() -> None:
    kernel = device("7.2", "MEMORY_DEVICE_FS_DAX")
    kernel.poke_page_word(START, 6, 1 << 32 | 0xF1000000)
    assert counts(kernel, START, START + 1).mappings.tolist() == [0]
