# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Memory Blocks
-------------

The ``drgn_zonedev.kernel.memory_blocks`` module provides helpers for working with
memory blocks, the unit in which RAM is onlined and offlined, as
:linux:`drivers/base/memory.c` keeps them.

ZONE_DEVICE memory never has memory blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from drgn import (
    FaultError,
    IntegerLike,
    Object,
    ObjectNotFoundError,
    Program,
    Type,
    container_of,
    offsetof,
    sizeof,
)
from drgn.helpers.common.prog import takes_program_or_default
from drgn.helpers.linux.mm import decode_memory_block_state_value

from drgn_zonedev.kernel.arguments import require_number
from drgn_zonedev.kernel.devices import for_each_bus_device
from drgn_zonedev.kernel.records import read_records
from drgn_zonedev.kernel.xarray import XArrayGap, xa_entries, xa_lookup
from drgn_zonedev.vmcore.reads import null_pointer

# Blocks of 2 GiB, the largest of x86-64, have 16 sections; others may have a few thousand.
_MAX_SECTIONS_PER_BLOCK = 1 << 16

MEMMAP_UNREADABLE = -1
"""Stands for the number of pages of a block whose altmap cannot be read."""

__all__ = (
    "MEMMAP_UNREADABLE",
    "MemoryBlocks",
    "mem_hotplug_in_progress",
    "memory_block_states",
    "memory_block_zones",
    "memory_blocks",
    "no_memory_blocks",
    "section_memory_block",
    "sections_per_block",
)


@takes_program_or_default
def sections_per_block(prog: Program) -> int:
    """
    Get the number of sections in a memory block.

    :raises ValueError: if it is not a power of two, or absurdly large
    """
    count = int(prog["sections_per_block"].value_())
    # memory_dev_init() panics unless it is a power of two.
    if not 0 < count <= _MAX_SECTIONS_PER_BLOCK or count & count - 1:
        raise ValueError(f"sections_per_block is {count}")
    return count


@takes_program_or_default
def section_memory_block(prog: Program, nr: IntegerLike) -> Object:
    """
    Get the memory block that a section belongs to, like the kernel's
    ``find_memory_block_by_id(memory_block_id(nr))``.

    :param nr: Section number.
    :return: ``struct memory_block *`` (``NULL`` if there is none). A kernel without
        ``CONFIG_MEMORY_HOTPLUG`` may not have the type, either: then, it is a ``void *``.
    :raises FaultError: if ``memory_blocks`` cannot be read there
    """
    # memory_blocks is an xarray since Linux kernel commit 4fb6eabf1037
    # ("drivers/base/memory.c: cache memory blocks in xarray to accelerate
    # lookup") (in v5.8).
    try:
        xa = prog["memory_blocks"].address_of_()
    except ObjectNotFoundError:
        # CONFIG_MEMORY_HOTPLUG=n, or older.
        return _found_otherwise(prog, require_number(nr, "section number"))
    block_id = require_number(nr, "section number") // sections_per_block(prog)
    return Object(prog, "struct memory_block *", xa_lookup(xa, block_id))


