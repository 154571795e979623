# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Recall in RAM: whatever single word of a struct page is wrong must be found, at its PFN
and by its slug, and nothing else besides; and nothing is wrong with pages in use.
"""

from __future__ import annotations

import functools
import random
from collections import Counter

import pytest
from drgn import Program
from support.defects import Defect, Overlay, Spot
from support.fakekernel import LAYOUTS, FakeKernel, RamBuilder, busy_ram
from support.fakekernel.ram import COUNTS, LINK, LIST_POISON1
from support.kernels import ends_of_layouts
from support.ramdefects import KINDS, RamDefects

from drgn_zonedev.classification.classify import classify_snapshot
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.explanation.explain import explain
from drgn_zonedev.model import Case, PageCounts, Range
from drgn_zonedev.report import check
from drgn_zonedev.verification import rules
from drgn_zonedev.verification.ram_rules import RAM_RULES
from drgn_zonedev.verification.rule import Rule
from drgn_zonedev.verification.rules import RULES
from drgn_zonedev.verification.verify import verify_snapshot

# Three zones in two bits, one node.
WITHOUT_ZONE_DEVICE = "x86-64-6.19-no-zone-device"
SECTIONS = ((0x40000, 0x47FE0), (0x100000, 0x108000))


def spots(prog: Program, snapshot: Snapshot, ranges: list[Range]) -> set[Spot]:
    found = verify_snapshot(prog, snapshot, ranges).findings
    return {(f.slug, f.start_pfn, f.end_pfn) for f in found}


@pytest.mark.parametrize("layout", [*LAYOUTS, WITHOUT_ZONE_DEVICE])
def test_nothing_is_wrong_with_ram_in_use(layout: str) -> None:
    report = check(busy_ram(layout).program())
    assert report.findings == ()
    assert report.unjudged == ()
    assert report.coverage.by_case == {Case.ONLINE: PageCounts(verified=0x10000)}


@pytest.mark.parametrize("layout", [*LAYOUTS, WITHOUT_ZONE_DEVICE])
def test_each_defect_is_found_where_it_is(layout: str) -> None:
    prog, rng = busy_ram(layout).program(), random.Random(layout)
    make, overlay = RamDefects(prog, layout), Overlay(prog)
    snapshot = take_snapshot(prog)
    ranges = classify_snapshot(prog, snapshot)
    injected: Counter[str] = Counter()
    for (start, end), range_ in zip(SECTIONS, ranges):
        for kind, pages in make.spots(start, end, rng, 2).kinds.items():
            for pfn, order in pages:
                for defect in make.of(kind, pfn, order, rng):
                    with overlay.injected(defect):
                        found = spots(prog, snapshot, [range_])
                    assert found == defect.expected, f"{kind}: {defect.what}"
                    injected[kind] += 1
    assert set(injected) == set(KINDS)
    assert injected.total() >= 400
    assert spots(prog, snapshot, ranges) == set()


@ends_of_layouts
def test_part_of_ram_is_judged_like_the_whole(layout: str) -> None:
    prog, rng = busy_ram(layout).program(), random.Random(layout)
    make, overlay = RamDefects(prog, layout), Overlay(prog)
    for kind, pages in make.spots(*SECTIONS[0], rng, 1).kinds.items():
        for pfn, order in pages:
            for defect in make.of(kind, pfn, order, rng):
                with overlay.injected(defect):
                    (slug, wrong, _), *_ = defect.expected
                    here = check(prog, pfns=(wrong, wrong + 1)).findings
                    beside = check(prog, pfns=(wrong + 1, wrong + 9)).findings
                    page = explain(prog, wrong).findings
                assert [(f.slug, f.start_pfn) for f in here] == [(slug, wrong)], defect.what
                assert beside == ()
                assert [f.slug for f in page] == [slug]


@functools.cache
def machine(layout: str) -> tuple[Program, Overlay, list[Defect]]:
    """RAM in use, and some defects of pages of each kind."""
    prog, rng = busy_ram(layout).program(), random.Random(layout)
    make = RamDefects(prog, layout)
    kinds = make.spots(*SECTIONS[0], rng, 2).kinds.items()
    defects = [d for kind, pages in kinds for page in pages for d in make.of(kind, *page, rng)]
    return prog, Overlay(prog), defects


def is_missed(rule: Rule, layout: str) -> bool:
    """Whether one of the defects that a rule is about is passed over, or taken for another."""
    prog, overlay, defects = machine(layout)
    snapshot = take_snapshot(prog)
    range_ = classify_snapshot(prog, snapshot)[0]
    for defect in defects:
        ((slug, *_),) = defect.expected
        if slug == rule.finding:
            with overlay.injected(defect):
                if spots(prog, snapshot, [range_]) != defect.expected:
                    return True
    return False


@pytest.mark.parametrize("rule", RAM_RULES, ids=lambda rule: f"{rule.finding} {rule.areas[0].name}")
def test_without_a_rule_the_defects_it_is_about_are_missed(
    rule: Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In some kernels, a rule is about other words, or there is none.
    assert not is_missed(rule, "6.1")
    monkeypatch.setattr(rules, "RULES", tuple(r for r in RULES if r is not rule))
    assert is_missed(rule, "6.1") or is_missed(rule, "7.2")


def reserve_block(kernel: FakeKernel, start: int, order: int) -> RamBuilder:
    """What kimage_alloc_pages() makes of a block: only its first page has a reference."""
    ram = RamBuilder(kernel, "ZONE_DMA32", 0, random.Random(1))
    ram.reserved(start, 1 << order, references=0)
    kernel.poke_page_word(start, LINK, LIST_POISON1)
    kernel.poke_page_word(start, COUNTS, 1 << 32 | 0xFFFFFFFF)
    return ram


@ends_of_layouts
@pytest.mark.parametrize("order", [1, 2, 5])
def test_block_that_was_allocated_and_reserved_has_one_reference(layout: str, order: int) -> None:
    kernel = busy_ram(layout)
    reserve_block(kernel, 0x42000, order)
    assert check(kernel.program()).findings == ()


@ends_of_layouts
def test_reserved_page_behind_such_a_block_has_a_reference_of_its_own(layout: str) -> None:
    kernel = busy_ram(layout)
    ram = reserve_block(kernel, 0x42002, 1)
    ram.reserved(0x42004, 1, references=0)
    found = {(f.slug, f.start_pfn, f.end_pfn) for f in check(kernel.program()).findings}
    assert found == {("ram-page-refcount", 0x42004, 0x42005)}


@ends_of_layouts
def test_page_that_was_never_free_does_not_reserve_a_block(layout: str) -> None:
    kernel = busy_ram(layout)
    ram = RamBuilder(kernel, "ZONE_DMA32", 0, random.Random(1))
    ram.reserved(0x40011, 1, references=0)
    found = {(f.slug, f.start_pfn, f.end_pfn) for f in check(kernel.program()).findings}
    assert found == {("ram-page-refcount", 0x40011, 0x40012)}
