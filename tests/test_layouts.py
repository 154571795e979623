# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Every layout of a kernel: the right cases, and every defect found. ZONEDEV_LAYOUTS names a
directory of more files of layouts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json
import random
from collections.abc import Iterator, Sequence

import pytest
from drgn import BadDataError, Program
from support.defects import Defect, Injector, Overlay, Pages, Spot
from support.fakekernel import FakeKernel
from support.fakekernel.layouts import TABLES
from support.layoutmachine import (
    BIG_ENDIAN,
    NEW,
    OWN,
    SECOND,
    WITH_DEVICES,
    WITHOUT_DEVICES,
    LayoutMachine,
    layout_machine,
    layout_machine_of,
)
from support.schema import validated

from drgn_zonedev.classification.classify import classify
from drgn_zonedev.classification.missing_debuginfo import debug_info
from drgn_zonedev.commands.base import Session
from drgn_zonedev.report import check
from drgn_zonedev.shell.cli import make_parser

each_layout_file = pytest.mark.parametrize("name", [*WITH_DEVICES, *WITHOUT_DEVICES])
each_with_devices = pytest.mark.parametrize("name", WITH_DEVICES)
each_without_devices = pytest.mark.parametrize("name", WITHOUT_DEVICES)
PARSER = make_parser()


def cases(prog: Program) -> list[tuple[int, int, str]]:
    return [(r.start_pfn, r.end_pfn, r.case.value) for r in classify(prog)]


def expected(machine: LayoutMachine) -> list[tuple[int, int, str]]:
    return [(p.start_pfn, p.end_pfn, p.case) for p in machine.parts()]


def errors(prog: Program) -> list[str]:
    return [f.slug for f in check(prog).findings if f.severity.value == "error"]


def said(prog: Program, *argv: str) -> str:
    """What a command prints."""
    args, out = PARSER.parse_args(argv), io.StringIO()
    with contextlib.redirect_stdout(out), debug_info():
        args.command.run(Session(prog), args)
    return out.getvalue()


@each_layout_file
def test_cases_of_every_layout(name: str) -> None:
    machine = layout_machine(name)
    assert cases(machine.kernel.program()) == expected(machine)


@each_with_devices
def test_healthy_machine_of_every_layout_has_no_error(name: str) -> None:
    machine = layout_machine(name)
    report = check(machine.kernel.program())
    assert [f for f in report.findings if f.severity.value == "error"] == []
    parts = [p for p in machine.parts() if p.case in ("device", "metadata")]
    pages = sum(p.end_pfn - p.start_pfn for p in parts)
    assert report.coverage.pages_verified >= pages


@each_layout_file
def test_commands_on_every_layout(name: str) -> None:
    machine = layout_machine(name)
    prog = machine.kernel.program()
    for argv in (["check"], ["check", "--map"], ["check", "--format", "json"], ["ranges", "-v"]):
        assert said(prog, *argv)
    assert said(prog, "sections")
    assert said(prog, "walkers")
    for part in machine.parts():
        if part.case == "partial":
            continue
        text = said(prog, "pfn", hex(part.start_pfn))
        assert part.case in text
        assert said(prog, "pfn", hex(part.end_pfn - 1))


@each_with_devices
def test_commands_about_devices_on_every_layout(name: str) -> None:
    machine = layout_machine(name)
    prog = machine.kernel.program()
    pgmaps = validated(json.loads(said(prog, "pgmaps", "--format", "json")))["pgmaps"]
    recorded = machine.layout.has_member("dev_pagemap", "nr_range")
    assert {pgmap.get("records_progress", True) for pgmap in pgmaps} == {recorded}
    text = said(prog, "pgmaps")
    for start, _ in (machine.fsdax, *machine.devdax):
        assert f"{start:#x}" in text
    assert said(prog, "proposal")


