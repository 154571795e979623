# SPDX-License-Identifier: LGPL-2.1-or-later

"""
What is asked for many PFNs at once is what the kernel's functions answer for each: what the
scene was built of says which, and the helper for one PFN says the same.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from drgn import Program
from support.fakekernel import LAYOUTS, FakeKernel, collision, far, in_flight, partial, teardown
from support.kernels import each_layout

from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.kernel.memremap import get_dev_pagemap, pgmap_pfn_valid
from drgn_zonedev.kernel.mmzone import pfn_section_valid, pfn_to_online_page, pfn_valid
from drgn_zonedev.kernel.predicates import Predicates

SCENES = (collision, far, in_flight, partial, teardown)
SECTION, SUBSECTION = 0x8000, 0x200
START, END = 0x40000, 0x48000


def ask(prog: Program, *pfns: int) -> Predicates:
    return take_snapshot(prog).predicates(np.array(pfns, np.int64))


def borders(prog: Program) -> list[int]:
    """PFNs around every border that a section or a pgmap has."""
    snapshot = take_snapshot(prog)
    starts = {0, 1 << 40}
    for nr in snapshot.sections.nr.tolist():
        # Those at which the scenes' subsection maps change, and some others.
        starts.update(nr * SECTION + i * SUBSECTION for i in (0, 1, 2, 3, 7, 32, 60, 63, 64))
    for pgmap in snapshot.pgmaps:
        for i, range_ in enumerate(pgmap.ranges):
            starts.update((range_.start_pfn, range_.end_pfn, pgmap.pfn_first(i)))
    return sorted({pfn + near for pfn in starts for near in (-1, 0, 1) if pfn + near >= 0})


@pytest.mark.parametrize("layout", [*LAYOUTS, "7.3-proposal"])
@pytest.mark.parametrize("scene", SCENES)
def test_answers_are_those_for_one_pfn(scene: object, layout: str) -> None:
    assert callable(scene)
    prog = scene(layout).program()
    pfns = borders(prog)
    found = ask(prog, *pfns)
    pgmaps = [get_dev_pagemap(prog, pfn) for pfn in pfns]
    assert found.pfn_valid.tolist() == [pfn_valid(prog, pfn) for pfn in pfns]
    assert found.online.tolist() == [bool(pfn_to_online_page(prog, pfn)) for pfn in pfns]
    assert found.pgmap.tolist() == [pgmap.value_() for pgmap in pgmaps]
    assert found.pgmap_pfn_valid.tolist() == [
        bool(pgmap) and pgmap_pfn_valid(pgmap, pfn) for pgmap, pfn in zip(pgmaps, pfns)
    ]
    rows = np.flatnonzero(found.section_row >= 0).tolist()
    assert found.pfn_section_valid[rows].tolist() == [
        pfn_section_valid(prog, pfns[row]) for row in rows
    ]


def test_order_and_repetition_do_not_matter() -> None:
    prog = collision("6.1").program()
    pfns = borders(prog)
    expected = dict(zip(pfns, ask(prog, *pfns).online.tolist()))
    shuffled = np.random.default_rng(1).choice(pfns, 500).tolist()
    assert ask(prog, *shuffled).online.tolist() == [expected[pfn] for pfn in shuffled]


@each_layout
def test_memmap_of_an_early_section_is_there_as_a_whole(layout: str) -> None:
    # pfn_valid() of include/linux/mmzone.h: "Traditionally early sections always returned
    # pfn_valid() for the entire section-sized span."
    kernel = FakeKernel(layout)
    kernel.section(8, early=True, subsections=[1])
    kernel.section(9, subsections=[1])
    first, second = 8 * SECTION, 9 * SECTION
    found = ask(kernel.program(), first, first + SUBSECTION, second, second + SUBSECTION)
    assert found.pfn_valid.tolist() == [True, True, False, True]
    assert found.pfn_section_valid.tolist() == [False, True, False, True]
    assert found.populated.tolist() == [False, True, False, True]


@each_layout
def test_section_without_a_memmap_has_no_valid_pfn(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8, has_mem_map=False, early=True)
    found = ask(kernel.program(), START)
    assert (found.pfn_valid[0], found.populated[0]) == (False, False)


@each_layout
def test_device_in_a_tainted_section_is_not_online(layout: str) -> None:
    # Linux kernel commit 1f90a3477df3 ("mm: teach pfn_to_online_page() about
    # ZONE_DEVICE section collisions") (in v5.12); before that, all of it is online.
    kernel = FakeKernel(layout)
    kernel.section(8, online=True, early=True, taint=True)
    kernel.ram_pages(START, START + 0x4000)
    pgmap = kernel.pgmap((START + 0x4000, END))
    kernel.device_pages(START + 0x4000, END, pgmap)
    found = ask(kernel.program(), START, START + 0x3FFF, START + 0x4000, END - 1)
    device = layout == "5.10"
    assert found.online.tolist() == [True, True, device, device]


@pytest.mark.parametrize("scene", [collision, in_flight, teardown])
@pytest.mark.parametrize("layout", ["7.3", "7.3-proposal"])
def test_kernel_that_asks_the_first_bit_never_takes_a_device_for_ram(
    layout: str, scene: Callable[[str], FakeKernel]
) -> None:
    found = ask(scene(layout).program(), 0x23FFF, 0x24000, 0x24400, 0x27FFF, 0x30000)
    dying = layout == "7.3" and scene is teardown
    assert found.online.tolist() == [True, dying, dying, dying, True]


@pytest.mark.parametrize("ref", ["dead", "exited"])
def test_dying_pgmap_is_not_found(ref: str) -> None:
    kernel = FakeKernel("6.1")
    kernel.section(8)
    kernel.map_memmap(START, END)
    kernel.pgmap((START, END), ref=ref)
    found = ask(kernel.program(), START)
    assert (found.pgmap[0], found.pgmap_pfn_valid[0]) == (0, False)


def test_second_range_has_no_altmap() -> None:
    kernel = collision("6.1")
    kernel.section(0x20)
    second = kernel.pgmap((0x100000, 0x100200), (0x100400, 0x100600))
    found = ask(kernel.program(), 0x100000, 0x1001FF, 0x100200, 0x100400, 0x1005FF, 0x100600)
    inside = [True, True, False, True, True, False]
    assert found.pgmap_pfn_valid.tolist() == inside
    assert found.pgmap.tolist() == [second if there else 0 for there in inside]
    # collision() has a reserve of two pages, and 1022 of metadata.
    first = ask(kernel.program(), 0x24000, 0x24001, 0x24002, 0x243FF, 0x24400)
    assert first.zone_device_reserved.tolist() == [True, True, False, False, False]
    assert first.pgmap_pfn_valid.tolist() == [False, False, False, False, True]


def test_kernel_without_sections_has_nothing() -> None:
    found = ask(FakeKernel("6.1").program(), 0, 1, 1 << 40)
    for column in ("pfn_valid", "online", "pgmap_pfn_valid", "zone_device", "populated"):
        assert not getattr(found, column).any()


def test_nothing_is_asked_of_no_pfns() -> None:
    found = ask(collision("6.1").program())
    assert len(found.pfn_valid) == len(found.online) == len(found.pgmap) == 0
