# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Compound pages of a kernel that was stopped while it made or freed them: as
prep_compound_page() and __free_pages_prepare() leave them between two stores.
"""

from __future__ import annotations

import pytest
from support.fakekernel import FakeKernel, busy_ram
from support.fakekernel.ram import COUNTS, LIST_POISON1, LIST_POISON2, PLACES, PREV, UNMAPPED
from support.kernels import each_layout

from drgn_zonedev.model import Report, Severity
from drgn_zonedev.report import check
from drgn_zonedev.verification.in_flight import IN_FLIGHT

START = 0x40000
HEAD, END = START + PLACES["folio"], START + PLACES["folio"] + 0x200
FLAGS, LINK, MAPPING = 0, 1, 3
PG_LOCKED = 1


def unlink(kernel: FakeKernel, start: int, end: int) -> None:
    for pfn in range(start, end):
        kernel.poke_page_word(pfn, LINK, 0)


def forget_order(kernel: FakeKernel) -> None:
    """Since v6.6, the order is written after all links, and cleared before them."""
    if kernel.layout.name in ("6.12", "7.2", "7.3"):
        flags = kernel.page_word(HEAD + 1, FLAGS)
        kernel.poke_page_word(HEAD + 1, FLAGS, flags & ~0xFF)


def errors(report: Report) -> list[tuple[str, int, int]]:
    return [
        (f.slug, f.start_pfn, f.end_pfn)
        for f in report.findings
        if f.severity is Severity.ERROR and f.slug.startswith("ram-")
    ]


def unjudged(report: Report) -> list[tuple[int, int]]:
    return [(u.start_pfn, u.end_pfn) for u in report.unjudged if u.reason == IN_FLIGHT]


# What a free page holds there: nothing, what list_del() wrote, or what its last user left.
STALE = (0, LIST_POISON1, 0xFFFF888012345680)


@each_layout
@pytest.mark.parametrize("stale", STALE)
@pytest.mark.parametrize("linked", [4, 0x100, 0x1FD])
def test_page_that_is_being_made_is_not_judged(layout: str, linked: int, stale: int) -> None:
    kernel = busy_ram(layout)
    for pfn in range(HEAD + 1 + linked, END):
        kernel.poke_page_word(pfn, LINK, stale)
    forget_order(kernel)
    report = check(kernel.program())
    assert errors(report) == []
    (span,) = unjudged(report)
    assert span[0] == HEAD
    assert HEAD + linked < span[1] <= END


def begin_compound(kernel: FakeKernel, references: int) -> None:
    """As between __SetPageHead() and the first prep_compound_tail()."""
    unlink(kernel, HEAD + 1, END)
    forget_order(kernel)
    kernel.poke_page_word(HEAD, LINK, LIST_POISON1)
    kernel.poke_page_word(HEAD, PREV, LIST_POISON2)
    kernel.poke_page_word(HEAD, MAPPING, 0)
    kernel.poke_page_word(HEAD, COUNTS, references << 32 | UNMAPPED)


@each_layout
@pytest.mark.parametrize("references", [0, 1])
def test_head_without_its_first_tail_is_not_judged(layout: str, references: int) -> None:
    kernel = busy_ram(layout)
    begin_compound(kernel, references)
    report = check(kernel.program())
    assert errors(report) == []
    assert (HEAD, HEAD + 2) in unjudged(report)


@each_layout
def test_head_that_is_used_and_has_no_tail_is_an_error(layout: str) -> None:
    kernel = busy_ram(layout)
    begin_compound(kernel, 1)
    kernel.poke_page_word(HEAD + 1, COUNTS, 1 << 32 | UNMAPPED)
    assert ("ram-stray-head", HEAD, HEAD + 1) in errors(check(kernel.program()))


@each_layout
@pytest.mark.parametrize("freed", [2, 0x11A, 0x1FD])
def test_page_that_is_being_freed_is_not_judged(layout: str, freed: int) -> None:
    kernel = busy_ram(layout)
    unlink(kernel, HEAD + 1, HEAD + 1 + freed)
    for pfn in range(HEAD + 1, HEAD + 1 + freed):
        kernel.poke_page_word(pfn, MAPPING, 0)
    forget_order(kernel)
    report = check(kernel.program())
    assert errors(report) == []
    assert unjudged(report) == [(HEAD, END)]


@each_layout
@pytest.mark.parametrize(
    ("first", "last"), [(1, 1), (2, 2), (511, 511), (17, 19), (0x80, 0xFF), (2, 510)]
)
def test_link_that_the_kernel_does_not_clear_in_this_order_is_an_error(
    layout: str, first: int, last: int
) -> None:
    kernel = busy_ram(layout)
    unlink(kernel, HEAD + first, HEAD + last + 1)
    report = check(kernel.program())
    found = errors(report)
    assert {slug for slug, _, _ in found} >= {"ram-tail-link"}
    assert (found[0][1], found[0][2]) == (HEAD + first, HEAD + last + 1)
    assert unjudged(report) == []


@pytest.mark.parametrize("layout", ["6.12", "7.2"])
def test_order_that_is_still_there_tells_a_defect(layout: str) -> None:
    kernel = busy_ram(layout)
    unlink(kernel, HEAD + 1, HEAD + 0x100)
    report = check(kernel.program())
    assert ("ram-tail-link", HEAD + 1, HEAD + 0x100) in errors(report)
    assert unjudged(report) == []


def split_partly(kernel: FakeKernel, start: int, end: int, references: int) -> None:
    """As __split_folio_to_order() leaves tails that are pages of their own already."""
    for pfn in range(start, end):
        kernel.poke_page_word(pfn, LINK, kernel.page(pfn + 1) + 8)
        kernel.poke_page_word(pfn, COUNTS, 1 << 32 | UNMAPPED)
    kernel.poke_page_word(HEAD, COUNTS, references << 32 | UNMAPPED)
    kernel.poke_page_word(HEAD, FLAGS, kernel.page_word(HEAD, FLAGS) | PG_LOCKED)


# In descending order, and since v6.15 in ascending order.
SPLIT = pytest.mark.parametrize(
    ("start", "end"), [(HEAD + 0x80, END), (END - 2, END), (HEAD + 1, HEAD + 0x80)]
)


@each_layout
@SPLIT
def test_folio_that_is_being_split_is_not_judged(layout: str, start: int, end: int) -> None:
    kernel = busy_ram(layout)
    split_partly(kernel, start, end, 0)
    report = check(kernel.program())
    assert errors(report) == []
    assert HEAD in {first for first, _ in unjudged(report)}


@each_layout
@SPLIT
def test_folio_that_has_references_is_not_being_split(layout: str, start: int, end: int) -> None:
    kernel = busy_ram(layout)
    split_partly(kernel, start, end, 2)
    slugs = {slug for slug, _, _ in errors(check(kernel.program()))}
    assert slugs & {"ram-tail-link", "ram-compound-order"}


@each_layout
def test_link_of_garbage_is_an_error(layout: str) -> None:
    kernel = busy_ram(layout)
    for pfn in range(HEAD + 1, HEAD + 0x40):
        kernel.poke_page_word(pfn, LINK, 0xDEAD000000000100)
    report = check(kernel.program())
    assert errors(report)[0][0] == "ram-tail-link"


@each_layout
def test_zone_of_a_page_in_flight_is_judged_all_the_same(layout: str) -> None:
    kernel = busy_ram(layout)
    unlink(kernel, HEAD + 1, HEAD + 0x80)
    forget_order(kernel)
    flags = kernel.page_word(HEAD + 0x30, FLAGS)
    kernel.poke_page_word(HEAD + 0x30, FLAGS, flags ^ 1 << 63)
    assert [(s, a) for s, a, _ in errors(check(kernel.program()))] == [
        ("ram-page-node", HEAD + 0x30)
    ]