@each_without_devices
@pytest.mark.parametrize("command", ["pgmaps", "proposal"])
def test_commands_about_devices_say_that_the_layout_has_none(name: str, command: str) -> None:
    prog = layout_machine(name).kernel.program()
    with pytest.raises(LookupError, match="pgmap_array"):
        said(prog, command)


# Configurations.


def kernel_of_56_bytes() -> FakeKernel:
    return FakeKernel("7.2", sizeof_page=56)


def kernel_of_80_bytes() -> FakeKernel:
    # Two pointers more, as with CONFIG_KMSAN.
    return FakeKernel("7.3", sizeof_page=80)


def kernel_with_kasan() -> FakeKernel:
    # An 8-bit tag below the last CPU and PID, all ones where nothing is tagged.
    return FakeKernel("6.12", page_bits=0xFF << 22)


def kernel_of_many_cpus() -> FakeKernel:
    return FakeKernel("7.2", cpus=600)


def kernel_of_five_levels() -> FakeKernel:
    return FakeKernel("6.12", vmemmap=0xFFD4000000000000)


def kernel_without_numa() -> FakeKernel:
    return FakeKernel("x86-64-6.12-no-numa")


def kernel_that_poisons() -> FakeKernel:
    kernel = FakeKernel("6.12")
    kernel.add_variable("page_init_poisoning", "bool", 1)
    return kernel


def kernel_without_optimized_vmemmap() -> FakeKernel:
    # Without CONFIG_HUGETLB_PAGE_OPTIMIZE_VMEMMAP, compound_info_has_mask() is false since v7.1:
    # tails point to their heads.
    kernel = FakeKernel("7.3")
    zone = kernel.layout.structs["zone"]
    members = {name: at for name, at in zone.members.items() if name != "vmemmap_tails"}
    structs = {**kernel.layout.structs, "zone": dataclasses.replace(zone, members=members)}
    kernel.layout = dataclasses.replace(kernel.layout, structs=structs)
    return kernel


CONFIGURATIONS = (
    kernel_without_optimized_vmemmap,
    kernel_of_56_bytes,
    kernel_of_80_bytes,
    kernel_with_kasan,
    kernel_of_many_cpus,
    kernel_of_five_levels,
    kernel_without_numa,
    kernel_that_poisons,
)


@pytest.mark.parametrize("make", CONFIGURATIONS)
def test_configuration_of_a_layout(make: object) -> None:
    assert callable(make)
    machine = layout_machine_of(make())
    prog = machine.kernel.program()
    assert cases(prog) == expected(machine)
    assert errors(prog) == []


def test_poison_of_a_layout_is_found_where_the_driver_did_not_get() -> None:
    machine = layout_machine_of(kernel_that_poisons())
    start, end = machine.devdax[1]
    machine.kernel.fill_pages(start, end, 0xFF)
    found = check(machine.kernel.program()).findings
    assert [(f.start_pfn, f.end_pfn) for f in found if f.slug == "device-page-uninitialized"] == [
        (start, end)
    ]
    new = next(f for f in found if f.slug == "case4-initializing")
    assert new.start_pfn == NEW * machine.section


# Defects.


def areas(machine: LayoutMachine) -> Iterator[Pages]:
    start, end = machine.fsdax
    yield Pages(start + machine.kernel.altmap_reserve, machine.data, metadata=True)
    yield Pages(machine.data, end)
    for first, last in machine.devdax:
        yield Pages(first, last, "MEMORY_DEVICE_GENERIC", machine.order)


def some_pfns(pages: Pages, rng: random.Random) -> list[int]:
    """The corners of an area, and others that are not next to each other."""
    found = {pages.start_pfn, pages.end_pfn - 1}
    candidates = [*range(pages.start_pfn + 2, pages.end_pfn - 2)]
    rng.shuffle(candidates)
    for pfn in candidates:
        if len(found) < 28 and not found & {pfn - 1, pfn + 1}:
            found.add(pfn)
    return sorted(found)


