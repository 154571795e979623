# SPDX-License-Identifier: LGPL-2.1-or-later

"""pfn_zone_device() where struct pages may be touched, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from drgn import Program
from support.fakekernel import Altmap, FakeKernel, collision, in_flight, partial
from support.kernels import each_layout

from drgn_zonedev.classification.classify import classify_snapshot
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.kernel.predicates import Predicates
from drgn_zonedev.kernel.zone_device import pfn_zone_device, pfn_zone_device_reserved
from drgn_zonedev.model import Case

Spans = list[tuple[int, int]]


def predicates(prog: Program, pfn: np.ndarray) -> Predicates:
    return take_snapshot(prog).predicates(pfn)


def spans(prog: Program, end_pfn: int, column: str) -> Spans:
    """Where a bulk predicate is true below a PFN."""
    pfn = np.arange(end_pfn)
    found = np.concatenate([[False], getattr(predicates(prog, pfn), column), [False]])
    borders = np.flatnonzero(np.diff(found.astype(np.int8)))
    return [(int(a), int(b)) for a, b in borders.reshape(-1, 2)]


def check(prog: Program, device: Spans, reserved: Spans, end_pfn: int = 0x120000) -> None:
    """Both predicates are true exactly there: all PFNs in bulk, the borders one by one."""
    assert spans(prog, end_pfn, "zone_device") == device
    assert spans(prog, end_pfn, "zone_device_reserved") == reserved
    for helper, expected in ((pfn_zone_device, device), (pfn_zone_device_reserved, reserved)):
        for start, end in expected:
            around = [helper(prog, pfn) for pfn in (start - 1, start, end - 1, end)]
            assert around == [False, True, True, False]
        assert helper(prog, 1 << 52) is False


def departed(layout: str) -> FakeKernel:
    """collision() after the device has left: ghosts in section 4, nothing in section 5."""
    kernel = FakeKernel(layout)
    kernel.section(4, online=True, early=True, taint=True, subsections=range(32))
    kernel.ram_pages(0x20000, 0x24000)
    kernel.device_pages(0x24000, 0x28000, 0xFFFF888012345600)
    return kernel


def failed(layout: str) -> FakeKernel:
    """A section that a failed memremap_pages() left behind."""
    kernel = FakeKernel(layout)
    kernel.section(4)
    kernel.map_memmap(0x20000, 0x28000)
    return kernel


def offline(layout: str) -> FakeKernel:
    kernel = FakeKernel(layout)
    kernel.section(4)
    kernel.memory_block(4, "MEM_OFFLINE")
    return kernel


@each_layout
def test_behind_the_altmap_of_a_device_that_shares_a_section(layout: str) -> None:
    check(collision(layout).program(), [(0x24400, 0x30000)], [(0x24000, 0x24002)])


@each_layout
def test_up_to_the_end_of_a_device_in_mid_section(layout: str) -> None:
    check(partial(layout).program(), [(0x100600, 0x114000)], [(0x100000, 0x100002)])


@each_layout
def test_nothing_before_the_struct_pages_are_initialised(layout: str) -> None:
    check(in_flight(layout).program(), [], [(0x24000, 0x24002)])


@each_layout
@pytest.mark.parametrize("scene", [departed, failed, offline])
def test_nothing_without_a_pgmap(layout: str, scene: Callable[[str], FakeKernel]) -> None:
    check(scene(layout).program(), [], [])


@each_layout
@pytest.mark.parametrize("ref", ["dead", "exited"])
def test_nothing_once_the_pgmap_is_dying(layout: str, ref: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    pgmap = kernel.pgmap((0x40000, 0x48000), altmap=Altmap(0x40000, 0x47FFF, 2, 510), ref=ref)
    kernel.device_pages(0x40200, 0x48000, pgmap)
    check(kernel.program(), [], [])


@each_layout
def test_the_ranges_of_a_pgmap_come_one_after_the_other(layout: str) -> None:
    # The second range is being initialised; the altmap is about the first one only.
    kernel = FakeKernel(layout)
    for nr in (8, 10, 12):
        kernel.section(nr)
    ranges = (0x40000, 0x48000), (0x50000, 0x58000), (0x60000, 0x68000)
    kernel.pgmap(*ranges, altmap=Altmap(0x40000, 0x47FFF, 2, 510), nr_range=1)
    check(kernel.program(), [(0x40200, 0x48000)], [(0x40000, 0x40002)])


@each_layout
def test_every_subsection_has_to_be_populated_also_in_early_sections(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8, early=True, online=True, subsections=[0, 1, 63])
    kernel.section(9, has_mem_map=False)
    kernel.pgmap((0x40000, 0x50000), altmap=Altmap(0x40000, 0x4FFFF, 0x402, 0x1FE))
    found = [(0x47E00, 0x48000)]
    check(kernel.program(), found, [(0x40000, 0x40400)])


@each_layout
def test_a_kernel_without_any_section(layout: str) -> None:
    check(FakeKernel(layout).program(), [], [])


@each_layout
@pytest.mark.parametrize("scene", [collision, in_flight, partial, departed, failed, offline])
def test_it_is_what_classify_calls_device_and_reserved(
    layout: str, scene: Callable[[str], FakeKernel]
) -> None:
    prog = scene(layout).program()
    snapshot = take_snapshot(prog)
    for range_ in classify_snapshot(prog, snapshot):
        found = predicates(prog, np.arange(range_.start_pfn, range_.end_pfn))
        assert set(found.zone_device.tolist()) == {range_.case is Case.DEVICE}
        assert set(found.zone_device_reserved.tolist()) == {range_.case is Case.RESERVED}
