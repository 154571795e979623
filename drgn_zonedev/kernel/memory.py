# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Memory Blocks
-------------

The ``drgn_zonedev.kernel.memory`` module provides helpers for working with
memory blocks, the unit in which RAM is onlined and offlined, as
:linux:`drivers/base/memory.c` keeps them.

ZONE_DEVICE memory never has memory blocks.
"""

from __future__ import annotations

import operator

from drgn import NULL, FaultError, IntegerLike, Object, ObjectNotFoundError, Program, cast
from drgn.helpers.common.prog import takes_program_or_default
from drgn.helpers.linux.mm import decode_memory_block_state
from drgn.helpers.linux.xarray import xa_for_each, xa_load

__all__ = (
    "mem_hotplug_in_progress",
    "memory_block_states",
    "section_memory_block",
    "sections_per_block",
)


@takes_program_or_default
def sections_per_block(prog: Program) -> int:
    """Get the number of sections in a memory block."""
    return int(prog["sections_per_block"].value_())


@takes_program_or_default
def section_memory_block(prog: Program, nr: IntegerLike) -> Object:
    """
    Get the memory block that a section belongs to, like the kernel's
    ``find_memory_block_by_id(memory_block_id(nr))``.

    :param nr: Section number.
    :return: ``struct memory_block *`` (``NULL`` if there is none)
    """
    # memory_blocks is an xarray since Linux kernel commit 4fb6eabf1037
    # ("drivers/base/memory.c: cache memory blocks in xarray to accelerate
    # lookup") (in v5.8).
    block_id = operator.index(nr) // sections_per_block(prog)
    try:
        xa = prog["memory_blocks"].address_of_()
    except ObjectNotFoundError:
        # CONFIG_MEMORY_HOTPLUG=n
        return NULL(prog, "void *")
    return cast("struct memory_block *", xa_load(xa, block_id))


def _state_name(block: Object) -> str:
    # drgn knows both numberings: since Linux kernel commit 1a4f70f6851a ("mm:
    # convert memory block states (MEM_*) macros to enum") (in v6.19), the
    # values are an enum that starts at 0.
    try:
        name = decode_memory_block_state(block)
        # An enum without an enumerator for the value is formatted as a number.
        return f"{int(name):#x}" if name.isdigit() else name
    except KeyError:
        return f"{block.state.value_():#x}"
    except FaultError:
        return "unreadable"


@takes_program_or_default
def memory_block_states(prog: Program) -> dict[int, tuple[int, str]]:
    """
    Get the state of every memory block.

    :return: Mapping from block ID (section number divided by
        :func:`sections_per_block()`) to (address of the ``struct memory_block``,
        name of the state, e.g., ``MEM_ONLINE``). A state without a name is in
        hexadecimal, one that cannot be read is ``unreadable``.
    """
    try:
        xa = prog["memory_blocks"].address_of_()
    except ObjectNotFoundError:
        return {}
    block_type = prog.type("struct memory_block *")
    blocks = {}
    for block_id, entry in xa_for_each(xa):
        block = cast(block_type, entry)
        blocks[block_id] = (block.value_(), _state_name(block))
    return blocks


@takes_program_or_default
def mem_hotplug_in_progress(prog: Program) -> bool:
    """
    Return whether somebody is between ``mem_hotplug_begin()`` and
    ``mem_hotplug_done()``.

    Sections that nobody owns are then probably just being added or removed.
    ``memmap_init_zone_device()`` runs without this lock.
    """
    try:
        return bool(prog["mem_hotplug_lock"].block.counter.value_())
    except (ObjectNotFoundError, AttributeError):
        return False