@each_with_devices
def test_500_defects_in_every_layout_are_found(name: str) -> None:
    rng, machine, injected = random.Random(name), layout_machine(name), 0
    prog = machine.kernel.program()
    injector, overlay = Injector(prog, name), Overlay(prog)
    before = spots(prog)
    while injected < 500:
        defects = [
            rng.choice([*injector.page_defects(pages, pfn, rng)])
            for pages in areas(machine)
            for pfn in some_pfns(pages, rng)
        ]
        injected += len(defects)
        changes = tuple(change for defect in defects for change in defect.changes)
        wanted = frozenset(spot for defect in defects for spot in defect.expected)
        with overlay.injected(Defect("many", changes, wanted)):
            assert spots(prog) - before == wanted
    assert spots(prog) == before


def spots(prog: Program) -> set[Spot]:
    return {
        (f.slug, f.start_pfn, f.end_pfn)
        for f in check(prog).findings
        if f.slug != "case4-initializing"
    }


@each_with_devices
def test_structures_of_every_layout_that_contradict_each_other(name: str) -> None:
    machine = layout_machine(name)
    prog = machine.kernel.program()
    injector, overlay = Injector(prog, name), Overlay(prog)
    before, unit = spots(prog), machine.kernel.macros.pages_per_subsection
    first, last = machine.devdax[1]
    present = injector.section_word(SECOND, clear=1)
    bit = injector.subsection_bit(first)
    found = (
        ("present", present, {("device-unpopulated", first, last)}),
        ("subsection", bit, {("device-unpopulated", first, first + unit)}),
    )
    for what, change, wanted in found:
        with overlay.injected(Defect(what, (change,), frozenset(wanted))):
            assert spots(prog) - before == wanted, what
    if machine.layout.has_taint:
        change = injector.section_word(OWN, clear=16)
        with overlay.injected(Defect("taint", (change,), frozenset())):
            named = {slug for slug, _, _ in spots(prog) - before}
        assert named == {"section-taint-missing"}


# What a layout lacks.

DECISIVE = (
    *("dev_pagemap", "vmem_altmap", "mem_section", "mem_section_usage", "memory_block"),
    *("percpu_ref", "percpu_ref_data", "xarray", "xa_node", "range", "resource"),
)
SOME_MEMBERS = {
    "zone": ("zone_start_pfn", "spanned_pages", "present_pages", "zone_pgdat", "name", "node"),
    "pglist_data": ("node_zones", "nr_zones", "node_id"),
    "page": ("flags", "lru", "_mapcount", "_refcount", "mapping", "pgmap", "compound_head"),
}


def members(machine: LayoutMachine) -> Iterator[str]:
    structs = machine.layout.structs
    for tag in DECISIVE:
        if tag in structs:
            yield from (f"struct {tag}.{member}" for member in structs[tag].members)
    for tag, names in SOME_MEMBERS.items():
        yield from (f"struct {tag}.{name}" for name in names if name in structs[tag].members)


def at(ranges: Sequence[tuple[int, int, str]], pfn: int) -> str | None:
    return next((case for start, end, case in ranges if start <= pfn < end), None)


@each_layout_file
@pytest.mark.parametrize(
    "step", [4, pytest.param(1, marks=pytest.mark.long("a fourth of the members is in every run"))]
)
def test_a_layout_without_a_member_gives_no_other_case(name: str, step: int) -> None:
    machine = layout_machine(name)
    truth = expected(machine)
    for member in itertools.islice(members(machine), 0, None, step):
        prog = machine.kernel.program(hidden=frozenset([member]))
        try:
            with debug_info():
                found = cases(prog)
        except (LookupError, BadDataError):
            continue
        for start, end, case in truth:
            for pfn in (start, end - 1):
                assert at(found, pfn) in (case, "unknown"), f"{member} at {pfn:#x}"


