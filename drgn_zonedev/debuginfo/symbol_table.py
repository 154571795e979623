# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Symbol Table
------------

The symbols that a kernel carries for its own ``%pS`` (``kallsyms``).

Names stay compressed, because a program asks for only some tens of 200,000. They are found by a sum
over the characters of each name, which is computed from the sums of its tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from drgn_zonedev.debuginfo.damage import DebugInfoError

__all__ = (
    "MAX_SYMBOLS",
    "KernelSymbol",
    "KernelSymbols",
    "SymbolNames",
    "agrees",
    "kernel_symbols",
    "name_sums",
    "symbol_names",
    "token_texts",
)

MAX_SYMBOLS = 1 << 22
"""The most symbols that are read; a kernel with everything built in has some 300,000."""

# How many tokens the table has.
_TOKENS = 256

# A larger distance is a hole between two parts of the image, not a symbol.
_MAX_SYMBOL_BYTES = 1 << 26


@dataclass(frozen=True)
class KernelSymbol:
    """
    A symbol.

    :ivar letter: Its letter in nm(1): ``t`` or ``T`` is text; capital letters are global.
    :ivar size: Up to the next symbol, padding included.
    """

    name: str
    address: int
    size: int
    letter: str


@dataclass(frozen=True, eq=False, repr=False)
class SymbolNames:
    """
    The names of symbols, each after its letter.

    :ivar packed: The tokens of each name begin at ``starts`` and end at ``ends``.
    """

    packed: bytes
    starts: np.ndarray
    ends: np.ndarray
    tokens: tuple[bytes, ...]
    sums: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, row: int) -> str:
        packed = self.packed[self.starts[row] : self.ends[row]]
        return b"".join(map(self.tokens.__getitem__, packed)).decode("ascii", "backslashreplace")

    def rows(self, name: str) -> list[int]:
        """Find the rows that have a name, whatever their letters."""
        rows = np.flatnonzero(self.sums == _sum(name.encode())).tolist()
        return [row for row in rows if self[row][1:] == name]


@dataclass(frozen=True, eq=False, repr=False)
class KernelSymbols:
    """
    The symbols of a kernel, without those of its modules.

    :ivar order: Indices that sort the addresses.
    :ivar lowest: Values below it are not addresses: per-CPU symbols may begin at 0.
    """

    names: SymbolNames
    addresses: np.ndarray
    order: np.ndarray
    lowest: int

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[KernelSymbol]:
        return (self._symbol(row) for row in range(len(self)))

    def named(self, name: str) -> tuple[KernelSymbol, ...]:
        """Find all symbols with a name, which static ones may share."""
        return tuple(self._symbol(row) for row in self.names.rows(name))

    def at(self, address: int) -> tuple[KernelSymbol, ...]:
        """Find the symbols that contain an address; all of them begin at the same address."""
        end = self._behind(address)
        if not end or address < self.lowest:
            return ()
        start = int(self.addresses[self.order[end - 1]])
        begin = int(np.searchsorted(self.addresses, np.uint64(start), "left", self.order))
        found = [self._symbol(int(row)) for row in self.order[begin:end]]
        return tuple(symbol for symbol in found if address - start < max(symbol.size, 1))

    def _behind(self, address: int) -> int:
        return int(np.searchsorted(self.addresses, np.uint64(address), "right", self.order))

    def _symbol(self, row: int) -> KernelSymbol:
        text, address = self.names[row], int(self.addresses[row])
        return KernelSymbol(text[1:], address, self._size(address), text[:1])

    def _size(self, address: int) -> int:
        behind = self._behind(address)
        if behind == len(self):
            return 0
        size = int(self.addresses[self.order[behind]]) - address
        return size if size <= _MAX_SYMBOL_BYTES else 0


