# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Unsupported Memory
------------------

Memory of kinds that kernels are about to have, in patches of 2025 and 2026, and that is in none
that was ever booted here. It is reported by name, and not judged by luck.
"""

from __future__ import annotations

from collections.abc import Iterator

from drgn import FaultError, Program
from drgn.helpers.linux.nodemask import for_each_node_mask

from drgn_zonedev.model import Unjudged

__all__ = ("unsupported_memory",)

_TREE = "device_private_pgmap_tree"
_NODES = "N_MEMORY_PRIVATE"


def unsupported_memory(prog: Program) -> Iterator[Unjudged]:
    """Report memory that there is, and that nothing here knows."""
    yield from _private_tree(prog)
    yield from _private_nodes(prog)


def _private_tree(prog: Program) -> Iterator[Unjudged]:
    # memremap_device_private_pagemap(): such pages have no PFN, and pgmap_array not their pgmap.
    if _TREE not in prog:
        return
    tree = prog[_TREE]
    try:
        if not tree.ma_root:
            return
    except (AttributeError, FaultError, LookupError):
        # Then it may have anything.
        pass
    reason = (
        f"device-private memory has its own address space here, without PFNs ({_TREE}): none of it "
        "was looked at"
    )
    yield Unjudged(0, 0, reason, tree.address_)


def _private_nodes(prog: Program) -> Iterator[Unjudged]:
    try:
        state = prog.constant(_NODES).value_()
    except LookupError:
        return
    try:
        nodes = list(for_each_node_mask(prog["node_states"][state]))
    except (AttributeError, FaultError, LookupError):
        nodes = []
    for nid in nodes:
        reason = (
            f"node {nid} is a private memory node ({_NODES}): its driver decides what its pages "
            "are used for, and they were judged like any RAM"
        )
        yield Unjudged(0, 0, reason)
