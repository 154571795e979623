# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import random
from pathlib import Path

import pytest
from support.defects import Defect, Injector, Overlay
from support.fakekernel import FakeKernel, busy_ram, collision, in_flight, partial
from support.fakekernel.ram import PLACES
from support.kernels import each_layout, ends_of_layouts, since_compounds
from support.littlemachine import DATA, DEVDAX, FSDAX, OWN, areas, little_machine, places

from drgn_zonedev.explanation.explain import explain
from drgn_zonedev.export.store import StoredDump
from drgn_zonedev.model import Case, Severity
from drgn_zonedev.report import check

VMCORES = Path(__file__).parents[2] / "vmcores"

PAGE_SHIFT = 12


def _answers(layout: str, pfn: int) -> dict[str, object]:
    explanation = explain(collision(layout).program(), pfn)
    return {p.name: p.answer for p in explanation.predicates}


@each_layout
@pytest.mark.parametrize(
    ("pfn", "case"),
    [
        (0x23FFF, Case.ONLINE),
        (0x24000, Case.RESERVED),
        (0x24001, Case.RESERVED),
        (0x24002, Case.METADATA),
        (0x243FF, Case.METADATA),
        (0x24400, Case.DEVICE),
        (0x2FFFF, Case.DEVICE),
    ],
)
def test_case_changes_at_the_exact_pfn(layout: str, pfn: int, case: Case) -> None:
    explanation = explain(collision(layout).program(), pfn)
    assert explanation.range is not None
    assert explanation.range.case is case
    assert explanation.physical_address == pfn << PAGE_SHIFT


@each_layout
def test_reserved_page_of_a_collision_is_online_only_before_the_taint(layout: str) -> None:
    answers = _answers(layout, 0x24000)
    assert answers["pfn_valid"] is True
    assert answers["pgmap_pfn_valid"] is False
    # 5.10 asks the section only, so it hands out the garbage.
    assert (answers["pfn_to_online_page"] == "NULL") is (layout != "5.10")


def test_part_of_a_hole_is_the_one_that_the_check_finds() -> None:
    kernel = FakeKernel("5.10")
    kernel.section(8, online=True, early=True, subsections=range(32))
    kernel.ram_pages(0x40000, 0x44000)
    kernel.hole_pages(0x44000, 0x48000)
    kernel.device_pages(0x44200, 0x48000, 0xFFFF888123450000)
    kernel.grow_zone("ZONE_DEVICE", 0x44200, 0x48000)
    prog = kernel.program()
    checked = {(r.start_pfn, r.end_pfn, r.case) for r in check(prog).ranges}
    for pfn in (0x43FFF, 0x44000, 0x441FF, 0x44200, 0x47FFF):
        explanation = explain(prog, pfn)
        here = explanation.range
        assert here is not None
        assert (here.start_pfn, here.end_pfn, here.case) in checked, hex(pfn)
        assert here.start_pfn <= pfn < here.end_pfn
    border = explain(prog, 0x44200).neighbours.below
    assert border is not None
    assert border.beyond is not None
    assert (border.pfn, border.beyond.case) == (0x44200, Case.PARTIAL)


def test_words_are_those_in_memory() -> None:
    kernel = collision("6.1")
    page = explain(kernel.program(), 0x24400).page
    assert page is not None
    assert page.words == tuple(kernel.page_word(0x24400, i) for i in range(8))
    assert page.zone == "ZONE_DEVICE"
    assert page.flags == ("PG_reserved",)


def test_evidence_is_about_the_pfn_not_about_the_start_of_its_range() -> None:
    # PFN 0x2c000 is in the middle of section 5; its range starts in section 4.
    explanation = explain(collision("6.1").program(), 0x2C000)
    assert explanation.range is not None
    facts = {e.what: e.note for e in explanation.range.evidence}
    assert "mem_section[5].section_mem_map" in facts
    assert "mem_section[4].section_mem_map" not in facts
    assert facts["mem_section[5].usage->subsection_map"] == "bit 32 is set"


