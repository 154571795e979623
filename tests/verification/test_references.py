# SPDX-License-Identifier: LGPL-2.1-or-later

"""The references of a pgmap, and those that its pages account for."""

from __future__ import annotations

import pytest
from support.fakekernel import FakeKernel
from support.kernels import each_layout

from drgn_zonedev.report import check

START, END = 0x40000, 0x48000
FLAGS, LINK, COUNTS = 0, 1, 6
PRIVATE, COHERENT = "MEMORY_DEVICE_PRIVATE", "MEMORY_DEVICE_COHERENT"
P2PDMA = "MEMORY_DEVICE_PCI_P2PDMA"


class Machine:
    """A device, some of whose pages are in use."""

    def __init__(self, layout: str, type_: str, count: int, shift: int = 0) -> None:
        self.kernel = kernel = FakeKernel(layout)
        kernel.sections(START, END)
        self.pgmap = kernel.pgmap((START, END), type=type_, count=count, vmemmap_shift=shift)
        kernel.device_pages(START, END, self.pgmap)

    def use(self, pfn: int, order: int = 0, references: int = 1) -> None:
        """Hand out a folio as zone_device_page_init() does."""
        kernel = self.kernel
        if order:
            head = 1 << kernel.layout.constant("PG_head")
            kernel.poke_page_word(pfn, FLAGS, kernel.page_word(pfn, FLAGS) | head)
            for tail in range(pfn + 1, pfn + (1 << order)):
                kernel.poke_page_word(tail, LINK, kernel.compound_link(pfn, order))
            kernel.poke_page_word(pfn + 1, FLAGS, kernel.page_word(pfn + 1, FLAGS) & ~0xFF | order)
        counts = kernel.page_word(pfn, COUNTS) & 0xFFFFFFFF
        kernel.poke_page_word(pfn, COUNTS, references << 32 | counts)

    def found(self, pfns: tuple[int, int] | None = None) -> list[tuple[str, int, int, str]]:
        findings = check(self.kernel.program(), pfns=pfns).findings
        return [(f.slug, f.start_pfn, f.end_pfn, f.message.rpartition("; ")[2]) for f in findings]


def missing(number: int) -> list[tuple[str, int, int, str]]:
    return [("pgmap-references-missing", START, END, f"{number} are missing")]


def extra(number: int) -> list[tuple[str, int, int, str]]:
    return [("pgmap-references-extra", START, END, f"{number} more")]


@each_layout
@pytest.mark.parametrize("type_", [PRIVATE, COHERENT])
def test_one_for_each_page_that_was_handed_out(layout: str, type_: str) -> None:
    if type_ == COHERENT and layout == "5.10":
        pytest.skip("there was no coherent memory")
    # Before v5.18, idle pages have one, and the pgmap has one for each of them.
    idle = END - START if layout == "5.10" else 0
    used = 0 if layout == "5.10" else 3
    # There, one that is left over may be that of an idle page.
    left = extra(2) if not idle else []
    for more, expected in ((0, []), (-1, missing(1)), (-3, missing(3)), (2, left)):
        machine = Machine(layout, type_, 1 + idle + used + more)
        for pfn in (START, START + 0x777, END - 1):
            machine.use(pfn, references=2)
        assert machine.found() == expected


@pytest.mark.parametrize("type_", [PRIVATE, COHERENT])
def test_one_for_each_page_of_a_folio(type_: str) -> None:
    used = 1 + 16 + 512
    for more, expected in ((0, []), (-15, missing(15)), (1, extra(1))):
        machine = Machine("7.2", type_, 1 + used + more)
        machine.use(START + 7)
        machine.use(START + 0x10, 4, references=3)
        machine.use(START + 0x200, 9)
        # Freed as a whole: its tails still link to it.
        machine.use(START + 0x400, 9, references=0)
        assert machine.found() == expected


def test_p2pdma_has_one_for_each_page_in_use_besides() -> None:
    for more, expected in ((0, []), (-1, missing(1)), (5, [])):
        machine = Machine("7.2", P2PDMA, 1 + (END - START) + 2 + more)
        machine.use(START)
        machine.use(START + 5)
        assert machine.found() == expected


@each_layout
@pytest.mark.parametrize(
    ("type_", "shift"),
    [("MEMORY_DEVICE_FS_DAX", 0), ("MEMORY_DEVICE_GENERIC", 0), ("MEMORY_DEVICE_GENERIC", 9)],
)
def test_one_for_each_page_or_compound_page(layout: str, type_: str, shift: int) -> None:
    taken = 1 + (END - START >> (0 if layout == "5.10" else shift))
    for more, expected in ((0, []), (3, []), (-1, missing(1)), (-taken, missing(taken))):
        assert Machine(layout, type_, taken + more, shift).found() == expected


