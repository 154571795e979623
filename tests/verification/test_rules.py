# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The table of rules: each is needed, and what breaks it is found by everything that is
made from the table. Which finding a defect is comes from the defect, not from the table.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from drgn import Program
from support.defects import ALL_ONES, DANGLING, NODE_SHIFT, ZONE_SHIFT, Change, Defect, Overlay
from support.fakekernel import LAYOUTS, FakeKernel
from support.fakekernel.layouts import TABLES

from drgn_zonedev.findings import KINDS
from drgn_zonedev.kernel.memmap import Pages, page_layout, read_pages
from drgn_zonedev.model import Severity
from drgn_zonedev.verification import rules
from drgn_zonedev.verification.deviations import compare_page
from drgn_zonedev.verification.device_rules import DEVICE_RULES
from drgn_zonedev.verification.promises import DevicePages, MetadataPages, Promise
from drgn_zonedev.verification.rule import Rule
from drgn_zonedev.verification.rules import RULES
from drgn_zonedev.verification.scan import scan
from drgn_zonedev.verification.work import Work

GENERIC, FS_DAX = "MEMORY_DEVICE_GENERIC", "MEMORY_DEVICE_FS_DAX"
PRIVATE, COMPOUND, METADATA = "MEMORY_DEVICE_PRIVATE", "compound", "metadata"
# Where which pages begin; there are 1024 of each.
STARTS = {METADATA: 0x40000, GENERIC: 0x41000, FS_DAX: 0x42000, PRIVATE: 0x43000, COMPOUND: 0x44000}
COUNT = 0x400
FLAGS, LINK, PREV, MAPPING, COUNTS = 0, 1, 2, 3, 6
SINCE_COMPOUNDS = LAYOUTS[1:]
NO_FOLIOS = LAYOUTS[:-1]


@dataclass(frozen=True)
class Injected:
    """A word of the page at an index of its kind of pages, which becomes another."""

    slug: str
    layout: str
    kind: str
    index: int
    word: int
    become: Callable[[int], int]

    def __str__(self) -> str:
        return f"{self.slug} {self.layout} {self.kind} +{self.index}"

    @property
    def pfn(self) -> int:
        return STARTS[self.kind] + self.index


def references(count: int) -> Callable[[int], int]:
    return lambda word: count % (1 << 32) << 32 | word & 0xFFFFFFFF


def mappings(count: int) -> Callable[[int], int]:
    return lambda word: word & ~0xFFFFFFFF | count % (1 << 32)


def flag(layout: str, name: str, value: bool) -> Callable[[int], int]:
    bit = 1 << TABLES[layout].constant(name)
    return lambda word: word | bit if value else word & ~bit


def another_zone(word: int) -> int:
    return word ^ 4 << ZONE_SHIFT


def another_node(word: int) -> int:
    return word | 1 << NODE_SHIFT


def zero(word: int) -> int:
    return 0


def everywhere(layout: str) -> Iterator[tuple[str, int]]:
    yield from ((kind, 5) for kind in (GENERIC, FS_DAX, PRIVATE))
    if layout in SINCE_COMPOUNDS:
        yield from ((COMPOUND, index) for index in (0, 1, 2, 3, 4, 511, 512, 600))


def defects_of_all_pages(layout: str) -> Iterator[Injected]:
    reserved = flag(layout, "PG_reserved", False)
    for kind, i in everywhere(layout):
        yield Injected("device-page-zone", layout, kind, i, FLAGS, another_zone)
        yield Injected("device-page-node", layout, kind, i, FLAGS, another_node)
        yield Injected("device-page-reserved", layout, kind, i, FLAGS, reserved)
        yield Injected("device-page-mapcount", layout, kind, i, COUNTS, mappings(-2))
    yield Injected("metadata-page-zone", layout, METADATA, 9, FLAGS, another_zone)
    yield Injected("metadata-page-node", layout, METADATA, 9, FLAGS, another_node)
    yield Injected("metadata-page-reserved", layout, METADATA, 9, FLAGS, reserved)
    yield Injected("metadata-page-refcount", layout, METADATA, 9, COUNTS, references(0))
    yield Injected("metadata-page-link", layout, METADATA, 9, LINK, zero)
    yield Injected("metadata-page-link", layout, METADATA, 9, PREV, zero)


def defects_of_base_pages(layout: str) -> Iterator[Injected]:
    head = flag(layout, "PG_head", True)
    for kind in (GENERIC, FS_DAX, PRIVATE):
        yield Injected("device-page-pgmap", layout, kind, 5, LINK, lambda word: DANGLING)
        yield Injected("device-page-refcount", layout, kind, 5, COUNTS, references(-1))
        if kind == GENERIC or layout in NO_FOLIOS:
            yield Injected("device-stray-head", layout, kind, 5, FLAGS, head)
    for kind in (GENERIC, FS_DAX) if layout in NO_FOLIOS else (GENERIC,):
        yield Injected("device-page-refcount", layout, kind, 5, COUNTS, references(0))


