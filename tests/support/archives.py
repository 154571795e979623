# SPDX-License-Identifier: LGPL-2.1-or-later

"""
tar archives byte by byte, as :mod:`tarfile` would not write them, and those that once
cost whoever opened them a lot.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Iterable

__all__ = ("ATTACKS", "END", "header", "member", "packed", "tar")

BLOCK = 512
END = bytes(2 * BLOCK)
NAMES = ("meta.json", "vmlinux", "vmcore")

_MIB = 1 << 20
_ZEROS = bytes(_MIB)


def header(name: str, size: int | bytes = 0, kind: bytes = b"0", magic: bytes = b"") -> bytes:
    """
    A header with a right checksum.

    :param size: A number in octal, or the bytes of the field.
    """
    field = size if isinstance(size, bytes) else b"%011o\0" % size
    block = bytearray(BLOCK)
    block[: len(name)] = name.encode()
    block[100:108] = b"0000644\0"
    block[124:136] = field
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[257:265] = magic or b"ustar\00000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def member(name: str, contents: bytes, kind: bytes = b"0") -> bytes:
    """A header, the contents, and what fills their last block."""
    return header(name, len(contents), kind) + contents + bytes(-len(contents) % BLOCK)


def tar(prefix: str = "", *more: bytes) -> bytes:
    """An archive with the files of an export that nobody can open."""
    return b"".join((*more, *(member(prefix + name, name.encode()) for name in NAMES), END))


def packed(parts: bytes | Iterable[bytes], preset: int = 0) -> bytes:
    """Compress with xz."""
    xz = lzma.LZMACompressor(preset=preset)
    pieces = [parts] if isinstance(parts, bytes) else parts
    return b"".join(xz.compress(piece) for piece in pieces) + xz.flush()


def _base_256(number: int) -> bytes:
    data = bytearray(number.to_bytes(12, "big", signed=True))
    data[0] |= 0x80
    return bytes(data)


def _full_of_zeros(first: bytes, mebibytes: int) -> bytes:
    # As many as it takes to be more than there may be: a gigabyte takes ten seconds to pack.
    return packed((first, *(_ZEROS for _ in range(mebibytes)), tar()))


def _pax(**records: str) -> bytes:
    return member("PaxHeaders/vmcore", b"".join(map(_record, records.items())), b"x")


def _record(record: tuple[str, str]) -> bytes:
    # A record begins with its length, of which the length is a part.
    line = " {}={}\n".format(*record)
    length = len(line) + 1
    while length != len(line) + len(str(length)):
        length += 1
    return f"{length}{line}".encode()


def _sparse(size: int) -> bytes:
    # An old GNU header: offsets and sizes of what is there, and the size with the holes.
    block = bytearray(header("vmcore", 0, b"S", b"ustar  \0"))
    block[386:410] = b"%011o\0" % size + b"%011o\0" % 0
    block[483:495] = b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _large_dictionary() -> bytes:
    # The block header says how large: 40 is 4 GiB. Its last word is a checksum.
    data = bytearray(packed(tar()))
    size = (data[12] + 1) * 4
    at = data.index(b"\x21\x01", 12, 12 + size) + 2
    data[at] = 40
    end = 12 + size
    data[end - 4 : end] = zlib.crc32(data[12 : end - 4]).to_bytes(4, "little")
    return bytes(data)


def _with(contents: bytes, offset: int, data: bytes) -> bytes:
    return contents[:offset] + data + contents[offset + len(data) :]


ATTACKS: dict[str, Callable[[], bytes]] = {
    "size of -512, its own successor": lambda: packed(header("a", _base_256(-512)) + tar()),
    "size of -1 in octal": lambda: packed(header("vmcore", b"-0000000001\0") + tar()),
    "size of 2^80": lambda: packed(header("vmcore", _base_256(1 << 80)) + tar()),
    "size of 2^33 in base 256": lambda: packed(header("vmcore", _base_256(1 << 33)) + tar()),
    "size of 8 GiB": lambda: packed(header("vmcore", (1 << 33) - 1) + tar()),
    "size that is no number": lambda: packed(header("vmcore", b"12_4 \xb2\0\0\0\0\0\0") + tar()),
    "pax size": lambda: packed(_pax(size=str(1 << 80)) + tar()),
    "pax path": lambda: packed(_pax(path="../../evil") + tar()),
    "pax header of 1 GiB": lambda: _full_of_zeros(header("p", 1024 * _MIB, b"x"), 64),
    "global pax header": lambda: packed(member("g", b"19 comment=anything\n", b"g") + tar()),
    "GNU long name of 1 GiB": lambda: _full_of_zeros(header("l", 1024 * _MIB, b"L"), 64),
    "chain of long names": lambda: packed(member("l", b"vmcore\0", b"L") * 5000 + tar()),
    "old GNU sparse file": lambda: packed(_sparse(4095 * _MIB) + tar()),
    "GNU sparse file in pax": lambda: packed(
        _pax(**{"GNU.sparse.major": "1", "GNU.sparse.realsize": "4294967295"}) + tar()
    ),
    "a million members": lambda: packed((header("m") * 1000 for _ in range(1000)), 1),
    "17 members": lambda: packed(header("m") * 17 + tar()),
    "a gigabyte of zeros": lambda: _full_of_zeros(header("vmcore", 1024 * _MIB), 300),
    "a gigabyte of nothing known": lambda: _full_of_zeros(header("m", 1024 * _MIB), 300),
    "300 MiB in small members": lambda: packed(
        member(f"m{i}", bytes(100 * _MIB)) for i in range(3)
    ),
    "64 MiB behind the end": lambda: packed((tar(), *(_ZEROS for _ in range(64)))),
    "symbolic link": lambda: packed(header("vmcore", 0, b"2") + tar()),
    "hard link": lambda: packed(header("vmcore", 0, b"1") + tar()),
    "device": lambda: packed(header("vmcore", 0, b"3") + tar()),
    "FIFO": lambda: packed(header("vmcore", 0, b"6") + tar()),
    "directory of that name only": lambda: packed(header("vmcore/", 0, b"5") + END),
    "directory with contents": lambda: packed(header("d/", 512, b"5") + bytes(512) + tar()),
    "the same file twice": lambda: packed(tar("", member("x/vmcore", b"another"))),
    "wrong checksum": lambda: packed(_with(tar(), 150, b"7")),
    "no checksum": lambda: packed(_with(tar(), 148, bytes(8))),
    "no end": lambda: packed(tar()[: -len(END)]),
    "nothing but its end": lambda: packed(END),
    "ends in contents": lambda: packed(tar()[:520]),
    "something behind the end": lambda: packed(tar() + b"garbage"),
    "cut off": lambda: packed(tar())[:-40],
    "without the stream's end": lambda: packed(tar())[:-1],
    "garbage behind the stream": lambda: packed(tar()) + b"garbage",
    "zeros behind the stream": lambda: packed(tar()) + bytes(4),
    "two streams": lambda: packed(tar()) * 2,
    "one archive in two streams": lambda: packed(tar()[:1000]) + packed(tar()[1000:]),
    "damaged stream": lambda: _with(packed(tar()), 60, b"\xff\xff\xff"),
    "dictionary of 4 GiB": _large_dictionary,
    "gzip": lambda: b"\x1f\x8b" + packed(tar()),
    "lzma": lambda: lzma.compress(tar(), format=lzma.FORMAT_ALONE),
    "empty": lambda: b"",
    "one byte": lambda: b"\xfd",
}
"""Archives that are refused, each with what is wrong with it."""
