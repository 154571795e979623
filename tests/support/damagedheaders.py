# SPDX-License-Identifier: LGPL-2.1-or-later

"""
ELF dumps whose program headers are damaged, one of them or all, and one whose device has
a struct page that is wrong.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

PHDR = np.dtype(
    [
        ("type", "<u4"),
        ("flags", "<u4"),
        *((name, "<u8") for name in ("offset", "vaddr", "paddr", "filesz", "memsz", "align")),
    ]
)
FIELDS = ("filesz", "memsz", "paddr", "offset", "vaddr")
_E_PHOFF, _E_PHNUM, _PT_LOAD, _PT_NOTE = 32, 56, 1, 4
_NUMBERS = (0, 1, 8, 4096, 1 << 32, 1 << 63, (1 << 64) - 1, (1 << 64) - 4096)
# The zone's bits of page->flags on x86-64 are in the seventh byte.
_ZONE_BYTE, _ZONE_BIT = 6, 1 << 3


def headers(dump: bytes) -> np.ndarray:
    """Get a copy of the program headers."""
    (offset,) = struct.unpack_from("<Q", dump, _E_PHOFF)
    (count,) = struct.unpack_from("<H", dump, _E_PHNUM)
    return np.frombuffer(dump, PHDR, count, offset).copy()


def with_headers(dump: bytes, table: np.ndarray) -> bytes:
    """Get a dump with other program headers, as many as before."""
    (offset,) = struct.unpack_from("<Q", dump, _E_PHOFF)
    return dump[:offset] + table.tobytes() + dump[offset + table.nbytes :]


def loads(table: np.ndarray) -> np.ndarray:
    """Get the rows of the ``PT_LOAD`` headers."""
    return np.flatnonzero(table["type"] == _PT_LOAD)


def place(dump: bytes, address: int) -> int:
    """Get the offset of a virtual address."""
    table = headers(dump)
    for row in table[loads(table)]:
        start = int(row["vaddr"])
        if start <= address < start + int(row["filesz"]):
            return int(row["offset"]) + address - start
    raise LookupError(f"{address:#x} is not in the dump")


def with_word(dump: bytes, address: int, word: int) -> bytes:
    """Get a dump with another 64-bit word at a virtual address."""
    at = place(dump, address)
    return dump[:at] + struct.pack("<Q", word % (1 << 64)) + dump[at + 8 :]


def with_wrong_zone(dump: bytes, page: int) -> bytes:
    """Get a dump in which the struct page at an address is of another zone."""
    at = place(dump, page) + _ZONE_BYTE
    return dump[:at] + bytes([dump[at] ^ _ZONE_BIT]) + dump[at + 1 :]


def with_vmcoreinfo(dump: bytes, before: bytes, after: bytes) -> bytes:
    """Get a dump whose VMCOREINFO says something else of the same length."""
    assert len(before) == len(after)
    table = headers(dump)
    note = table[table["type"] == _PT_NOTE][0]
    start, end = int(note["offset"]), int(note["offset"] + note["filesz"])
    assert before in dump[start:end]
    return dump[:start] + dump[start:end].replace(before, after, 1) + dump[end:]


def damaged(
    table: np.ndarray, rng: random.Random, singles: int
) -> Iterator[tuple[str, np.ndarray]]:
    """
    Damage one field of one header, or of all.

    :param singles: How many single headers each kind of damage is tried on.
    :return: Tuples of (description, headers).
    """
    rows = loads(table)
    for field in FIELDS:
        for kind, change in _changes(table[field][rows], rng):
            for chosen in (rows, *(np.array([rng.choice(rows)]) for _ in range(singles))):
                after = table.copy()
                after[field][chosen] = change(table[field][chosen])
                which = "all" if len(chosen) > 1 else f"header {chosen[0]}"
                yield f"{field} {kind} of {which}", after


_Change = Callable[[np.ndarray], Any]


def _constant(number: int, before: np.ndarray) -> np.ndarray:
    return np.full(len(before), number, "<u8")


def _changes(values: np.ndarray, rng: random.Random) -> Iterator[tuple[str, _Change]]:
    for number in _NUMBERS:
        yield f"{number:#x}", partial(_constant, number)
    yield "halved", lambda before: before >> np.uint64(1)
    yield "doubled", lambda before: before << np.uint64(1)
    yield "- 8", lambda before: before - np.uint64(8)
    yield "+ 8", lambda before: before + np.uint64(8)
    yield "another's", lambda before: rng.sample(values.tolist(), len(before))
    yield (
        "random",
        lambda before: [rng.getrandbits(rng.choice((16, 32, 47, 64))) for _ in before],
    )
