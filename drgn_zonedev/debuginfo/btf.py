# SPDX-License-Identifier: LGPL-2.1-or-later

"""
BPF Type Format
---------------

Reads the types that a kernel carries within itself (``Documentation/bpf/btf.rst``).

Parsing finds where each type begins. What a type says is read when it is asked for,
and checked then: BTF of a dump may be damaged anywhere.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from drgn_zonedev.debuginfo.damage import DebugInfoError

__all__ = (
    "MAX_BTF_BYTES",
    "Btf",
    "BtfEnumerator",
    "BtfKind",
    "BtfMember",
    "BtfType",
    "parse_btf",
)

ByteOrder = Literal["little", "big"]

MAX_BTF_BYTES = 1 << 28
"""The longest BTF that is read; that of a kernel with everything has 10 MB."""

_MAGIC = 0xEB9F
_HEADER = 24
# With where the layout of kinds is, which newer BTF has.
_LONG_HEADER = 32

# BTF_MAX_TYPE and BTF_MAX_VLEN of include/uapi/linux/btf.h.
_MAX_TYPES = 0xFFFFF
_VLEN = 0xFFFFFF
_MAX_NAME = 512


class BtfKind(enum.IntEnum):
    """``BTF_KIND_*``"""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


# The words after the first three of a type: how many, and how many for each of vlen.
_WORDS: dict[int, tuple[int, int]] = {
    BtfKind.INT: (1, 0),
    BtfKind.ARRAY: (3, 0),
    BtfKind.STRUCT: (0, 3),
    BtfKind.UNION: (0, 3),
    BtfKind.ENUM: (0, 2),
    BtfKind.FUNC_PROTO: (0, 2),
    BtfKind.VAR: (1, 0),
    BtfKind.DATASEC: (0, 3),
    BtfKind.DECL_TAG: (1, 0),
    BtfKind.ENUM64: (0, 3),
}


@dataclass(frozen=True)
class BtfType:
    """
    One ``struct btf_type``.

    :ivar reference: ``size`` or ``type``, whichever the kind has.
    :ivar words: What comes after it.
    """

    id: int
    kind: BtfKind
    name: str
    vlen: int
    kind_flag: bool
    reference: int
    words: tuple[int, ...]


@dataclass(frozen=True)
class BtfMember:
    """A member of a struct or union; ``bit_size`` is 0 unless it is a bit field."""

    name: str
    type_id: int
    bit_offset: int
    bit_size: int


@dataclass(frozen=True)
class BtfEnumerator:
    """A constant, and the enumeration that defines it."""

    name: str
    value: int
    type_id: int


@dataclass(frozen=True, eq=False, repr=False)
class Btf:
    """
    The types of a kernel, or of a module, whose IDs then go on where those of the
    kernel's BTF end.

    :ivar starts: Word that each type begins at, in the order of IDs. ID 0 is ``void``.
    """

    base: Btf | None
    words: np.ndarray
    strings: bytes
    starts: np.ndarray
    infos: np.ndarray
    names: np.ndarray
    has_signed_enums: bool
    _found: dict[tuple[BtfKind, str], tuple[int, ...]] = field(default_factory=dict)
    _offsets: dict[str, list[int]] = field(default_factory=dict)
    _of_kind: dict[BtfKind, np.ndarray] = field(default_factory=dict)
    _enumerators: dict[BtfKind, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    @property
    def first_id(self) -> int:
        """ID of the first type that is not of the base."""
        return self.base.end_id if self.base else 1

    @property
    def end_id(self) -> int:
        """The number of IDs, those of the base included."""
        return self.first_id + len(self.starts)

    @property
    def first_string(self) -> int:
        """Offset of the first string that is not of the base."""
        return self.base.end_string if self.base else 0

    @property
    def end_string(self) -> int:
        """The size of all strings, those of the base included."""
        return self.first_string + len(self.strings)

    def type(self, type_id: int) -> BtfType:
        """
        Read a type.

        :raises DebugInfoError: if there is no such type, or it is damaged
        """
        if type_id == 0:
            return BtfType(0, BtfKind.VOID, "", 0, False, 0, ())
        if self.base and type_id < self.first_id:
            return self.base.type(type_id)
        if not self.first_id <= type_id < self.end_id:
            raise DebugInfoError(f"BTF is damaged: there is no type {type_id}")
        return self._read_type(type_id)

    def _read_type(self, type_id: int) -> BtfType:
        start = int(self.starts[type_id - self.first_id])
        name, info, reference = (int(word) for word in self.words[start : start + 3])
        kind = _known_kind(info)
        vlen = info & _VLEN
        once, each = _WORDS.get(kind, (0, 0))
        end = start + 3 + once + each * vlen
        words = tuple(self.words[start + 3 : end].tolist())
        return BtfType(type_id, kind, self.string(name), vlen, bool(info >> 31), reference, words)

    def string(self, offset: int) -> str:
        """
        Read a string.

        :raises DebugInfoError: if it is not one
        """
        if self.base and offset < self.first_string:
            return self.base.string(offset)
        start = offset - self.first_string
        end = self.strings.find(b"\0", start, start + _MAX_NAME)
        if start < 0 or end < 0:
            raise DebugInfoError(f"BTF is damaged: there is no string at {offset:#x}")
        return self.strings[start:end].decode("ascii", "backslashreplace")

    def find(self, kind: BtfKind, name: str) -> tuple[int, ...]:
        """Find the IDs of all types of a kind that have a name, in order."""
        key = kind, name
        if key not in self._found:
            self._found[key] = (
                *(self.base.find(kind, name) if self.base else ()),
                *self._find(*key),
            )
        return self._found[key]

    def _find(self, kind: BtfKind, name: str) -> Iterator[int]:
        rows = self._rows(kind)
        for row in rows[_are_among(self.names[rows], self._string_offsets(name))]:
            yield self.first_id + int(row)

    def _rows(self, kind: BtfKind) -> np.ndarray:
        if kind not in self._of_kind:
            self._of_kind[kind] = np.flatnonzero(self.infos >> 24 & 0x7F == kind)
        return self._of_kind[kind]

    def _string_offsets(self, name: str) -> list[int]:
        # A string may be the end of another one, and those of the base are used, too. All kinds of
        # types are asked for the same name.
        if name not in self._offsets:
            inherited = self.base._string_offsets(name) if self.base else []
            self._offsets[name] = [*inherited, *self._find_string(name)]
        return self._offsets[name]

    def _find_string(self, name: str) -> Iterator[int]:
        wanted = name.encode() + b"\0"
        at = self.strings.find(wanted) if name else -1
        while at >= 0:
            yield self.first_string + at
            at = self.strings.find(wanted, at + 1)

    def members(self, t: BtfType) -> Iterator[BtfMember]:
        """
        Read the members of a struct or union.

        :raises DebugInfoError: if one is damaged
        """
        for name, type_id, offset in zip(t.words[::3], t.words[1::3], t.words[2::3]):
            bits, at = (offset >> 24, offset & 0xFFFFFF) if t.kind_flag else (0, offset)
            yield BtfMember(self.string(name), type_id, at, bits)

    def enumerators(self, t: BtfType) -> Iterator[tuple[str, int]]:
        """
        Read the enumerators of an enumeration.

        :raises DebugInfoError: if one is damaged
        """
        names = t.words[:: 3 if t.kind == BtfKind.ENUM64 else 2]
        for name, value in zip(names, self._values(t)):
            yield self.string(name), value

    def _values(self, t: BtfType) -> list[int]:
        if t.kind == BtfKind.ENUM64:
            values = [low | high << 32 for low, high in zip(t.words[1::3], t.words[2::3])]
            return [_signed(value, 64) for value in values] if t.kind_flag else values
        if t.kind_flag or (not self.has_signed_enums and _looks_signed(t.words[1::2])):
            return [_signed(value, 32) for value in t.words[1::2]]
        return list(t.words[1::2])

    def enumerator(self, name: str) -> BtfEnumerator | None:
        """
        Find an enumerator of any enumeration, also of one without a name.

        :raises DebugInfoError: if what has it is damaged
        """
        for kind, size in ((BtfKind.ENUM, 2), (BtfKind.ENUM64, 3)):
            rows, words = self._enumerator_words(kind, size)
            named = _are_among(self.words[words], self._string_offsets(name))
            for found in np.flatnonzero(named):
                t = self._read_type(self.first_id + int(rows[found]))
                position = (int(words[found]) - int(self.starts[rows[found]]) - 3) // size
                return BtfEnumerator(name, self._values(t)[position], t.id)
        return self.base.enumerator(name) if self.base else None

    def _enumerator_words(self, kind: BtfKind, size: int) -> tuple[np.ndarray, np.ndarray]:
        # The words that are names of enumerators, and the rows of what they belong to.
        if kind not in self._enumerators:
            rows = self._rows(kind)
            counts = (self.infos[rows] & _VLEN).astype(np.int64)
            first = np.repeat(self.starts[rows] + 3 - size * (np.cumsum(counts) - counts), counts)
            self._enumerators[kind] = np.repeat(rows, counts), first + size * np.arange(len(first))
        return self._enumerators[kind]


def _are_among(values: np.ndarray, offsets: list[int]) -> np.ndarray:
    # np.isin() imports numpy.ma, which takes as long as finding the types of a kernel. Offsets are
    # ascending.
    if not offsets:
        return np.zeros(len(values), bool)
    sought = np.array(offsets, np.uint32)
    at = np.minimum(np.searchsorted(sought, values), len(sought) - 1)
    return np.asarray(sought[at] == values)


def parse_btf(data: bytes, byteorder: ByteOrder = "little", base: Btf | None = None) -> Btf:
    """
    Find the types in BTF.

    :param data: A header, types and strings, as a kernel or module has them.
    :param base: BTF of the kernel, if this is that of a module.
    :raises DebugInfoError: if it is damaged
    """
    types, strings, extra = _sections(data, byteorder)
    words = np.frombuffer(types, "<u4" if byteorder == "little" else ">u4").astype(np.uint32)
    starts = np.array(_starts(words, extra), np.int64)
    infos = words[starts + 1] if len(starts) else words[:0]
    names = words[starts] if len(starts) else words[:0]
    signed = bool(((infos >> 31 == 1) & (infos >> 24 & 0x7F == BtfKind.ENUM)).any())
    return Btf(base, words, strings, starts, infos, names, signed)


def _sections(data: bytes, byteorder: ByteOrder) -> tuple[bytes, bytes, dict[int, tuple[int, int]]]:
    if not _HEADER <= len(data) <= MAX_BTF_BYTES:
        raise DebugInfoError(f"BTF is damaged: it has {len(data)} bytes")
    order = "<" if byteorder == "little" else ">"
    magic, version, _, length, *where = struct.unpack_from(f"{order}HBBIIIII", data)
    if magic != _MAGIC or version != 1 or length < _HEADER:
        raise DebugInfoError("BTF is damaged: it does not begin with a header of version 1")
    types = _section(data, length, where[0], where[1])
    strings = _section(data, length, where[2], where[3])
    if len(types) % 4 or not strings.endswith(b"\0"):
        raise DebugInfoError("BTF is damaged: its types or strings end midway")
    layout = b""
    if length >= _LONG_HEADER <= len(data):
        layout = _section(data, length, *struct.unpack_from(f"{order}II", data, _HEADER))
    return types, strings, _word_counts(layout)


def _section(data: bytes, header: int, offset: int, length: int) -> bytes:
    section = data[header + offset : header + offset + length]
    if len(section) != length:
        raise DebugInfoError("BTF is damaged: it ends before its contents do")
    return section


def _word_counts(layout: bytes) -> dict[int, tuple[int, int]]:
    # struct btf_layout tells how to skip a kind that we do not know.
    counts: dict[int, tuple[int, int]] = {int(kind): (0, 0) for kind in BtfKind if kind}
    for kind in range(len(counts) + 1, min(len(layout) // 4, 0x80)):
        once, each = layout[4 * kind], layout[4 * kind + 1]
        if not (once % 4 or each % 4):
            counts[kind] = once // 4, each // 4
    return {**counts, **_WORDS}


def _starts(words: np.ndarray, counts: dict[int, tuple[int, int]]) -> list[int]:
    starts = []
    at, end, sizes = 0, len(words), _sizes(words, counts).tolist()
    while at < end:
        starts.append(at)
        size = sizes[at]
        if not size:
            raise DebugInfoError(f"BTF is damaged: type {len(starts)} has an unknown kind")
        at += size
    if at != end or len(starts) > _MAX_TYPES:
        raise DebugInfoError("BTF is damaged: its last type ends midway")
    return starts


def _sizes(words: np.ndarray, counts: dict[int, tuple[int, int]]) -> np.ndarray:
    # How many words there are of a type that begins at each word, which is 0 for kinds that are not
    # known. For all words, numpy is faster than Python for those where a type does begin.
    fixed, each = np.zeros(0x80, np.int64), np.zeros(0x80, np.int64)
    for kind, (once, repeated) in counts.items():
        fixed[kind], each[kind] = 3 + once, repeated
    infos = np.append(words[1:], np.uint32(0))
    kinds = infos >> 24 & 0x7F
    sizes: np.ndarray = fixed[kinds] + each[kinds] * (infos & _VLEN)
    return sizes


def _kind(info: int) -> int:
    return info >> 24 & 0x7F


def _known_kind(info: int) -> BtfKind:
    try:
        return BtfKind(_kind(info))
    except ValueError:
        raise DebugInfoError(f"BTF has a kind {_kind(info)}, which is unknown") from None


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def _looks_signed(values: tuple[int, ...]) -> bool:
    # Before Linux kernel commit 6089fb325cf7 ("bpf: Add btf enum64 support") (in v6.0),
    # and pahole 1.24, BTF did not say. Errors and -1 are more usual than bit 31.
    return any(value > 0xFFFFF000 for value in values)
