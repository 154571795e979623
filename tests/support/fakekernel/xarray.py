# SPDX-License-Identifier: LGPL-2.1-or-later
"""
An XArray in fake memory, built step by step as lib/xarray.c does.

Only what memremap.c and drivers/base/memory.c need: storing non-NULL pointers,
singly or over ranges of indices, into an array without marks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

from .layouts import Layout

CHUNK_SHIFT = 6
CHUNK_SIZE = 1 << CHUNK_SHIFT
CHUNK_MASK = CHUNK_SIZE - 1

Read = Callable[[int, int], bytes]
Write = Callable[[int, bytes], None]
Alloc = Callable[[int], int]


@dataclass(frozen=True)
class Offsets:
    """Where the members of struct xarray (``xa_head``) and struct xa_node are."""

    xa_head: int
    shift: int
    offset: int
    count: int
    parent: int
    array: int
    slots: int
    node_size: int


def offsets(layout: Layout) -> Offsets:
    """Look them up in a layout."""
    node = layout.structs["xa_node"]
    head = layout.structs["xarray"].members["xa_head"].offset
    names = ("shift", "offset", "count", "parent", "array", "slots")
    found = {name: node.members[name].offset for name in names}
    return Offsets(xa_head=head, node_size=node.size, **found)


def _is_node(entry: int) -> bool:
    return entry & 3 == 2 and entry > 4096


def set_range(first: int, last: int) -> tuple[int, int]:
    """xas_set_range(): (shift, number of siblings) of the entry at *first*."""
    shift, siblings, offset, index = 0, last - first, CHUNK_MASK, first
    while index & CHUNK_MASK == 0:
        if siblings < CHUNK_MASK or (siblings == CHUNK_MASK and offset < CHUNK_MASK):
            break
        shift += CHUNK_SHIFT
        if offset == CHUNK_MASK:
            offset = siblings & CHUNK_MASK
        siblings >>= CHUNK_SHIFT
        index >>= CHUNK_SHIFT
    offset = index & CHUNK_MASK
    siblings = min(siblings, CHUNK_MASK - offset)
    if ((index + siblings + 1) << shift) - 1 > last:
        siblings -= 1
    return shift, siblings


class XArray:
    """A struct xarray at *address*, whose memory the caller provides."""

    def __init__(self, address: int, at: Offsets, read: Read, write: Write, alloc: Alloc) -> None:
        self.address = address
        self._at = at
        self._read = read
        self._write = write
        self._alloc = alloc

    def store(self, index: int, entry: int) -> None:
        """xa_store()."""
        self._store(index, 0, 0, entry)

    def store_range(self, first: int, last: int, entry: int) -> None:
        """xa_store_range(), *last* inclusive."""
        # The kernel first builds the path to the last index, so that no store
        # after it can run out of memory; that decides the height of the tree.
        order = (last + 1 & -(last + 1)).bit_length() - 1
        shift = order - order % CHUNK_SHIFT
        siblings = (1 << order % CHUNK_SHIFT) - 1
        self._create(last >> order << order, shift, siblings)
        while first <= last:
            shift, siblings = set_range(first, last)
            self._store(first, shift, siblings, entry)
            first += (siblings + 1) << shift

    def _get(self, address: int, size: int = 8) -> int:
        return int.from_bytes(self._read(address, size), "little")

    def _set(self, address: int, value: int, size: int = 8) -> None:
        self._write(address, value.to_bytes(size, "little"))

    def _new_node(self, shift: int, parent: int, offset: int) -> int:
        node, at = self._alloc(self._at.node_size), self._at
        self._set(node + at.shift, shift, 1)
        self._set(node + at.offset, offset, 1)
        self._set(node + at.parent, parent)
        self._set(node + at.array, self.address)
        if parent:
            self._add_count(parent, 1)
        return node

    def _add_count(self, node: int, change: int) -> None:
        at = node + self._at.count
        self._set(at, self._get(at, 1) + change, 1)

    def _max_index(self, head: int) -> int:
        if not _is_node(head):
            return 0
        return (CHUNK_SIZE << self._get(head - 2 + self._at.shift, 1)) - 1

    def _expand(self, index: int, shift: int, siblings: int) -> int:
        """xas_expand(): grow the tree upwards; returns the shift above its top."""
        highest = index
        if shift or siblings:
            mask = ((siblings + 1) << shift) - 1
            highest |= mask
            if highest == mask:
                highest += 1
        head = self._get(self.address + self._at.xa_head)
        top = 0
        if not head:
            if highest == 0:
                return 0
            while highest >> top >= CHUNK_SIZE:
                top += CHUNK_SHIFT
            return top + CHUNK_SHIFT
        if _is_node(head):
            top = self._get(head - 2 + self._at.shift, 1) + CHUNK_SHIFT
        while highest > self._max_index(head):
            node = self._new_node(top, 0, 0)
            self._add_count(node, 1)
            self._set(node + self._at.slots, head)
            if _is_node(head):
                self._set(head - 2 + self._at.offset, 0, 1)
                self._set(head - 2 + self._at.parent, node)
            head = node + 2
            self._set(self.address + self._at.xa_head, head)
            top += CHUNK_SHIFT
        return top

    def _create(self, index: int, shift: int, siblings: int) -> tuple[int | None, int]:
        """xas_create(): (node or None for the root, offset of the slot)."""
        level = self._expand(index, shift, siblings)
        slot, node, offset = self.address + self._at.xa_head, 0, 0
        while level > shift:
            level -= CHUNK_SHIFT
            entry = self._get(slot)
            if not entry:
                entry = self._new_node(level, node, offset) + 2
                self._set(slot, entry)
            assert _is_node(entry), "the fake never splits an entry"
            node = entry - 2
            offset = index >> level & CHUNK_MASK
            slot = node + self._at.slots + 8 * offset
        return (node or None), offset

    def _store(self, index: int, shift: int, siblings: int, entry: int) -> None:
        """xas_store()."""
        node, first = self._create(index, shift, siblings)
        if node is None:
            self._set(self.address + self._at.xa_head, entry)
            return
        for offset in range(first, first + siblings + 1):
            slot = node + self._at.slots + 8 * offset
            old = self._get(slot)
            assert not _is_node(old), "the fake never frees nodes"
            if not old:
                self._add_count(node, 1)
            # xa_mk_sibling()
            self._set(slot, entry if offset == first else first << 2 | 2)
