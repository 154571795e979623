# SPDX-License-Identifier: LGPL-2.1-or-later

"""What struct pglist_data says of the memory of a node."""

from __future__ import annotations

import copy

import pytest
from support.fakekernel import FakeKernel
from support.kernels import each_layout

from drgn_zonedev.kernel.nodes import NOTHING_DEFERRED, Node, UnreadableNode, nodes


def two_nodes(layout: str) -> FakeKernel:
    kernel = FakeKernel(layout)
    kernel.grow_zone("ZONE_NORMAL", 0x1000, 0x9000, present=0x7000)
    kernel.grow_zone("ZONE_DEVICE", 0x80000, 0x90000, nid=3)
    return kernel


@each_layout
def test_nodes(layout: str) -> None:
    kernel = two_nodes(layout)
    kernel.poke_member("pglist_data", kernel.nodes[3], "first_deferred_pfn", 0x88000)
    found = nodes(kernel.program())
    assert found.found == (
        Node(0, 0x1000, 0x8000, 0x7000, NOTHING_DEFERRED, kernel.nodes[0]),
        Node(3, 0x80000, 0x10000, 0, 0x88000, kernel.nodes[3]),
    )
    assert [node.end_pfn for node in found.found] == [0x9000, 0x90000]
    assert found.unreadable == ()


def test_kernel_that_defers_nothing() -> None:
    kernel = two_nodes("6.1")
    # Layouts are shared.
    kernel.layout = copy.deepcopy(kernel.layout)
    del kernel.layout.structs["pglist_data"].members["first_deferred_pfn"]
    assert [node.first_deferred_pfn for node in nodes(kernel.program()).found] == [None, None]


@each_layout
@pytest.mark.parametrize("member", ["node_start_pfn", "node_present_pages", "first_deferred_pfn"])
def test_node_that_cannot_be_read_leaves_the_others(layout: str, member: str) -> None:
    kernel = two_nodes(layout)
    (node, _) = nodes(kernel.program()).found
    offset, size = kernel.layout.locate("pglist_data", member)
    kernel.hide(kernel.nodes[3] + offset, size)
    found = nodes(kernel.program())
    assert found.found == (node,)
    (unreadable,) = found.unreadable
    assert unreadable.nid == 3
    size = kernel.layout.structs["pglist_data"].size
    assert kernel.nodes[3] <= unreadable.address < kernel.nodes[3] + size


@each_layout
def test_node_whose_address_cannot_be_read(layout: str) -> None:
    kernel = two_nodes(layout)
    address = kernel.program()["node_data"][3].address_
    assert address is not None
    kernel.hide(address, 8)
    assert nodes(kernel.program()).unreadable == (UnreadableNode(3, address),)
