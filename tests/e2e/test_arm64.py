# SPDX-License-Identifier: LGPL-2.1-or-later

"""
arm64 with pages of 4K, 16K and 64K: what the tool says must be what arithmetic says, and, of every
PFN, what the kernel itself says. Where it unmaps struct pages of a live device, an error says so.
"""

from __future__ import annotations

import contextlib
import io
import random
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet
from drgn import Program
from support.defects import Overlay, Spot
from support.devicedefects import booted_layout, device_pages, missed_defects
from support.exports import check_json
from support.guests import Booted, debug_live, each_guest, long_guest, require_free
from support.ramdefects import RamDefects

from drgn_zonedev.classification.classify import classify_snapshot
from drgn_zonedev.classification.missing_debuginfo import debug_info, what_is_missing
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.commands.base import Session
from drgn_zonedev.export.write import write_export
from drgn_zonedev.lab.host.errors import LabError
from drgn_zonedev.lab.kernels.known import ARM64_KERNELS
from drgn_zonedev.lab.scenarios.arm64 import arm64_scenarios
from drgn_zonedev.lab.targets import Format, makedumpfile, write_filtered
from drgn_zonedev.lab.verdict.agreement import compare
from drgn_zonedev.lab.verdict.compare import judge
from drgn_zonedev.lab.verdict.matrix import judge_guest
from drgn_zonedev.model import Case, Range, Severity
from drgn_zonedev.opening.core import open_dump
from drgn_zonedev.report import check
from drgn_zonedev.shell.cli import make_parser
from drgn_zonedev.verification.verify import verify_snapshot

pytestmark = pytest.mark.qemu

# In every run, each size of pages on one kernel: two minutes on two cores.
ALWAYS = {
    "6.12-arm64-16k": (
        "fsdax-collision",
        "devdax-partial",
        "init-in-flight",
        "neighbours",
        "neighbour-gone",
    ),
    "7.3-arm64": ("fsdax-collision", "fsdax-partial", "init-in-flight", "empty"),
}
EXPORTED = {"6.12-arm64-16k": ("neighbour-gone",), "7.3-arm64": ("fsdax-collision",)}
# With pages of 64K, which no distribution of the lab's has.
BUILT = "7.3-arm64-64k"
SECTION = 128 << 20
WITHOUT_ZONE_DEVICE = "6.1-arm64"
RAM_START, RAM_END = 1 << 30, (1 << 30) + (448 << 20)
# Of each kind of page, in each section.
EACH = 4


def page_size(kernel: str) -> int:
    return {"16k": 16384, "64k": 65536}.get(kernel.rpartition("-")[2], 4096)


def guests(always: Mapping[str, Collection[str]]) -> Iterator[tuple[str, str] | ParameterSet]:
    for kernel in (*ARM64_KERNELS, BUILT):
        for name, scenario in arm64_scenarios(page_size(kernel)).items():
            if name in always.get(kernel, ()):
                yield kernel, name
            elif kernel not in scenario.impossible:
                yield long_guest(kernel, name, f"of {', '.join(always)}, a part is in every run")


@each_guest(guests(ALWAYS))
def test_the_tool_agrees_on_arm64(booted: Booted) -> None:
    require_free(booted.guest)
    _, wrong = judge_guest(booted.guest)
    assert wrong == []


@each_guest(
    [
        ("6.12-arm64-16k", "fsdax-collision"),
        ("7.3-arm64", "fsdax-collision"),
        long_guest(BUILT, "fsdax-collision", "pages of 4K and 16K are in every run"),
    ]
)
def test_every_pfn_of_a_collision_on_arm64(booted: Booted) -> None:
    agreement = compare(debug_live(booted.guest), booted.guest.facts)
    assert agreement.disagreements == ()
    assert agreement.leaks == ()
    # 448 MiB of RAM and 192 MiB of the device: five sections, or one of 512 MiB and a part of one.
    sections = 8 if booted.kernel.name == BUILT else 5
    assert agreement.pages == sections * SECTION // booted.kernel.page_size


@each_guest(
    [
        long_guest(
            WITHOUT_ZONE_DEVICE, "empty", "a synthetic kernel without ZONE_DEVICE is in every run"
        )
    ]
)
def test_without_zone_device_only_ram_is_judged(booted: Booted) -> None:
    prog = booted.program()
    report = check(prog)
    assert (report.findings, report.unjudged) == ((), ())
    # 1 GiB, from 1 GiB on.
    assert [(r.start_pfn, r.end_pfn, r.case) for r in report.ranges] == [
        (0x40000, 0x80000, Case.ONLINE)
    ]
    for argv in (["pgmaps"], ["proposal"]):
        with pytest.raises(LookupError) as e:
            said(prog, *argv)
        assert what_is_missing(e.value).startswith(
            "the kernel was built without CONFIG_ZONE_DEVICE"
        )
    assert "0 of " in said(prog, "walkers")
    assert "the kernel has no ZONE_DEVICE" in said(prog, "pfn", "0x40000")


def said(prog: Program, *argv: str) -> str:
    """What a command prints."""
    args, out = make_parser().parse_args(argv), io.StringIO()
    with contextlib.redirect_stdout(out), debug_info():
        args.command.run(Session(prog), args)
    return out.getvalue()