def test_page_in_flight_is_not_held_against_the_kernel() -> None:
    explanation = explain(in_flight("6.1").program(), 0x24400)
    assert explanation.range is not None
    assert explanation.range.case is Case.INITIALIZING
    # It is a hazard, and no defect.
    assert [(f.slug, f.severity) for f in explanation.findings] == [
        ("case4-initializing", Severity.WARNING)
    ]
    assert "Case 4" in explanation.verdict


def test_defect_shows_in_the_explanation_of_its_pfn_only() -> None:
    kernel = collision("6.1")
    kernel.poke_page_word(0x25000, 1, 0xFFFF888000000000)
    prog = kernel.program()
    (finding,) = explain(prog, 0x25000).findings
    assert (finding.slug, finding.start_pfn, finding.end_pfn) == (
        "device-page-pgmap",
        0x25000,
        0x25001,
    )
    assert explain(prog, 0x25001).findings == ()


def test_tail_is_compared_with_the_head_of_its_own_compound() -> None:
    # 2 MiB pages from 0x100600 on: 0x100801 is tail 1 of the one at 0x100800.
    kernel = partial("6.1")
    assert explain(kernel.program(), 0x100801).findings == ()
    kernel.poke_page_word(0x100801, 1, kernel.page(0x100600) | 1)
    (finding,) = explain(kernel.program(), 0x100801).findings
    assert finding.slug == "device-tail-link"
    assert finding.evidence[0].expected == kernel.page(0x100800) | 1


def test_unmapped_struct_page_is_said_to_be_unmapped() -> None:
    explanation = explain(partial("6.1").program(), 0x114000)
    assert explanation.page is None
    assert explanation.page_error
    assert "reading it faults" in explanation.verdict


def test_pfn_without_memory_is_said_to_have_none() -> None:
    explanation = explain(collision("6.1").program(), 0x80000)
    assert explanation.range is None
    assert "No memory" in explanation.verdict


@pytest.mark.parametrize(
    ("pfn", "holds"),
    [
        (0x24002, "a device page without a pgmap, linked to itself"),
        (0x24400, "a device page of a pgmap that is not found in pgmap_array"),
    ],
)
def test_ghosts_are_what_they_hold(pfn: int, holds: str) -> None:
    with StoredDump(VMCORES / "5.10-ghost").program() as prog:
        verdict = explain(prog, pfn).verdict
    assert verdict.startswith("Left behind by a device that is gone. ")
    assert verdict.endswith(f" It holds: {holds}.")
    assert "freed" not in verdict


@ends_of_layouts
def test_verdict_vouches_for_no_page_that_breaks_a_promise(layout: str) -> None:
    prog, rng = little_machine(layout).program(), random.Random(layout)
    injector, overlay = Injector(prog, layout), Overlay(prog)
    for pages in areas(layout):
        for pfn in places(pages, rng, 1):
            for defect in injector.page_defects(pages, pfn, rng):
                ((slug, *_),) = defect.expected
                with overlay.injected(defect):
                    explanation = explain(prog, pfn)
                errors = [f for f in explanation.findings if f.severity is Severity.ERROR]
                assert [f.slug for f in errors] == [slug]
                assert slug in explanation.verdict
                assert "initialised" not in explanation.verdict
            assert "initialised" in explain(prog, pfn).verdict


@since_compounds
def test_verdict_names_what_is_wrong_with_the_section(layout: str) -> None:
    prog = little_machine(layout).program()
    change = Injector(prog, layout).section_word(OWN, clear=16)
    with Overlay(prog).injected(Defect("no taint", (change,), frozenset())):
        verdict = explain(prog, DEVDAX).verdict
        assert "section-taint-missing" in verdict
        assert "initialised" not in verdict
        assert "section-taint-missing" not in explain(prog, DATA).verdict


@each_layout
@pytest.mark.parametrize(
    ("pfn", "begin"),
    [
        (0x40000, "RAM, online. A walker may read the struct page."),
        (FSDAX + 2, "Set aside for the memmap of a device. The struct page is initialised, but "),
        (DATA, "Case 2: device memory. The struct page is promised to be initialised."),
        (DEVDAX + 1, "Case 2: device memory. The struct page is promised to be initialised."),
    ],
)
def test_verdict_of_healthy_pages(layout: str, pfn: int, begin: str) -> None:
    assert explain(little_machine(layout).program(), pfn).verdict.startswith(begin)


