# SPDX-License-Identifier: LGPL-2.1-or-later

"""
What a Dump Leaves Out
----------------------

An ELF dump can leave out memory that it has a segment for (``p_filesz`` less
than ``p_memsz``). That is how makedumpfile filters ELF dumps, and drgn reads
zeros there, as it should in a process's core. makedumpfile's flattened format (``-F``)
is such a dump in pieces, in the order in which they were written.
"""

from __future__ import annotations

import bisect
import os
import struct
from pathlib import Path
from typing import BinaryIO

from drgn import FaultError, IntegerLike, Program, ProgramFlags
from drgn.helpers.common.prog import takes_program_or_default
from drgn.helpers.linux.mm import follow_phys

__all__ = ("lacks_its_bitmaps", "leaves_something_out", "left_out", "left_out_of_elf")

_EHDR, _PHDR = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ")
_SHDR_INFO = struct.Struct("<I")
_PIECE = struct.Struct(">qq")
# struct disk_dump_header of makedumpfile: block_size, sub_hdr_size and bitmap_blocks.
_KDUMP, _KDUMP_BLOCKS, _KDUMP_BLOCKS_OFFSET = b"KDUMP   ", struct.Struct("<iiI"), 428
_FLATTENED, _FLATTENED_HEADER_SIZE = b"makedumpfile\0\0\0\0", 4096
_ELF64_LSB = b"\x7fELF\x02\x01"
_PT_LOAD, _PN_XNUM, _SH_INFO_OFFSET = 1, 0xFFFF, 44
# makedumpfile starts a segment for every gap of a MiB: this is terabytes of it.
_MAX_PROGRAM_HEADERS = 1 << 22

_Spans = tuple[tuple[int, int], ...]


def lacks_its_bitmaps(path: Path) -> bool:
    """
    Tell whether a dump in kdump format ends before the bitmaps of its pages do.

    libkdumpfile maps them without a look at the size of the file, and whoever
    opens such a dump gets SIGBUS.
    """
    try:
        with path.open("rb") as file:
            header = file.read(_KDUMP_BLOCKS_OFFSET + _KDUMP_BLOCKS.size)
            file_size = os.fstat(file.fileno()).st_size
    except OSError:
        return False
    if not header.startswith(_KDUMP):
        return False
    try:
        block_size, header_blocks, bitmap_blocks = _KDUMP_BLOCKS.unpack_from(
            header, _KDUMP_BLOCKS_OFFSET
        )
    except struct.error:
        return True
    return file_size < block_size * (1 + header_blocks + bitmap_blocks)


@takes_program_or_default
def leaves_something_out(prog: Program) -> bool:
    """Tell whether some of what reads as zeros may just not be in the dump."""
    return bool(_spans(prog))


@takes_program_or_default
def left_out(prog: Program, address: IntegerLike) -> bool:
    """
    Tell whether a byte that reads as zero is not in the dump at all.

    :param address: Virtual address in the kernel.
    """
    spans = _spans(prog)
    if not spans:
        return False
    try:
        phys = follow_phys(prog["init_mm"].address_of_(), address).value_()
    except (FaultError, LookupError, NotImplementedError):
        return False
    i = bisect.bisect_right(spans, (phys, 1 << 64)) - 1
    return i >= 0 and spans[i][0] <= phys < spans[i][1]


def _spans(prog: Program) -> _Spans:
    if prog.flags & ProgramFlags.IS_LIVE or not prog.core_dump_path:
        return ()
    try:
        return prog.cache["zonedev_left_out"]
    except KeyError:
        spans = left_out_of_elf(Path(prog.core_dump_path))
        return prog.cache.setdefault("zonedev_left_out", spans)


def left_out_of_elf(path: Path) -> _Spans:
    """
    Get the physical memory that an ELF dump has segments for, but not the contents.

    :return: Half-open ranges of addresses in ascending order; none for any other file.
    """
    try:
        with path.open("rb") as file:
            read = _flattened if file.read(len(_FLATTENED)) == _FLATTENED else _plain
            header = read(file, 0, _EHDR.size)
            if len(header) < _EHDR.size or not header.startswith(_ELF64_LSB):
                return ()
            fields = _EHDR.unpack(header)
            phoff, shoff, phentsize, phnum = fields[5], fields[6], fields[9], fields[10]
            if phentsize != _PHDR.size:
                return ()
            if phnum == _PN_XNUM:
                info = read(file, shoff + _SH_INFO_OFFSET, _SHDR_INFO.size)
                (phnum,) = _SHDR_INFO.unpack(info)
            table = read(file, phoff, min(phnum, _MAX_PROGRAM_HEADERS) * _PHDR.size)
    except (OSError, OverflowError, struct.error):
        return ()
    table = table[: len(table) // _PHDR.size * _PHDR.size]
    return tuple(
        sorted(
            (paddr + filesz, paddr + memsz)
            for kind, _, _, _, paddr, filesz, memsz, _ in _PHDR.iter_unpack(table)
            if kind == _PT_LOAD and filesz < memsz
        )
    )


def _plain(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _flattened(file: BinaryIO, offset: int, size: int) -> bytes:
    # Pieces of the dump, each behind its offset and its size. What comes later counts:
    # makedumpfile writes the program headers of an ELF dump once more at the end.
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
            # The header decides whether going through the rest is worth it.
            break
        at += length
    return bytes(found)