def test_count_below_zero() -> None:
    taken = 1 + END - START
    assert Machine("6.1", "MEMORY_DEVICE_FS_DAX", -2).found() == missing(taken + 2)


def test_nothing_is_said_of_pages_that_were_not_all_counted() -> None:
    machine = Machine("7.2", PRIVATE, 1 + 2 + 4)
    machine.use(START)
    machine.use(START + 0x1000)
    assert machine.found() == extra(4)
    assert machine.found((START, START + 0x800)) == []
    machine.kernel.unmap_memmap(START + 0x2000, START + 0x2040)
    assert machine.found() == []


@pytest.mark.parametrize("type_", [PRIVATE, COHERENT])
def test_page_that_kept_the_order_of_a_folio(type_: str) -> None:
    # An order-4 folio was freed, and its first page and another one handed out alone.
    for kept, count in ((True, 1 + 2), (False, 1 + 2)):
        machine = Machine("7.2", type_, count)
        machine.use(START + 0x600, 4)
        machine.use(START + 0x605)
        head = machine.kernel.page_word(START + 0x600, FLAGS)
        machine.kernel.poke_page_word(START + 0x605, LINK, machine.pgmap)
        if not kept:
            flag = 1 << machine.kernel.layout.constant("PG_head")
            machine.kernel.poke_page_word(START + 0x600, FLAGS, head & ~flag)
        stale = [("device-folio-tails", START + 0x600, START + 0x610)]
        found = [each[:3] for each in machine.found()]
        # It counts as 16, of which the pgmap has one.
        fewer = [("pgmap-references-missing", START, END)]
        assert found == (fewer + stale if kept else [])


@pytest.mark.parametrize("used", [True, False])
def test_head_of_a_single_page(used: bool) -> None:
    # Of a page that is free, it may be left over.
    machine = Machine("7.2", PRIVATE, 1 + used)
    if used:
        machine.use(START + 5)
    head = 1 << machine.kernel.layout.constant("PG_head")
    word = machine.kernel.page_word(START + 5, FLAGS)
    machine.kernel.poke_page_word(START + 5, FLAGS, word | head)
    found = [each[:3] for each in machine.found()]
    assert found == ([("device-folio-tails", START + 5, START + 6)] if used else [])


@pytest.mark.parametrize("type_", [PRIVATE, COHERENT])
@pytest.mark.parametrize("tail", [1, 2, 15])
def test_tail_with_a_reference_of_its_own(type_: str, tail: int) -> None:
    machine = Machine("7.2", type_, 1 + 16)
    machine.use(START + 0x600, 4)
    machine.use(START + 0x600 + tail)
    spot = ("device-page-refcount", START + 0x600 + tail, START + 0x601 + tail)
    assert [each[:3] for each in machine.found()] == [spot]


def test_head_within_a_folio() -> None:
    machine = Machine("7.2", PRIVATE, 1 + 16)
    machine.use(START + 0x600, 4)
    tail, head = START + 0x605, 1 << machine.kernel.layout.constant("PG_head")
    machine.kernel.poke_page_word(tail, FLAGS, machine.kernel.page_word(tail, FLAGS) | head)
    spot = ("device-folio-tails", START + 0x600, START + 0x610)
    assert [each[:3] for each in machine.found()] == [spot]


@each_layout
@pytest.mark.parametrize("pointer", [0, 0xDEAD000])
def test_references_that_cannot_be_counted_are_not_judged(layout: str, pointer: int) -> None:
    machine = Machine(layout, "MEMORY_DEVICE_FS_DAX", 1 + END - START)
    kernel = machine.kernel
    assert not check(kernel.program()).unjudged
    is_pointer = kernel.layout.has_member("dev_pagemap", "internal_ref")
    ref = "internal_ref" if is_pointer else "ref"
    kernel.poke_member("dev_pagemap", machine.pgmap, f"{ref}.percpu_count_ptr", pointer)
    report = check(kernel.program())
    assert report.findings == ()
    (unjudged,) = report.unjudged
    assert (unjudged.start_pfn, unjudged.end_pfn) == (START, END)
    assert "references" in unjudged.reason


@each_layout
def test_sum_below_zero_is_shown_as_the_word_that_it_is(layout: str) -> None:
    machine = Machine(layout, "MEMORY_DEVICE_FS_DAX", -5)
    assert machine.found() == missing(1 + END - START + 5)
    (finding,) = check(machine.kernel.program()).findings
    assert finding.evidence[0].value == (1 << 64) - 5
