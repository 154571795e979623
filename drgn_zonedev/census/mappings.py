# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Mappings
--------

Tells the mappings of shmem from those of files, by ``mapping->a_ops``. There are millions of
pages, but only thousands of mappings, and most pages have that of the page before them.
"""

from __future__ import annotations

import numpy as np
from drgn import Program

from drgn_zonedev.census.kinds import KindWords
from drgn_zonedev.kernel.records import read_records
from drgn_zonedev.verification.columns import rows_of

__all__ = ("OTHER", "SHMEM", "UNKNOWN", "KnownMappings")

_SLOT_BITS = 16
# Inodes lie next to each other in slabs: to read one takes as long as to read some KiB.
_MAX_GAP = 4096
OTHER, SHMEM, UNKNOWN = range(3)
_HASH = np.uint64(0x9E3779B97F4A7C15)


class KnownMappings:
    """A cache of what is known about mappings: each slot keeps the last one."""

    def __init__(self, prog: Program, words: KindWords) -> None:
        self._prog = prog
        self._words = words
        self._mapping = np.zeros(1 << _SLOT_BITS, np.uint64)
        self._answer = np.zeros(1 << _SLOT_BITS, np.uint8)

    def ask(self, mapping: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Which addresses of a ``struct address_space`` have ``shmem_aops``: :data:`SHMEM` or
        :data:`OTHER`, or :data:`UNKNOWN` if they cannot be read, or the address of ``shmem_aops``
        is not known.

        :return: The answer for each run of the same address, and the lengths of runs.
        """
        first = np.ones(len(mapping), bool)
        np.not_equal(mapping[1:], mapping[:-1], out=first[1:])
        rows = rows_of(first)
        return self._look_up(mapping[rows]), np.append(rows[1:], len(mapping)) - rows

    def _look_up(self, mapping: np.ndarray) -> np.ndarray:
        slot = (mapping * _HASH) >> np.uint64(64 - _SLOT_BITS)
        found = self._answer[slot]
        missed = np.flatnonzero(self._mapping[slot] != mapping)
        if len(missed):
            new, which = np.unique(mapping[missed], return_inverse=True)
            found[missed] = self._read(new)[which]
            self._mapping[slot[missed]] = mapping[missed]
            self._answer[slot[missed]] = found[missed]
        return found

    def _read(self, mapping: np.ndarray) -> np.ndarray:
        offset, shmem = self._words.a_ops, self._words.shmem
        if offset is None or shmem is None:
            return np.full(len(mapping), UNKNOWN, np.uint8)
        raw, readable = read_records(self._prog, mapping + np.uint64(offset), 8, max_gap=_MAX_GAP)
        is_shmem = raw.view("<u8")[:, 0] == np.uint64(shmem)
        return np.where(readable, np.where(is_shmem, SHMEM, OTHER), UNKNOWN).astype(np.uint8)