# Behind the last page that a zone spans.
HOLE, ZONE_SHIFT = 0x3FFE0, 51


def _misplaced(layout: str, pfn: int) -> FakeKernel:
    kernel = collision(layout)
    flags = kernel.page_word(pfn, 0) & ~(7 << ZONE_SHIFT)
    kernel.poke_page_word(pfn, 0, flags | 5 << ZONE_SHIFT)
    return kernel


@each_layout
@pytest.mark.parametrize("pfn", [HOLE, 0x31000])
def test_verdict_vouches_for_no_page_whose_zone_does_not_exist(layout: str, pfn: int) -> None:
    explanation = explain(_misplaced(layout, pfn).program(), pfn)
    verdict = explanation.verdict
    assert verdict.startswith("RAM, online, but ")
    assert "A walker may read" not in verdict
    assert "5, not a zone" in verdict
    # NULL per-CPU pagesets lead to no memory in the synthetic kernel; 5.10 does not touch them.
    dying = {w.name for w in explanation.walkers if w.dies}
    assert dying == (set() if layout == "5.10" else {"memory-failure", "soft-offline"})
    assert all(name in verdict for name in dying)
    assert "A walker may read" in explain(collision(layout).program(), pfn).verdict


@each_layout
@pytest.mark.parametrize("pfn", [0x31000, 0x25000])
def test_verdict_says_that_memory_is_poisoned(layout: str, pfn: int) -> None:
    kernel = collision(layout)
    assert "poisoned" not in explain(kernel.program(), pfn).verdict
    bit = 1 << kernel.layout.constant("PG_hwpoison")
    kernel.poke_page_word(pfn, 0, kernel.page_word(pfn, 0) | bit)
    assert "poisoned (PG_hwpoison)" in explain(kernel.program(), pfn).verdict


def test_verdict_of_an_offline_page_does_not_vouch_for_its_memory() -> None:
    kernel = collision("6.12")
    # PGTY_offline
    kernel.poke_page_word(0x31000, 6, 1 << 32 | 0xF1 << 24)
    verdict = explain(kernel.program(), 0x31000).verdict
    assert "PageOffline" in verdict
    # What a tail has there is no type.
    kernel.poke_page_word(0x31000, 1, kernel.compound_link(0x30FFF, 1))
    assert "PageOffline" not in explain(kernel.program(), 0x31000).verdict


def test_verdict_vouches_for_no_struct_page_of_ram_that_cannot_be_read() -> None:
    # An export without the struct pages of RAM.
    with StoredDump(VMCORES / "7.3-empty").program() as prog:
        verdict = explain(prog, 0x3FFDF).verdict
    assert verdict == "RAM, online. The struct page is not readable here."


@pytest.mark.parametrize("layout", ["6.1", "7.2"])
def test_a_page_that_is_used_leads_to_its_users(layout: str) -> None:
    kernel = collision(layout)
    pfn = 0x24400
    assert "zonedev pins" not in explain(kernel.program(), pfn).verdict
    counts = kernel.page_word(pfn, 6)
    kernel.poke_page_word(pfn, 6, counts + (1 << 32))
    assert explain(kernel.program(), pfn).verdict.endswith(
        f"It is used; see: zonedev pins {pfn:#x}"
    )


@each_layout
def test_tail_is_not_vouched_for_if_its_head_is_damaged(layout: str) -> None:
    kernel = busy_ram(layout)
    head = 0x40000 + PLACES["folio"]
    healthy = explain(kernel.program(), head + 5).verdict
    assert healthy == "RAM, online. A walker may read the struct page."
    for word in range(8):
        kernel.poke_page_word(head, word, (1 << 64) - 1)
    verdict = explain(kernel.program(), head + 5).verdict
    assert "its compound page breaks the kernel's promise: ram-page-uninitialized." in verdict
    assert "may read" not in verdict
