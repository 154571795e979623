# SPDX-License-Identifier: LGPL-2.1-or-later

"""Struct pages that boot is still to initialise."""

from __future__ import annotations

import pytest
from drgn import ObjectNotFoundError, Program
from support.fakekernel import FakeKernel
from support.kernels import each_layout

from drgn_zonedev.kernel.deferred_init import (
    DeferredMemmap,
    deferred_memmaps,
    deferred_pages_enabled,
    nodes_to_initialize,
)
from drgn_zonedev.kernel.nodes import nodes
from drgn_zonedev.kernel.zones import zones

ULONG_MAX = (1 << 64) - 1
DEVICE = 4


def booting(layout: str, *marks: int, undone: int = 0, enabled: int = 1) -> FakeKernel:
    """Two nodes, the first with two zones, before page_alloc_init_late() or in it."""
    kernel = FakeKernel(layout)
    kernel.ram_pages(1, 0x20000)
    kernel.ram_pages(0x20000, 0x40000, nid=1)
    for nid, mark in enumerate(marks):
        kernel.poke_member("pglist_data", kernel.nodes[nid], "first_deferred_pfn", mark)
    kernel.set_variable("pgdat_init_n_undone", undone)
    kernel.poke_member(
        "static_key_true", kernel.variables["deferred_pages"][1], "key.enabled.counter", enabled
    )
    return kernel


def memmaps(prog: Program) -> tuple[DeferredMemmap, ...]:
    return deferred_memmaps(prog, nodes(prog), zones(prog), DEVICE)


def spans(kernel: FakeKernel) -> list[tuple[int, int, int, bool]]:
    found = memmaps(kernel.program())
    return [(d.node.nid, d.start_pfn, d.end_pfn, d.running) for d in found]


@each_layout
@pytest.mark.parametrize(
    ("marks", "undone", "expected"),
    [
        # Before page_alloc_init_late().
        ((0x10000, 0x28000), 0, [(0, 0x10000, 0x20000, False), (1, 0x28000, 0x40000, False)]),
        ((ULONG_MAX, 0x28000), 0, [(1, 0x28000, 0x40000, False)]),
        ((ULONG_MAX, ULONG_MAX), 0, []),
        # In it: the threads of both nodes, or of one of them, have taken their mark.
        ((0x10000, 0x28000), 2, [(0, 0x10000, 0x20000, False), (1, 0x28000, 0x40000, False)]),
        ((ULONG_MAX, 0x28000), 2, [(0, 0x1000, 0x20000, True), (1, 0x28000, 0x40000, False)]),
        ((ULONG_MAX, ULONG_MAX), 2, [(0, 0x1000, 0x20000, True), (1, 0x20000, 0x40000, True)]),
        # One of them is through, and nothing says which.
        ((ULONG_MAX, ULONG_MAX), 1, [(0, 0x1000, 0x20000, True), (1, 0x20000, 0x40000, True)]),
        # At the very end.
        ((0x20000, ULONG_MAX), 0, []),
    ],
)
def test_what_is_left_to_initialize(
    layout: str, marks: tuple[int, int], undone: int, expected: list[tuple[int, int, int, bool]]
) -> None:
    assert spans(booting(layout, *marks, undone=undone)) == expected


@each_layout
def test_marks_mean_nothing_after_boot(layout: str) -> None:
    # A node that was added later has a struct pglist_data of zeros, and __initdata is gone.
    assert spans(booting(layout, ULONG_MAX, 0, undone=0x5A5A5A5A, enabled=0)) == []


@each_layout
def test_the_state_is_read(layout: str) -> None:
    prog = booting(layout, ULONG_MAX, undone=3).program()
    assert deferred_pages_enabled(prog)
    assert nodes_to_initialize(prog) == 3
    assert {d.undone for d in memmaps(prog)} == {3}
    assert not deferred_pages_enabled(booting(layout, enabled=0).program())


@each_layout
def test_zone_device_is_not_the_highest_zone(layout: str) -> None:
    kernel = booting(layout, 0x10000)
    kernel.grow_zone("ZONE_DEVICE", 0x100000, 0x108000)
    assert spans(kernel) == [(0, 0x10000, 0x20000, False)]


@pytest.mark.parametrize("hidden", ["deferred_pages", "pgdat_init_n_undone"])
def test_what_says_it_may_not_be_in_the_debugging_information(hidden: str) -> None:
    prog = booting("6.12", ULONG_MAX).program(hidden=frozenset([hidden]))
    with pytest.raises(ObjectNotFoundError, match=hidden):
        memmaps(prog)
