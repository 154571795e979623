# SPDX-License-Identifier: LGPL-2.1-or-later

"""Nodes and CPUs, of which there are no more than their masks have bits."""

from __future__ import annotations

import pytest
from support.fakekernel import FakeKernel
from support.kernels import each_layout

from drgn_zonedev.kernel.masks import (
    masks_are_sound,
    online_cpus,
    online_nodes,
    possible_cpus,
    possible_nodes,
)


def kernel_of(layout: str) -> FakeKernel:
    kernel = FakeKernel(layout)
    kernel.section(0)
    return kernel


@each_layout
def test_as_many_as_there_are(layout: str) -> None:
    kernel = kernel_of(layout)
    kernel.node(3)
    prog = kernel.program()
    assert online_nodes(prog) == [0, 3]
    cpus = list(range(prog["nr_cpu_ids"].value_()))
    assert possible_cpus(prog) == online_cpus(prog) == cpus
    assert masks_are_sound(prog)


def test_nodes_that_may_come_online_are_the_online_ones_if_nothing_else_can_be_read() -> None:
    kernel = kernel_of("6.12")
    kernel.node(3)
    # N_POSSIBLE comes first.
    _, states = kernel.variables["node_states"]
    kernel.poke(states, (0b1011).to_bytes(8, "little"))
    assert possible_nodes(kernel.program()) == [0, 1, 3]
    kernel.hide(states, 8)
    assert possible_nodes(kernel.program()) == [0, 3]


@pytest.mark.parametrize("count", ["nr_node_ids", "nr_cpu_ids"])
@pytest.mark.parametrize("value", [1 << 14, (1 << 31) - 1, (1 << 32) - 1])
def test_a_mask_ends_where_its_type_does(count: str, value: int) -> None:
    kernel = kernel_of("6.1")
    prog = kernel.program()
    expected = online_nodes(prog), possible_cpus(prog)
    kernel.set_variable(count, value)
    prog = kernel.program()
    assert (online_nodes(prog), possible_cpus(prog)) == expected
    assert not masks_are_sound(prog)
