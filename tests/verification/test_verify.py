# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Verification of healthy machines, of machines with one injected defect, and of
memory that nobody promises anything for.

Whatever a test expects, it has injected; addresses are &vmemmap[pfn] plus the
offset of a word: 0 for the flags, 8 for the pgmap or the compound link.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from support.fakekernel import VMEMMAP, Altmap, FakeKernel, collision, in_flight, partial
from support.kernels import Device, device, each_layout, since_compounds

from drgn_zonedev.classification.classify import classify
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.kernel import memmap
from drgn_zonedev.model import (
    Case,
    Coverage,
    Evidence,
    Finding,
    PageCounts,
    Range,
    Severity,
    Unjudged,
)
from drgn_zonedev.verification import holes
from drgn_zonedev.verification.verify import Verification, divide_holes, verify, verify_snapshot

since_taint = since_compounds

START, FIRST, END = 0x40000, 0x40400, 0x50000
ALTMAP = Altmap(START, END - 1, reserve=2, free=1022, alloc=1024)
DEVICE = Device(START, END, type="MEMORY_DEVICE_GENERIC", altmap=ALTMAP)
ZONE_BITS, ZONE_SHIFT, NODE_SHIFT = 7 << 51, 51, 54
ZONE_NORMAL, ZONE_DEVICE = 2, 4
ALL_ONES = (1 << 64) - 1
MEDIA = 0xA5A5A5A5A5A5A5A5
DANGLING = 0xFFFF8880DEADBE00


def two_sections(layout: str, **changes: Any) -> FakeKernel:
    """Two sections of a device: reserve up to 0x40002, metadata up to FIRST, then data."""
    return device(layout, dataclasses.replace(DEVICE, **changes))


def verified(kernel: FakeKernel) -> Verification:
    prog = kernel.program()
    return verify(prog, classify(prog))


def errors(kernel: FakeKernel) -> list[Finding]:
    """What is wrong; hazards, such as the altmap's reserve, are left out."""
    return [f for f in verified(kernel).findings if f.severity is Severity.ERROR]


def sole_error(kernel: FakeKernel) -> Finding:
    (error,) = errors(kernel)
    return error


def spots(findings: list[Finding]) -> list[tuple[str, int, int, int]]:
    return [(f.slug, f.start_pfn, f.end_pfn, f.count) for f in findings]


def totals(coverage: Coverage) -> Coverage:
    """Of all cases together."""
    return dataclasses.replace(coverage, by_case={})


def of_cases(verification: Verification, *cases: Case) -> PageCounts:
    """How many struct pages of some cases were looked at."""
    counts = verification.coverage.by_case
    return sum((counts[case] for case in cases if case in counts), PageCounts())


def pgmap_of(kernel: FakeKernel) -> int:
    """The pgmap of the first device page."""
    return kernel.page_word(FIRST, 1)


# Healthy machines.


@each_layout
@pytest.mark.parametrize("scene", [collision, in_flight, partial])
def test_nothing_is_wrong_with_the_scenes(layout: str, scene: Callable[[str], FakeKernel]) -> None:
    assert errors(scene(layout)) == []


TYPES = (
    "MEMORY_DEVICE_PRIVATE",
    "MEMORY_DEVICE_FS_DAX",
    "MEMORY_DEVICE_GENERIC",
    "MEMORY_DEVICE_PCI_P2PDMA",
)


@each_layout
@pytest.mark.parametrize("shift", [0, 9])
@pytest.mark.parametrize("type", TYPES)
def test_nothing_is_wrong_with_a_device(layout: str, shift: int, type: str) -> None:
    verification = verified(two_sections(layout, shift=shift, type=type))
    assert [f.slug for f in verification.findings] == ["case5-reserved"]
    assert verification.unjudged == ()


@since_compounds
@pytest.mark.parametrize("shift", [9, 10])
def test_nothing_is_wrong_with_a_deduplicated_memmap(layout: str, shift: int) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    kernel.device_pages(START, 0x48000, kernel.pgmap((START, 0x48000), vmemmap_shift=shift))
    assert verified(kernel).findings == ()


