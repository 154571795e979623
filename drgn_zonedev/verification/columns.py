# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Columns
-------

Words of many struct pages as columns. The same word of two pages is rarely in one cache line, so a
word that is scanned more than once is copied. A bitwise "or" and a bitwise "and" of all pages show
what they have in common without writing anything.
"""

from __future__ import annotations

import functools

import numpy as np
from drgn import Program

__all__ = ("Buffers", "Columns", "Rows", "buffers_of", "rows_of", "rows_of_runs")

_WHOLE = (1 << 64) - 1
_NO_ROWS = np.empty(0, np.int64)
# Little less than DEFAULT_MMAP_THRESHOLD_MAX.
_MOST_KEPT = 31 << 20


def rows_of(truth: np.ndarray) -> np.ndarray:
    """Like ``np.flatnonzero()``, without its detours, which take longer for few rows."""
    rows: np.ndarray = truth.nonzero()[0]
    return rows


def rows_of_runs(first: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Rows that follow each other: so many from each first one on."""
    found: np.ndarray = np.repeat(first + lengths - np.cumsum(lengths), lengths)
    found += np.arange(len(found))
    return found


def buffers_of(prog: Program) -> Buffers:
    """
    Get the buffers of a program, for code that does not yield while it uses them. Making new ones
    takes as long as scanning them, because of page faults.
    """
    _keep_freed_memory()
    found: Buffers = prog.cache.setdefault("zonedev_buffers", Buffers())
    return found


@functools.cache
def _keep_freed_memory() -> None:
    # What malloc() has mapped for a large array goes back to the kernel when that is freed, and so
    # does the end of the heap, so that the next array takes a page fault for each of its pages. To
    # free one of almost 32 MiB, which nothing has touched, makes glibc keep as much: see
    # M_MMAP_THRESHOLD in mallopt(3).
    np.empty(_MOST_KEPT, np.uint8)


class Buffers:
    """Arrays that are reused, by purpose."""

    def __init__(self) -> None:
        self._kept = dict[object, np.ndarray]()

    def get(self, name: int | str, count: int) -> np.ndarray:
        """Get an array of 64-bit words, which is not cleared."""
        kept = self._kept.get(name)
        if kept is None or len(kept) < count:
            kept = self._kept[name] = np.empty(count, np.uint64)
        return kept[:count]


