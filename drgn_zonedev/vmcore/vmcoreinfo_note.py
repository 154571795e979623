# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Headers of Dumps
----------------

Reads from the first kilobytes of a file whether it is a dump of a kernel, and its
``VMCOREINFO``. drgn does both when it opens a dump, which takes a hundred times as long and
trusts the file; a directory of thousands holds much else. ELF files of all classes and byte
orders, makedumpfile's format, and its flattened format (``-F``) of either.
"""

from __future__ import annotations

import contextlib
import enum
import os
import stat
import struct
from collections.abc import Iterator
from typing import Callable

__all__ = ("FileFormat", "ReadAt", "file_format", "opened_reader", "vmcoreinfo_note")

ReadAt = Callable[[int, int], bytes]
"""Reads bytes of a dump by their offset and number; fewer where the file ends."""


class FileFormat(enum.Enum):
    """The formats of dumps."""

    ELF = "ELF"
    KDUMP = "kdump"
    FLATTENED_ELF = "flattened ELF"
    FLATTENED_KDUMP = "flattened kdump"


_FLATTENED, _FLATTENED_HEADER_SIZE = b"makedumpfile\0\0\0\0", 4096
_PIECE = struct.Struct(">qq")
# The headers are in the first pieces that makedumpfile writes.
_MAX_PIECES = 1 << 12
_ELF, _KDUMP = b"\x7fELF", (b"KDUMP   ", b"DISKDUMP")
_ET_CORE, _PT_NOTE, _NT_AUXV = 4, 4, 6
# The kernel, makedumpfile and QEMU write the notes' header first.
_MAX_HEADERS = 1 << 10
# A note for each of 8192 CPUs takes 3 MiB; VMCOREINFO_BYTES is a page.
_MAX_NOTES, _MAX_VMCOREINFO = 16 << 20, 1 << 16
# struct disk_dump_header of 64-bit machines, and struct kdump_sub_header since version 3.
_VERSION_OFFSET, _BLOCK_SIZE_OFFSET, _WHERE_OFFSET = 8, 428, 32
_LEAST_BLOCK, _LARGEST_BLOCK = 1 << 12, 1 << 18


@contextlib.contextmanager
def opened_reader(path: str) -> Iterator[tuple[ReadAt, bool]]:
    """
    Yield what reads a dump, and whether it is flattened.

    :raises OSError: if it is not a regular file, or cannot be opened
    """
    # Opening a FIFO would wait for a writer.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(f"{path} is not a regular file")
        if os.pread(fd, len(_FLATTENED), 0) == _FLATTENED:
            yield (lambda offset, size: _read_flattened(fd, offset, size)), True
        else:
            yield (lambda offset, size: os.pread(fd, size, offset)), False
    finally:
        os.close(fd)


def _read_flattened(fd: int, offset: int, size: int) -> bytes:
    # Each piece of the dump follows its offset and size.
    found, there, at = bytearray(size), 0, _FLATTENED_HEADER_SIZE
    for _ in range(_MAX_PIECES):
        piece = os.pread(fd, _PIECE.size, at)
        if len(piece) < _PIECE.size or there >= size:
            break
        start, length = _PIECE.unpack(piece)
        if start < 0 or length <= 0:
            break
        at += _PIECE.size
        first, last = max(start, offset), min(start + length, offset + size)
        if first < last:
            data = os.pread(fd, last - first, at + first - start)
            found[first - offset : first - offset + len(data)] = data
            there += len(data)
        at += length
    return bytes(found[:there])


def file_format(read: ReadAt, is_flattened: bool) -> FileFormat | None:
    """
    Tell the format of a dump of a kernel. ``None`` for any other file, such as a program's
    core, which has a note of its auxiliary vector.
    """
    head = read(0, 64)
    if head.startswith(_KDUMP):
        return FileFormat.FLATTENED_KDUMP if is_flattened else FileFormat.KDUMP
    if not head.startswith(_ELF) or _elf_type(head) not in (_ET_CORE, None):
        return None
    notes = list(_notes(read))
    if any(name == b"CORE" and kind == _NT_AUXV for name, kind, _ in notes) and not any(
        name == b"VMCOREINFO" for name, _, _ in notes
    ):
        return None
    return FileFormat.FLATTENED_ELF if is_flattened else FileFormat.ELF


def vmcoreinfo_note(read: ReadAt) -> bytes | None:
    """Get ``VMCOREINFO`` of a dump; ``None`` if the headers have none, or are damaged."""
    if read(0, 8) in _KDUMP:
        return _vmcoreinfo_of_kdump(read)
    found = (contents for name, _, contents in _notes(read) if name == b"VMCOREINFO")
    return next(found, None)


def _vmcoreinfo_of_kdump(read: ReadAt) -> bytes | None:
    try:
        (version,) = struct.unpack("<i", read(_VERSION_OFFSET, 4))
        (block_size,) = struct.unpack("<i", read(_BLOCK_SIZE_OFFSET, 4))
        if version < 3 or not _LEAST_BLOCK <= block_size <= _LARGEST_BLOCK:
            return None
        offset, size = struct.unpack("<QQ", read(block_size + _WHERE_OFFSET, 16))
    except struct.error:
        return None
    if not 0 < size <= _MAX_VMCOREINFO or offset >= 1 << 63:
        return None
    return read(offset, size)


def _elf_type(head: bytes) -> int | None:
    order = _byte_order(head)
    if order is None or len(head) < 18:
        # The file ends, or is damaged, before it says.
        return None
    (kind,) = struct.unpack_from(f"{order}H", head, 16)
    return int(kind)


def _byte_order(head: bytes) -> str | None:
    return {b"\1": "<", b"\2": ">"}.get(head[5:6])


_Note = tuple[bytes, int, bytes]


def _notes(read: ReadAt) -> Iterator[_Note]:
    head = read(0, 64)
    order = _byte_order(head)
    if order is None:
        return
    for offset, size in _note_segments(read, head, order):
        yield from _notes_in(read(offset, min(size, _MAX_NOTES)), order)


def _note_segments(read: ReadAt, head: bytes, order: str) -> Iterator[tuple[int, int]]:
    is_64_bit = head[4:5] == b"\2"
    # e_phoff, e_phentsize and e_phnum; p_type, p_offset and p_filesz.
    where, sizes, header = (32, 54, "I4xQ16xQ") if is_64_bit else (28, 42, "II8xI")
    try:
        (phoff,) = struct.unpack_from(f"{order}{'Q' if is_64_bit else 'I'}", head, where)
        entry_size, number = struct.unpack_from(f"{order}HH", head, sizes)
    except struct.error:
        return
    if entry_size < struct.calcsize(f"{order}{header}") or phoff >= 1 << 62:
        return
    table = read(phoff, entry_size * min(number, _MAX_HEADERS))
    for at in range(0, len(table) - entry_size + 1, entry_size):
        kind, offset, size = struct.unpack_from(f"{order}{header}", table, at)
        if kind == _PT_NOTE and offset < 1 << 62:
            yield offset, size


def _notes_in(segment: bytes, order: str) -> Iterator[_Note]:
    at = 0
    while at + 12 <= len(segment):
        name_size, size, kind = struct.unpack_from(f"{order}III", segment, at)
        name_at = at + 12
        contents_at = name_at + (name_size + 3 & ~3)
        name = segment[name_at : name_at + name_size].rstrip(b"\0")
        yield name, kind, segment[contents_at : contents_at + size]
        at = contents_at + (size + 3 & ~3)
