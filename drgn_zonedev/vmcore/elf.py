# SPDX-License-Identifier: LGPL-2.1-or-later

"""
ELF Dumps
---------

Reads from the program headers of an ELF dump which memory the file contains, and which
it only has a segment for (``p_filesz`` less than ``p_memsz``). makedumpfile filters ELF
dumps in this way, and drgn reads zeros there. makedumpfile's flattened format (``-F``)
is an ELF dump in pieces, in the order in which they were written.
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

__all__ = ("ElfDump", "ProgramHeaders", "read_elf_dump", "read_program_headers")

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = np.dtype(
    [
        ("type", "<u4"),
        ("flags", "<u4"),
        *((name, "<u8") for name in ("offset", "vaddr", "paddr", "filesz", "memsz", "align")),
    ]
)
_SHDR_INFO = struct.Struct("<I")
_PIECE = struct.Struct(">qq")
_FLATTENED, _FLATTENED_HEADER_SIZE = b"makedumpfile\0\0\0\0", 4096
_ELF64_LSB = b"\x7fELF\x02\x01"
_PT_LOAD, _PN_XNUM, _SH_INFO_OFFSET = 1, 0xFFFF, 44
_NO_ADDRESS = np.uint64((1 << 64) - 1)
# makedumpfile starts a new segment at each gap of a MiB, so this is enough for terabytes.
_MAX_PROGRAM_HEADERS = 1 << 22


@dataclass(frozen=True)
class Covered:
    """
    The union of many ranges of addresses. ``start`` ascends, and ``furthest`` is the
    largest end of the ranges up to there; both are ``np.uint64``.
    """

    start: np.ndarray
    furthest: np.ndarray

    def touch(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Return which half-open ranges contain any of these addresses."""
        before = np.searchsorted(self.start, end, side="left")
        reach = np.concatenate([np.zeros(1, np.uint64), self.furthest])
        return reach[before] > start

    def first(self, address: int) -> int | None:
        """Find the first of these addresses that is at or above *address*."""
        at = np.uint64(min(address, int(_NO_ADDRESS)))
        after = int(np.searchsorted(self.start, at, side="right"))
        if after and self.furthest[after - 1] > at:
            return address
        return int(self.start[after]) if after < len(self.start) else None


@dataclass(frozen=True)
class ElfDump:
    """
    The addresses, ``physical`` and ``virtual``, whose contents are in an ELF dump.
    ``promised`` are all virtual addresses of its segments. ``excluded`` are the physical
    addresses whose contents the headers say are not in the file; ``reads_zeros`` is true
    if there are any. ``ends`` are the size of the file, and the size that its program headers
    claim, in bytes: if the second is larger, the file was cut off.
    """

    physical: Covered
    virtual: Covered
    promised: Covered
    excluded: Covered
    reads_zeros: bool
    ends: tuple[int, int] | None = None

    def absent_frames(self, frames: np.ndarray, page_size: int) -> np.ndarray:
        """Return which page frames the dump does not contain."""
        if not len(self.physical.start):
            # Physical addresses are unknown if p_paddr is zero everywhere, or invalid.
            return np.zeros(len(frames), bool)
        return ~_touch(self.physical, frames, page_size)

    def filtered_frames(self, frames: np.ndarray, page_size: int) -> np.ndarray:
        """Return which page frames are in a segment without contents, and in no other."""
        return _touch(self.excluded, frames, page_size) & self.absent_frames(frames, page_size)


def _touch(covered: Covered, frames: np.ndarray, page_size: int) -> np.ndarray:
    start = frames.astype(np.uint64) * np.uint64(page_size)
    return covered.touch(start, start + np.uint64(page_size))


def read_elf_dump(path: Path) -> ElfDump | None:
    """Read the headers of an ELF dump; ``None`` for any other file."""
    headers, size = _load_headers(path)
    if not len(headers):
        return None
    # drgn does not read what the file contains after p_memsz.
    filled = np.minimum(headers["filesz"], headers["memsz"])
    if size is not None:
        # The file may have been cut off.
        there = np.uint64(size) - np.minimum(headers["offset"], np.uint64(size))
        filled = np.minimum(filled, there)
    # drgn decides in the same way whether p_paddr is valid.
    located = headers["paddr"] != _NO_ADDRESS
    if not headers["paddr"].any():
        located[:] = False
    return ElfDump(
        physical=_covered(headers["paddr"][located], filled[located]),
        virtual=_covered(headers["vaddr"], filled),
        promised=_covered(headers["vaddr"], headers["memsz"]),
        excluded=_covered(*_without_contents(headers[located])),
        reads_zeros=bool((headers["filesz"] < headers["memsz"]).any()),
        ends=None if size is None else _ends(headers[headers["filesz"] > 0], size),
    )


