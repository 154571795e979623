# SPDX-License-Identifier: LGPL-2.1-or-later

"""Pages whose memory must not be read, by what their struct pages say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.fakekernel import FakeKernel, busy_ram, partial
from support.fakekernel.ram import PLACES, family, page_type
from support.kernels import Device, device, each_layout, since_compounds
from support.memmapmachine import memmap_machine

from drgn_zonedev.classification.classify import classify
from drgn_zonedev.explanation.explain import explain
from drgn_zonedev.kernel.page_types import page_types
from drgn_zonedev.model import Access, Case, Memmap, Range
from drgn_zonedev.render.as_json import range_document
from drgn_zonedev.render.as_text import ranges_text
from drgn_zonedev.render.picture.glyphs import MARKS, mark_of_range
from drgn_zonedev.report import check
from drgn_zonedev.verification import page_access
from drgn_zonedev.verification.page_access import divided_by_access, with_page_access

RAM = 0x100000
FLAGS, COUNTS = 0, 6


def poison(kernel: FakeKernel, pfn: int) -> None:
    flag = 1 << kernel.layout.constant("PG_hwpoison")
    kernel.poke_page_word(pfn, FLAGS, kernel.page_word(pfn, FLAGS) | flag)


def ram(layout: str) -> FakeKernel:
    kernel = FakeKernel(layout)
    kernel.section(RAM // 0x8000, online=True, early=True)
    kernel.memory_block(RAM // 0x8000)
    kernel.ram_pages(RAM, RAM + 0x8000)
    kernel.set_variable("max_pfn", RAM + 0x8000)
    return kernel


def parts(kernel: FakeKernel) -> list[tuple[int, int, Access]]:
    """What check() says, and that ranges say the same."""
    prog = kernel.program()
    report = check(prog)
    assert report.findings == ()
    found = [(r.start_pfn, r.end_pfn, r.access) for r in report.ranges]
    again = with_page_access(prog, classify(prog))
    assert [(r.start_pfn, r.end_pfn, r.access) for r in again] == found
    return found


@each_layout
def test_pages_are_split_out_of_their_range(layout: str) -> None:
    kernel = ram(layout)
    for pfn in (RAM, RAM + 0x777, RAM + 0x7FFF):
        poison(kernel, pfn)
    offline = page_type(family(layout), "offline")
    for pfn in range(RAM + 0x1000, RAM + 0x2000):
        kernel.poke_page_word(pfn, COUNTS, 1 << 32 | offline)
    # Poison counts more.
    poison(kernel, RAM + 0x1800)
    bad, gone, fine = Access.HWPOISON, Access.OFFLINE, Access.READABLE
    borders = (0, 1, 0x777, 0x778, 0x1000, 0x1800, 0x1801, 0x2000, 0x7FFF, 0x8000)
    accesses = (bad, fine, bad, fine, gone, bad, gone, fine, bad)
    spans = zip(borders, borders[1:])
    assert parts(kernel) == [(RAM + a, RAM + b, x) for (a, b), x in zip(spans, accesses)]
    prog = kernel.program()
    for pfn, access in ((RAM, bad), (RAM + 1, fine), (RAM + 0x1001, gone)):
        range_ = explain(prog, pfn).range
        assert range_ is not None
        assert range_.access is access


@each_layout
def test_block_of_unaccepted_memory(layout: str) -> None:
    kernel = ram(layout)
    if not kernel.layout.has_constant("PGTY_unaccepted"):
        pytest.skip("without page types, it is on a list of its zone, and has no type")
    # __free_unaccepted() marks the first page of a block of MAX_PAGE_ORDER.
    unaccepted = kernel.layout.constant("PGTY_unaccepted") << 24
    for pfn in (RAM + 0x400, RAM + 0x800, RAM + 0x1000):
        kernel.poke_page_word(pfn, COUNTS, 1 << 32 | unaccepted)
    fine, not_yet = Access.READABLE, Access.UNACCEPTED
    borders = (0, 0x400, 0xC00, 0x1000, 0x1400, 0x8000)
    spans = zip(borders, borders[1:], (fine, not_yet, fine, not_yet, fine))
    assert parts(kernel) == [(RAM + a, RAM + b, x) for a, b, x in spans]
    prog = kernel.program()
    for pfn, access in ((0x3FF, fine), (0x400, not_yet), (0xBFF, not_yet), (0xC00, fine)):
        assert explain(prog, RAM + pfn).access is access
    (first, *_) = check(prog, pfns=(RAM + 0x7F0, RAM + 0x7F8)).ranges
    assert first.access is not_yet


@pytest.mark.parametrize("is_live", [False, True])
def test_unaccepted_memory_is_on_a_list_before_it_has_a_type(
    monkeypatch: pytest.MonkeyPatch, is_live: bool
) -> None:
    # As from v6.5 to v6.11: __free_unaccepted() puts the first page of a block on the list.
    kernel = ram("6.12")
    prog = kernel.program(is_live=is_live)
    types = page_types(prog)
    others = {name: each for name, each in types.by_name.items() if name != "unaccepted"}
    older = dataclasses.replace(types, by_name=others)
    monkeypatch.setattr(page_access, "page_types", lambda prog: older)
    number = kernel.layout.constant("ZONE_NORMAL")
    at = head = kernel.zone(0, number) + prog.type("struct zone").member("unaccepted_pages").offset
    for pfn in (RAM + 0x400, RAM + 0x1000):
        kernel.poke(at, (kernel.page(pfn) + 8).to_bytes(8, "little"))
        at = kernel.page(pfn) + 8
    kernel.poke(at, head.to_bytes(8, "little"))
    fine, not_yet = Access.READABLE, Access.UNACCEPTED
    borders = (0, 0x400, 0x800, 0x1000, 0x1400, 0x8000)
    accesses = (fine, not_yet, fine, not_yet, fine)
    expected = [(RAM + a, RAM + b, x) for a, b, x in zip(borders, borders[1:], accesses)]
    report = check(prog)
    assert report.findings == ()
    assert [(r.start_pfn, r.end_pfn, r.access) for r in report.ranges] == expected
    again = with_page_access(prog, classify(prog))
    assert [(r.start_pfn, r.end_pfn, r.access) for r in again] == expected
    for pfn, access in ((0x3FF, fine), (0x400, not_yet), (0x7FF, not_yet), (0x800, fine)):
        assert explain(prog, RAM + pfn).access is access
    (first, *_) = check(prog, pfns=(RAM + 0x7F0, RAM + 0x808)).ranges
    assert (first.end_pfn, first.access) == (RAM + 0x800, not_yet)


@each_layout
@pytest.mark.parametrize("index", [1, 0x155, 0x1FF])
def test_part_of_a_poisoned_compound_page_is_poisoned(layout: str, index: int) -> None:
    kernel = busy_ram(layout)
    head = RAM + PLACES["folio"]
    poison(kernel, head)
    prog = kernel.program()
    for end in (head + 0x200, head + 0x208):
        report = check(prog, pfns=(head + index, end))
        found = [(r.end_pfn, r.access) for r in report.ranges]
        assert found[0] == (head + 0x200, Access.HWPOISON)
        assert found[1:] == [(end, Access.READABLE)] * (end > head + 0x200)
    whole = next(r for r in check(prog).ranges if r.start_pfn <= head < r.end_pfn)
    assert (whole.start_pfn, whole.end_pfn) == (head, head + 0x200)
    assert explain(prog, head + index).access is Access.HWPOISON


@since_compounds
def test_compound_page_of_a_device_is_poisoned_as_a_whole(layout: str) -> None:
    # mf_generic_kill_procs() marks the head, whichever page it is.
    kernel = device(layout, Device(0x40000, 0x48000, "MEMORY_DEVICE_GENERIC", 9))
    poison(kernel, 0x40200)
    assert parts(kernel) == [
        (0x40000, 0x40200, Access.READABLE),
        (0x40200, 0x40400, Access.HWPOISON),
        (0x40400, 0x48000, Access.READABLE),
    ]
    verdict = explain(kernel.program(), 0x40333).verdict
    assert "poisoned" in verdict


@each_layout
def test_each_word_of_a_device_that_says_so(layout: str) -> None:
    kernel = device(layout, Device(0x40000, 0x48000, "MEMORY_DEVICE_FS_DAX"))
    poison(kernel, 0x40001)
    poison(kernel, 0x47FFF)
    found = [(start, end) for start, end, access in parts(kernel) if access is Access.HWPOISON]
    assert found == [(0x40001, 0x40002), (0x47FFF, 0x48000)]


_BY_TYPE = {
    "MEMORY_DEVICE_FS_DAX": Access.READABLE,
    "MEMORY_DEVICE_GENERIC": Access.READABLE,
    "MEMORY_DEVICE_PCI_P2PDMA": Access.MMIO,
    "MEMORY_DEVICE_PRIVATE": Access.NO_MEMORY,
}


@each_layout
@pytest.mark.parametrize("type_", _BY_TYPE)
def test_types_of_device_memory(layout: str, type_: str) -> None:
    kernel = device(layout, Device(0x40000, 0x48000, type_))
    (range_,) = check(kernel.program()).ranges
    assert range_.access is _BY_TYPE[type_]


def test_cases_that_are_not_for_reading() -> None:
    found = {r.case: r.access for r in classify(partial("6.1").program())}
    assert found == {
        Case.ONLINE: Access.READABLE,
        Case.RESERVED: Access.READABLE,
        Case.METADATA: Access.STRUCT_PAGES,
        Case.DEVICE: Access.READABLE,
        Case.PARTIAL: Access.UNKNOWN,
    }
    others = {r.case: r.access for r in classify(memmap_machine("6.12").kernel.program())}
    assert others[Case.OFFLINE] is Access.OFFLINE


@each_layout
def test_ram_in_use_may_be_read(layout: str) -> None:
    kept = [part for part in parts(busy_ram(layout)) if part[2] is not Access.READABLE]
    places = [start + PLACES["offline"] for start in (0x40000, 0x100000)]
    assert kept == [(pfn, pfn + 16, Access.OFFLINE) for pfn in places]


def range_of(access: Access, case: Case = Case.ONLINE) -> Range:
    return Range(0x100, 0x200, case, Memmap.MAPPED, "because", access=access)


@pytest.mark.parametrize("access", Access)
def test_text_says_what_the_case_does_not(access: Access) -> None:
    kernel = check(partial("6.1").program()).kernel
    usual = access in (Access.READABLE, Access.STRUCT_PAGES, Access.UNKNOWN)
    text = ranges_text(kernel, [range_of(access)])
    assert text.endswith("because") == usual
    assert range_document(range_of(access))["access"] == access.value


def test_picture_has_a_mark_for_single_pages() -> None:
    assert MARKS[mark_of_range(range_of(Access.HWPOISON))].letter == "u"
    assert MARKS[mark_of_range(range_of(Access.READABLE))].letter == "o"
    assert MARKS[mark_of_range(range_of(Access.NO_MEMORY, Case.DEVICE))].letter == "d"
    assert MARKS[mark_of_range(range_of(Access.OFFLINE, Case.OFFLINE))].letter == "F"


def test_damaged_pages_make_a_bounded_number_of_ranges() -> None:
    range_ = Range(0, 1 << 20, Case.ONLINE, Memmap.MAPPED, "because")
    spans = [(pfn, pfn + 1, Access.HWPOISON) for pfn in np.arange(0, 1 << 16, 2).tolist()]
    found = divided_by_access(range_, spans)
    assert len(found) <= 1 << 15
    assert found[0].start_pfn == 0
    assert found[-1].end_pfn == 1 << 20
    assert all(a.end_pfn == b.start_pfn for a, b in zip(found, found[1:]))
    poisoned = sum(r.pages for r in found if r.access is Access.HWPOISON)
    assert poisoned >= len(spans)