@each_guest(
    [
        ("6.12-arm64-16k", "neighbour-gone"),
        long_guest(BUILT, "neighbour-gone", "pages of 16K are in every run"),
    ]
)
def test_struct_pages_that_a_neighbour_took_along_are_named(booted: Booted) -> None:
    report = check(booted.program())
    (error,) = (f for f in report.findings if f.severity.value == "error")
    assert error.slug == "vmemmap-unmapped"
    assert error.known_bugs == ("shared-vmemmap-page",)
    # Half a page of vmemmap of 16 KiB, or 31 parts of 32 of one of 64 KiB.
    gone = 992 if booted.kernel.name == BUILT else 128
    assert error.end_pfn - error.start_pfn == gone


@each_guest(guests(EXPORTED))
def test_a_dump_of_arm64_and_its_export_say_what_the_guest_says(
    booted: Booted, tmp_path_factory: pytest.TempPathFactory
) -> None:
    target = tmp_path_factory.mktemp("arm64") / "export"
    source = booted.program()
    assert judge(booted.guest, source, check(source)) == []
    write_export(source, target)
    export = open_dump(target / "vmcore", target / "vmlinux")
    assert check_json(source) == check_json(export)


FILTERED = "filtered dumps of x86-64 are in every run"


@each_guest([long_guest(WITHOUT_ZONE_DEVICE, "empty", FILTERED)])
def test_a_filtered_dump_of_arm64_says_what_the_whole_one_says(
    booted: Booted, tmp_path: Path
) -> None:
    whole = check(booted.program())
    for level in (1, 31):
        target = tmp_path / f"level-{level}"
        form = Format("zlib", "-c", level)
        write_filtered(makedumpfile(booted.kernel), booted.for_makedumpfile, target, form)
        filtered = check(open_dump(target, booted.kernel.vmlinux))
        assert (filtered.ranges, filtered.findings) == (whole.ranges, whole.findings)
        assert filtered.unjudged == whole.unjudged == ()


@each_guest(
    long_guest(kernel, "empty", FILTERED)
    for kernel in ("6.12-arm64", "6.12-arm64-16k", "7.3-arm64")
)
def test_makedumpfile_refuses_arm64_with_addresses_of_52_bits(
    booted: Booted, tmp_path: Path
) -> None:
    program, form = makedumpfile(booted.kernel), Format("zlib", "-c", 1)
    with pytest.raises(LabError, match="and VA Bits 52 not supported"):
        write_filtered(program, booted.for_makedumpfile, tmp_path / "filtered", form)


@each_guest(
    long_guest(
        kernel,
        "empty" if kernel == WITHOUT_ZONE_DEVICE else "fsdax-collision",
        "a defect of each kind is in x86-64's guest, in every run",
    )
    for kernel in (*ARM64_KERNELS, BUILT)
)
def test_each_defect_is_found_where_it_is_on_arm64(booted: Booted) -> None:
    prog, rng = booted.program(), random.Random(booted.kernel.name)
    release, page = booted.kernel.name.partition("-")[0], booted.kernel.page_size
    make, overlay = RamDefects(prog, release), Overlay(prog)
    snapshot = take_snapshot(prog)
    ranges = classify_snapshot(prog, snapshot)
    injected: Counter[str] = Counter()
    for start in range(RAM_START // page, RAM_END // page, SECTION // page):
        range_ = ram_section(ranges, start, SECTION // page)
        for kind, pages in make.spots(range_.start_pfn, range_.end_pfn, rng, EACH).kinds.items():
            for defect in (d for spot in pages for d in make.of(kind, *spot, rng)):
                with overlay.injected(defect):
                    found = spots(prog, snapshot, range_)
                assert found == defect.expected, f"{kind}: {defect.what}"
                injected[kind] += 1
    assert set(injected) >= {"lru", "table", "reserved", "head", "tail", "free", "inside", "slab"}
    assert injected.total() >= 1000
    assert [f for f in check(prog).findings if f.severity is Severity.ERROR] == []


@each_guest(
    long_guest(kernel, name, "two stored dumps of arm64 are in every run")
    for kernel in (*ARM64_KERNELS, BUILT)
    for name in ("fsdax-collision", "devdax-partial")
    if kernel != WITHOUT_ZONE_DEVICE
)
def test_each_defect_of_device_pages_is_found_on_arm64(booted: Booted) -> None:
    kernel, scenario = booted.kernel, booted.guest.scenario
    layout = booted_layout(booted.program(), f"arm64-{kernel.name.partition('-')[0]}")
    if scenario.name == "fsdax-collision":
        areas = list(device_pages(scenario.expected))
    else:
        # Compound pages of the namespace's alignment: 2 MiB, or a page if those are larger.
        order = 9 if kernel.page_size == 4096 else 0
        areas = list(device_pages(scenario.expected, "MEMORY_DEVICE_GENERIC", order))
    injected, missed = missed_defects(booted.program(), layout, areas, 90)
    assert missed == []
    assert injected.total() >= 1000


def ram_section(ranges: list[Range], start_pfn: int, pages: int) -> Range:
    """A section of RAM, as a range."""
    whole = next(r for r in ranges if r.start_pfn <= start_pfn < r.end_pfn)
    assert whole.case is Case.ONLINE
    end_pfn = min(start_pfn + pages, whole.end_pfn)
    return replace(whole, start_pfn=start_pfn, end_pfn=end_pfn)


def spots(prog: Program, snapshot: Snapshot, range_: Range) -> set[Spot]:
    found = verify_snapshot(prog, snapshot, [range_]).findings
    return {(f.slug, f.start_pfn, f.end_pfn) for f in found}
