# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Recall: whatever single word is wrong must be found, at its PFN and by its slug,
and nothing else besides.

A directory of dumps in ZONEDEV_DUMPS (KERNEL-SCENARIO.elf, for kernels that are
in the laboratory's cache) runs the same injections on real kernels.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from drgn import Program
from support.defects import ALL_ONES, DANGLING, Change, Defect, Injector, Overlay, Pages, Spot
from support.devicedefects import booted_layout, device_pages, missed_defects
from support.fakekernel import partial
from support.kernels import each_layout
from support.littlemachine import (
    DATA,
    DEVDAX,
    END,
    FSDAX,
    OWN,
    SHARED,
    areas,
    little_machine,
    places,
)

from drgn_zonedev.export.store import StoredDump
from drgn_zonedev.lab.kernels.known import kernel_dir, load_kernel
from drgn_zonedev.lab.scenarios import Expected
from drgn_zonedev.opening.core import open_dump
from drgn_zonedev.report import check

VMCORES = Path(__file__).parents[1] / "vmcores"
PRESENT, HAS_MEM_MAP, ONLINE, TAINT = 1, 2, 4, 16


def spots(prog: Program) -> set[Spot]:
    return {(f.slug, f.start_pfn, f.end_pfn) for f in check(prog).findings}


class Bench:
    """A program, what is wrong with it anyway, and a record of what was injected."""

    def __init__(self, prog: Program, layout: str) -> None:
        self.prog = prog
        self.injector = Injector(prog, layout)
        self.overlay = Overlay(prog)
        self.before = spots(prog)
        self.injected = 0

    def demand(self, defect: Defect) -> None:
        with self.overlay.injected(defect):
            found = spots(self.prog) - self.before
        self.injected += 1
        assert found == defect.expected, defect.what

    def demand_of(self, what: str, *changes: Change, expected: set[Spot]) -> None:
        self.demand(Defect(what, changes, frozenset(expected)))

    def rest(self) -> None:
        """With all defects taken back, everything is as it was."""
        assert spots(self.prog) == self.before


all_places = pytest.mark.long("a third of the places is in every run")


@each_layout
@pytest.mark.parametrize("count", [9, pytest.param(27, marks=all_places)])
def test_words_of_struct_pages(layout: str, count: int) -> None:
    rng = random.Random(layout)
    bench = Bench(little_machine(layout).program(), layout)
    for pages in areas(layout):
        for pfn in places(pages, rng, count):
            for defect in bench.injector.page_defects(pages, pfn, rng):
                bench.demand(defect)
    bench.rest()
    # Some kinds do not apply to each page.
    assert bench.injected >= 18 * count


@each_layout
@pytest.mark.parametrize("byte", [0, 0xA5, 0xFD, 0xFF])
def test_struct_pages_that_nobody_wrote(layout: str, byte: int) -> None:
    rng = random.Random(f"{layout} {byte}")
    bench = Bench(little_machine(layout).program(), layout)
    for pages in areas(layout):
        prefix = "metadata" if pages.metadata else "device"
        for pfn in places(pages, rng, 2):
            slug = f"{prefix}-page-uninitialized"
            bench.demand(bench.injector.unwritten_page(pfn, byte, slug))


# Structures. Section OWN has the end of fsdax and all of devdax.

OWN_START = OWN * 0x8000
PARTS = ((OWN_START, DEVDAX), (DEVDAX, END))


def in_parts(slug: str) -> set[Spot]:
    return {(slug, start, end) for start, end in PARTS}


@each_layout
def test_subsection_bits(layout: str) -> None:
    bench = Bench(little_machine(layout).program(), layout)
    for start in range(FSDAX, END, 512):
        bit = bench.injector.subsection_bit(start)
        bench.demand_of("bit", bit, expected={("device-unpopulated", start, start + 512)})


@each_layout
def test_section_words(layout: str) -> None:
    bench = Bench(little_machine(layout).program(), layout)
    make = bench.injector
    for flag in (PRESENT, HAS_MEM_MAP):
        change = make.section_word(OWN, clear=flag)
        bench.demand_of("own", change, expected=in_parts("device-unpopulated"))
    shared = {("device-unpopulated", FSDAX, OWN_START)}
    bench.demand_of("shared", make.section_word(SHARED, clear=HAS_MEM_MAP), expected=shared)
    online = make.section_word(OWN, set_=ONLINE)
    bench.demand_of("online", online, expected=in_parts("device-section-online"))
    if layout != "5.10":
        slug = "section-taint-missing"
        bench.demand_of("taint", make.section_word(OWN, clear=TAINT), expected=in_parts(slug))
        change = make.section_word(SHARED, clear=TAINT)
        bench.demand_of("taint", change, expected={(slug, FSDAX, OWN_START)})
    null = {("section-usage-null", OWN_START, OWN_START + 0x8000)}
    bench.demand_of(
        "usage", make.section_usage(OWN), expected=null | in_parts("device-unpopulated")
    )
    bench.rest()


def pgmap_of(prog: Program, pfn: int) -> int:
    """The pgmap that a page holds."""
    return int(prog.read_u64(prog["vmemmap"].value_() + 64 * pfn + 8))


@each_layout
def test_numbers_of_the_altmap(layout: str) -> None:
    bench = Bench(little_machine(layout).program(), layout)
    pgmap = pgmap_of(bench.prog, DATA)
    reserve, free = 2, DATA - FSDAX - 2

    def demand(member: str, value: int, expected: set[Spot]) -> None:
        change = bench.injector.pgmap_word(pgmap, f"altmap.{member}", value)
        bench.demand_of(f"{member} {value}", change, expected=expected)

    for base in (0, FSDAX - 512, FSDAX + 1, ALL_ONES):
        demand("base_pfn", base, {("altmap-range", FSDAX, DEVDAX)})
    for member in ("reserve", "free"):
        change = bench.injector.pgmap_word(pgmap, f"altmap.{member}", 0x10000)
        with bench.overlay.injected(Defect("too large", (change,), frozenset())):
            assert ("altmap-range", FSDAX, DEVDAX) in spots(bench.prog)
    for alloc in (1, 100, free):
        demand("alloc", alloc, {("altmap-unaccounted", FSDAX, DEVDAX)})
    for taken in (free + 1, 1 << 40):
        demand("alloc", taken, {("altmap-account", FSDAX, DEVDAX)})
        demand("align", taken, {("altmap-account", FSDAX, DEVDAX)})
    for more in (1, 7, 200):
        wrong = ("metadata-page-link", DATA, DATA + more)
        demand("reserve", reserve + more, {wrong, ("case5-reserved", FSDAX, FSDAX + 2 + more)})
        demand("free", free + more, {wrong})
        # Then there would be more pages of data than references were taken for.
        fewer = ("pgmap-references-missing", FSDAX, DEVDAX)
        demand("free", free - more, {("device-page-pgmap", DATA - more, DATA), fewer})


@each_layout
@pytest.mark.parametrize("pgmap_range", [(FSDAX, DEVDAX), (DEVDAX, END)])
def test_number_of_ranges(layout: str, pgmap_range: tuple[int, int]) -> None:
    bench = Bench(little_machine(layout).program(), layout)
    pgmap = pgmap_of(bench.prog, DATA if pgmap_range[0] == FSDAX else DEVDAX)
    for value in (-1, 4097, 1 << 30, -(1 << 31)):
        entry = ("pgmap-array-entry", *pgmap_range)
        bench.demand_of("nr_range", bench.injector.nr_range(pgmap, value), expected={entry})
    # Behind the only range, there is nothing.
    empty = ("pgmap-range", 0, 1)
    bench.demand_of("nr_range", bench.injector.nr_range(pgmap, 2), expected={empty})


@each_layout
def test_borders_of_a_range(layout: str) -> None:
    bench = Bench(little_machine(layout).program(), layout)
    pgmap = pgmap_of(bench.prog, DEVDAX)
    for pages in (1, 512, 513):
        end = END - pages
        expected = {("pgmap-array-entry", end, END)}
        if pages % 512:
            expected.add(("pgmap-range", DEVDAX, end))
        change = bench.injector.pgmap_word(pgmap, "range.end", (end << 12) - 1)
        bench.demand_of(f"{pages} less", change, expected=expected)
    change = bench.injector.pgmap_word(pgmap, "range.start", DEVDAX + 512 << 12)
    entry = ("pgmap-array-entry", DEVDAX, DEVDAX + 512)
    bench.demand_of("start", change, expected={entry})


@each_layout
def test_slots_of_pgmap_array(layout: str) -> None:
    bench = Bench(little_machine(layout).program(), layout)
    fsdax, devdax = pgmap_of(bench.prog, DATA), pgmap_of(bench.prog, DEVDAX)
    # A slot has 64 PFNs. The first one of each node holds the pgmap, and the others
    # of the node refer to it.
    for pfn in range(FSDAX + 64, DEVDAX, 64):
        address, start, end = bench.injector.slot(pfn)
        assert (start, end) == (pfn, pfn + 64)
        if pfn == OWN_START:
            continue
        missing = ("pgmap-array-missing", start, end)
        bench.demand_of("NULL", Change(address, 0), expected={missing})
        entry = ("pgmap-array-entry", start, end)
        bench.demand_of("other", Change(address, devdax), expected={missing, entry})
    first = bench.injector.slot(FSDAX)[0]
    missing = ("pgmap-array-missing", FSDAX, OWN_START)
    bench.demand_of("NULL", Change(first, 0), expected={missing})
    last = bench.injector.slot(DEVDAX)[0]
    orphan = ("orphan-section", DEVDAX, END)
    bench.demand_of("NULL", Change(last, 0), expected={orphan})
    assert fsdax != devdax


@each_layout
def test_span_of_zone_device(layout: str) -> None:
    bench = Bench(little_machine(layout).program(), layout)
    both = {("zone-device-span", FSDAX, DEVDAX), ("zone-device-span", DEVDAX, END)}
    bench.demand_of("empty", bench.injector.spanned_pages(0), expected=both)
    short = bench.injector.spanned_pages(END - FSDAX - 1)
    bench.demand_of("short", short, expected={("zone-device-span", DEVDAX, END)})


@each_layout
def test_memmap_on_the_device_that_is_not_accounted_for(layout: str) -> None:
    # Two whole sections take 512 pages each.
    bench = Bench(partial(layout).program(), layout)
    pgmap = pgmap_of(bench.prog, 0x100600)
    for alloc in (0, 512, 1023, 1024 - 510 + 511):
        change = bench.injector.pgmap_word(pgmap, "altmap.alloc", alloc)
        slug = "altmap-account" if alloc + 510 > 1534 else "altmap-unaccounted"
        bench.demand_of("alloc", change, expected={(slug, 0x100000, 0x114000)})


# Real kernels.

SCENES = {
    "fsdax-collision": [
        Pages(0x24002, 0x24400, metadata=True),
        Pages(0x24400, 0x30000),
    ],
    "nvdimm-partial": [
        Pages(0x100002, 0x100600, metadata=True),
        Pages(0x100600, 0x114000, "MEMORY_DEVICE_GENERIC", 9),
    ],
}


def dumps() -> list[Path]:
    directory = os.environ.get("ZONEDEV_DUMPS")
    paths = sorted(Path(directory).glob("*.elf")) if directory else []
    return [p for p in paths if p.stem.partition("-")[2] in SCENES]


@pytest.mark.skipif(not dumps(), reason="ZONEDEV_DUMPS names no directory of dumps")
@pytest.mark.parametrize("path", dumps(), ids=lambda path: path.stem)
def test_words_of_real_struct_pages(path: Path) -> None:
    name, _, scenario = path.stem.partition("-")
    kernel = load_kernel(name, kernel_dir(name))
    if kernel is None:
        pytest.skip(f"the cache has no kernel {name}")
    prog = open_dump(path, kernel.vmlinux)
    layout = "7.2" if name == "7.3" else name
    bench, rng = Bench(prog, layout), random.Random(path.stem)
    for pages in SCENES[scenario]:
        if layout == "5.10":
            pages = Pages(pages.start_pfn, pages.end_pfn, pages.type, 0, pages.metadata)
        for pfn in places(pages, rng, 3):
            for defect in bench.injector.page_defects(pages, pfn, rng):
                bench.demand(defect)
    bench.rest()
    assert bench.injected >= 50


@pytest.mark.parametrize(
    ("dump", "name"),
    [
        ("7.3-arm64-fsdax-collision", "arm64-7.3"),
        ("6.12-arm64-16k-fsdax-collision", "arm64-6.12"),
        ("7.3-arm64-64k-fsdax-collision", "arm64-7.3"),
    ],
)
def test_words_of_device_pages_of_booted_arm64_kernels(dump: str, name: str) -> None:
    stored = StoredDump(VMCORES / dump)
    areas = device_pages(Expected(*range_) for range_ in stored.expected()["ranges"])
    with stored.program() as prog:
        injected, missed = missed_defects(prog, booted_layout(prog, name), areas, 4)
    assert missed == []
    # Eleven kinds or twelve, in altmaps and in data.
    assert len(injected) >= 11
    assert min(injected.values()) >= 10


def test_the_overlay_is_what_is_read() -> None:
    prog = little_machine("6.1").program()
    address = prog["vmemmap"].value_() + 64 * DATA
    before = prog.read(address - 8, 24)
    defect = Defect("flags", (Change(address, DANGLING),), frozenset())
    overlay = Overlay(prog)
    for _ in range(2):
        with overlay.injected(defect):
            assert prog.read_u64(address) == DANGLING
            assert (
                prog.read(address - 8, 24)
                == before[:8] + DANGLING.to_bytes(8, "little") + before[16:]
            )
        assert prog.read(address - 8, 24) == before