def token_texts(table: bytes, index: np.ndarray) -> tuple[bytes, ...]:
    """
    Get the texts of the 256 tokens.

    :param table: ``kallsyms_token_table``, possibly with other data after its end.
    :param index: ``kallsyms_token_index``
    :raises DebugInfoError: if they do not belong together
    """
    texts = table.split(b"\0", _TOKENS)[:_TOKENS]
    lengths = np.array([len(text) + 1 for text in texts])
    if len(texts) != _TOKENS or len(index) != _TOKENS or index[0]:
        raise DebugInfoError("kallsyms is damaged: it does not have 256 tokens")
    if (np.cumsum(lengths)[:-1] != index[1:]).any():
        raise DebugInfoError("kallsyms is damaged: the index of its tokens does not match them")
    return tuple(texts)


def symbol_names(packed: bytes, count: int, tokens: tuple[bytes, ...]) -> SymbolNames:
    """
    Find where each name begins.

    :param packed: ``kallsyms_names``, possibly with other data after its end.
    :raises DebugInfoError: if there are fewer names
    """
    starts, ends = _bounds(packed, count)
    return SymbolNames(packed, starts, ends, tokens, name_sums(packed, tokens, starts, ends))


def kernel_symbols(names: SymbolNames, addresses: np.ndarray, start: int) -> KernelSymbols:
    """
    Combine names with as many addresses.

    :param start: ``_stext``
    """
    order = np.argsort(addresses, kind="stable")
    return KernelSymbols(names, addresses, order, max(start - _MAX_SYMBOL_BYTES, 0))


def agrees(names: SymbolNames, addresses: np.ndarray, known: Mapping[str, int]) -> bool:
    """
    Return whether symbols belong to the kernel with the ``known`` addresses, which include
    ``_stext``.
    """
    rows = {name: names.rows(name) for name in known}
    wanted = {name: found[0] for name, found in rows.items() if len(found) == 1}
    right = {name for name, row in wanted.items() if int(addresses[row]) == known[name]}
    # If mem_section is a pointer, VMCOREINFO has its value, not its address.
    return "_stext" in right and 2 * len(right) > len(wanted)


def name_sums(
    packed: bytes, tokens: tuple[bytes, ...], starts: np.ndarray, ends: np.ndarray
) -> np.ndarray:
    """Get the sum of each name, without the letter at the start of its first token."""
    if not len(starts):
        return np.zeros(0, np.int32)
    weights = np.array([_sum(text) for text in tokens], np.int32)
    letters = np.array([_sum(text[:1]) for text in tokens], np.int32)
    data = np.frombuffer(packed, np.uint8, int(ends[-1]))
    running = np.zeros(len(data) + 1, np.int64)
    np.cumsum(weights[data], out=running[1:])
    sums: np.ndarray = running[ends] - running[starts] - letters[data[starts]]
    return sums.astype(np.int32)


def _bounds(packed: bytes, count: int) -> tuple[np.ndarray, np.ndarray]:
    # Offsets of the length of each name, and of the end.
    places = [0]
    at = 0
    try:
        for _ in range(count):
            length = packed[at]
            if length & 0x80:
                # Since Linux kernel commit 73bbb94466fd ("kallsyms: support "big" kernel
                # symbols") (in v6.1).
                length = (length & 0x7F | packed[at + 1] << 7) + 1
            at += 1 + length
            places.append(at)
    except IndexError:
        at = len(packed) + 1
    begins, ends = np.array(places[:-1], np.int64), np.array(places[1:], np.int64)
    lengths = np.frombuffer(packed, np.uint8)
    starts = begins + 1 + (lengths[begins] >> 7) if len(begins) else begins
    if at > len(packed) or (starts == ends).any():
        raise DebugInfoError(f"kallsyms is damaged: it does not have {count} names")
    return starts, ends


def _sum(text: bytes) -> int:
    # A sum of cubes: with a plain sum, too many names would be alike.
    return sum(c * c * c for c in text) & 0x7FFFFFFF
