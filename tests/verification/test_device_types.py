# SPDX-License-Identifier: LGPL-2.1-or-later

"""
All types of device memory: whatever single word of a struct page is wrong must be found, at its
PFN and by its slug, and nothing else besides; and nothing is wrong with what their users do.
"""

from __future__ import annotations

import random

import pytest
from drgn import Program
from support.defects import Injector, Overlay, Pages, Spot
from support.fakekernel import FakeKernel
from support.kernels import each_layout

from drgn_zonedev.report import check

PRIVATE, COHERENT = "MEMORY_DEVICE_PRIVATE", "MEMORY_DEVICE_COHERENT"
P2PDMA, GENERIC = "MEMORY_DEVICE_PCI_P2PDMA", "MEMORY_DEVICE_GENERIC"
# Two ranges, the second of which begins within a section.
RANGES = ((0x40000, 0x42000), (0x49000, 0x4A000))
SHIFT = 9

each_type = pytest.mark.parametrize(
    ("type_", "order"), [(PRIVATE, 0), (COHERENT, 0), (P2PDMA, 0), (GENERIC, 0), (GENERIC, SHIFT)]
)


def machine(layout: str, type_: str, order: int) -> tuple[FakeKernel, int]:
    """A device with two ranges, and the order of its compound pages."""
    kernel = FakeKernel(layout, dedup=False)
    if type_ not in kernel.layout.enums["memory_type"]:
        pytest.skip("this kernel has no such memory")
    if not kernel.layout.has_member("dev_pagemap", "vmemmap_shift"):
        order = 0
    for start, end in RANGES:
        kernel.sections(start, end, taint=True)
    pgmap = kernel.pgmap(*RANGES, type=type_, vmemmap_shift=order)
    for start, end in RANGES:
        kernel.device_pages(start, end, pgmap)
    return kernel, order


def spots(prog: Program) -> set[Spot]:
    found = check(prog).findings
    return {(f.slug, f.start_pfn, f.end_pfn) for f in found if f.slug != "case3-partial"}


def demand_all(layout: str, type_: str, order: int, number: int) -> int:
    kernel, order = machine(layout, type_, order)
    prog, rng = kernel.program(), random.Random(f"{layout} {type_} {order}")
    injector, overlay, injected = Injector(prog, layout), Overlay(prog), 0
    # Idle pages of device-private memory have a reference each in 5.10.
    assert spots(prog) == set()
    for start, end in RANGES:
        pages = Pages(start, end, type_, order)
        edges = [start] if start == RANGES[0][0] else [end - 1]
        for pfn in (*edges, *(rng.randrange(start, end) for _ in range(number))):
            for defect in injector.page_defects(pages, pfn, rng):
                with overlay.injected(defect):
                    assert spots(prog) == defect.expected, f"{type_}: {defect.what}"
                injected += 1
    assert spots(prog) == set()
    return injected


@each_layout
@each_type
def test_each_defect_is_found_where_it_is(layout: str, type_: str, order: int) -> None:
    assert demand_all(layout, type_, order, 0) >= 12


@pytest.mark.long("a thousand defects; a dozen of each type and layout are in every run")
@each_layout
@each_type
def test_a_thousand_defects_are_found(layout: str, type_: str, order: int) -> None:
    assert demand_all(layout, type_, order, 10) >= 100


FLAGS, LINK, MAPPING, INDEX, PRIVATE_WORD, COUNTS, MEMCG = 0, 1, 3, 4, 5, 6, 7


@each_layout
@each_type
def test_what_users_do_is_no_defect(layout: str, type_: str, order: int) -> None:
    # Migration, mappings, pins, references, a memory cgroup; the pgmap counts the pages in use.
    kernel, order = machine(layout, type_, order)
    rng = random.Random(f"{layout} {type_} {order}")
    names = ("PG_locked", "PG_dirty", "PG_uptodate", "PG_active", "PG_workingset", "PG_hwpoison")
    step = 1 << order
    used = {
        start + rng.randrange(end - start) // step * step for start, end in RANGES for _ in "123"
    }
    for pfn in used:
        flags = sum(1 << kernel.layout.constant(n) for n in names if kernel.layout.has_constant(n))
        kernel.poke_page_word(pfn, FLAGS, kernel.page_word(pfn, FLAGS) | flags)
        kernel.poke_page_word(pfn, MAPPING, 0xFFFF888012345671)
        kernel.poke_page_word(pfn, INDEX, rng.getrandbits(40))
        kernel.poke_page_word(pfn, PRIVATE_WORD, rng.getrandbits(64))
        kernel.poke_page_word(pfn, COUNTS, rng.randrange(2, 99) << 32 | rng.randrange(5))
        kernel.poke_page_word(pfn, MEMCG, 0xFFFF888012345000)
    slugs = {slug for slug, *_ in spots(kernel.program())}
    counted = type_ in (PRIVATE, COHERENT) and layout != "5.10"
    counted |= type_ == P2PDMA and not kernel.layout.has_member("page", "pgmap")
    # memremap_pages() took none for them.
    assert slugs == ({"pgmap-references-missing"} if counted else set())