def _found_otherwise(prog: Program, nr: int) -> Object:
    try:
        blocks = memory_blocks(prog)
        found = blocks.find(nr // sections_per_block(prog)) if len(blocks) else None
    except LookupError:
        found = None
    if found is None:
        return null_pointer(prog, "struct memory_block *")
    return Object(prog, "struct memory_block *", found[0])


@dataclass(frozen=True)
class MemoryBlocks:
    """
    All memory blocks at once; row ``i`` of each column is one block.

    ``id`` ascends. ``address`` is that of the ``struct memory_block``, and
    ``state`` is an index into ``state_names``. ``memmap_pages`` is how many pages at the head
    of the block store the memmap of the block itself (``memmap_on_memory``), or
    :data:`MEMMAP_UNREADABLE`. ``gaps`` are the block IDs for which ``memory_blocks`` could not
    be read.
    """

    id: np.ndarray
    address: np.ndarray
    state: np.ndarray
    memmap_pages: np.ndarray
    state_names: tuple[str, ...]
    gaps: tuple[XArrayGap, ...] = ()

    def __len__(self) -> int:
        return len(self.id)

    def find(self, block_id: int) -> tuple[int, str] | None:
        """Get the address and the name of the state of a block, if there is one."""
        if block_id < 0:
            return None
        row = int(np.searchsorted(self.id, np.uint64(block_id)))
        if row == len(self) or int(self.id[row]) != block_id:
            return None
        return int(self.address[row]), self.state_names[self.state[row]]


@takes_program_or_default
def memory_blocks(prog: Program) -> MemoryBlocks:
    """
    Get every memory block with its state, e.g., ``MEM_ONLINE``. A state without a
    name is a hexadecimal number; a state that cannot be read is ``unreadable``.
    """
    try:
        entries = xa_entries(prog["memory_blocks"].address_of_())
    except ObjectNotFoundError as e:
        if "sections_per_block" in prog:
            # drivers/base/memory.c defines both. See section_memory_block().
            try:
                return _with_states(prog, *_blocks_on_bus(prog), ())
            except LookupError:
                raise e from None
        # CONFIG_MEMORY_HOTPLUG=n
        return _nothing()
    return _with_states(prog, entries.first, entries.value, entries.gaps)


def _blocks_on_bus(prog: Program) -> tuple[np.ndarray, np.ndarray]:
    # IDs and addresses. Every memory block is a device on the bus of that name.
    per_block, found = sections_per_block(prog), {}
    for dev in for_each_bus_device(prog, "memory"):
        block = container_of(dev, "struct memory_block", "dev")
        found[block.start_section_nr.value_() // per_block] = block.value_()
    ids = sorted(found)
    return np.array(ids, np.uint64), np.array([found[i] for i in ids], np.uint64)


def _with_states(
    prog: Program, ids: np.ndarray, addresses: np.ndarray, gaps: tuple[XArrayGap, ...]
) -> MemoryBlocks:
    block_type = prog.type("struct memory_block")
    state_type = block_type.member("state").type
    places = addresses + np.uint64(offsetof(block_type, "state"))
    raw, readable = read_records(prog, places, sizeof(state_type))
    words = raw.view(f"<u{sizeof(state_type)}")[:, 0].astype(np.uint64)
    numbers, state = np.unique(words, return_inverse=True)
    names = [_state_name(prog, number) for number in numbers.tolist()]
    return MemoryBlocks(
        id=ids,
        address=addresses,
        state=np.where(readable, state.ravel(), len(names)),
        memmap_pages=_memmap_pages(prog, block_type, addresses),
        state_names=(*names, "unreadable"),
        gaps=gaps,
    )


@takes_program_or_default
def memory_block_zones(prog: Program, blocks: MemoryBlocks) -> np.ndarray:
    """
    Get ``memory_block->zone`` of each block, the only zone that it is in: since Linux kernel commit
    395f6081bad4 ("drivers/base/memory: determine and store zone for single-zone memory blocks")
    (in v5.18). 0 where it is not known.
    """
    nothing = np.zeros(len(blocks), np.uint64)
    block_type = prog.type("struct memory_block") if len(blocks) else None
    if block_type is None or not block_type.has_member("zone"):
        return nothing
    zones, readable = _words(prog, blocks.address, offsetof(block_type, "zone"))
    return np.where(readable, zones, nothing)


def no_memory_blocks(reason: str) -> MemoryBlocks:
    """Get the result for memory blocks that cannot be read at all."""
    return _nothing(XArrayGap(0, 1 << 64, 0, reason))


def _nothing(*gaps: XArrayGap) -> MemoryBlocks:
    unsigned, signed = np.empty(0, np.uint64), np.empty(0, np.int64)
    return MemoryBlocks(unsigned, unsigned, signed, signed, (), gaps)


def _memmap_pages(prog: Program, block_type: Type, address: np.ndarray) -> np.ndarray:
    # Since Linux kernel commit a08a2ae34613 ("mm,memory_hotplug: allocate memmap from the added
    # memory range") (in v5.13), a block has nr_vmemmap_pages, and since 1a8c64e11043
    # ("mm/memory_hotplug: embed vmem_altmap details in memory block") (in v6.6), an altmap.
    if block_type.has_member("altmap"):
        altmap, readable = _words(prog, address, offsetof(block_type, "altmap"))
        return _pages_of_altmaps(prog, altmap, readable)
    if not block_type.has_member("nr_vmemmap_pages"):
        return np.zeros(len(address), np.int64)
    pages, readable = _words(prog, address, offsetof(block_type, "nr_vmemmap_pages"))
    return _counted(pages, readable)


def _pages_of_altmaps(prog: Program, altmap: np.ndarray, readable: np.ndarray) -> np.ndarray:
    rows = np.flatnonzero(readable & (altmap != 0))
    free = offsetof(prog.type("struct vmem_altmap"), "free") if len(rows) else 0
    pages, has_pages = np.zeros(len(altmap), np.uint64), readable.copy()
    pages[rows], has_pages[rows] = _words(prog, altmap[rows], free)
    return _counted(pages, has_pages)


def _words(prog: Program, address: np.ndarray, offset: int) -> tuple[np.ndarray, np.ndarray]:
    raw, readable = read_records(prog, address + np.uint64(offset), 8)
    return raw.view("<u8")[:, 0], readable


def _counted(pages: np.ndarray, readable: np.ndarray) -> np.ndarray:
    # No block has more pages than that.
    limited = np.minimum(pages, np.uint64(1 << 62)).astype(np.int64)
    return np.where(readable, limited, MEMMAP_UNREADABLE)


def _state_name(prog: Program, number: int) -> str:
    # drgn knows both numberings. Since Linux kernel commit 1a4f70f6851a ("mm:
    # convert memory block states (MEM_*) macros to enum") (in v6.19), the
    # values are an enum that starts at 0.
    try:
        name = decode_memory_block_state_value(prog, number)
    except KeyError:
        return f"{number:#x}"
    # drgn formats a value without an enumerator as a number.
    return f"{int(name):#x}" if name.isdigit() else name


@takes_program_or_default
def memory_block_states(prog: Program) -> dict[int, tuple[int, str]]:
    """
    Get the state of every memory block.

    :return: Mapping from block ID (section number divided by
        :func:`sections_per_block()`) to (address of the ``struct memory_block``,
        name of the state, as in :func:`memory_blocks()`).
    """
    blocks = memory_blocks(prog)
    columns = blocks.id, blocks.address, blocks.state
    return {
        block_id: (address, blocks.state_names[state])
        for block_id, address, state in zip(*(column.tolist() for column in columns))
    }


@takes_program_or_default
def mem_hotplug_in_progress(prog: Program) -> bool:
    """
    Return whether a memory hotplug is in progress, i.e., between
    ``mem_hotplug_begin()`` and ``mem_hotplug_done()``.

    If so, a section without an owner is probably just being added or removed.
    ``memmap_init_zone_device()`` runs without this lock.
    """
    try:
        lock = prog["mem_hotplug_lock"]
        if lock.type_.has_member("readers_block"):
            # Up to Linux kernel commit 7f26482a872c ("locking/percpu-rwsem: Remove the
            # embedded rwsem") (in v5.7).
            return bool(lock.readers_block.value_())
        return bool(lock.block.counter.value_())
    except (ObjectNotFoundError, AttributeError):
        return False
    except FaultError:
        # Unknown: assume a hotplug is in progress, so that sections without an owner are
        # not reported.
        return True