def defects_of_compound_pages(layout: str) -> Iterator[Injected]:
    head = flag(layout, "PG_head", True)
    for i in (0, 512):
        no_head = flag(layout, "PG_head", False)
        yield Injected("device-head-flag", layout, COMPOUND, i, FLAGS, no_head)
        yield Injected("device-page-pgmap", layout, COMPOUND, i, LINK, lambda word: DANGLING)
        yield Injected("device-page-refcount", layout, COMPOUND, i, COUNTS, references(0))
    for i in (1, 2, 3, 4, 511, 513, 600):
        yield Injected("device-tail-link", layout, COMPOUND, i, LINK, lambda word: word ^ 64)
        yield Injected("device-page-refcount", layout, COMPOUND, i, COUNTS, references(1))
        if i % 512 >= {"6.1": 2, "6.12": 3, "7.2": 4}[layout]:
            yield Injected("device-tail-mapping", layout, COMPOUND, i, MAPPING, zero)
        if i % 512 > 1 or layout == "6.1":
            yield Injected("device-stray-head", layout, COMPOUND, i, FLAGS, head)
    for i in (1, 513):
        # 6.1 has the destructor in the low byte of word 2, and the order above it.
        word, bit = (PREV, 1 << 8) if layout == "6.1" else (FLAGS, 1)
        become = functools.partial(lambda bit, word: word ^ bit, bit)
        yield Injected("device-compound-order", layout, COMPOUND, i, word, become)


INJECTED = [
    *(each for layout in LAYOUTS for each in defects_of_all_pages(layout)),
    *(each for layout in LAYOUTS for each in defects_of_base_pages(layout)),
    *(each for layout in SINCE_COMPOUNDS for each in defects_of_compound_pages(layout)),
]


@dataclass(frozen=True)
class Machine:
    prog: Program
    overlay: Overlay
    promises: dict[str, Promise]


@functools.cache
def machine(layout: str) -> Machine:
    kernel = FakeKernel(layout, dedup=False)
    kernel.section(8)
    start = STARTS[METADATA]
    kernel.metadata_pages(start, start + COUNT)
    promises: dict[str, Promise] = {METADATA: MetadataPages((0,))}
    for kind in (GENERIC, FS_DAX, PRIVATE, COMPOUND):
        start, shift = STARTS[kind], 9 if kind == COMPOUND else 0
        type_ = GENERIC if kind == COMPOUND else kind
        pgmap = kernel.pgmap((start, start + COUNT), type=type_, vmemmap_shift=shift)
        kernel.device_pages(start, start + COUNT, pgmap)
        shift = shift if layout in SINCE_COMPOUNDS else 0
        promises[kind] = DevicePages(pgmap, type_, start, start + COUNT, (0,), shift)
    prog = kernel.program()
    return Machine(prog, Overlay(prog), promises)


def scanned(layout: str, kind: str) -> set[tuple[str, int]]:
    """What the fast path and the slow one find together: slugs and PFNs."""
    m, start = machine(layout), STARTS[kind]
    work = Work(m.promises[kind], np.array([[start, start + COUNT]]))
    runs = scan(m.prog, page_layout(m.prog), work).runs
    return {(slug, run.start_pfn) for slug, found in runs.items() for run in found.reported()}


def compared(layout: str, kind: str, pfn: int) -> set[str]:
    """What ``pfn`` marks in a page."""
    m = machine(layout)
    (pages,) = read_pages(m.prog, pfn, pfn + 1)
    assert isinstance(pages, Pages)
    found = compare_page(m.prog, pages, m.promises[kind])
    return {c.rule.finding for c in found if c.broken}


def found(defect: Injected) -> tuple[set[tuple[str, int]], set[str]]:
    m = machine(defect.layout)
    address = page_layout(m.prog).page_address(defect.pfn) + 8 * defect.word
    after = defect.become(m.prog.read_u64(address)) & ALL_ONES
    with m.overlay.injected(Defect(str(defect), (Change(address, after),), frozenset())):
        return scanned(defect.layout, defect.kind), compared(defect.layout, defect.kind, defect.pfn)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", STARTS)
def test_pages_as_the_kernel_makes_them_keep_every_rule(layout: str, kind: str) -> None:
    assert scanned(layout, kind) == set()
    assert compared(layout, kind, STARTS[kind] + 1) == set()


@pytest.mark.parametrize("defect", INJECTED, ids=str)
def test_each_defect_breaks_one_rule(defect: Injected) -> None:
    assert found(defect) == ({(defect.slug, defect.pfn)}, {defect.slug})


# Those of RAM are in test_ram_defects.py.
@pytest.mark.parametrize(
    "rule", DEVICE_RULES, ids=lambda rule: f"{rule.finding} {rule.areas[0].name}"
)
def test_without_a_rule_the_defects_it_is_about_are_missed(
    rule: Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "RULES", tuple(r for r in RULES if r is not rule))
    # Other rules may lead to the same finding, for other pages.
    results = {defect: found(defect) for defect in INJECTED if defect.slug == rule.finding}
    missed = {defect for defect, result in results.items() if result == (set(), set())}
    assert missed
    for defect in results.keys() - missed:
        assert results[defect] == ({(defect.slug, defect.pfn)}, {defect.slug})


def test_rules_lead_to_errors_of_the_table_of_findings() -> None:
    slugs = {rule.finding for rule in RULES} | set(rules.NEVER_WRITTEN.values())
    assert {KINDS[slug].severity for slug in slugs} == {Severity.ERROR}


def test_rules_name_the_commit_that_makes_them_true() -> None:
    for rule in RULES:
        assert len(rule.commit.hash) == 12
        assert set(rule.commit.hash) <= set("0123456789abcdef")
        assert rule.commit.title
        assert rule.commit.release.startswith("v")
        assert rule.function.endswith("()")
