# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Free Areas
----------

The ``drgn_zonedev.kernel.free_area`` module reads how many free blocks each zone counts, and
finds free blocks among struct pages. Pages on per-CPU lists are in neither: they are not blocks
of the buddy allocator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
from drgn import Object, Program, TypeKind, offsetof, sizeof
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.kernel.memmap import Pages, page_layout
from drgn_zonedev.kernel.page_kinds import PageKinds, kinds_of_ram
from drgn_zonedev.kernel.records import read_records
from drgn_zonedev.util.sets import sorted_set
from drgn_zonedev.vmcore.reads import read_memory

__all__ = (
    "block_heads",
    "count_free_blocks",
    "free_frames",
    "private_of",
    "spin_is_locked",
    "zone_nr_free",
)


@takes_program_or_default
def zone_nr_free(prog: Program, zone: int) -> tuple[int, ...]:
    """
    Get ``zone->free_area[order].nr_free`` of a zone by order, in one read.

    :param zone: Address of the ``struct zone``.
    :raises FaultError: if it cannot be read
    """
    member = prog.type("struct zone").member("free_area")
    area = member.type.type
    count, size = member.type.length or 0, sizeof(area)
    raw = read_memory(prog, zone + member.offset, count * size)
    words = np.frombuffer(raw, np.uint8).reshape(count, size)
    first = offsetof(area, "nr_free")
    numbers = np.ascontiguousarray(words[:, first : first + 8]).view("<u8")[:, 0]
    return tuple(numbers.tolist())


def spin_is_locked(lock: Object) -> bool | None:
    """
    Return whether a ``spinlock_t`` is held, or a CPU waits for it: any bit of a queued
    spinlock's word says so, and two different tickets of another one. With
    ``CONFIG_PREEMPT_RT``, it has an owner instead.

    :return: ``None`` if it is some other lock.
    :raises FaultError: if it cannot be read
    """
    raw = _inner(lock, "rlock", "raw_lock")
    if raw is None:
        owner = _inner(lock, "lock", "owner")
        return None if owner is None else bool(owner.value_())
    # Linux kernel commit 9f61521c7a28 ("powerpc/qspinlock: powerpc qspinlock implementation") (in
    # v6.2): ppc64 has one of its own, whose word is a plain number.
    queued, ticket = _inner(raw, "val", "counter"), _inner(raw, "counter")
    queued = _inner(raw, "val") if queued is None else queued
    if queued is not None:
        return bool(queued.value_())
    if ticket is not None:
        # Since Linux kernel commit 1bce11126d57 ("asm-generic: ticket-lock: New generic
        # ticket-based spinlock") (in v5.19): the next ticket, and the one that is served.
        value = ticket.value_() & 0xFFFFFFFF
        return bool(value >> 16 != value & 0xFFFF)
    # Without CONFIG_SMP, there is nothing in it.
    return None if sizeof(raw) else False


def _inner(object_: Object, *names: str) -> Object | None:
    for name in names:
        type_ = object_.type_
        while type_.kind is TypeKind.TYPEDEF:
            type_ = type_.type
        if type_.kind not in (TypeKind.STRUCT, TypeKind.UNION) or not type_.has_member(name):
            return None
        object_ = object_.member_(name)
    return object_


def block_heads(pages: Pages, kinds: PageKinds) -> np.ndarray:
    """Return the rows of the pages that say that a free block begins there: ``PageBuddy()``."""
    return np.flatnonzero(kinds.buddy.matches(pages.mapcount) & ~pages.is_tail)


def private_of(pages: Pages, kinds: PageKinds) -> np.ndarray:
    """Return ``page->private`` of each page, which is ``buddy_order()`` of a free block."""
    return pages.words[:, kinds.private_offset // 8]


@takes_program_or_default
def count_free_blocks(prog: Program, pages: Pages) -> Mapping[tuple[int, int, int], int]:
    """
    Count the free blocks that begin among some struct pages, whatever order they say.

    :return: Mapping from (node, zone number, order).
    """
    kinds = kinds_of_ram(prog)
    rows = block_heads(pages, kinds)
    # An order that no block has is none of this.
    order = np.minimum(private_of(pages, kinds)[rows], np.uint64(63)).astype(np.int64)
    columns = (c.tolist() for c in (pages.node[rows], pages.zone[rows], order))
    return Counter(zip(*columns))


@takes_program_or_default
def free_frames(prog: Program, frames: np.ndarray) -> np.ndarray:
    """
    Return which page frames are in free blocks of the buddy allocator, by the struct pages of those
    that such a block can begin with.

    :param frames: PFNs, ``np.int64``, sorted, each once.
    :return: Column of ``bool``; false where a struct page cannot be read.
    """
    layout, kinds = page_layout(prog), kinds_of_ram(prog)
    orders = range(kinds.max_order + 1)
    heads = sorted_set(np.concatenate([frames >> order << order for order in orders]))
    address = np.uint64(layout.vmemmap) + heads.astype(np.uint64) * np.uint64(layout.size)
    raw, readable = read_records(prog, address, layout.size)
    pages = np.ascontiguousarray(raw).view("<u8")
    is_tail = (pages[:, layout.compound_word] & np.uint64(1)).astype(bool)
    mapcount = raw.view("<i4")[:, layout.mapcount_offset // 4]
    is_free = readable & ~is_tail & kinds.buddy.matches(mapcount)
    order = np.minimum(pages[:, kinds.private_offset // 8], np.uint64(kinds.max_order))
    # A block is aligned to its size: what says more is damaged, and is believed that far.
    largest = np.where(heads > 0, heads & -heads, 1 << kinds.max_order)
    size = np.minimum(1 << order.astype(np.int64), largest)
    start, end = heads[is_free], np.maximum.accumulate((heads + size)[is_free])
    before = np.searchsorted(start, frames, side="right")
    return np.append(0, end)[before] > frames
