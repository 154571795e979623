# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Search for names
----------------

Looks for strings anywhere in the memory of a finished vmcore, without knowing what that memory is.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from drgn_zonedev.export.elf_writer import EHDR_SIZE, PHDR_SIZE, PT_LOAD, Encoding
from drgn_zonedev.util.intervals import Span, union

__all__ = ("Occurrence", "occurrences", "pointed_to")

_CHUNK = 1 << 20
_KEY_SIZE = 4


@dataclass(frozen=True)
class Occurrence:
    """Where a string is in memory."""

    text: bytes
    address: int


def occurrences(vmcore: Path, encoding: Encoding, texts: Collection[bytes]) -> Iterator[Occurrence]:
    """
    Find whole strings in a vmcore of :func:`~.core_writer.write_core()`: they begin after a NUL and
    end before one. Memory that is not in the dump counts as NULs.
    """
    wanted, keys = set(texts), _keys(texts)
    longest = max(map(len, wanted), default=0)
    with vmcore.open("rb") as file:
        memory = _Memory(file, encoding)
        for start, end in memory.chunks(0):
            # The byte before the chunk tells whether a string begins; the bytes after it complete
            # the last string.
            data = b"\0" * (not memory.has(start - 1)) + memory.read(
                start - memory.has(start - 1), min(end + longest, memory.end(start))
            )
            for at in _candidates(data[: end - start + 1 + _KEY_SIZE], keys, end - start):
                text = data[at : at + longest + 1].split(b"\0", 1)[0]
                if text in wanted:
                    yield Occurrence(text, start + at - 1)


def pointed_to(vmcore: Path, encoding: Encoding, addresses: Collection[int]) -> set[int]:
    """Return the given addresses to which a pointer in a vmcore leads."""
    wanted = np.array(sorted(addresses), np.uint64)
    found: set[int] = set()
    with vmcore.open("rb") as file:
        memory = _Memory(file, encoding)
        for start, end in memory.chunks(7):
            first = start + -start % 8
            data = memory.read(first, max(end - (end - first) % 8, first))
            words = np.frombuffer(data, encoding.order + "u8")
            found.update(words[np.isin(words, wanted)].tolist())
    return found


def _keys(texts: Collection[bytes]) -> np.ndarray:
    # The first bytes of each, up to the NUL.
    return np.array([int.from_bytes(text[:_KEY_SIZE], "little") for text in texts], np.uint32)


def _candidates(data: bytes, keys: np.ndarray, count: int) -> list[int]:
    # Offsets of strings that begin with one of these keys. The byte at 0 is before the first
    # string.
    found = np.frombuffer(data + bytes(_KEY_SIZE), np.uint8)
    begins = np.flatnonzero((found[:count] == 0) & (found[1 : count + 1] != 0)) + 1
    key = np.zeros(len(begins), np.uint32)
    goes_on = np.ones(len(begins), bool)
    for i in range(_KEY_SIZE):
        byte = found[begins + i].astype(np.uint32)
        goes_on &= byte != 0
        key |= np.where(goes_on, byte << np.uint32(8 * i), 0).astype(np.uint32)
    candidates: list[int] = begins[np.isin(key, keys)].tolist()
    return candidates


class _Memory:
    """The memory in a vmcore, by virtual address."""

    def __init__(self, file: BinaryIO, encoding: Encoding) -> None:
        self._file = file
        loads = _load_segments(file, encoding)
        order = np.lexsort((loads["filesz"], loads["vaddr"]))
        self._start = loads["vaddr"][order].tolist()
        self._size = loads["filesz"][order].tolist()
        self._offset = loads["offset"][order].tolist()
        self._stretches = union((s, s + n) for s, n in zip(self._start, self._size))

    def chunks(self, overlap: int) -> Iterator[Span]:
        """Cut all memory into spans of addresses that are small enough to handle at once."""
        for start, end in self._stretches:
            for at in range(start, end, _CHUNK):
                yield at, min(at + _CHUNK + overlap, end)

    def _stretch(self, address: int) -> Span:
        index = bisect_right(self._stretches, (address, 1 << 65)) - 1
        return self._stretches[index] if index >= 0 else (0, 0)

    def has(self, address: int) -> bool:
        """Return whether an address is in the vmcore."""
        start, end = self._stretch(address)
        return start <= address < end

    def end(self, address: int) -> int:
        """Return the end of the contiguous memory around an address."""
        return self._stretch(address)[1]

    def read(self, start: int, end: int) -> bytes:
        """Read addresses that are all in the vmcore."""
        data = bytearray()
        while start < end:
            index = bisect_right(self._start, start) - 1
            while self._start[index] + self._size[index] <= start:
                index -= 1
            skipped = start - self._start[index]
            size = min(self._size[index] - skipped, end - start)
            self._file.seek(self._offset[index] + skipped)
            data += self._file.read(size)
            start += size
        return bytes(data)


def _load_segments(file: BinaryIO, encoding: Encoding) -> np.ndarray:
    words = ("offset", "vaddr", "paddr", "filesz", "memsz", "align")
    order = encoding.order
    layout = np.dtype(
        [("type", order + "u4"), ("flags", order + "u4"), *((w, order + "u8") for w in words)]
    )
    # The first segment is the note, whose contents follow the headers.
    first = np.frombuffer(os.pread(file.fileno(), PHDR_SIZE, EHDR_SIZE), layout)[0]
    count = (int(first["offset"]) - EHDR_SIZE) // PHDR_SIZE
    headers = np.frombuffer(os.pread(file.fileno(), count * PHDR_SIZE, EHDR_SIZE), layout)
    return headers[(headers["type"] == PT_LOAD) & (headers["filesz"] > 0)]