def _ends(headers: np.ndarray, size: int) -> tuple[int, int] | None:
    if not len(headers):
        return None
    end = headers["offset"] + np.minimum(headers["filesz"], ~headers["offset"])
    return size, int(end.max())


def _without_contents(headers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    short = headers[headers["filesz"] < headers["memsz"]]
    # The address may wrap, and such a range is of no use.
    start = short["paddr"] + short["filesz"]
    return start, np.where(start < short["paddr"], 0, short["memsz"] - short["filesz"])


def _covered(start: np.ndarray, size: np.ndarray) -> Covered:
    kept = np.flatnonzero(size)
    start, size = start[kept], size[kept]
    # Cut off what lies beyond the last address.
    end = start + np.minimum(size, ~start)
    order = np.argsort(start, kind="stable")
    return Covered(start[order], np.maximum.accumulate(end[order]))


@dataclass(frozen=True)
class ProgramHeaders:
    """
    ``table`` has a row per header, and is at ``offset`` in the file. ``size`` is that of
    the file, or ``None`` if the headers describe another one or it has no size.
    """

    table: np.ndarray
    offset: int
    size: int | None

    @property
    def loads(self) -> np.ndarray:
        """The ``PT_LOAD`` headers."""
        return self.table[self.table["type"] == _PT_LOAD]


def _load_headers(path: Path) -> tuple[np.ndarray, int | None]:
    headers = read_program_headers(path)
    return (headers.loads, headers.size) if headers else (np.empty(0, _PHDR), None)


def read_program_headers(path: Path) -> ProgramHeaders | None:
    """Read the program headers of a 64-bit little-endian ELF file; ``None`` for any other."""
    try:
        with path.open("rb") as file:
            flattened = file.read(len(_FLATTENED)) == _FLATTENED
            read = _flattened if flattened else _plain
            header = read(file, 0, _EHDR.size)
            if len(header) < _EHDR.size or not header.startswith(_ELF64_LSB):
                return None
            fields = _EHDR.unpack(header)
            phoff, shoff, phentsize, phnum = fields[5], fields[6], fields[9], fields[10]
            if phentsize != _PHDR.itemsize:
                return None
            if phnum == _PN_XNUM:
                info = read(file, shoff + _SH_INFO_OFFSET, _SHDR_INFO.size)
                (phnum,) = _SHDR_INFO.unpack(info)
            table = read(file, phoff, min(phnum, _MAX_PROGRAM_HEADERS) * _PHDR.itemsize)
            status = os.fstat(file.fileno())
            # st_size of a block device is 0.
            known = not flattened and stat.S_ISREG(status.st_mode)
    except (OSError, OverflowError, struct.error):
        return None
    rows = np.frombuffer(table, _PHDR, len(table) // _PHDR.itemsize)
    return ProgramHeaders(rows, phoff, status.st_size if known else None)


def _plain(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _flattened(file: BinaryIO, offset: int, size: int) -> bytes:
    # Each piece of the dump follows its offset and size. A later one replaces an earlier
    # one: makedumpfile writes the program headers again at the end.
    found = bytearray()
    at = _FLATTENED_HEADER_SIZE
    while len(piece := os.pread(file.fileno(), _PIECE.size, at)) == _PIECE.size:
        start, length = _PIECE.unpack(piece)
        if start < 0 or length <= 0:
            break
        at += _PIECE.size
        first, last = max(start, offset), min(start + length, offset + size)
        if first < last:
            data = os.pread(file.fileno(), last - first, at + first - start)
            found.extend(bytes(max(0, last - offset - len(found))))
            found[first - offset : first - offset + len(data)] = data
        if offset == 0 and found:
            # Without an ELF header, the rest need not be read.
            break
        at += length
    return bytes(found)
