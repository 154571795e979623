# SPDX-License-Identifier: LGPL-2.1-or-later

"""RAM that boot has not initialised yet, and RAM that stores struct pages: case and evidence."""

from __future__ import annotations

import numpy as np
import pytest
from drgn import Program
from support.fakekernel import FakeKernel
from support.kernels import each_layout

from drgn_zonedev.classification import ram_evidence
from drgn_zonedev.classification.classify import classify
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.explanation.explain import explain
from drgn_zonedev.model import Case, Finding, Range
from drgn_zonedev.pfn_walkers.memory import unpromised_memory
from drgn_zonedev.report import check

PAGES, HEAD = 0x8000, 512
ULONG_MAX = (1 << 64) - 1
# Boot RAM of two nodes; the highest zone of the first one begins at 0x1000.
ENDS = (0x20000, 0x40000)

Cut = tuple[int, int, str]


def cut(kernel: FakeKernel) -> list[Cut]:
    return [(r.start_pfn, r.end_pfn, r.case.value) for r in classify(kernel.program())]


def at(prog: Program, pfn: int) -> Range:
    (found,) = (r for r in classify(prog) if r.start_pfn <= pfn < r.end_pfn)
    return found


# Deferred initialisation.


def booting(
    layout: str, marks: tuple[int, int], *, undone: int = 0, enabled: int = 1
) -> FakeKernel:
    """Before memory_dev_init(): nothing has made memory blocks yet."""
    kernel = FakeKernel(layout)
    kernel.set_variable("sections_per_block", 0)
    kernel.sections(0, ENDS[1], online=True, early=True)
    kernel.ram_pages(0, ENDS[0])
    kernel.ram_pages(*ENDS, nid=1)
    for nid, mark in enumerate(marks):
        kernel.poke_member("pglist_data", kernel.nodes[nid], "first_deferred_pfn", mark)
    kernel.set_variable("pgdat_init_n_undone", undone)
    key = kernel.variables["deferred_pages"][1]
    kernel.poke_member("static_key_true", key, "key.enabled.counter", enabled)
    kernel.set_variable("max_pfn", ENDS[1])
    return kernel


@each_layout
@pytest.mark.parametrize(
    ("marks", "undone", "expected"),
    [
        (
            (0x10000, 0x28000),
            0,
            [
                (0, 0x10000, "online"),
                (0x10000, 0x20000, "initializing"),
                (0x20000, 0x28000, "online"),
                (0x28000, 0x40000, "initializing"),
            ],
        ),
        (
            (ULONG_MAX, 0x28000),
            2,
            [
                (0, 0x1000, "online"),
                (0x1000, 0x20000, "initializing"),
                (0x20000, 0x28000, "online"),
                (0x28000, 0x40000, "initializing"),
            ],
        ),
        (
            (ULONG_MAX, ULONG_MAX),
            1,
            [(0, 0x1000, "online"), (0x1000, 0x40000, "initializing")],
        ),
        ((ULONG_MAX, ULONG_MAX), 0, [(0, 0x40000, "online")]),
    ],
)
def test_ram_that_boot_has_not_initialised_is_case_4(
    layout: str, marks: tuple[int, int], undone: int, expected: list[Cut]
) -> None:
    assert cut(booting(layout, marks, undone=undone)) == expected


@each_layout
def test_marks_mean_nothing_once_the_key_is_disabled(layout: str) -> None:
    kernel = booting(layout, (0x10000, 0), undone=7, enabled=0)
    assert cut(kernel) == [(0, 0x40000, "online")]


@each_layout
def test_memory_blocks_are_made_when_all_is_initialised(layout: str) -> None:
    kernel = booting(layout, (0x10000, 0x28000), undone=2)
    kernel.set_variable("sections_per_block", 1)
    kernel.memory_block(0)
    assert cut(kernel) == [(0, 0x40000, "online")]


@each_layout
def test_memory_without_a_zone_is_left_to_the_zones(layout: str) -> None:
    # The hole behind the last page of RAM is initialised at once.
    kernel = booting(layout, (0x10000, 0x28000))
    for struct, address, member in (
        ("zone", kernel.zone(1, 1), "spanned_pages"),
        ("pglist_data", kernel.nodes[1], "node_spanned_pages"),
    ):
        kernel.poke_member(struct, address, member, 0x1FFE0)
    assert cut(kernel)[-2:] == [(0x28000, 0x3FFE0, "initializing"), (0x3FFE0, 0x40000, "online")]


