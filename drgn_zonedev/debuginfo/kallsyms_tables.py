# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Tables of kallsyms
------------------

Finds and reads the tables of the kernel's symbols.

``VMCOREINFO`` has their addresses since Linux kernel commits 5fd8fea935a1 ("vmcoreinfo:
include kallsyms symbols") and f09bddbd8661 ("vmcoreinfo: add kallsyms_num_syms symbol")
(in v6.0). In older kernels, the image is searched for the tables.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Callable, Literal

import numpy as np

from drgn_zonedev.debuginfo.damage import DebugInfoError, require_contents
from drgn_zonedev.debuginfo.symbol_table import (
    MAX_SYMBOLS,
    KernelSymbols,
    agrees,
    kernel_symbols,
    symbol_names,
    token_texts,
)

__all__ = ("Memory", "Tables", "read_kallsyms", "read_tables")

ReadMemory = Callable[[int, int], bytes]
"""Reads memory, an address and a size; raises :class:`DebugInfoError` if it cannot."""

# Names take some 4 MB, and what is between them and the tokens no more than that.
_MAX_NAMES = 1 << 26

_MAX_TOKENS = 1 << 12
_INDEX = 256 * 2

# Where the image of a kernel begins, and its size: 60 MB, if everything is built in.
_START = "_stext"
_MAX_IMAGE = 1 << 28
# The image does not continue after a longer part that cannot be read.
_MAX_HOLE = 1 << 24
_CHUNK = 1 << 20
_PAGE = 1 << 12
_DIGITS = b"".join(b"%d\0" % digit for digit in range(10))
_FIRST_DIGIT = ord("0")

# A marker for each 256 names.
_MARKED = 256
_MAX_MARKED_BYTES = _MARKED * 128
_WORD = (1 << 64) - 1
_MAX_MARKERS = MAX_SYMBOLS // _MARKED


@dataclass(frozen=True)
class Memory:
    """How to read the memory of a 64-bit kernel."""

    read: ReadMemory
    byteorder: Literal["little", "big"] = "little"

    def numbers(self, address: int, count: int, size: int) -> np.ndarray:
        """Read an array of unsigned integers."""
        order = "<" if self.byteorder == "little" else ">"
        return np.frombuffer(self.read(address, count * size), f"{order}u{size}")

    def number(self, address: int, size: int) -> int:
        """Read an unsigned integer."""
        return int.from_bytes(self.read(address, size), self.byteorder)


@dataclass(frozen=True)
class Tables:
    """
    Addresses of ``kallsyms_*``.

    :ivar relative_base: ``None`` since Linux kernel commit a081b5789255 ("kallsyms: Get
        rid of kallsyms relative base") (in v7.0): each offset is relative to its own place.
    :ivar addresses: Replaces the offsets if ``CONFIG_KALLSYMS_BASE_RELATIVE=n``.
    """

    names: int
    num_syms: int
    token_table: int
    token_index: int
    offsets: int | None = None
    relative_base: int | None = None
    addresses: int | None = None


def read_kallsyms(memory: Memory, known: Mapping[str, int]) -> KernelSymbols:
    """
    Find the tables, and read the symbols in them.

    :param known: Addresses in ``VMCOREINFO``, with which the symbols are compared.
    :raises DebugInfoError: if there are no tables, or they are damaged or of another kernel
    """
    if tables := _named_tables(known):
        return read_tables(memory, tables, known)
    for guess in _search(memory, known):
        with contextlib.suppress(DebugInfoError):
            return read_tables(memory, guess, known)
    raise DebugInfoError(
        "no kallsyms in the kernel's image: CONFIG_KALLSYMS=n, or the dump left it out"
    )


def _named_tables(known: Mapping[str, int]) -> Tables | None:
    try:
        return Tables(
            names=known["kallsyms_names"],
            num_syms=known["kallsyms_num_syms"],
            token_table=known["kallsyms_token_table"],
            token_index=known["kallsyms_token_index"],
            offsets=known.get("kallsyms_offsets"),
            relative_base=known.get("kallsyms_relative_base"),
            addresses=known.get("kallsyms_addresses"),
        )
    except KeyError:
        return None


def read_tables(memory: Memory, tables: Tables, known: Mapping[str, int]) -> KernelSymbols:
    """
    Read the symbols, and compare them with the known addresses.

    :raises DebugInfoError: if they are damaged, or of another kernel
    """
    count = memory.number(tables.num_syms, 4)
    span = tables.token_table - tables.names
    if not count:
        raise DebugInfoError("kallsyms reads as zeros: the dump left out the kernel's image")
    if not 0 < count <= MAX_SYMBOLS or not count < span <= _MAX_NAMES:
        raise DebugInfoError(f"kallsyms is damaged: {count} symbols in {span} bytes")
    index = memory.numbers(tables.token_index, 256, 2)
    tokens = token_texts(memory.read(tables.token_table, int(index[-1]) + _MAX_TOKENS), index)
    packed = memory.read(tables.names, span)
    require_contents(packed, tables.names, "kallsyms")
    names = symbol_names(packed, count, tokens)
    for addresses in _ways(memory, tables, count):
        if agrees(names, addresses, known):
            return kernel_symbols(names, addresses, known[_START])
    raise DebugInfoError(
        "kallsyms is of another kernel: it disagrees with VMCOREINFO about addresses"
    )


def _ways(memory: Memory, tables: Tables, count: int) -> Iterator[np.ndarray]:
    # The meaning of an offset depends on the configuration.
    if tables.addresses is not None:
        yield memory.numbers(tables.addresses, count, 8).astype(np.uint64)
    if tables.offsets is None:
        return
    offsets = memory.numbers(tables.offsets, count, 4)
    signed = offsets.astype(np.int32).astype(np.int64)
    if tables.relative_base is None:
        places = np.arange(count, dtype=np.int64) * 4
        yield (places + signed).astype(np.uint64) + np.uint64(tables.offsets)
        return
    base = memory.number(tables.relative_base, 8)
    # CONFIG_KALLSYMS_ABSOLUTE_PERCPU, until Linux kernel commit 01157ddc58dc ("kallsyms:
    # Remove KALLSYMS_ABSOLUTE_PERCPU") (in v6.15).
    below = np.array([(base - 1) & _WORD], np.uint64) - signed.astype(np.uint64)
    yield np.where(signed >= 0, signed.astype(np.uint64), below)
    yield np.array([base], np.uint64) + offsets.astype(np.uint64)


def _search(memory: Memory, known: Mapping[str, int]) -> Iterator[Tables]:
    # Each digit is its own token, and these are in order: 20 such bytes are rarely anything else,
    # and the bytes around them show whether they are tokens.
    if _START not in known:
        raise DebugInfoError("VMCOREINFO says neither where kallsyms is nor where the kernel is")
    for digits in _find(memory, known[_START], _DIGITS):
        with contextlib.suppress(DebugInfoError):
            yield from _tables_around(memory, digits)


def _find(memory: Memory, start: int, wanted: bytes) -> Iterator[int]:
    # The image has holes that cannot be read.
    last, hole = b"", 0
    for chunk in range(start, start + _MAX_IMAGE, _CHUNK):
        contents = _read_pages(memory, chunk)
        hole = 0 if any(contents) else hole + len(contents)
        if hole > _MAX_HOLE:
            return
        data = last + contents
        at = data.find(wanted)
        while at >= 0:
            yield chunk - len(last) + at
            at = data.find(wanted, at + 1)
        last = data[-len(wanted) :]


def _read_pages(memory: Memory, start: int) -> bytes:
    try:
        return memory.read(start, _CHUNK)
    except DebugInfoError:
        return b"".join(_read_or_zeros(memory, start + at) for at in range(0, _CHUNK, _PAGE))


def _read_or_zeros(memory: Memory, page: int) -> bytes:
    try:
        return memory.read(page, _PAGE)
    except DebugInfoError:
        return bytes(_PAGE)


def _tables_around(memory: Memory, digits: int) -> Iterator[Tables]:
    before = memory.read(digits - _MAX_TOKENS, _MAX_TOKENS)
    token_table = digits - len(b"\0".join(before.rsplit(b"\0", _FIRST_DIGIT + 1)[1:]))
    table = memory.read(token_table, 2 * _MAX_TOKENS)
    end = len(b"\0".join(table.split(b"\0", 256)[:256])) + 1
    token_index = -(-(token_table + end) // 4) * 4
    for at in (token_index, -(-token_index // 8) * 8):
        index = memory.numbers(at, 256, 2)
        with contextlib.suppress(DebugInfoError):
            token_texts(table, index)
            yield from _orders(memory, _names_before(memory, token_table), token_table, at)
            return


def _names_before(memory: Memory, token_table: int) -> tuple[int, int, int]:
    """Find the names, their count and its address, by the markers before the tokens."""
    size = min(_MAX_MARKERS * 4, token_table)
    words = memory.numbers(token_table - size, size // 4, 4).astype(np.int64)
    # They may end with padding, and begin with 0.
    end = len(words) - (words[-1] == 0)
    falls = np.flatnonzero(np.diff(words[:end]) <= 0)
    begin = int(falls[-1]) + 1 if len(falls) else 0
    if words[begin] or end - begin < 2:
        raise DebugInfoError("kallsyms is damaged: it has no markers")
    markers = words[begin:end]
    latest = (token_table - size + 4 * begin - int(markers[-1])) // 4 * 4
    window = memory.read(latest - _MAX_MARKED_BYTES, _MAX_MARKED_BYTES + int(markers[1]))
    for at in range(_MAX_MARKED_BYTES // 4 * 4, 8, -4):
        for back in (8, 4):
            count = int.from_bytes(window[at - back : at - back + 4], memory.byteorder)
            if -(-count // _MARKED) == len(markers) and _is_marked(window[at:], int(markers[1])):
                names = latest - _MAX_MARKED_BYTES + at
                return names, count, names - back
    raise DebugInfoError("kallsyms is damaged: the names are not before their markers")


def _is_marked(packed: bytes, marker: int) -> bool:
    # Whether the first 256 names end where the second marker says.
    at = 0
    for _ in range(_MARKED):
        if at + 1 >= len(packed):
            return False
        at += packed[at] + 1 if packed[at] < 0x80 else (packed[at] & 0x7F | packed[at + 1] << 7) + 2
    return at == marker


def _orders(
    memory: Memory, names: tuple[int, int, int], token_table: int, token_index: int
) -> Iterator[Tables]:
    first, count, num_syms = names
    found = Tables(first, num_syms, token_table, token_index)
    size = -(-4 * count // 8) * 8
    yield replace(found, offsets=num_syms - 8 - size, relative_base=num_syms - 8)
    yield replace(found, addresses=num_syms - 8 * count)
    # Since Linux kernel commit 404bad70fcf7 ("scripts/kallsyms: change the output order")
    # (in v6.4).
    offsets = token_index + _INDEX
    yield replace(found, offsets=offsets)
    yield replace(found, offsets=offsets, relative_base=offsets + size)
