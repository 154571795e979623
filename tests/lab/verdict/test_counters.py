# SPDX-License-Identifier: LGPL-2.1-or-later

"""Counters against the kernel's answers: silent on the truth, and loud on any lie."""

from __future__ import annotations

import numpy as np
import pytest
from support.fakekernel import FakeKernel
from support.kernels import each_layout

from drgn_zonedev.lab.truth.frozen import _NODE, _RUN, _ZONE, Frozen
from drgn_zonedev.lab.verdict.counters import counter_disagreements

DMA, DMA32 = 0, 1
ORDERS = [0] * 16


def machine(layout: str) -> FakeKernel:
    kernel = FakeKernel(layout)
    kernel.section(0, online=True, early=True)
    kernel.ram_pages(0, 0x8000)
    return kernel


def answers(kernel: FakeKernel) -> Frozen:
    """What the module says of it: a zone of the first 16 MiB, and the rest."""
    node = kernel.nodes[0]
    start, spanned, present = (
        kernel.member("pglist_data", node, f"node_{name}")
        for name in ("start_pfn", "spanned_pages", "present_pages")
    )
    zones = []
    for number in range(5):
        address = kernel.zone(0, number)
        members = ("zone_start_pfn", "spanned_pages", "present_pages")
        managed = kernel.member("zone", address, "managed_pages.counter")
        counts = [kernel.member("zone", address, member) for member in members]
        zones.append((0, number, *counts, managed, ORDERS))
    runs = [(0, 0x8000, DMA, 0, 0, -1, 1, 0)]
    return Frozen(
        np.array(runs, _RUN),
        np.array(zones, _ZONE),
        np.array([(0, start, spanned, present)], _NODE),
    )


def found(kernel: FakeKernel, frozen: Frozen) -> list[str]:
    return [d.about for d in counter_disagreements(kernel.program(), frozen)]


@each_layout
def test_the_truth_is_agreed_with(layout: str) -> None:
    kernel = machine(layout)
    assert answers(kernel).zones["spanned"].tolist()[:2] == [0x1000, 0x7000]
    assert found(kernel, answers(kernel)) == []


@each_layout
@pytest.mark.parametrize("column", ["start_pfn", "spanned", "present", "managed"])
def test_a_lie_about_a_zone_is_found(layout: str, column: str) -> None:
    kernel = machine(layout)
    frozen = answers(kernel)
    frozen.zones[column][1] += 1
    assert found(kernel, frozen) == ["zone (0, 1)"]


@each_layout
@pytest.mark.parametrize("column", ["start_pfn", "spanned", "present"])
def test_a_lie_about_a_node_is_found(layout: str, column: str) -> None:
    kernel = machine(layout)
    frozen = answers(kernel)
    frozen.nodes[column][0] += 1
    assert found(kernel, frozen) == ["node (0,)"]


@each_layout
def test_free_blocks_that_the_kernel_does_not_count_are_found(layout: str) -> None:
    kernel = machine(layout)
    frozen = answers(kernel)
    frozen.zones["nr_free"][1, 3] = 2
    assert found(kernel, frozen) == ["nr_free (0, 1, 3)", "free blocks found (0, 1, 3)"]


def test_zone_that_only_the_kernel_has_is_found() -> None:
    kernel = machine("6.12")
    frozen = answers(kernel)
    frozen.zones["spanned"][3] = 1
    assert found(kernel, frozen) == ["zone (0, 3)"]