@each_layout
def test_nothing_is_wrong_with_a_device_of_another_node(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    pgmap = kernel.pgmap((START, 0x48000), nid=3)
    kernel.device_pages(START, 0x48000, pgmap, nid=3)
    assert verified(kernel).findings == ()


@each_layout
def test_what_users_of_a_page_may_change_is_not_held_against_it(layout: str) -> None:
    kernel = two_sections(layout)
    for word in (2, 3, 4, 5, 7):
        kernel.poke_page_word(FIRST + 5, word, MEDIA)
    # Any number of mappings and references.
    kernel.poke_page_word(FIRST + 5, 6, 0x7123456706543210)
    flags = kernel.page_word(FIRST + 6, 0)
    head = 1 << kernel.layout.constant("PG_head")
    kernel.poke_page_word(FIRST + 6, 0, flags | 0xFF & ~head)
    assert errors(kernel) == []


# One defect in the struct page of a device page.


Inject = Callable[[FakeKernel, int], None]


def break_zone(kernel: FakeKernel, pfn: int) -> None:
    flags = kernel.page_word(pfn, 0) & ~ZONE_BITS
    kernel.poke_page_word(pfn, 0, flags | ZONE_NORMAL << ZONE_SHIFT)


def break_node(kernel: FakeKernel, pfn: int) -> None:
    kernel.poke_page_word(pfn, 0, kernel.page_word(pfn, 0) | 3 << NODE_SHIFT)


def break_pgmap(kernel: FakeKernel, pfn: int) -> None:
    kernel.poke_page_word(pfn, 1, DANGLING)


def fill(byte: int) -> Inject:
    def inject(kernel: FakeKernel, pfn: int) -> None:
        kernel.fill_pages(pfn, pfn + 1, byte)

    inject.__name__ = f"fill_with_{byte:#x}"
    return inject


ZONE_AND_NODE: list[tuple[Inject, str, int, int]] = [
    (break_zone, "device-page-zone", ZONE_NORMAL, ZONE_DEVICE),
    (break_node, "device-page-node", 3, 0),
]
# First, in the middle, at a border of sections, last; heads and tails of compounds.
PFNS = (FIRST, FIRST + 1, 0x43FFF, 0x47FFF, 0x48000, END - 1)


@each_layout
@pytest.mark.parametrize("shift", [0, 9])
@pytest.mark.parametrize("pfn", PFNS)
@pytest.mark.parametrize(("inject", "slug", "value", "expected"), ZONE_AND_NODE)
def test_wrong_zone_or_node_of_one_page(
    layout: str, shift: int, pfn: int, inject: Inject, slug: str, value: int, expected: int
) -> None:
    kernel = two_sections(layout, shift=shift)
    inject(kernel, pfn)
    error = sole_error(kernel)
    assert spots([error]) == [(slug, pfn, pfn + 1, 1)]
    assert (error.case, error.pgmap) == (Case.DEVICE, pgmap_of(kernel))
    fact = error.evidence[0]
    assert (fact.address, fact.value, fact.expected) == (VMEMMAP + 64 * pfn, value, expected)


@each_layout
@pytest.mark.parametrize("pfn", PFNS)
def test_wrong_pgmap_of_one_base_page(layout: str, pfn: int) -> None:
    kernel = two_sections(layout)
    pgmap = pgmap_of(kernel)
    break_pgmap(kernel, pfn)
    error = sole_error(kernel)
    assert spots([error]) == [("device-page-pgmap", pfn, pfn + 1, 1)]
    fact = error.evidence[0]
    assert (fact.address, fact.value) == (VMEMMAP + 64 * pfn + 8, DANGLING)
    assert fact.expected == pgmap == error.pgmap


@each_layout
@pytest.mark.parametrize("shift", [0, 9])
@pytest.mark.parametrize("pfn", [FIRST, FIRST + 1, 0x48000, END - 1])
@pytest.mark.parametrize("byte", [0, 0xFF, 0xA5, 0xFD])
def test_page_that_was_never_written(layout: str, shift: int, pfn: int, byte: int) -> None:
    kernel = two_sections(layout, shift=shift)
    fill(byte)(kernel, pfn)
    error = sole_error(kernel)
    assert spots([error]) == [("device-page-uninitialized", pfn, pfn + 1, 1)]
    fact, raw = error.evidence
    flags = byte * 0x0101010101010101
    # Node 0 and ZONE_DEVICE above what is there.
    links = ZONE_DEVICE << ZONE_SHIFT | flags & (1 << ZONE_SHIFT) - 1
    assert (fact.address, fact.value, fact.expected) == (VMEMMAP + 64 * pfn, flags, links)
    assert raw.address == VMEMMAP + 64 * pfn
    assert raw.note == " ".join([f"{flags:016x}"] * 8)


@since_compounds
@pytest.mark.parametrize("head", [FIRST, 0x48000, END - 512])
def test_wrong_pgmap_of_a_compound_head(layout: str, head: int) -> None:
    kernel = two_sections(layout, shift=9)
    break_pgmap(kernel, head)
    error = sole_error(kernel)
    assert spots([error]) == [("device-page-pgmap", head, head + 1, 1)]
    assert error.evidence[0].address == VMEMMAP + 64 * head + 8
    assert error.evidence[0].value == DANGLING


@since_compounds
@pytest.mark.parametrize("head", [FIRST, 0x48000, END - 512])
def test_compound_head_without_its_flag(layout: str, head: int) -> None:
    kernel = two_sections(layout, shift=9)
    flag = 1 << kernel.layout.constant("PG_head")
    flags = kernel.page_word(head, 0)
    kernel.poke_page_word(head, 0, flags & ~flag)
    error = sole_error(kernel)
    assert spots([error]) == [("device-head-flag", head, head + 1, 1)]
    fact = error.evidence[0]
    assert (fact.address, fact.value) == (VMEMMAP + 64 * head, flags & ~flag)
    assert fact.expected == flags


@since_compounds
@pytest.mark.parametrize("index", [1, 2, 63, 64, 128, 511])
@pytest.mark.parametrize("link", ["not a tail", "another compound"])
def test_broken_link_of_one_tail(layout: str, index: int, link: str) -> None:
    kernel = two_sections(layout, shift=9)
    pfn = 0x48000 + index
    good = kernel.compound_link(0x48000, 9)
    # The mask of a larger order leads to a head further in front.
    bad = pgmap_of(kernel) if link == "not a tail" else kernel.compound_link(0x47E00, 16)
    kernel.poke_page_word(pfn, 1, bad)
    error = sole_error(kernel)
    assert spots([error]) == [("device-tail-link", pfn, pfn + 1, 1)]
    fact = error.evidence[0]
    assert (fact.address, fact.value, fact.expected) == (VMEMMAP + 64 * pfn + 8, bad, good)


@since_compounds
def test_broken_link_shows_in_all_aliases_of_a_deduplicated_tail(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    kernel.device_pages(START, 0x48000, kernel.pgmap((START, 0x48000), vmemmap_shift=9))
    kernel.poke_page_word(START + 200, 1, 0)
    # 64 struct pages in a page of vmemmap; all but the first are the second.
    aliases = [START + i for i in range(64 + 200 % 64, 512, 64)]
    assert spots(errors(kernel)) == [("device-tail-link", pfn, pfn + 1, 1) for pfn in aliases]


def test_5_10_has_no_compound_device_pages() -> None:
    kernel = two_sections("5.10", shift=9)
    kernel.poke_page_word(FIRST + 1, 1, kernel.page(FIRST) | 1)
    assert sole_error(kernel).slug == "device-page-pgmap"


@since_compounds
def test_compound_pages_are_counted_from_the_first_device_page(layout: str) -> None:
    # A page of 1 GiB, of which one section's subsection_map cannot be read: three
    # ranges, but one promise.
    kernel = FakeKernel(layout)
    start, end = 0x40000, 0x80000
    kernel.sections(start, end)
    section = kernel.section(10)
    pgmap = kernel.pgmap((start, end), type="MEMORY_DEVICE_GENERIC", vmemmap_shift=18)
    kernel.device_pages(start, end, pgmap)
    kernel.hide(kernel.member("mem_section", section, "usage"), 24)
    verification = verified(kernel)
    assert verification.findings == ()
    assert [(r.start_pfn, r.case) for r in verification.ranges] == [
        (0x40000, Case.DEVICE),
        (0x50000, Case.DEVICE),
        (0x58000, Case.DEVICE),
    ]


# Metadata pages.


METADATA = (START + 2, START + 100, FIRST - 1)


@each_layout
@pytest.mark.parametrize("pfn", METADATA)
@pytest.mark.parametrize("word", [0, DANGLING])
def test_metadata_page_that_is_not_linked_to_itself(layout: str, pfn: int, word: int) -> None:
    kernel = two_sections(layout)
    kernel.poke_page_word(pfn, 1, word)
    error = sole_error(kernel)
    assert spots([error]) == [("metadata-page-link", pfn, pfn + 1, 1)]
    lru = VMEMMAP + 64 * pfn + 8
    assert error.evidence[0] == Evidence(error.evidence[0].what, lru, word, lru)
    assert error.case is Case.METADATA


@each_layout
@pytest.mark.parametrize("pfn", METADATA)
def test_metadata_page_in_the_wrong_zone(layout: str, pfn: int) -> None:
    kernel = two_sections(layout)
    break_zone(kernel, pfn)
    error = sole_error(kernel)
    assert spots([error]) == [("metadata-page-zone", pfn, pfn + 1, 1)]
    fact = error.evidence[0]
    assert (fact.address, fact.value, fact.expected) == (VMEMMAP + 64 * pfn, 2, 4)


@each_layout
@pytest.mark.parametrize("pfn", METADATA)
@pytest.mark.parametrize("byte", [0, 0xFF])
def test_metadata_page_that_was_never_written(layout: str, pfn: int, byte: int) -> None:
    kernel = two_sections(layout)
    fill(byte)(kernel, pfn)
    assert spots(errors(kernel)) == [("metadata-page-uninitialized", pfn, pfn + 1, 1)]


@each_layout
def test_metadata_page_that_holds_old_media_is_one_error(layout: str) -> None:
    kernel = two_sections(layout)
    fill(0xA5)(kernel, START + 100)
    assert sole_error(kernel).start_pfn == START + 100


# Runs of wrong pages.


@each_layout
@pytest.mark.parametrize("shift", [0, 9])
def test_neighbours_are_one_finding(layout: str, shift: int) -> None:
    kernel = two_sections(layout, shift=shift)
    kernel.fill_pages(0x45000, 0x45007, 0)
    kernel.fill_pages(0x45008, 0x45009, 0)
    slug = "device-page-uninitialized"
    assert spots(errors(kernel)) == [(slug, 0x45000, 0x45007, 7), (slug, 0x45008, 0x45009, 1)]


@each_layout
@pytest.mark.parametrize("border", [FIRST + 16384, FIRST + 2 * 16384, 0x48000])
def test_neighbours_across_two_reads_are_one_finding(layout: str, border: int) -> None:
    kernel = two_sections(layout)
    kernel.fill_pages(border - 3, border + 2, 0)
    error = sole_error(kernel)
    assert spots([error]) == [("device-page-uninitialized", border - 3, border + 2, 5)]
    assert error.evidence[0].address == VMEMMAP + 64 * (border - 3)


def test_a_run_longer_than_a_read_is_one_finding() -> None:
    kernel = two_sections("6.1")
    kernel.fill_pages(FIRST + 5, END - 5, 0xFF)
    assert spots(errors(kernel)) == [
        ("device-page-uninitialized", FIRST + 5, END - 5, END - FIRST - 10)
    ]


@pytest.mark.parametrize(("runs", "findings"), [(32, 32), (33, 1), (500, 1)])
def test_scattered_runs_fold_into_one_finding(runs: int, findings: int) -> None:
    kernel = two_sections("6.1")
    for i in range(runs):
        kernel.fill_pages(FIRST + 100 * i, FIRST + 100 * i + 2, 0)
    found = errors(kernel)
    assert len(found) == findings
    assert sum(f.count for f in found) == 2 * runs
    assert found[0].start_pfn == FIRST
    assert found[-1].end_pfn == FIRST + 100 * (runs - 1) + 2


def test_different_defects_are_different_findings() -> None:
    kernel = two_sections("6.1")
    break_zone(kernel, 0x45000)
    break_node(kernel, 0x45001)
    break_pgmap(kernel, 0x45002)
    fill(0)(kernel, 0x45003)
    assert {(f.slug, f.start_pfn) for f in errors(kernel)} == {
        ("device-page-zone", 0x45000),
        ("device-page-node", 0x45001),
        ("device-page-pgmap", 0x45002),
        ("device-page-uninitialized", 0x45003),
    }


# Folios that drivers build out of base pages.


def fold(kernel: FakeKernel, head: int, order: int, tails: range | None = None) -> None:
    """prep_compound_page()"""
    flag = 1 << kernel.layout.constant("PG_head")
    kernel.poke_page_word(head, 0, kernel.page_word(head, 0) | flag)
    for i in tails or range(1, 1 << order):
        kernel.poke_page_word(head + i, 1, kernel.compound_link(head, order))


WRONG_FOLIO = [
    ("device-stray-head", 0x44200, 0x44201, 1),
    ("device-page-pgmap", 0x44201, 0x44400, 511),
]


@pytest.mark.parametrize("type", ["MEMORY_DEVICE_FS_DAX", "MEMORY_DEVICE_PRIVATE"])
@pytest.mark.parametrize(("head", "order"), [(0x44200, 9), (0x44400, 2), (0x48000, 15)])
def test_folio_of_a_driver_is_legal_since_pgmaps_are_in_folios(
    type: str, head: int, order: int
) -> None:
    kernel = two_sections("7.2", type=type)
    fold(kernel, head, order)
    assert errors(kernel) == []


@pytest.mark.parametrize("layout", ["5.10", "6.1", "6.12"])
def test_folio_of_a_driver_is_wrong_where_each_page_holds_the_pgmap(layout: str) -> None:
    kernel = two_sections(layout, type="MEMORY_DEVICE_FS_DAX")
    fold(kernel, 0x44200, 9)
    assert spots(errors(kernel)) == WRONG_FOLIO


@pytest.mark.parametrize("type", ["MEMORY_DEVICE_GENERIC", "MEMORY_DEVICE_PCI_P2PDMA"])
def test_device_types_that_do_not_build_folios(type: str) -> None:
    kernel = two_sections("7.2", type=type)
    fold(kernel, 0x44200, 9)
    assert spots(errors(kernel)) == WRONG_FOLIO


def test_tail_whose_head_is_not_a_device_page() -> None:
    kernel = two_sections("7.2", type="MEMORY_DEVICE_FS_DAX")
    kernel.poke_page_word(FIRST, 1, kernel.compound_link(START, 11))
    assert spots(errors(kernel)) == [("device-page-pgmap", FIRST, FIRST + 1, 1)]


def test_tail_whose_head_is_in_another_device() -> None:
    kernel = FakeKernel("7.2")
    kernel.section(8)
    for start in (START, 0x44000):
        pgmap = kernel.pgmap((start, start + 0x4000))
        kernel.device_pages(start, start + 0x4000, pgmap)
    kernel.poke_page_word(0x44000, 1, kernel.compound_link(START, 15))
    assert spots(errors(kernel)) == [("device-page-pgmap", 0x44000, 0x44001, 1)]


def test_folio_whose_head_holds_another_pgmap() -> None:
    kernel = two_sections("7.2", type="MEMORY_DEVICE_FS_DAX")
    fold(kernel, 0x44200, 9)
    break_pgmap(kernel, 0x44200)
    assert spots(errors(kernel)) == [("device-page-pgmap", 0x44200, 0x44400, 512)]


# What was looked at.


@each_layout
def test_coverage_counts_the_pages_that_were_looked_at(layout: str) -> None:
    seen: list[tuple[int, int]] = []
    kernel = two_sections(layout)
    prog = kernel.program()
    snapshot = take_snapshot(prog)
    ranges = classify(prog)
    verification = verify_snapshot(prog, snapshot, ranges, lambda *each: seen.append(each))
    pages = END - START
    assert totals(verification.coverage) == Coverage(pages, 0, 64 * pages)
    assert verification.coverage.by_case == {
        Case.RESERVED: PageCounts(verified=2),
        Case.METADATA: PageCounts(verified=FIRST - START - 2),
        Case.DEVICE: PageCounts(verified=END - FIRST),
    }
    assert sum(done for done, _ in seen) == 64 * pages
    assert {total for _, total in seen} == {64 * pages}


@each_layout
@pytest.mark.parametrize("start", [FIRST, 0x44440, END - 64])
def test_unreadable_memmap_is_unjudged_and_no_error(layout: str, start: int) -> None:
    kernel = two_sections(layout)
    kernel.unmap_memmap(start, start + 64)
    verification = verified(kernel)
    assert [f.slug for f in verification.findings] == ["case5-reserved"]
    (unjudged,) = verification.unjudged
    assert (unjudged.start_pfn, unjudged.end_pfn) == (start, start + 64)
    pages = END - START - 64
    assert totals(verification.coverage) == Coverage(pages, 64, 64 * pages)


@each_layout
def test_entirely_unreadable_memmap(layout: str) -> None:
    kernel = two_sections(layout, shift=9)
    kernel.unmap_memmap(START, END)
    verification = verified(kernel)
    assert errors(kernel) == []
    assert totals(verification.coverage) == Coverage(0, END - START, 0)
    spans = [(u.start_pfn, u.end_pfn) for u in verification.unjudged]
    assert spans == [(START, START + 2), (START + 2, FIRST), (FIRST, END)]


def test_errors_around_a_gap_are_found() -> None:
    kernel = two_sections("6.1")
    kernel.fill_pages(0x44400, 0x44500, 0)
    kernel.unmap_memmap(0x44440, 0x44480)
    slug = "device-page-uninitialized"
    assert spots(errors(kernel)) == [(slug, 0x44400, 0x44440, 64), (slug, 0x44480, 0x44500, 128)]


def test_ram_that_is_offline_is_not_read() -> None:
    kernel = FakeKernel()
    kernel.section(1)
    kernel.memory_block(1, "MEM_OFFLINE")
    assert totals(verified(kernel).coverage) == Coverage(0, 0, 0)


def test_unknown_ranges_are_unjudged() -> None:
    kernel = FakeKernel()
    kernel.section(8, has_mem_map=False)
    verification = verified(kernel)
    (range_,) = verification.ranges
    assert verification.unjudged == (Unjudged(START, 0x48000, range_.reason),)


@each_layout
def test_node_is_not_judged_outside_of_every_zone_device(layout: str) -> None:
    kernel = two_sections(layout)
    kernel.poke_member("zone", kernel.zone(0, ZONE_DEVICE), "spanned_pages", 0)
    break_node(kernel, FIRST + 7)
    verification = verified(kernel)
    assert errors(kernel) == []
    (unjudged,) = verification.unjudged
    assert "no node's ZONE_DEVICE" in unjudged.reason


# Running kernels.


class Race:
    """Does something when a struct page is read for the nth time."""

    def __init__(self, kernel: FakeKernel, pfn: int, actions: dict[int, Callable[[], None]]):
        self.address = kernel.page(pfn)
        self.actions = actions
        self.reads = 0
        kernel.on_read = self.on_read

    def on_read(self, address: int, size: int) -> None:
        if address <= self.address < address + size:
            self.reads += 1
            self.actions.get(self.reads, lambda: None)()


def live_errors(kernel: FakeKernel) -> list[Finding]:
    prog = kernel.program(is_live=True)
    findings = verify(prog, classify(prog)).findings
    return [f for f in findings if f.severity is Severity.ERROR]


def test_page_that_was_just_being_written_is_not_wrong() -> None:
    kernel = two_sections("6.1")
    pgmap = pgmap_of(kernel)
    break_pgmap(kernel, 0x45000)
    race = Race(kernel, 0x45000, {2: lambda: kernel.poke_page_word(0x45000, 1, pgmap)})
    assert live_errors(kernel) == []
    assert race.reads >= 2


def test_page_that_stays_wrong_is_wrong_on_a_running_kernel() -> None:
    kernel = two_sections("6.1")
    break_pgmap(kernel, 0x45000)
    assert spots(live_errors(kernel)) == [("device-page-pgmap", 0x45000, 0x45001, 1)]


def test_only_the_page_that_stays_wrong_is_reported() -> None:
    kernel = two_sections("6.1")
    pgmap = pgmap_of(kernel)
    kernel.fill_pages(0x45000, 0x45002, 0)
    break_pgmap(kernel, 0x45002)
    Race(kernel, 0x45000, {2: lambda: kernel.device_pages(0x45000, 0x45002, pgmap)})
    assert spots(live_errors(kernel)) == [("device-page-pgmap", 0x45002, 0x45003, 1)]


def test_page_that_vanishes_is_not_wrong() -> None:
    kernel = two_sections("6.1")
    break_pgmap(kernel, 0x45000)
    Race(kernel, 0x45000, {2: lambda: kernel.unmap_memmap(0x45000, 0x45040)})
    prog = kernel.program(is_live=True)
    verification = verify(prog, classify(prog))
    assert [f.slug for f in verification.findings] == ["case5-reserved"]
    (unjudged,) = verification.unjudged
    assert (unjudged.start_pfn, unjudged.end_pfn) == (0x45000, 0x45001)
    assert unjudged.reason.startswith("device-page-pgmap")


# Hazards: what walkers would find where nothing is promised.


def hazards(kernel: FakeKernel) -> list[Finding]:
    return [f for f in verified(kernel).findings if f.severity is not Severity.ERROR]


def holdings(finding: Finding) -> dict[str, int | None]:
    """Number of struct pages by what they hold."""
    prefix = "struct pages: "
    return {e.what[len(prefix) :]: e.value for e in finding.evidence if e.what.startswith(prefix)}


ZERO = "all zero"
POISON = "PAGE_POISON_PATTERN (all ones)"
BOOT_PAGE = "a reserved page from boot, linked to itself"
MINE = "initialised for this pgmap"
OTHER_PGMAP = "a device page of another live pgmap"
DANGLING_PGMAP = "a device page of a pgmap that is not found in pgmap_array"
SELF_LINKED = "a device page without a pgmap, linked to itself"
MEDIA_CONTENT = "no struct page: what the memory held before"
OTHER = "something else"


def other_pgmap(kernel: FakeKernel, start: int, end: int) -> None:
    kernel.section(200)
    kernel.device_pages(start, end, kernel.pgmap((0x640000, 0x648000)))


CONTENTS: list[tuple[str, Callable[[FakeKernel, int, int], None]]] = [
    (ZERO, lambda kernel, start, end: kernel.fill_pages(start, end, 0)),
    (POISON, lambda kernel, start, end: kernel.fill_pages(start, end, 0xFF)),
    (BOOT_PAGE, lambda kernel, start, end: kernel.hole_pages(start, end)),
    (OTHER_PGMAP, other_pgmap),
    (DANGLING_PGMAP, lambda kernel, start, end: kernel.device_pages(start, end, DANGLING)),
    (SELF_LINKED, lambda kernel, start, end: kernel.metadata_pages(start, end)),
    (MINE, lambda kernel, start, end: kernel.device_pages(start, end, pgmap_of(kernel))),
    (MEDIA_CONTENT, lambda kernel, start, end: kernel.fill_pages(start, end, 0xA5)),
    (OTHER, lambda kernel, start, end: kernel.ram_pages(start, end)),
]


@each_layout
@pytest.mark.parametrize(("kind", "put"), CONTENTS)
def test_contents_of_the_reserve(
    layout: str, kind: str, put: Callable[[FakeKernel, int, int], None]
) -> None:
    kernel = two_sections(layout)
    put(kernel, START, START + 2)
    (hazard,) = (f for f in hazards(kernel) if f.slug == "case5-reserved")
    assert (hazard.start_pfn, hazard.end_pfn, hazard.count) == (START, START + 2, 2)
    assert (hazard.case, hazard.severity) == (Case.RESERVED, Severity.WARNING)
    assert holdings(hazard) == {kind: 2}


def rest(kernel: FakeKernel, done: int, shift: int = 0) -> FakeKernel:
    """A device of one section, whose first *done* pages are initialised."""
    kernel.section(8)
    kernel.map_memmap(START, 0x48000)
    pgmap = kernel.pgmap((START, 0x48000), vmemmap_shift=shift, in_flight=True)
    if done:
        kernel.device_pages(START, START + done, pgmap)
    return kernel


@each_layout
@pytest.mark.parametrize("shift", [0, 9, 15])
@pytest.mark.parametrize("done", [1, 512, 700, 20000])
def test_initialisation_in_flight_says_how_far_it_got(layout: str, shift: int, done: int) -> None:
    (hazard,) = hazards(rest(FakeKernel(layout), done, shift))
    assert (hazard.slug, hazard.count) == ("case4-initializing", 0x8000)
    assert hazard.message.endswith(f"; {done} of 32768 are done")
    assert holdings(hazard) == {MINE: done, ZERO: 0x8000 - done}


@each_layout
def test_initialisation_that_has_not_begun_says_nothing_of_progress(layout: str) -> None:
    (hazard,) = hazards(rest(FakeKernel(layout), 0))
    assert "done" not in hazard.message
    assert holdings(hazard) == {ZERO: 0x8000}


@each_layout
def test_initialisation_over_an_old_boot_memmap(layout: str) -> None:
    (case5, case4) = hazards(in_flight(layout))
    assert holdings(case5) == {BOOT_PAGE: 2}
    assert holdings(case4) == {BOOT_PAGE: 0x28000 - 0x24400, ZERO: 0x8000}


@each_layout
def test_claimed_memory_without_memmap_is_not_read(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.pgmap((START, 0x48000), in_flight=True)
    verification = verified(kernel)
    (hazard,) = verification.findings
    assert hazard.slug == "case4-initializing"
    assert "not there yet" in hazard.message
    assert totals(verification.coverage) == Coverage()
    assert verification.unjudged == ()


def early(layout: str, *, taint: bool) -> FakeKernel:
    """An early section: RAM up to 0x44000, then a hole as boot leaves it."""
    kernel = FakeKernel(layout)
    kernel.section(8, online=True, early=True, taint=taint, subsections=range(32))
    kernel.memory_block(8)
    kernel.ram_pages(START, 0x44000)
    kernel.hole_pages(0x44000, 0x48000)
    return kernel


def cut(verification: Verification) -> list[tuple[int, int, str]]:
    return [(r.start_pfn, r.end_pfn, r.case.value) for r in verification.ranges]


@each_layout
def test_ghosts_are_told_from_the_hole_around_them(layout: str) -> None:
    kernel = early(layout, taint=True)
    kernel.grow_zone("ZONE_DEVICE", 0x44200, 0x45400)
    kernel.device_pages(0x44200, 0x45400, DANGLING)
    verification = verified(kernel)
    assert cut(verification) == [
        (0x40000, 0x44000, "online"),
        (0x44000, 0x44200, "partial"),
        (0x44200, 0x45400, "ghost"),
        (0x45400, 0x48000, "partial"),
    ]
    (ghosts,) = verification.findings
    assert spots([ghosts]) == [("ghost-pages", 0x44200, 0x45400, 0x1200)]
    assert holdings(ghosts) == {DANGLING_PGMAP: 0x1200}
    reasons = [r.reason for r in verification.ranges if r.case is Case.PARTIAL]
    assert all("hole" in reason and "left" not in reason for reason in reasons)
    assert not any("only struct pages show" in r.reason for r in verification.ranges)


@each_layout
def test_holes_are_divided_without_the_rest(layout: str) -> None:
    kernel = early(layout, taint=True)
    kernel.section(9)
    kernel.device_pages(0x44200, 0x45400, DANGLING)
    device = (0x48000, 0x50000)
    kernel.device_pages(*device, kernel.pgmap(device))
    prog = kernel.program()
    ranges = classify(prog)
    kernel.unmap_memmap(*device)
    assert divide_holes(prog, take_snapshot(prog), ranges) == verify(prog, ranges).ranges


@each_layout
def test_poisoned_hole_is_a_ghost_of_a_debugging_kernel(layout: str) -> None:
    kernel = early(layout, taint=True)
    kernel.fill_pages(0x47E00, 0x48000, 0xFF)
    (ghosts,) = verified(kernel).findings
    assert spots([ghosts]) == [("ghost-pages", 0x47E00, 0x48000, 0x200)]
    assert holdings(ghosts) == {POISON: 0x200}


@since_compounds
def test_ghosts_of_compound_pages_are_dangling_as_a_whole(layout: str) -> None:
    kernel = early(layout, taint=True)
    gone = kernel.pgmap((0x44200, 0x44600), vmemmap_shift=9, stored=False)
    kernel.device_pages(0x44200, 0x44600, gone)
    (ghosts,) = verified(kernel).findings
    assert holdings(ghosts) == {DANGLING_PGMAP: 0x400}


@each_layout
def test_pages_of_a_hole_are_counted_once(layout: str) -> None:
    kernel = early(layout, taint=True)
    kernel.device_pages(0x44200, 0x45400, DANGLING)
    kernel.unmap_memmap(0x45000, 0x45040)
    verification = verified(kernel)
    holes = of_cases(verification, Case.GHOST, Case.PARTIAL)
    assert holes == PageCounts(verified=0x3FC0, unreadable=64)
    assert [(u.start_pfn, u.end_pfn) for u in verification.unjudged] == [(0x45000, 0x45040)]


@since_taint
def test_unreadable_part_of_a_hole_stays_what_the_metadata_said(layout: str) -> None:
    kernel = early(layout, taint=True)
    kernel.grow_zone("ZONE_DEVICE", 0x44000, 0x48000)
    kernel.unmap_memmap(0x44000, 0x44040)
    kernel.unmap_memmap(0x47000, 0x48000)
    assert cut(verified(kernel)) == [
        (0x40000, 0x44000, "online"),
        (0x44000, 0x44040, "ghost"),
        (0x44040, 0x47000, "partial"),
        (0x47000, 0x48000, "ghost"),
    ]


def scatter(kernel: FakeKernel, start: int, number: int) -> None:
    """Ghosts on every second page."""
    for pfn in range(start, start + 2 * number, 2):
        kernel.fill_pages(pfn, pfn + 1, 0xFF)


@each_layout
@pytest.mark.parametrize("number", [32, 33, 1000])
def test_scattered_ghosts_are_one_finding_and_their_ranges_are_exact(
    layout: str, number: int
) -> None:
    kernel = early(layout, taint=True)
    scatter(kernel, 0x45000, number)
    verification = verified(kernel)
    pfns = range(0x45000, 0x45000 + 2 * number, 2)
    ghosts = [r for r in verification.ranges if r.case is Case.GHOST]
    assert [(r.start_pfn, r.end_pfn) for r in ghosts] == [(pfn, pfn + 1) for pfn in pfns]
    borders = [r.start_pfn for r in verification.ranges] + [verification.ranges[-1].end_pfn]
    assert borders == sorted(set(borders))
    if number <= 32:
        assert [holdings(f) for f in verification.findings] == [{POISON: 1}] * number
        return
    (finding,) = verification.findings
    assert spots([finding]) == [("ghost-pages", 0x45000, pfns[-1] + 1, number)]
    # The pages between them hold something else.
    assert holdings(finding) == {POISON: number}
    assert of_cases(verification, Case.GHOST, Case.PARTIAL) == PageCounts(verified=0x4000)


@each_layout
def test_holes_between_scattered_ghosts_are_one_case_3(layout: str) -> None:
    kernel = early(layout, taint=True)
    kernel.section(8, online=True, early=True, taint=True, subsections=range(33))
    kernel.device_pages(0x44000, 0x44200, kernel.pgmap((0x44000, 0x44200)))
    scatter(kernel, 0x45000, 100)
    beside, ghosts = hazards(kernel)
    assert spots([beside, ghosts]) == [
        ("case3-partial", 0x44200, 0x48000, 0x3E00 - 100),
        ("ghost-pages", 0x45000, 0x450C7, 100),
    ]
    assert holdings(beside) == {BOOT_PAGE: 0x3E00 - 100}


@each_layout
def test_hole_is_divided_no_more_often_than_any_machine_needs(
    layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holes, "_MAX_CUTS", 100)
    kernel = early(layout, taint=True)
    kernel.hole_pages(0x48000, 0x50000)
    kernel.section(9, online=True, early=True, subsections=range(32))
    kernel.ram_pages(0x48000, 0x4C000)
    scatter(kernel, 0x45001, 1000)
    kernel.fill_pages(0x4D000, 0x4D010, 0xFF)
    verification = verified(kernel)
    first = [r for r in verification.ranges if 0x44000 <= r.start_pfn < 0x48000]
    # Each cut begins a range, and the last one is all the rest.
    assert [r.start_pfn for r in first] == [0x44000, *range(0x45001, 0x45001 + 101)]
    assert (first[-1].end_pfn, first[-1].case) == (0x48000, Case.PARTIAL)
    told = [(u.start_pfn, u.end_pfn) for u in verification.unjudged]
    assert told == [(first[-1].start_pfn, 0x48000), (0x4D000, 0x50000)]
    assert all("more often than on any machine" in u.reason for u in verification.unjudged)
    # All of it was gone through.
    assert of_cases(verification, Case.GHOST, Case.PARTIAL) == PageCounts(verified=0x8000)


@each_layout
@pytest.mark.parametrize("chunk", [7, 0x200, 0x1000])
def test_hole_is_divided_alike_in_chunks_of_any_size(
    layout: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = early(layout, taint=True)
    kernel.fill_pages(0x44FFF, 0x45002, 0xFF)
    kernel.fill_pages(0x45800, 0x46000, 0xFF)
    kernel.unmap_memmap(0x46000, 0x46040)
    scatter(kernel, 0x47000, 40)
    expected = verified(kernel)
    assert len(expected.ranges) == 1 + 5 + 81
    monkeypatch.setattr(memmap, "_CHUNK_BYTES", chunk * 64)
    found = verified(kernel)
    assert found == expected


@each_layout
def test_hole_without_a_device_is_no_hazard(layout: str) -> None:
    verification = verified(early(layout, taint=False))
    assert verification.findings == ()
    assert cut(verification)[1] == (0x44000, 0x48000, "partial")


@each_layout
def test_hole_beside_a_device_is_case_3(layout: str) -> None:
    kernel = early(layout, taint=True)
    kernel.section(8, online=True, early=True, taint=True, subsections=range(33))
    kernel.device_pages(0x44000, 0x44200, kernel.pgmap((0x44000, 0x44200)))
    (hazard,) = hazards(kernel)
    assert spots([hazard]) == [("case3-partial", 0x44200, 0x48000, 0x3E00)]
    assert "hole at boot" in hazard.message
    assert holdings(hazard) == {BOOT_PAGE: 0x3E00}
    counts = of_cases(verified(kernel), Case.DEVICE, Case.PARTIAL)
    assert counts == PageCounts(verified=0x4000)


@each_layout
def test_unmapped_rest_of_a_device_section_is_case_3(layout: str) -> None:
    (_, hazard) = hazards(partial(layout))
    assert spots([hazard]) == [("case3-partial", 0x114000, 0x118000, 0x4000)]
    assert "reading them faults" in hazard.message
    assert verified(partial(layout)).unjudged == ()


@each_layout
def test_teardown(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    pgmap = kernel.pgmap((START, 0x50000), ref="dead")
    kernel.device_pages(START, 0x48000, pgmap)
    first, second = hazards(kernel)
    assert spots([first, second]) == [
        ("teardown", START, 0x48000, 0x8000),
        ("teardown", 0x48000, 0x50000, 0x8000),
    ]
    assert holdings(first) == {MINE: 0x8000}
    assert holdings(second) == {}
    assert errors(kernel) == []


@each_layout
def test_orphan(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    kernel.map_memmap(START, 0x48000)
    kernel.fill_pages(START, START + 10, 0xFF)
    (hazard,) = hazards(kernel)
    assert spots([hazard]) == [("orphan-section", START, 0x48000, 0x8000)]
    assert holdings(hazard) == {POISON: 10, ZERO: 0x7FF6}


@each_layout
def test_page_without_pgmap_is_not_initialised_for_nobody(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    kernel.metadata_pages(START, 0x48000)
    kernel.poke_page_word(START, 1, 0)
    (hazard,) = hazards(kernel)
    assert holdings(hazard) == {OTHER: 1, SELF_LINKED: 0x7FFF}


def forget_pgmaps(kernel: FakeKernel) -> None:
    head = kernel.program()["pgmap_array"].xa_head.address_
    assert head is not None
    kernel.poke(head, bytes(8))


def assert_gone(verification: Verification, ranges: list[Range]) -> None:
    assert list(verification.ranges) == ranges
    claimed = [r for r in ranges if r.pgmap]
    assert claimed
    reason = "its pgmap has gone since it was classified"
    gone = [(u.start_pfn, u.end_pfn) for u in verification.unjudged if u.reason == reason]
    assert gone == [(r.start_pfn, r.end_pfn) for r in claimed]
    assert not [f for f in verification.findings if f.pgmap]


@each_layout
@pytest.mark.parametrize("scene", [collision, in_flight, partial])
def test_ranges_of_a_pgmap_that_has_gone_are_not_judged(
    layout: str, scene: Callable[[str], FakeKernel]
) -> None:
    kernel = scene(layout)
    ranges = classify(kernel.program())
    forget_pgmaps(kernel)
    prog, counted = kernel.program(), [(0, 0)]
    assert_gone(verify(prog, ranges), ranges)
    verify_snapshot(prog, take_snapshot(prog), ranges, lambda *done: counted.append(done))
    assert sum(done for done, _ in counted) == counted[-1][1]


@each_layout
def test_pgmap_that_is_now_another_device_says_nothing_of_this_one(layout: str) -> None:
    kernel = two_sections(layout)
    ranges = classify(kernel.program())
    (pgmap,) = {r.pgmap for r in ranges if r.pgmap}
    forget_pgmaps(kernel)
    kernel.poke_member("dev_pagemap", pgmap, "range.start", END << 12)
    kernel.poke_member("dev_pagemap", pgmap, "range.end", (END + 0x8000 << 12) - 1)
    kernel.pgmap_array.store_range(END, END + 0x7FFF, pgmap)
    kernel.fill_pages(FIRST, END, 0)
    prog = kernel.program()
    assert [p.address for p in take_snapshot(prog).pgmaps] == [pgmap]
    assert_gone(verify(prog, ranges), ranges)


def test_ranges_are_handed_through() -> None:
    prog = collision("6.1").program()
    ranges: list[Range] = classify(prog)
    assert list(verify(prog, ranges).ranges) == ranges


@each_layout
def test_only_ghosts_that_lead_to_a_pgmap_dangle(layout: str) -> None:
    kernel = early(layout, taint=True)
    kernel.device_pages(0x44200, 0x44400, DANGLING)
    kernel.fill_pages(0x44400, 0x44600, 0xFF)
    (ghosts,) = verified(kernel).findings
    assert ghosts.count == 0x400
    assert ghosts.message.endswith(
        f"; {0x200} of {0x400} point to a pgmap that is not found in pgmap_array"
    )
