# SPDX-License-Identifier: LGPL-2.1-or-later

"""The memory behind struct pages: whether it is mapped, and can store them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import pytest
from drgn import FaultError, Program
from support.fakekernel import FakeKernel, collision
from support.kernels import each_layout
from support.memmapmachine import (
    BLOCK,
    BLOCK_END,
    DEVDAX,
    DEVDAX_END,
    FREE,
    FSDAX_END,
    HOLE,
    OFFLINE,
    OFFLINE_END,
    OTHER,
    OTHER_END,
    SECTION,
    MemmapMachine,
    Spot,
    TableDefect,
    inject,
    memmap_machine,
    table_defects,
)

from drgn_zonedev.classification.classify import classify_snapshot
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.consistency import vmemmap
from drgn_zonedev.consistency.claims import Scene
from drgn_zonedev.consistency.vmemmap import MemmapAudit, audit_memmap
from drgn_zonedev.explanation.explain import explain
from drgn_zonedev.findings import KINDS
from drgn_zonedev.model import Case, MemmapMemory, Severity
from drgn_zonedev.report import check
from drgn_zonedev.vmcore.pagetables import Mappings, page_mappings


def scene(prog: Program) -> Scene:
    snapshot = take_snapshot(prog)
    return Scene(prog, snapshot, classify_snapshot(prog, snapshot))


def spots(audit: MemmapAudit) -> set[Spot]:
    assert audit.unjudged == ()
    return {(f.slug, f.start_pfn, f.end_pfn) for f in audit.findings}


@each_layout
def test_it_says_which_memory_struct_pages_are_in(layout: str) -> None:
    machine = memmap_machine(layout)
    audit = audit_memmap(scene(machine.tables.program()))
    assert spots(audit) == set()
    small, huge = 4096, 2 << 20
    ram, altmap = MemmapMemory.RAM, MemmapMemory.ALTMAP
    block = MemmapMemory.BLOCK if machine.has_block else ram
    assert [(p.start_pfn, p.end_pfn, p.memory, p.page_size) for p in audit.parts] == [
        (0, 5 * SECTION, ram, huge),
        (5 * SECTION, FSDAX_END, altmap, huge),
        (FSDAX_END, 8 * SECTION, ram, huge),
        (DEVDAX, DEVDAX_END, ram, small),
        (OTHER, OTHER_END, altmap, small),
        (BLOCK, BLOCK_END, block, small),
        (OFFLINE, OFFLINE_END, ram, small),
    ]


def found_with(machine: MemmapMachine, of: Scene, defect: TableDefect) -> set[Spot]:
    mend = inject(machine, defect)
    try:
        return spots(audit_memmap(of))
    finally:
        mend()


def demand_all(layout: str, seed: str, count: int) -> Counter[str]:
    machine = memmap_machine(layout)
    of, injected = scene(machine.tables.program()), Counter[str]()
    for defect in table_defects(machine, random.Random(seed), count):
        assert found_with(machine, of, defect) == defect.expected, defect.what
        injected.update(slug for slug, *_ in defect.expected)
    assert spots(audit_memmap(of)) == set()
    return injected


SLUGS = {
    "vmemmap-unmapped",
    "vmemmap-astray",
    "vmemmap-free",
    "vmemmap-alias",
    "vmemmap-on-other-device",
    "vmemmap-top-entry",
}


@each_layout
def test_each_defect_of_page_tables_is_found_where_it_is(layout: str) -> None:
    assert set(demand_all(layout, layout, 2)) == SLUGS


@pytest.mark.long("a thousand defects; forty of each layout are in every run")
@each_layout
def test_a_thousand_defects_of_page_tables_are_found(layout: str) -> None:
    injected = demand_all(layout, f"long {layout}", 12)
    assert set(injected) == SLUGS
    assert injected.total() >= 200


def test_tables_of_tasks_are_not_judged_while_tasks_come_and_go() -> None:
    machine = memmap_machine("6.1")
    defect = next(
        d
        for d in table_defects(machine, random.Random(1), 2)
        if {slug for slug, *_ in d.expected} == {"vmemmap-top-entry"}
    )
    assert found_with(machine, scene(machine.tables.program()), defect) == defect.expected
    assert found_with(machine, scene(machine.tables.program(is_live=True)), defect) == set()


def test_check_says_so() -> None:
    machine = memmap_machine("6.1")
    prog = machine.tables.program()
    assert not [f for f in check(prog).findings if f.severity is Severity.ERROR]
    page = machine.tables.page(DEVDAX + 0x1000)
    machine.tables.enter(page, 1, 0)
    machine.kernel.unmap_memmap(DEVDAX + 0x1000, DEVDAX + 0x1040)
    report = check(prog)
    (error,) = (f for f in report.findings if f.severity is Severity.ERROR)
    span = (DEVDAX + 0x1000, DEVDAX + 0x1040)
    assert (error.slug, error.start_pfn, error.end_pfn) == ("vmemmap-unmapped", *span)
    parts = {(p.start_pfn, p.end_pfn) for p in report.memmap if p.memory is MemmapMemory.UNMAPPED}
    assert parts == {span}
    assert "vmemmap-unmapped" in {f.slug for f in explain(prog, span[0]).findings}
    assert "vmemmap-unmapped" not in {f.slug for f in explain(prog, span[1]).findings}
    here = check(prog, pfns=(span[0] + 5, span[0] + 6))
    assert [(p.start_pfn, p.end_pfn) for p in here.memmap] == [(span[0] + 5, span[0] + 6)]
    assert "vmemmap-unmapped" not in {f.slug for f in check(prog, only="ram").findings}


def test_page_tables_that_cannot_be_read_are_no_defect() -> None:
    machine = memmap_machine("6.1")
    prog = machine.tables.program()
    of = scene(prog)
    table = machine.tables.entry(machine.tables.page(DEVDAX), 2) >> 12
    prog.add_memory_segment(table << 12, 4096, _fault, True)
    audit = audit_memmap(of)
    assert spots(audit) == set()
    unknown = [p for p in audit.parts if p.memory is MemmapMemory.UNKNOWN]
    assert [(p.start_pfn, p.end_pfn) for p in unknown] == [(DEVDAX, DEVDAX + SECTION)]


def _fault(address: int, count: int, offset: int, physical: bool) -> bytes:
    raise FaultError("not in the dump", address)


def test_without_page_tables_nothing_is_said() -> None:
    audit = audit_memmap(scene(collision("6.1").program()))
    assert audit == MemmapAudit()


@pytest.mark.parametrize("order", [0, 3, 8, 10])
def test_all_of_a_free_block_is_free(order: int) -> None:
    machine = memmap_machine("6.12")
    start = 0x10000
    machine.kernel.free_block(start, order)
    of = scene(machine.tables.program())
    page = machine.tables.page(DEVDAX)
    for frame in (start - 1, start, start + (1 << order) - 1, start + (1 << order)):
        machine.tables.enter(page, 1, frame << 12 | 1)
        inside = start <= frame < start + (1 << order)
        expected = {("vmemmap-free", DEVDAX, DEVDAX + 64)} if inside else set()
        assert spots(audit_memmap(of)) == expected


def hotplugging(kernel: FakeKernel) -> None:
    lock = kernel.variables["mem_hotplug_lock"][1]
    kernel.poke_member("percpu_rw_semaphore", lock, "block.counter", 1)


def test_only_what_is_settled_must_be_mapped_during_a_hotplug() -> None:
    machine = memmap_machine("6.1")
    hotplugging(machine.kernel)
    of = scene(machine.tables.program())
    for pfn, slugs in ((OFFLINE, set()), (OTHER, set()), (DEVDAX, {"vmemmap-unmapped"})):
        page = machine.tables.page(pfn)
        before = machine.tables.entry(page, 1)
        machine.tables.enter(page, 1, 0)
        assert {slug for slug, *_ in spots(audit_memmap(of))} == slugs
        machine.tables.enter(page, 1, before)


def evidence(audit: MemmapAudit) -> Iterable[str]:
    return (f"{e.what} {e.note}" for f in audit.findings for e in f.evidence)


def test_evidence_says_whose_memory_it_is() -> None:
    machine = memmap_machine("6.1")
    of = scene(machine.tables.program())
    machine.tables.enter(machine.tables.page(DEVDAX), 1, OTHER + 0x300 << 12 | 1)
    (finding,) = audit_memmap(of).findings
    assert KINDS[finding.slug].severity is Severity.WARNING
    assert finding.evidence[0].value == OTHER + 0x300
    assert f"[{OTHER + 2:#x}, {OTHER + 0x400:#x}) metadata, pgmap" in finding.evidence[1].note
    machine.tables.enter(machine.tables.page(DEVDAX), 1, FREE << 12 | 1)
    assert any("[0x0, 0x24000) online" in text for text in evidence(audit_memmap(of)))


def test_damaged_list_of_page_tables_ends() -> None:
    machine = memmap_machine("6.1")
    of = scene(machine.tables.program())
    head = machine.kernel.variables["pgd_list"][1]
    machine.kernel.poke(head, (0xDEAD000000000100).to_bytes(8, "little"))
    audit = audit_memmap(of)
    assert audit.findings == ()
    machine.kernel.poke(head, (machine.kernel.page(HOLE) + 8).to_bytes(8, "little"))
    (unjudged,) = audit_memmap(of).unjudged
    assert "page tables of tasks" in unjudged.reason


# Five sections in RAM, one on fsdax, two of RAM behind it; and devdax, the other device, and both
# blocks: 512 pages of vmemmap each.
MEMMAP_PAGES = 512 * (8 + 2 + 1 + 2)


@pytest.mark.parametrize("wrong", [0, 1, -1, 512])
@pytest.mark.parametrize("at_boot", [0, 4096])
def test_counters_of_the_memmap(wrong: int, at_boot: int) -> None:
    machine = memmap_machine("6.12")
    machine.kernel.add_variable("nr_memmap_boot_pages", "atomic_long_t", at_boot)
    later = MEMMAP_PAGES - at_boot + wrong
    machine.kernel.add_variable("nr_memmap_pages", "atomic_long_t", later)
    audit = audit_memmap(scene(machine.tables.program()))
    assert [f.slug for f in audit.findings] == (["memmap-count"] if wrong else [])
    for finding in audit.findings:
        (fact,) = finding.evidence
        assert (fact.value, fact.expected) == (MEMMAP_PAGES + wrong, MEMMAP_PAGES)


def test_a_wrong_count_is_said_of_ram_wherever_that_begins() -> None:
    machine = memmap_machine("6.12")
    for name in ("nr_memmap_boot_pages", "nr_memmap_pages"):
        machine.kernel.add_variable(name, "atomic_long_t", MEMMAP_PAGES)
    of = scene(machine.tables.program())
    first, *others = of.ranges
    ranges = [replace(first, start_pfn=SECTION), *others]
    findings = audit_memmap(replace(of, ranges=ranges)).findings
    assert [f.case for f in findings if f.slug == "memmap-count"] == [Case.ONLINE]


def test_shared_pages_of_the_memmap_are_counted_once() -> None:
    machine = memmap_machine("6.12")
    # As hugetlb does: 2 MiB of RAM whose struct pages have one page, and 7 others again.
    first = machine.tables.page(0x30000)
    machine.tables.split(first)
    frame = machine.tables.entry(first, 1)
    for page in range(first + 1, first + 8):
        machine.tables.enter(page, 1, frame)
    machine.kernel.add_variable("nr_memmap_boot_pages", "atomic_long_t", 0)
    machine.kernel.add_variable("nr_memmap_pages", "atomic_long_t", MEMMAP_PAGES - 7)
    assert spots(audit_memmap(scene(machine.tables.program()))) == set()


def test_garbage_in_place_of_a_page_table_is_not_a_thousand_findings() -> None:
    machine = memmap_machine("6.1")
    of = scene(machine.tables.program())
    first = machine.tables.page(DEVDAX)
    for page in range(first, first + 512, 2):
        machine.tables.enter(page, 1, 0)
    (finding,) = audit_memmap(of).findings
    # The last page of the section is mapped.
    assert (finding.slug, finding.start_pfn, finding.end_pfn) == (
        "vmemmap-unmapped",
        DEVDAX,
        DEVDAX + SECTION - 64,
    )
    assert finding.count == SECTION // 2


def test_page_tables_of_many_ranges_are_read_together(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = memmap_machine("6.1")
    # Every other subsection of some RAM.
    for nr in (2, 3):
        machine.kernel.section(nr, online=True, early=True, subsections=range(0, 64, 2))
    of = scene(machine.tables.program())
    assert len([r for r in of.ranges if r.case is Case.ONLINE]) > 64
    asked: list[tuple[int, int]] = []

    def counted(prog: Program, first: int, end: int) -> Mappings | None:
        asked.append((first, end))
        return page_mappings(prog, first, end)

    monkeypatch.setattr(vmemmap, "page_mappings", counted)
    parts = audit_memmap(of).parts
    assert (parts[0].start_pfn, parts[0].end_pfn) == (0, 5 * SECTION)
    assert {part.memory for part in parts} == {
        MemmapMemory.RAM,
        MemmapMemory.ALTMAP,
        MemmapMemory.BLOCK,
    }
    # RAM, and the rest: all of it is within 16 GiB.
    assert len(asked) == 2