@each_layout
@pytest.mark.parametrize("running", [False, True])
def test_evidence_of_ram_that_is_not_initialised(layout: str, running: bool) -> None:
    kernel = booting(layout, (ULONG_MAX if running else 0x10000, 0x28000), undone=2)
    prog = kernel.program()
    range_ = at(prog, 0x10000)
    assert ("deferred_init_memmap() is" in range_.reason) == running
    facts = {fact.what: fact for fact in range_.evidence}
    mark = facts["NODE_DATA(0)->first_deferred_pfn"]
    offset, _ = kernel.layout.locate("pglist_data", "first_deferred_pfn")
    assert mark.address == kernel.nodes[0] + offset
    assert mark.value == (ULONG_MAX if running else 0x10000)
    assert facts["deferred_pages"].address == kernel.variables["deferred_pages"][1]
    undone = facts.get("pgdat_init_n_undone")
    assert (undone and undone.value) == (2 if running else None)
    assert "first_deferred_pfn" not in str(at(prog, 0x20000).evidence)


@each_layout
def test_check_reports_it_and_reads_none_of_it(layout: str) -> None:
    kernel = booting(layout, (0x10000, 0x28000))
    kernel.fill_pages(0x10000, 0x20000, 0xFF)
    report = check(kernel.program())
    spots = [(f.slug, f.start_pfn, f.end_pfn) for f in report.findings]
    assert spots == [("case4-deferred", 0x10000, 0x20000), ("case4-deferred", 0x28000, 0x40000)]
    assert report.unjudged == ()
    assert Case.INITIALIZING not in report.coverage.by_case


def test_what_is_missing_is_said_once() -> None:
    kernel = booting("6.12", (0x10000, 0x28000))
    report = check(kernel.program(hidden=frozenset(["deferred_pages"])))
    assert [u.missing for u in report.unjudged] == ["deferred_pages"]
    assert {r.case for r in report.ranges} == {Case.ONLINE}


@each_layout
def test_page_that_is_not_initialised_is_explained(layout: str) -> None:
    found = explain(booting(layout, (0x10000, 0x28000)).program(), 0x10000)
    assert found.verdict.startswith("Case 4: RAM whose struct page boot has not initialised yet.")
    assert [f.slug for f in found.findings] == ["case4-deferred"]
    assert [
        border.why for border in (found.neighbours.below, found.neighbours.above) if border
    ] == [
        ("first_deferred_pfn of node 0",),
        ("the zone of node 0 that boot initialises in parts ends",),
    ]
    assert "kpageflags" in {walker.name for walker in found.walkers}


# Memory blocks that store their own memmap.

ONLINE, OFFLINE = 0x40, 0x41


def with_blocks(layout: str, length: int = HEAD) -> FakeKernel:
    kernel = FakeKernel(layout)
    kernel.section(0, online=True, early=True)
    kernel.ram_pages(0, PAGES)
    kernel.memory_block(0)
    first, end = ONLINE * PAGES, (OFFLINE + 1) * PAGES
    kernel.section(ONLINE, online=True)
    kernel.section(OFFLINE)
    kernel.ram_pages(first, first + PAGES, "ZONE_NORMAL")
    kernel.system_ram(first + PAGES, end)
    kernel.memory_block(ONLINE, zone="ZONE_NORMAL", memmap_pages=length)
    kernel.memory_block(OFFLINE, "MEM_OFFLINE", memmap_pages=length)
    kernel.map_memmap(first + PAGES, end)
    kernel.set_variable("max_pfn", end)
    return kernel


each_that_stores = pytest.mark.parametrize("layout", ["6.1", "6.12", "7.2"])
START = ONLINE * PAGES


@each_that_stores
def test_head_of_a_block_is_metadata_of_ram(layout: str) -> None:
    kernel = with_blocks(layout)
    assert kernel.stores_block_memmaps
    assert cut(kernel)[1:] == [
        (START, START + HEAD, "metadata"),
        (START + HEAD, START + PAGES, "online"),
        (START + PAGES, START + PAGES + HEAD, "metadata"),
        (START + PAGES + HEAD, START + 2 * PAGES, "offline"),
    ]
    assert all(r.pgmap is None for r in classify(kernel.program()))


def test_5_10_has_no_such_blocks() -> None:
    kernel = with_blocks("5.10")
    assert not kernel.stores_block_memmaps
    assert [case for _, _, case in cut(kernel)] == ["online", "online", "offline"]


