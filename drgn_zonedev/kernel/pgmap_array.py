# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Walks of pgmap_array
--------------------

The ``drgn_zonedev.kernel.pgmap_array`` module follows ``xa_load(&pgmap_array, pfn)``: the
addresses that it reads, and the slot that decides its answer.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass

from drgn import IntegerLike, Program, offsetof
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.kernel.xarray import xa_is_node, xa_is_sibling
from drgn_zonedev.vmcore.reads import read_memory, read_word

__all__ = ("Walk", "pgmap_array_slot", "walk_pgmap_array")

# The largest height of a tree for 64-bit indices, with 6 bits per level.
_MAX_HEIGHT = 11


@dataclass(frozen=True)
class Walk:
    """
    The steps of an ``xa_load()``.

    ``loads`` are the addresses that it reads, in order. ``depth`` is the number of nodes
    on the way. ``slot`` is the address of the entry, or of the ``NULL`` that ends the walk,
    and ``value`` is what the slot holds.
    """

    loads: tuple[int, ...]
    depth: int
    slot: int
    value: int


@takes_program_or_default
def walk_pgmap_array(prog: Program, pfn: IntegerLike) -> Walk:
    """
    Walk ``pgmap_array`` as ``xa_load()`` does.

    :param pfn: ``unsigned long``
    :raises ObjectNotFoundError: if the kernel has no ``pgmap_array``
    :raises FaultError: if a node on the way cannot be read
    """
    pfn = operator.index(pfn)
    node_type = prog.type("struct xa_node")
    shift_at, slots_at = offsetof(node_type, "shift"), offsetof(node_type, "slots")
    slots = node_type.member("slots").type.length
    bits = slots.bit_length() - 1
    xa_head = offsetof(prog.type("struct xarray"), "xa_head")
    slot = prog["pgmap_array"].address_of_().value_() + xa_head
    loads, depth, value = [slot], 0, read_word(prog, slot)
    while depth < _MAX_HEIGHT and xa_is_node(value):
        node, depth = value - 2, depth + 1
        loads.append(node + shift_at)
        index = pfn >> read_memory(prog, node + shift_at, 1)[0]
        if depth == 1 and index >> bits:
            # The index is beyond the tree.
            break
        slot = node + slots_at + index % slots * 8
        loads.append(slot)
        value = read_word(prog, slot)
        if xa_is_sibling(value, slots):
            # xa_to_sibling()
            slot = node + slots_at + (value >> 2) * 8
            loads.append(slot)
            value = read_word(prog, slot)
    return Walk(tuple(loads), depth, slot, value)


@takes_program_or_default
def pgmap_array_slot(prog: Program, pfn: IntegerLike) -> tuple[int, int]:
    """
    Get the slot that decides what ``pgmap_array`` holds for a PFN: the slot of the
    entry, or the slot whose ``NULL`` ends the walk.

    :param pfn: ``unsigned long``
    :return: Tuple of (address of the ``void *``, its value). An entry that covers
        many PFNs is in one slot only; its other slots are siblings that refer to that one.
    :raises ObjectNotFoundError: if the kernel has no ``pgmap_array``
    """
    walk = walk_pgmap_array(prog, pfn)
    return walk.slot, walk.value
