# SPDX-License-Identifier: LGPL-2.1-or-later

"""
XArrays
-------

The ``drgn_zonedev.kernel.xarray`` module reads whole xarrays
(:linux:`lib/xarray.c`) of memory that may be damaged.

drgn's :func:`~drgn.helpers.linux.xarray.xa_for_each()` and ``xa_load()`` follow
every pointer that they find: they never end on a node that is reachable from itself, raise
an exception at a node that cannot be read, and create several objects per slot. Here,
each node takes one read and is visited once, and a node that cannot be trusted becomes
an :class:`XArrayGap` while the walk goes on.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from drgn import FaultError, IntegerLike, Object, Program, offsetof, sizeof

from drgn_zonedev.kernel.records import read_records
from drgn_zonedev.util.once import once_per_program
from drgn_zonedev.vmcore.reads import read_memory

__all__ = (
    "XArrayEntries",
    "XArrayGap",
    "no_entries",
    "xa_entries",
    "xa_is_err",
    "xa_is_internal",
    "xa_is_node",
    "xa_is_sibling",
    "xa_lookup",
)

_INDEX_BITS = 64

# XA_RETRY_ENTRY and XA_ZERO_ENTRY: xa_mk_internal(256) and xa_mk_internal(257).
_RETRY_ENTRY = 1026
_ZERO_ENTRY = 1030

# Far above any kernel: the memory blocks of 64 TiB, one per section, are 524288
# entries in 8323 nodes. The rest of a larger array becomes a gap.
_MAX_NODES = 1 << 15
_MAX_GAPS = 1 << 10

_UNREADABLE = "a node cannot be read"
_ASTRAY = "a node has the shift, offset or parent of another place: freed, reused or overwritten"
_BELOW = "a slot of the lowest level holds a node"
_SIBLING = "a sibling entry names a slot that is not before it, or holds no entry"
_RETRY = "a retry entry: the node was being taken out of the tree"
_INTERNAL = "an internal entry that no xarray holds"
_TOO_MANY = "the array has more nodes than any kernel's"
_TOO_MANY_GAPS = "too much of the array is damaged"


# An entry, or a column of np.uint64; in answers, a bool or a column of them.
_Entry = TypeVar("_Entry", int, np.ndarray)


def xa_is_internal(entry: _Entry) -> _Entry:
    """Return whether an entry, or each of a column, is internal to the xarray."""
    return entry & 3 == 2


def xa_is_node(entry: _Entry) -> _Entry:
    """
    Return whether an entry, or each of a column, is the address of a ``struct xa_node``,
    plus 2. Like the kernel's, this is also true for errors, which cannot be read as nodes.
    """
    return xa_is_internal(entry) & (entry > 4096)


def xa_is_err(entry: _Entry) -> _Entry:
    """Return whether an entry, or each of a column, is an error: down to ``-MAX_ERRNO``."""
    return xa_is_internal(entry) & (entry >= (1 << 64) - (4095 << 2))


def xa_is_sibling(entry: _Entry, chunk_size: int) -> _Entry:
    """
    Return whether an entry, or each of a column, refers to an earlier slot of its node:
    slot number ``entry >> 2``.

    :param chunk_size: ``XA_CHUNK_SIZE``
    """
    return xa_is_internal(entry) & (entry < (chunk_size - 1) << 2)


@dataclass(frozen=True)
class XArrayGap:
    """
    Indices whose entries are not known: the half-open range ``[start, end)``.

    ``node`` is the address of the ``struct xa_node`` that could not be used; 0
    if it is the array itself.
    """

    start: int
    end: int
    node: int
    reason: str


@dataclass(frozen=True)
class XArrayEntries:
    """
    All entries of an xarray, in ascending order of their indices.

    A multi-index entry is one row. ``first`` and ``last`` are the indices that it
    covers, the last inclusive, and ``value`` is the entry itself: a pointer, or a value
    with bit 0 set. All columns are ``np.uint64``.
    """

    first: np.ndarray
    last: np.ndarray
    value: np.ndarray
    gaps: tuple[XArrayGap, ...]

    def __len__(self) -> int:
        return len(self.value)

    def spans(self) -> dict[int, list[tuple[int, int]]]:
        """
        Get the half-open ranges of indices that each entry covers, in ascending
        order; ranges that touch are one.
        """
        order = np.lexsort((self.first, self.value))
        columns = self.value[order], self.first[order], self.last[order]
        spans: dict[int, list[tuple[int, int]]] = {}
        for value, first, last in zip(*(column.tolist() for column in columns)):
            found = spans.setdefault(value, [])
            if found and found[-1][1] == first:
                first = found.pop()[0]
            found.append((first, last + 1))
        return spans

    def find(self, index: int) -> int:
        """Get the entry at an index; 0 if there is none, or if it is in a gap."""
        row = int(np.searchsorted(self.first, np.uint64(index), side="right")) - 1
        return int(self.value[row]) if row >= 0 and index <= int(self.last[row]) else 0

    def at_most(self, runs: int, reason: str) -> XArrayEntries:
        """
        Replace everything after a number of runs by a gap. A run is a series of equal
        entries without a gap between them.

        :param reason: The reason of the gap.
        """
        starts = np.ones(len(self), bool)
        starts[1:] = self.value[1:] != self.value[:-1]
        starts[1:] |= self.first[1:] != self.last[:-1] + np.uint64(1)
        if np.count_nonzero(starts) <= runs:
            return self
        end = int(np.flatnonzero(starts)[runs])
        gap = XArrayGap(int(self.first[end]), int(self.last[-1]) + 1, 0, reason)
        return XArrayEntries(self.first[:end], self.last[:end], self.value[:end], (*self.gaps, gap))

    def in_gap(self, index: int) -> bool:
        """Return whether the entry at an index is not known."""
        return any(gap.start <= index < gap.end for gap in self.gaps)


def no_entries() -> XArrayEntries:
    """Get the entries of an xarray that is empty."""
    nothing = np.empty(0, np.uint64)
    return XArrayEntries(nothing, nothing, nothing, ())


def xa_entries(xa: Object) -> XArrayEntries:
    """
    Get all entries of an xarray, each with the indices that it covers.

    Entries are those that the kernel's ``xa_load()`` finds: zero entries
    (``xa_reserve()``) are left out, and a sibling is resolved to the entry of the slot
    that it refers to. This never fails because of damaged memory: see
    :class:`XArrayGap`.

    :param xa: ``struct xarray *``
    """
    prog = xa.prog_
    try:
        head = xa.xa_head.value_()
    except FaultError:
        return _only_gap(XArrayGap(0, 1 << _INDEX_BITS, 0, "the xarray cannot be read"))
    if not xa_is_node(head):
        if head == 0 or head == _ZERO_ENTRY:
            return _columns([], [])
        if xa_is_internal(head):
            return _only_gap(XArrayGap(0, 1 << _INDEX_BITS, 0, _INTERNAL))
        alone = np.array([0], np.uint64), np.array([0], np.uint64), np.array([head], np.uint64)
        return _columns([alone], [])
    return _walk(prog, head - 2)


def xa_lookup(xa: Object, index: IntegerLike) -> int:
    """
    Get the entry at an index of an xarray like the kernel's ``xa_load()``.

    :param xa: ``struct xarray *``
    :return: The entry as a number, 0 if there is none.
    :raises FaultError: if a node on the way cannot be read, or is not valid in its
        place. The walk is bounded.
    """
    index = operator.index(index)
    prog = xa.prog_
    layout = _xa_node_layout(prog)
    entry, node, offset, shift = xa.xa_head.value_(), 0, 0, -1
    while xa_is_node(entry):
        parent, node = node, entry - 2
        raw = read_memory(prog, node, layout.size)
        at = raw[layout.shift]
        # The root may have any shift; see _walk() for why its other members are not checked.
        in_place = shift < 0 or (
            at == shift - layout.chunk_shift
            and raw[layout.offset] == offset
            and int.from_bytes(raw[layout.parent : layout.parent + 8], "little") == parent
        )
        if not in_place or at % layout.chunk_shift or at >= _INDEX_BITS:
            raise FaultError(_ASTRAY, node)
        shift = at
        if parent == 0 and index >> shift >= layout.chunk_size:
            return 0
        offset = index >> shift & layout.chunk_size - 1
        entry = _slot(layout, raw, offset, node)
        if shift == 0 and xa_is_node(entry):
            raise FaultError(_BELOW, node)
    if entry == _ZERO_ENTRY:
        return 0
    if xa_is_internal(entry):
        raise FaultError(_RETRY if entry == _RETRY_ENTRY else _INTERNAL, node)
    # An entry that is not in a node is at index 0.
    return entry if node or index == 0 else 0


def _slot(layout: _Layout, raw: bytes, offset: int, node: int) -> int:
    slots = memoryview(raw)[layout.slots : layout.slots_end].cast("Q")
    entry = slots[offset]
    if not xa_is_sibling(entry, layout.chunk_size):
        return entry
    first = entry >> 2
    if first >= offset or (xa_is_internal(slots[first]) and slots[first] != _ZERO_ENTRY):
        raise FaultError(_SIBLING, node)
    return slots[first]


@dataclass(frozen=True)
class _Layout:
    """Where the members of ``struct xa_node`` are, in bytes."""

    shift: int
    offset: int
    parent: int
    slots: int
    chunk_size: int

    @property
    def chunk_shift(self) -> int:
        """``XA_CHUNK_SHIFT``: 6, or 4 with ``CONFIG_BASE_SMALL``."""
        return self.chunk_size.bit_length() - 1

    @property
    def slots_end(self) -> int:
        return self.slots + 8 * self.chunk_size

    @property
    def size(self) -> int:
        """Size up to the last member that is needed; the marks are not."""
        return max(self.slots_end, self.parent + 8, self.shift + 1, self.offset + 1)


@once_per_program
def _xa_node_layout(prog: Program) -> _Layout:
    node = prog.type("struct xa_node")
    shift, offset, parent, slots = (
        offsetof(node, name) for name in ("shift", "offset", "parent", "slots")
    )
    return _Layout(shift, offset, parent, slots, sizeof(node.member("slots").type) // 8)


@dataclass(frozen=True)
class _Nodes:
    """
    Nodes of one level, in ascending order of ``first``, the first index that
    each covers; ``parent`` and ``offset`` say where the pointer to it was found.
    """

    address: np.ndarray
    first: np.ndarray
    parent: np.ndarray
    offset: np.ndarray

    def __len__(self) -> int:
        return len(self.address)

    def __getitem__(self, rows: np.ndarray | slice) -> _Nodes:
        return _Nodes(self.address[rows], self.first[rows], self.parent[rows], self.offset[rows])


@dataclass(frozen=True)
class _Spans:
    """Gaps with the same reason, as columns; ``last`` is inclusive."""

    first: np.ndarray
    last: np.ndarray
    node: np.ndarray
    reason: str


_Columns = tuple[np.ndarray, np.ndarray, np.ndarray]


def _walk(prog: Program, root: int) -> XArrayEntries:
    # Walk the tree level by level.
    layout = _xa_node_layout(prog)
    zero = np.zeros(1, np.uint64)
    level = _Nodes(np.array([root], np.uint64), zero, zero, zero)
    raw, readable = read_records(prog, level.address, layout.size)
    if not readable.all():
        return _only_gap(XArrayGap(0, 1 << _INDEX_BITS, root, _UNREADABLE))
    # The root's offset and parent are not checked: they are stale for a moment while a
    # tree grows or shrinks.
    shift = int(raw[0, layout.shift])
    if shift % layout.chunk_shift or shift >= _INDEX_BITS:
        return _only_gap(XArrayGap(0, 1 << _INDEX_BITS, root, _ASTRAY))
    found: list[_Columns] = []
    gaps: list[_Spans] = []
    nodes_left = _MAX_NODES
    while True:
        slots = np.ascontiguousarray(raw[:, layout.slots : layout.slots_end]).view("<u8")
        entries, level, bad = _decode_level(layout, slots, level, shift)
        found.append(entries)
        gaps += bad
        nodes_left -= len(level)
        if nodes_left < 0:
            # The rows are in ascending order, so the rest is one range.
            gaps.append(_beyond(level[nodes_left:], shift))
            level, nodes_left = level[:nodes_left], 0
        shift -= layout.chunk_shift
        if not len(level):
            return _columns(found, gaps)
        raw, readable = read_records(prog, level.address, layout.size)
        in_place = _in_place(layout, raw, level, shift)
        gaps += [
            _whole_nodes(level[~readable], shift + layout.chunk_shift, _UNREADABLE),
            _whole_nodes(level[readable & ~in_place], shift + layout.chunk_shift, _ASTRAY),
        ]
        raw, level = raw[readable & in_place], level[readable & in_place]


def _in_place(layout: _Layout, raw: np.ndarray, level: _Nodes, shift: int) -> np.ndarray:
    # A node passes only in the place that its parent and offset say, so no node passes twice.
    parent = np.ascontiguousarray(raw[:, layout.parent : layout.parent + 8]).view("<u8")[:, 0]
    return (
        (raw[:, layout.shift] == shift)
        & (raw[:, layout.offset] == level.offset)
        & (parent == level.parent)
    )


def _decode_level(
    layout: _Layout, slots: np.ndarray, level: _Nodes, shift: int
) -> tuple[_Columns, _Nodes, list[_Spans]]:
    # Returns the entries in the slots, the nodes that they point to, and the bad spans.
    # There may be slots beyond the last index, but no lookup can reach them.
    offsets = np.arange(min(layout.chunk_size, 1 << min(_INDEX_BITS - shift, 62)))
    slots = slots[:, : len(offsets)]
    internal, node = xa_is_internal(slots), xa_is_node(slots)
    retry, zero = slots == _RETRY_ENTRY, slots == _ZERO_ENTRY
    sibling = xa_is_sibling(slots, layout.chunk_size)
    # A sibling refers to an earlier slot.
    target = np.where(sibling, (slots >> np.uint64(2)).astype(np.int64), offsets)
    value = np.take_along_axis(slots, target, axis=1)
    good_target = (target < offsets) & np.take_along_axis(~internal | zero, target, axis=1)
    entry = np.where(sibling, good_target, ~internal) & (value != 0) & (value != _ZERO_ENTRY)
    # All siblings that refer to a slot belong to its entry.
    before = np.zeros_like(slots)
    before[:, 1:] = slots[:, :-1]
    continues = sibling & ((target == offsets - 1) | (slots == before))
    starts = entry & ~continues
    length = np.bincount(np.cumsum(starts)[entry.ravel()], minlength=1)[1:]
    first = level.first[:, None] + (offsets.astype(np.uint64) << np.uint64(shift))

    def spans(where: np.ndarray, reason: str) -> _Spans:
        row, _ = np.nonzero(where)
        start = first[where]
        return _Spans(start, start + np.uint64((1 << shift) - 1), level.address[row], reason)

    bad = [
        spans(sibling & ~good_target, _SIBLING),
        spans(retry, _RETRY),
        spans(internal & ~(node | sibling | zero | retry), _INTERNAL),
    ]
    if shift == 0:
        bad.append(spans(node, _BELOW))
        node = np.zeros_like(node)
    start = first[starts]
    last = start + (length.astype(np.uint64) << np.uint64(shift)) - np.uint64(1)
    row, offset = np.nonzero(node)
    children = _Nodes(
        slots[node] - np.uint64(2), first[node], level.address[row], offset.astype(np.uint64)
    )
    return (start, last, value[starts]), children, bad


def _whole_nodes(nodes: _Nodes, span_shift: int, reason: str) -> _Spans:
    return _Spans(
        nodes.first, nodes.first + np.uint64((1 << span_shift) - 1), nodes.address, reason
    )


def _beyond(nodes: _Nodes, span_shift: int) -> _Spans:
    last = nodes.first[-1:] + np.uint64((1 << span_shift) - 1)
    return _Spans(nodes.first[:1], last, nodes.address[:1], _TOO_MANY)


def _only_gap(gap: XArrayGap) -> XArrayEntries:
    nothing = np.empty(0, np.uint64)
    return XArrayEntries(nothing, nothing, nothing, (gap,))


def _columns(found: list[_Columns], gaps: list[_Spans]) -> XArrayEntries:
    nothing = np.empty(0, np.uint64)
    first, last, value = (
        np.concatenate([nothing, *(columns[i] for columns in found)]) for i in range(3)
    )
    order = np.argsort(first)
    return XArrayEntries(first[order], last[order], value[order], _merge_gaps(gaps))


def _merge_gaps(gaps: list[_Spans]) -> tuple[XArrayGap, ...]:
    gaps = [spans for spans in gaps if len(spans.first)]
    if not gaps:
        return ()
    first, last, node = (
        np.concatenate([vars(spans)[name] for spans in gaps]) for name in ("first", "last", "node")
    )
    reason = np.repeat(np.arange(len(gaps)), [len(spans.first) for spans in gaps])
    order = np.argsort(first, kind="stable")
    first, last, node, reason = first[order], last[order], node[order], reason[order]
    same = (first[1:] == last[:-1] + np.uint64(1)) & (node[1:] == node[:-1])
    same &= reason[1:] == reason[:-1]
    starts = np.flatnonzero(np.concatenate([[True], ~same]))
    ends = np.append(starts[1:], len(first)) - 1
    merged = [
        XArrayGap(int(first[i]), int(last[j]) + 1, int(node[i]), gaps[reason[i]].reason)
        for i, j in zip(starts[:_MAX_GAPS].tolist(), ends[:_MAX_GAPS].tolist())
    ]
    if len(starts) > _MAX_GAPS:
        i = starts[_MAX_GAPS]
        merged.append(XArrayGap(int(first[i]), int(last.max()) + 1, int(node[i]), _TOO_MANY_GAPS))
    return tuple(merged)
