# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Records
-------

The ``drgn_zonedev.kernel.records`` module reads many small structures of the
same size that are scattered over memory: nodes of xarrays, usages of sections,
memory blocks.

A read by drgn takes about a microsecond even if it is short, and an object takes
several, so structures that lie next to each other are read together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from drgn import FaultError, Object, Program

from drgn_zonedev.vmcore.reads import read_memory

__all__ = ("read_records", "read_words")

# Limits the size of one read, whatever addresses a damaged kernel holds.
_MAX_READ = 1 << 20

# Halving costs more reads than there are records.
_FEW = 8


def read_records(
    prog: Program, addresses: np.ndarray, size: int, *, max_gap: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """
    Read ``size`` bytes at each of many addresses.

    :param addresses: ``np.uint64``, in any order, with or without duplicates.
    :param max_gap: Structures that are at most this many bytes apart are read together,
        with the memory between them. 0 never reads memory outside the structures.
    :return: Tuple of (matrix of ``np.uint8`` with a row per address, column that
        says whether the row could be read). Rows that could not be read are zero.
    """
    rows = np.zeros((len(addresses), size), np.uint8)
    readable = np.ones(len(addresses), bool)
    order = np.argsort(addresses, kind="stable")
    sorted_addresses = addresses[order]
    # Compare by subtraction: the end of the last structure may not fit into 64 bits.
    distances = np.diff(sorted_addresses)
    apart = distances > np.uint64(size + max_gap)
    apart |= np.diff(sorted_addresses // np.uint64(_MAX_READ)) > 0
    borders = [0, *(np.flatnonzero(apart) + 1).tolist(), len(addresses)]
    for first, end in zip(borders, borders[1:]):
        _read_group(prog, addresses, order[first:end], rows, readable)
    return rows, readable


def _read_group(
    prog: Program, addresses: np.ndarray, group: np.ndarray, rows: np.ndarray, readable: np.ndarray
) -> None:
    # The addresses of a group are ascending.
    if not len(group):
        return
    first, size = int(addresses[group[0]]), rows.shape[1]
    length = int(addresses[group[-1]]) + size - first
    try:
        raw = read_memory(prog, first, length)
    except FaultError:
        if length == size:
            readable[group] = False
            return
        for part in _parts(addresses, group):
            _read_group(prog, addresses, part, rows, readable)
        return
    if length == size:
        rows[group] = np.frombuffer(raw, np.uint8)
        return
    starts = (addresses[group] - np.uint64(first)).astype(np.int64)
    # A row for each byte that a structure may begin at, which overlap.
    windows = np.ndarray((length - size + 1, size), np.uint8, raw, strides=(1, 1))
    rows[group] = windows[starts]


def _parts(addresses: np.ndarray, group: np.ndarray) -> list[np.ndarray]:
    if len(group) <= _FEW:
        # An export has what was asked for, and nothing in between.
        return [group[at : at + 1] for at in range(len(group))]
    half = _middle(addresses, group)
    return [group[:half], group[half:]]


def _middle(addresses: np.ndarray, group: np.ndarray) -> int:
    # Between two different addresses, so that both halves become smaller.
    middle = int(np.searchsorted(addresses[group], addresses[group[len(group) // 2]]))
    return middle or int(np.searchsorted(addresses[group], addresses[group[0]], side="right"))


def read_words(prog: Program, members: Sequence[Object]) -> list[int]:
    """
    Read members of one structure that are 64 bits wide and lie close together, unsigned, in
    one go: on a running kernel, they are of the same moment.

    :raises FaultError: if one of them cannot be read
    """
    addresses = [member.address_ or 0 for member in members]
    first = min(addresses)
    raw = read_memory(prog, first, max(addresses) + 8 - first)
    return [int.from_bytes(raw[address - first :][:8], "little") for address in addresses]