class _Table:
    """Words of struct pages by index."""

    def __len__(self) -> int:
        raise NotImplementedError

    def __init__(self) -> None:
        self._columns: dict[int, np.ndarray] = {}
        self._below: dict[tuple[int, int], np.ndarray] = {}
        self._equal: dict[tuple[int, int, int], np.ndarray] = {}

    def word(self, index: int) -> np.ndarray:
        """A word of each page; do not change the array."""
        column = self._columns.get(index)
        if column is None:
            column = self._columns[index] = self._read(index)
        return column

    def _read(self, index: int) -> np.ndarray:
        raise NotImplementedError

    def masked(self, index: int, mask: int) -> np.ndarray:
        """Some bits of a word of each page, until this is called again."""
        raise NotImplementedError

    def common(self, index: int, mask: int) -> int | None:
        """Get the common value of some bits of a word in all pages, if it is cheap to find."""
        return None

    def equal(self, index: int, mask: int, value: int) -> np.ndarray:
        """Which pages have a value in some bits of a word; do not change the array."""
        equal = self._equal.get((index, mask, value))
        if equal is None:
            equal = self._equal[index, mask, value] = self._compare(index, mask, value)
        return equal

    def _compare(self, index: int, mask: int, value: int) -> np.ndarray:
        lowest = mask & -mask
        if value == 0 and mask == _WHOLE - (lowest - 1):
            # Only smaller numbers have none of the highest bits.
            return np.asarray(self._source(index) < np.uint64(lowest))
        column = self._source(index) if mask == _WHOLE else self.masked(index, mask)
        return np.asarray(column == np.uint64(value))

    def _source(self, index: int) -> np.ndarray:
        # For a word that is scanned once.
        return self.word(index)

    def half(self, index: int) -> np.ndarray:
        """Half of a word of each page, as a signed integer."""
        return self.word(index // 2).view(np.int32)[index % 2 :: 2]

    def at_least(self, index: int, least: int) -> np.ndarray:
        """Which pages have at least a value in a half of a word; do not change the array."""
        if index % 2:
            # Compared faster as a part of the whole word.
            return self.word(index // 2).view(np.int64) >= least << 32
        found = np.ones(len(self), bool)
        found[self.below(index, least)] = False
        return found

    def below(self, index: int, least: int) -> np.ndarray:
        """Get the rows of pages whose half of a word is below a value."""
        rows = self._below.get((index, least))
        if rows is None:
            rows = self._below[index, least] = self._find_below(index, least)
        return rows

    def _find_below(self, index: int, least: int) -> np.ndarray:
        column = self.word(index // 2)
        if index % 2:
            # Compared faster as a part of the whole word.
            return rows_of(column.view(np.int64) < least << 32)
        # So are both halves, and few of the others are less.
        halves = rows_of(column.view(np.int32) < least)
        found: np.ndarray = halves[halves % 2 == 0] // 2 if len(halves) else _NO_ROWS
        return found


class Columns(_Table):
    """The columns of some struct pages."""

    def __init__(self, words: np.ndarray, buffers: Buffers) -> None:
        super().__init__()
        self.words = words
        self._buffers = buffers
        self._any_and_all: dict[int, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self.words)

    def _read(self, index: int) -> np.ndarray:
        column = self._buffers.get(index, len(self.words))
        np.copyto(column, self.words[:, index])
        return column

    def _source(self, index: int) -> np.ndarray:
        column = self._columns.get(index)
        return self.words[:, index] if column is None else column

    def masked(self, index: int, mask: int) -> np.ndarray:
        spare = self._buffers.get("spare", len(self.words))
        return np.bitwise_and(self._source(index), np.uint64(mask), out=spare)

    def _compare(self, index: int, mask: int, value: int) -> np.ndarray:
        byte = (mask & -mask).bit_length() - 1 >> 3
        if index in self._columns or mask >> 8 * byte > 0xFF or value & ~mask:
            return super()._compare(index, mask, value)
        # A byte of each page is an eighth of a copied word.
        column = self.words.view(np.uint8)[:, 8 * index + byte]
        return np.asarray((column & np.uint8(mask >> 8 * byte)) == value >> 8 * byte)

    def common(self, index: int, mask: int) -> int | None:
        if index not in self._columns:
            return None
        of_any, of_all = self._bits(index)
        return None if (of_any ^ of_all) & mask else of_all & mask

    def any_has(self, index: int, mask: int) -> bool:
        """Whether a page has one of some bits of a word."""
        self.word(index)
        return bool(self._bits(index)[0] & mask)

    def _bits(self, index: int) -> tuple[int, int]:
        # What one of the pages has, and what all of them have.
        bits = self._any_and_all.get(index)
        if bits is None:
            column = self._columns[index]
            bits = int(np.bitwise_or.reduce(column)), int(np.bitwise_and.reduce(column))
            self._any_and_all[index] = bits
        return bits

    def of(self, rows: np.ndarray, index: int) -> np.ndarray:
        """A word of some of the pages."""
        column = self._columns.get(index)
        return self.words[rows, index] if column is None else column[rows]

    def at(self, rows: np.ndarray) -> Rows:
        """Some of the pages."""
        return Rows(self, rows)


class Rows(_Table):
    """The columns of some rows of others."""

    def __init__(self, columns: Columns, rows: np.ndarray) -> None:
        super().__init__()
        self._of, self._rows = columns, rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def words(self) -> np.ndarray:
        """All words of each page."""
        # Many times faster than indexing.
        return self._of.words.take(self._rows, axis=0)

    def _read(self, index: int) -> np.ndarray:
        return self._of.of(self._rows, index)

    def masked(self, index: int, mask: int) -> np.ndarray:
        return self.word(index) & np.uint64(mask)

    def at(self, rows: np.ndarray) -> Rows:
        """Some of the pages."""
        return Rows(self._of, self._rows[rows])
