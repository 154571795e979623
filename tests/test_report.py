# SPDX-License-Identifier: LGPL-2.1-or-later

"""The whole answer: findings in order, collisions, facts, and kernels that move."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from drgn import FaultError
from support.defects import Defect, Injector, Overlay
from support.fakekernel import VMEMMAP, FakeKernel, busy_ram, collision, in_flight, partial
from support.kernels import each_layout, since_taint
from support.littlemachine import OWN, SHARED, little_machine

from drgn_zonedev.classification.classify import classify
from drgn_zonedev.kernel.memremap import find_dev_pagemap
from drgn_zonedev.model import Case, Coverage, Memmap, Report, Severity
from drgn_zonedev.report import check

_OF_DEVICES = (Case.DEVICE, Case.METADATA, Case.RESERVED, Case.INITIALIZING)


def slugs(report: Report) -> list[str]:
    return [f.slug for f in report.findings]


# Collisions.


@each_layout
@pytest.mark.parametrize("scene", [collision, in_flight])
def test_collision_is_untainted_before_there_is_a_taint(
    layout: str, scene: Callable[[str], FakeKernel]
) -> None:
    kernel = scene(layout)
    prog = kernel.program()
    found = [f for f in check(prog).findings if f.slug == "collision-untainted"]
    if layout != "5.10":
        assert found == []
        return
    (finding,) = found
    # The device begins in section 4, which ends at 0x28000.
    assert (finding.start_pfn, finding.end_pfn, finding.count) == (0x24000, 0x28000, 0x4000)
    assert finding.severity is Severity.WARNING
    assert finding.pgmap == find_dev_pagemap(prog, 0x24000).value_()
    (fact,) = finding.evidence
    assert fact.address is not None
    assert fact.value == prog.read_u64(fact.address) == VMEMMAP | 0xF


@each_layout
def test_section_that_should_be_tainted_but_is_not(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(7, online=True, early=True, subsections=range(32, 64))
    kernel.section(8)
    kernel.section(9, online=True, early=True, taint=layout != "5.10")
    pgmap = kernel.pgmap((0x3C000, 0x48800))
    kernel.device_pages(0x3C000, 0x48800, pgmap)
    slugs_of_taint = ("collision-untainted", "section-taint-missing")
    found = [f for f in check(kernel.program()).findings if f.slug in slugs_of_taint]
    if layout == "5.10":
        # There is no taint to be missed.
        assert {f.slug for f in found} == {"collision-untainted"}
        assert [(f.start_pfn, f.end_pfn) for f in found] == [(0x3C000, 0x40000), (0x48000, 0x48800)]
    else:
        assert [(f.slug, f.start_pfn, f.end_pfn) for f in found] == [
            ("section-taint-missing", 0x3C000, 0x40000)
        ]


@each_layout
def test_device_in_sections_of_its_own_is_no_collision(layout: str) -> None:
    assert "collision-untainted" not in slugs(check(partial(layout).program()))


# The report as a whole.


@each_layout
def test_worst_findings_come_first_and_then_by_pfn(layout: str) -> None:
    kernel = partial(layout)
    for pfn in (0x113FFF, 0x110001, 0x100700):
        kernel.fill_pages(pfn, pfn + 1, 0)
    report = check(kernel.program())
    assert [(f.severity.value, f.start_pfn) for f in report.findings] == [
        ("error", 0x100700),
        ("error", 0x110001),
        ("error", 0x113FFF),
        ("warning", 0x100000),
        ("warning", 0x114000),
    ]


@each_layout
@pytest.mark.parametrize("scene", [collision, in_flight, partial])
def test_report_holds_ranges_pgmaps_and_coverage(
    layout: str, scene: Callable[[str], FakeKernel]
) -> None:
    prog = scene(layout).program()
    seen: list[tuple[int, int]] = []
    report = check(prog, progress=lambda done, total: seen.append((done, total)))
    assert list(report.ranges) == classify(prog)
    (pgmap,) = report.pgmaps
    (range_,) = pgmap.ranges
    pages = sum(r.pages for r in report.ranges if r.memmap is not Memmap.UNMAPPED)
    coverage = report.coverage
    assert dataclasses.replace(coverage, by_case={}) == Coverage(pages, 0, 64 * pages)
    others = sum(n.verified for case, n in coverage.by_case.items() if case in _OF_DEVICES)
    assert others >= range_.end_pfn - range_.start_pfn
    assert sum(done for done, _ in seen) == 64 * pages
    assert {total for _, total in seen} == {64 * pages}
    assert report.unjudged == ()


def test_what_the_snapshot_could_not_judge_is_in_the_report() -> None:
    kernel = FakeKernel()
    kernel.section(8)
    pgmap = kernel.pgmap((0x40000, 0x48000))
    kernel.hide(pgmap, kernel.layout.structs["dev_pagemap"].size)
    report = check(kernel.program())
    assert report.findings == ()
    assert {(u.start_pfn, u.end_pfn) for u in report.unjudged} == {(0x40000, 0x48000)}


def test_machine_without_devices_has_nothing_to_report() -> None:
    report = check(busy_ram("6.1").program())
    assert (report.findings, report.unjudged, report.pgmaps) == ((), (), ())
    assert {r.case for r in report.ranges} == {Case.ONLINE}


# Running kernels: a pgmap that changes while its struct pages are verified.


class Moving:
    """Gives the pgmap another owner each time that verification reaches a page."""

    def __init__(self, kernel: FakeKernel, pgmap: int, pfn: int, until: int) -> None:
        self.kernel, self.pgmap, self.until = kernel, pgmap, until
        self.address = kernel.page(pfn)
        self.times = 0
        kernel.on_read = self.on_read

    def on_read(self, address: int, size: int) -> None:
        if address <= self.address < address + size and self.times < self.until:
            self.times += 1
            self.kernel.poke_member("dev_pagemap", self.pgmap, "owner", self.times)


def broken(layout: str) -> tuple[FakeKernel, int]:
    """Two devices, each with a zeroed struct page."""
    kernel = FakeKernel(layout)
    kernel.sections(0x40000, 0x50000)
    pgmaps = [kernel.pgmap((start, start + 0x8000)) for start in (0x40000, 0x48000)]
    for start, pgmap in zip((0x40000, 0x48000), pgmaps):
        kernel.device_pages(start, start + 0x8000, pgmap)
        kernel.fill_pages(start + 7, start + 8, 0)
    return kernel, pgmaps[0]


UNINITIALIZED = "device-page-uninitialized"


@each_layout
def test_errors_of_a_pgmap_that_keeps_changing_are_unjudged(layout: str) -> None:
    kernel, pgmap = broken(layout)
    Moving(kernel, pgmap, 0x40000, 1 << 30)
    report = check(kernel.program(is_live=True))
    assert [(f.slug, f.start_pfn) for f in report.findings] == [(UNINITIALIZED, 0x48007)]
    (unjudged,) = report.unjudged
    assert (unjudged.start_pfn, unjudged.end_pfn) == (0x40007, 0x40008)
    assert UNINITIALIZED in unjudged.reason


@each_layout
def test_errors_of_a_pgmap_that_comes_to_rest_are_errors(layout: str) -> None:
    kernel, pgmap = broken(layout)
    Moving(kernel, pgmap, 0x40000, 1)
    report = check(kernel.program(is_live=True))
    assert [(f.slug, f.start_pfn) for f in report.findings] == [
        (UNINITIALIZED, 0x40007),
        (UNINITIALIZED, 0x48007),
    ]
    assert report.unjudged == ()


@each_layout
def test_device_that_arrives_during_the_verification_is_judged_afresh(layout: str) -> None:
    # What looks wrong at first is another pgmap's by the second try.
    kernel, _ = broken(layout)
    page = kernel.page(0x40000)
    done: list[int] = []

    def arrive(address: int, size: int) -> None:
        if address <= page < address + size and not done:
            done.append(kernel.pgmap((0x40000, 0x48000)))
            kernel.device_pages(0x40000, 0x48000, done[0])

    kernel.on_read = arrive
    report = check(kernel.program(is_live=True))
    assert [(f.slug, f.start_pfn) for f in report.findings] == [(UNINITIALIZED, 0x48007)]
    assert {p.address for p in report.pgmaps} >= set(done)


@each_layout
def test_dump_is_never_retried(layout: str) -> None:
    kernel, pgmap = broken(layout)
    moving = Moving(kernel, pgmap, 0x40000, 1 << 30)
    assert len(check(kernel.program()).findings) == 2
    assert moving.times == 1


# Running kernels: what changes beside the pgmaps, and what is only wrong for a moment.


def when_read(kernel: FakeKernel, pfn: int, action: Callable[[int], object]) -> None:
    """Do something each time that verification reaches a page."""
    page, times = kernel.page(pfn), 0

    def on_read(address: int, size: int) -> None:
        nonlocal times
        if address <= page < address + size:
            times += 1
            action(times)

    kernel.on_read = on_read


@each_layout
def test_errors_in_a_section_that_keeps_changing_are_unjudged(layout: str) -> None:
    kernel, _ = broken(layout)
    when_read(kernel, 0x40000, lambda n: kernel.section(8, early=bool(n % 2)))
    report = check(kernel.program(is_live=True))
    assert UNINITIALIZED in {f.slug for f in report.findings if f.start_pfn == 0x48007}
    assert all(f.start_pfn >= 0x48000 for f in report.findings if f.severity is Severity.ERROR)
    assert (0x40007, 0x40008) in {(u.start_pfn, u.end_pfn) for u in report.unjudged}
    # The first look is no retry.
    assert report.coverage.retries == 2
    assert report.coverage.torn >= 1


def mended(layout: str, *, events: bool) -> FakeKernel:
    """A struct page that is wrong only until it has been looked at, and read again, once."""
    kernel = partial(layout)
    if events:
        kernel.add_variable("uevent_seqnum", "unsigned long")
    words = kernel.memory.read(kernel.page(0x110001), 64)
    kernel.fill_pages(0x110001, 0x110002, 0)

    # A look, and three times again.
    def mend(n: int) -> None:
        if events:
            kernel.set_variable("uevent_seqnum", n)
        if n == 5:
            kernel.poke(kernel.page(0x110001), words)

    when_read(kernel, 0x110001, mend)
    return kernel


@each_layout
@pytest.mark.parametrize("events", [False, True])
def test_error_that_does_not_last_is_none(layout: str, events: bool) -> None:
    # As of a device that was unbound and bound while its pages were read: nothing else differs.
    report = check(mended(layout, events=events).program(is_live=True))
    assert [f for f in report.findings if f.severity is Severity.ERROR] == []
    assert report.coverage.retries == 1
    assert report.coverage.torn == 0


@each_layout
def test_error_of_a_quiet_kernel_is_believed_at_once(layout: str) -> None:
    kernel, _ = broken(layout)
    kernel.add_variable("uevent_seqnum", "unsigned long", 7)
    report = check(kernel.program(is_live=True))
    assert [f.start_pfn for f in report.findings] == [0x40007, 0x48007]
    assert report.coverage.retries == 0


@each_layout
def test_error_that_lasts_is_one_whatever_else_happens(layout: str) -> None:
    kernel, _ = broken(layout)
    kernel.add_variable("uevent_seqnum", "unsigned long")
    when_read(kernel, 0x40000, lambda n: kernel.set_variable("uevent_seqnum", n))
    report = check(kernel.program(is_live=True))
    assert [f.start_pfn for f in report.findings] == [0x40007, 0x48007]
    assert report.coverage.torn == 0


@each_layout
def test_structure_that_cannot_be_followed_is_read_again(layout: str) -> None:
    kernel, _ = broken(layout)
    highest = kernel.variables["__highest_present_section_nr"][1]
    faults = 2

    def on_read(address: int, size: int) -> None:
        nonlocal faults
        if address == highest and faults:
            faults -= 1
            raise FaultError("it went away", address)

    kernel.on_read = on_read
    assert len(check(kernel.program(is_live=True)).findings) == 2
    assert faults == 0


# What is asked for.


def wrong_pages(layout: str) -> FakeKernel:
    """Device pages at [0x100600, 0x114000), with an error at both ends of a part of them."""
    kernel = partial(layout)
    for pfn in (0x100FFF, 0x101000, 0x101FFF, 0x102000):
        kernel.fill_pages(pfn, pfn + 1, 0)
    return kernel


@each_layout
def test_pfns_that_are_asked_for_are_looked_at_and_no_others(layout: str) -> None:
    prog = wrong_pages(layout).program()
    seen: list[tuple[int, int]] = []
    report = check(
        prog, pfns=(0x101000, 0x102000), progress=lambda done, total: seen.append((done, total))
    )
    found = [f.start_pfn for f in report.findings if f.severity is Severity.ERROR]
    assert sorted(found) == [0x101000, 0x101FFF]
    # The work is saved, and not only the answer left out.
    assert sum(done for done, _ in seen) == 64 * 0x1000
    assert report.coverage.bytes_read <= 64 * 0x1000
    assert sum(r.pages for r in report.ranges) == 0x1000


@each_layout
@pytest.mark.parametrize(("only", "kinds"), [("devices", True), ("ram", False)])
def test_kind_that_is_asked_for_is_looked_at_and_no_other(
    layout: str, only: str, kinds: bool
) -> None:
    prog = wrong_pages(layout).program()
    report = check(prog, only=only)
    whole = check(prog)
    assert report.ranges == whole.ranges
    devices = {Case.DEVICE, Case.METADATA, Case.RESERVED, Case.PARTIAL}
    assert bool(report.findings) is kinds
    assert bool(report.pgmaps) is kinds
    looked_at = {case for case, count in report.coverage.by_case.items() if count.verified}
    assert looked_at <= devices if kinds else not looked_at & devices


@each_layout
def test_pages_of_compounds_that_are_cut_are_held_against_their_own_head(layout: str) -> None:
    # 2 MiB pages from 0x100600 on: the middle of one to the middle of the next.
    kernel = partial(layout)
    prog = kernel.program()
    assert not [
        f for f in check(prog, pfns=(0x100901, 0x100B01)).findings if f.severity is Severity.ERROR
    ]
    kernel.fill_pages(0x100A03, 0x100A04, 0)
    report = check(kernel.program(), pfns=(0x100901, 0x100B01))
    found = [f.start_pfn for f in report.findings if f.severity is Severity.ERROR]
    assert found == [0x100A03]


@pytest.mark.parametrize("pfns", [(5, 5), (6, 5), (-1, 5), (0x200000, 0x200001)])
def test_pfns_that_are_none_are_refused(pfns: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="PFN"):
        check(partial("6.1").program(), pfns=pfns)


def test_kind_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="devices, ram"):
        check(partial("6.1").program(), only="disks")


def test_evidence_of_a_range_that_is_cut_is_about_its_first_pfn() -> None:
    # Section 5 begins at 0x28000; the device, and its range, in section 4.
    report = check(collision("6.1").program(), pfns=(0x2A000, 0x2B000))
    (range_,) = report.ranges
    names = {e.what for e in range_.evidence}
    assert "mem_section[5].section_mem_map" in names
    assert "mem_section[4].section_mem_map" not in names


@since_taint
@pytest.mark.parametrize(
    ("pfns", "sections"),
    [
        ((0x47900, 0x47901), [SHARED]),
        ((0x48000, 0x48001), [OWN]),
        ((0x47FFF, 0x48001), [SHARED, OWN]),
        ((0x40000, 0x47801), [SHARED]),
    ],
)
def test_structures_that_pfns_depend_on_are_compared_and_no_others(
    layout: str, pfns: tuple[int, int], sections: list[int]
) -> None:
    prog = little_machine(layout).program()
    changes = tuple(Injector(prog, layout).section_word(nr, clear=16) for nr in (SHARED, OWN))
    with Overlay(prog).injected(Defect("no taint", changes, frozenset())):
        found = check(prog, pfns=pfns).findings
    taints = [f.start_pfn // 0x8000 for f in found if f.slug == "section-taint-missing"]
    assert taints == sections
