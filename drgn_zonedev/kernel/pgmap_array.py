# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Slots of pgmap_array
--------------------

The ``drgn_zonedev.kernel.pgmap_array`` module tells where the answer of
``xa_load(&pgmap_array, pfn)`` is stored, so that it can be looked at.
"""

from __future__ import annotations

import operator

from drgn import IntegerLike, Object, Program
from drgn.helpers.common.prog import takes_program_or_default

__all__ = ("pgmap_array_slot",)

# include/linux/xarray.h: an internal entry has 2 in its lowest bits. One below
# this is not a node, but the offset of the slot that it is a sibling of.
_FIRST_NODE = 4096

# A tree for 64-bit indices, 6 bits a level, is no higher than this.
_MAX_HEIGHT = 11


@takes_program_or_default
def pgmap_array_slot(prog: Program, pfn: IntegerLike) -> tuple[int, int]:
    """
    Get the slot that decides what ``pgmap_array`` holds for a PFN: that of the
    entry, or the one whose ``NULL`` ends the walk.

    :param pfn: ``unsigned long``
    :return: Tuple of (address of the ``void *``, its value). An entry that covers
        many PFNs is in one slot only, and its siblings refer to that.
    :raises ObjectNotFoundError: if the kernel has no ``pgmap_array``
    """
    pfn = operator.index(pfn)
    slot = prog["pgmap_array"].xa_head
    node_type = prog.type("struct xa_node *")
    bits = prog.type("struct xa_node").member("slots").type.length.bit_length() - 1
    for _ in range(_MAX_HEIGHT):
        entry = slot.value_()
        if not _is_node(entry):
            break
        node = Object(prog, node_type, entry - 2)
        index = pfn >> node.shift.value_()
        if slot.address_ == prog["pgmap_array"].xa_head.address_ and index >> bits:
            # Higher than the tree.
            break
        slot = _canonical(node, index & ((1 << bits) - 1), 1 << bits)
    return slot.address_, slot.value_()


def _is_node(entry: int) -> bool:
    return entry & 3 == 2 and entry > _FIRST_NODE


def _canonical(node: Object, offset: int, slots: int) -> Object:
    # xa_is_sibling(), xa_to_sibling()
    entry = node.slots[offset].value_()
    if entry & 3 == 2 and entry >> 2 < slots - 1:
        return node.slots[entry >> 2]
    return node.slots[offset]