# It is there only with CONFIG_HUGETLB_PAGE_OPTIMIZE_VMEMMAP, and nothing else shows masks: hidden
# here, it contradicts the links in memory. kernel_without_optimized_vmemmap() has links to match.
CONFIGURED = "struct zone.vmemmap_tails"


@pytest.mark.long("minutes; the cases are looked at with each change")
@each_with_devices
def test_check_of_a_layout_without_a_member_finds_no_error(name: str) -> None:
    machine = layout_machine(name)
    structs = machine.layout.structs
    everything = (f"struct {tag}.{member}" for tag in structs for member in structs[tag].members)
    for member in everything:
        prog = machine.kernel.program(hidden=frozenset([member]))
        with contextlib.suppress(LookupError, BadDataError), debug_info():
            assert errors(prog) == [] or member == CONFIGURED, member


# What is refused.


@pytest.mark.parametrize("name", BIG_ENDIAN)
def test_layout_of_a_big_endian_machine_is_refused(name: str) -> None:
    prog = layout_machine(name).kernel.program()
    for argv in (["check"], ["ranges"], ["sections"], ["pfn", "0"], ["walkers"]):
        with pytest.raises(BadDataError, match="big-endian"):
            said(prog, *argv)


def test_layout_without_subsections_is_refused() -> None:
    kernel = FakeKernel("x86-64-res-ms32")
    section = kernel.layout.structs["mem_section"].members
    section["pageblock_flags"] = section.pop("usage")
    try:
        with pytest.raises(BadDataError, match=r"older than v5\.3"):
            classify(kernel.program())
    finally:
        section["usage"] = section.pop("pageblock_flags")


def test_layout_with_a_radix_tree_is_refused() -> None:
    kernel = FakeKernel("x86-64-res-ms32")
    kernel.add_variable("pgmap_radix", "unsigned long")
    with pytest.raises(BadDataError, match=r"older than v4\.20"):
        classify(kernel.program(hidden=frozenset(["pgmap_array"])))


# Before v5.10.

UNRECORDED = [n for n in WITH_DEVICES if not TABLES[n].has_member("dev_pagemap", "nr_range")]


@pytest.mark.parametrize("name", UNRECORDED)
def test_layout_that_does_not_record_progress_says_so(name: str) -> None:
    kernel = FakeKernel(name)
    kernel.section(8)
    kernel.map_memmap(0x40000, 0x48000)
    kernel.pgmap((0x40000, 0x48000), in_flight=True)
    (range_,) = classify(kernel.program())
    assert range_.case.value == "device"
    assert "does not record" in range_.reason
    report = check(kernel.program())
    assert [f.slug for f in report.findings if f.severity.value == "error"] == []
    assert [(u.start_pfn, u.end_pfn) for u in report.unjudged if "does not record" in u.reason] == [
        (0x40000, 0x48000)
    ]


@pytest.mark.parametrize("name", UNRECORDED)
def test_references_show_that_a_layout_without_progress_is_settled(name: str) -> None:
    kernel = FakeKernel(name)
    kernel.section(8)
    pgmap = kernel.pgmap((0x40000, 0x48000))
    kernel.device_pages(0x40000, 0x48000, pgmap)
    kernel.fill_pages(0x47000, 0x47001, 0)
    prog = kernel.program()
    (range_,) = classify(prog)
    assert range_.reason == "in an initialised range of a live pgmap"
    assert errors(prog) == ["device-page-uninitialized"]


@pytest.mark.parametrize("name", UNRECORDED)
@pytest.mark.parametrize(
    ("ref", "case"), [("dead", "teardown"), ("exited", "teardown"), ("null", "teardown")]
)
def test_layout_whose_percpu_ref_counts_itself(name: str, ref: str, case: str) -> None:
    kernel = FakeKernel(name)
    kernel.section(8)
    kernel.map_memmap(0x40000, 0x48000)
    kernel.pgmap((0x40000, 0x48000), ref=ref)
    assert cases(kernel.program()) == [(0x40000, 0x48000, case)]