@each_that_stores
@pytest.mark.parametrize("length", [PAGES, 1 << 40, ULONG_MAX])
def test_block_that_would_have_nothing_else_is_damaged(layout: str, length: int) -> None:
    assert [case for _, _, case in cut(with_blocks(layout, length))] == [
        "online",
        "online",
        "offline",
    ]


@each_that_stores
def test_evidence_of_the_memmap_of_a_block(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = with_blocks(layout)
    monkeypatch.setattr(ram_evidence, "page_frames", lambda prog, first, end: np.array([START + 7]))
    length, frame = at(kernel.program(), START).evidence[-2:]
    member = "nr_vmemmap_pages" if layout == "6.1" else "altmap->free"
    assert (length.what, length.value) == (f"memory_blocks[{ONLINE}]->{member}", HEAD)
    assert (frame.address, frame.value) == (kernel.page(START), START + 7)
    assert at(kernel.program(), START + HEAD).evidence[-1].what == f"memory_blocks[{ONLINE}]"


def findings(kernel: FakeKernel) -> tuple[Finding, ...]:
    report = check(kernel.program())
    assert report.unjudged == ()
    return report.findings


@each_that_stores
def test_healthy_blocks(layout: str) -> None:
    kernel = with_blocks(layout)
    assert findings(kernel) == ()
    assert check(kernel.program()).coverage.by_case[Case.METADATA].verified == HEAD


def poke_buddy(kernel: FakeKernel, pfn: int) -> None:
    # PGTY_buddy, or all bits of page_type but PG_buddy.
    typed = kernel.layout.has_constant("PGTY_buddy")
    # No zone counts it: it is not free memory.
    kernel.set_nr_free(0, 0, 0, 0)
    kernel.poke_page_word(pfn, 6, 0xF0000000 if typed else 0xFFFFFF7F)


@each_that_stores
@pytest.mark.parametrize("pfns", [(START,), (START + HEAD - 1,), (START + 5, START + 6, START + 9)])
def test_free_page_that_stores_struct_pages(layout: str, pfns: tuple[int, ...]) -> None:
    kernel = with_blocks(layout)
    for pfn in pfns:
        poke_buddy(kernel, pfn)
    (finding,) = findings(kernel)
    assert finding.slug == "block-memmap-free"
    assert (finding.start_pfn, finding.end_pfn) == (pfns[0], pfns[-1] + 1)
    assert finding.count == len(pfns)
    assert finding.evidence[0].address == kernel.page(pfns[0]) + 48


@each_that_stores
def test_free_pages_of_the_rest_and_of_an_offline_block_are_none_of_them(layout: str) -> None:
    kernel = with_blocks(layout)
    poke_buddy(kernel, START + PAGES)
    assert findings(kernel) == ()


@each_that_stores
def test_page_that_stores_struct_pages_is_explained(layout: str) -> None:
    kernel = with_blocks(layout)
    found = explain(kernel.program(), START)
    assert found.verdict.startswith("RAM that stores the memmap of its memory block")
    assert found.findings == ()
    assert [
        border.why for border in (found.neighbours.below, found.neighbours.above) if border
    ] == [
        (f"the memmap of memory block {ONLINE} in its head starts", "section 63 is not present"),
        (f"the memmap of memory block {ONLINE} in its head ends",),
    ]
    poke_buddy(kernel, START)
    assert "block-memmap-free" in explain(kernel.program(), START).verdict
    assert "which is offline" in explain(kernel.program(), START + PAGES).verdict


@each_that_stores
def test_walkers_meet_the_head_of_an_offline_block_only(layout: str) -> None:
    prog = with_blocks(layout).program()
    memory = unpromised_memory(prog, take_snapshot(prog), classify(prog), ())
    starts = {int(start) for start in memory.runs.start}
    assert START not in starts
    assert START + PAGES in starts


@pytest.mark.parametrize("layout", ["6.12", "7.2"])
def test_altmap_that_cannot_be_read(layout: str) -> None:
    kernel = with_blocks(layout)
    (block,) = (
        fact.value
        for fact in at(kernel.program(), START).evidence
        if fact.what == f"memory_blocks[{ONLINE}]"
    )
    assert block is not None
    kernel.poke_member("memory_block", block, "altmap", 0x7FFC12345678)
    report = check(kernel.program())
    (unjudged,) = report.unjudged
    assert (unjudged.start_pfn, unjudged.end_pfn) == (START, START + PAGES)
    assert report.findings == ()
