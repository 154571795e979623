# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Nodes
-----

The ``drgn_zonedev.kernel.nodes`` module reads what ``struct pglist_data`` says of the memory
of each node.
"""

from __future__ import annotations

from dataclasses import dataclass

from drgn import FaultError, Program
from drgn.helpers.common.prog import takes_program_or_default
from drgn.helpers.linux.mmzone import NODE_DATA

from drgn_zonedev.kernel.masks import online_nodes
from drgn_zonedev.kernel.records import read_words

__all__ = ("NOTHING_DEFERRED", "Node", "Nodes", "UnreadableNode", "nodes")

NOTHING_DEFERRED = (1 << 64) - 1
"""ULONG_MAX, which ``pgdat->first_deferred_pfn`` is unless struct pages are to follow."""


@dataclass(frozen=True)
class Node:
    """
    One ``struct pglist_data`` at ``address``, as the kernel has it. ``first_deferred_pfn`` is
    ``None`` without ``CONFIG_DEFERRED_STRUCT_PAGE_INIT``.
    """

    nid: int
    start_pfn: int
    spanned_pages: int
    present_pages: int
    first_deferred_pfn: int | None
    address: int

    @property
    def end_pfn(self) -> int:
        """``pgdat_end_pfn()``"""
        return self.start_pfn + self.spanned_pages


@dataclass(frozen=True)
class UnreadableNode:
    """A ``struct pglist_data`` that cannot be read, and the address that faulted."""

    nid: int
    address: int


@dataclass(frozen=True)
class Nodes:
    """Nodes that are online, by number."""

    found: tuple[Node, ...]
    unreadable: tuple[UnreadableNode, ...] = ()


@takes_program_or_default
def nodes(prog: Program) -> Nodes:
    """
    Get the nodes that are online.

    :raises FaultError: if the mask of online nodes cannot be read
    :raises LookupError: if the debugging information does not have the types
    """
    read = [_read_node(prog, nid) for nid in online_nodes(prog)]
    return Nodes(
        found=tuple(n for n in read if isinstance(n, Node)),
        unreadable=tuple(n for n in read if isinstance(n, UnreadableNode)),
    )


def _read_node(prog: Program, nid: int) -> Node | UnreadableNode:
    try:
        pgdat = NODE_DATA(prog, nid)
        address = pgdat.value_()
    except FaultError as e:
        return UnreadableNode(nid, e.address)
    spans = pgdat.node_start_pfn, pgdat.node_spanned_pages, pgdat.node_present_pages
    try:
        start, spanned, present = read_words(prog, spans)
        deferred = None
        if pgdat.type_.type.has_member("first_deferred_pfn"):
            deferred = int(pgdat.first_deferred_pfn.value_())
    except FaultError:
        # A fault may be at a physical address.
        return UnreadableNode(nid, spans[0].address_ or 0)
    return Node(nid, start, spanned, present, deferred, address)
