# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Exports in one compressed file, to keep or to mail. Packing the same export twice gives the same
file.

Archives come from strangers. Unpacking reads an archive once, front to back, and limits its
contents by its size: an archive of up to 1 MiB may unpack to at most 256 MiB.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from drgn_zonedev.export.ustar import (
    BLOCK,
    BadHeaderError,
    Header,
    is_end,
    padding,
    parse_header,
)
from drgn_zonedev.export.xz_stream import MAGIC, BadStreamError, CutOffError, XzStream
from drgn_zonedev.util.directories import create_file

__all__ = ("FILES", "SUFFIXES", "ArchiveError", "beginnings", "is_archive_name", "pack", "unpack")

FILES = ("meta.json", "vmlinux", "vmcore")

SUFFIXES = (".tar.xz", ".txz")
"""What the names of packed exports end in."""

# Three files, a directory or two, and what file managers add to them.
_MAX_HEADERS = 16

_MAX_SIZES = {"meta.json": 64 << 20, "vmlinux": 64 << 20, "vmcore": 1 << 32}

# Stored dumps are packed 40:1 to 110:1. Unpacking 1 MiB to 256 MiB takes half a second.
_MAX_RATIO = 256
_MIN_LIMIT = 256 << 20

# tar fills its last record with zeros; real records are smaller.
_MAX_TAIL = 1 << 20

_CHUNK = 1 << 20


class ArchiveError(Exception):
    """The file is not a packed export, or is incomplete. The message does not name it."""


def is_archive_name(path: Path) -> bool:
    """Return whether a path is named like a packed export."""
    return path.name.endswith(SUFFIXES)


def pack(directory: Path, archive: Path) -> None:
    """
    Pack an export into a ``.tar.xz`` file, which has the mode of its ``vmcore``.

    :raises ArchiveError: if :func:`unpack()` would refuse it
    """
    mode = stat.S_IMODE((directory / "vmcore").stat().st_mode)
    sizes = {name: (directory / name).stat().st_size for name in FILES}
    too_large = [name for name in FILES if sizes[name] > _MAX_SIZES[name]]
    with create_file(archive, mode) as file:
        if not too_large:
            _write_members(directory, sizes, file)
        allowed = _unpacked_limit(file.tell())
    if too_large or sum(sizes.values()) + _MAX_TAIL > allowed:
        archive.unlink()
        raise ArchiveError("it would be too large to unpack: export to a directory")


def _write_members(directory: Path, sizes: dict[str, int], file: BinaryIO) -> None:
    import tarfile

    # Higher presets only enlarge the dictionary, and so the memory that unpacking takes.
    with tarfile.open(fileobj=file, mode="w:xz", format=tarfile.USTAR_FORMAT, preset=6) as tar:
        for name in FILES:
            # The defaults name neither a user nor a time.
            member = tarfile.TarInfo(name)
            member.size = sizes[name]
            with (directory / name).open("rb") as contents:
                tar.addfile(member, contents)


def unpack(archive: Path, directory: Path) -> None:
    """
    Unpack an export.

    Writes only the files of an export, as plain files with the mode of the archive. They may be in
    a directory inside the archive. Other plain files in the archive are skipped.

    :raises ArchiveError: if a file is missing or damaged, or the archive has a member
        that is not a plain file or a directory
    :raises OSError: if the archive cannot be read, or the files cannot be written
    """
    with _as_archive_errors(), _open_compressed(archive) as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        missing = set(FILES)
        for header, contents in _members(file):
            if header.is_directory or header.name not in FILES:
                continue
            if header.name not in missing:
                raise BadHeaderError(f"it contains {header.name} twice")
            missing.remove(header.name)
            with create_file(directory / header.name, mode) as target:
                target.writelines(contents)
        if missing:
            raise BadHeaderError(f"it does not contain {min(missing)}")


def beginnings(archive: Path, size: int) -> dict[str, bytes]:
    """
    Return how each file of an archive begins, by name. The archive is read to its end.

    :param size: How many bytes to return of each file, at most.
    :raises ArchiveError: as :func:`unpack()` does
    :raises OSError: if the archive cannot be read
    """
    found: dict[str, bytes] = {}
    with _as_archive_errors(), _open_compressed(archive) as file:
        for header, contents in _members(file):
            start = b""
            while len(start) < size and (piece := next(contents, b"")):
                start += piece
            found[header.name] = start[:size]
    return found


@contextlib.contextmanager
def _as_archive_errors() -> Iterator[None]:
    try:
        yield
    except CutOffError as e:
        raise ArchiveError(str(e)) from e
    except (BadHeaderError, BadStreamError) as e:
        raise ArchiveError(f"this is not a packed export: {e}") from e
    except MemoryError as e:
        raise ArchiveError("there is not enough memory to unpack it") from e


@contextlib.contextmanager
def _open_compressed(archive: Path) -> Iterator[BinaryIO]:
    # Opening a FIFO would wait for a writer.
    descriptor = os.open(archive, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BadStreamError("it is not a regular file")
        # The decoder only asks for more if it is given less than a header.
        if os.pread(descriptor, len(MAGIC), 0) != MAGIC:
            raise BadStreamError("it is not compressed with xz")
        yield file


def _unpacked_limit(size: int) -> int:
    return max(_MAX_RATIO * size, _MIN_LIMIT)


def _members(file: BinaryIO) -> Iterator[tuple[Header, Iterator[bytes]]]:
    # Contents that the caller does not read are skipped.
    stream = XzStream(file, _unpacked_limit(os.fstat(file.fileno()).st_size))
    # One more block ends the archive.
    for _ in range(_MAX_HEADERS + 1):
        block = stream.read_whole(BLOCK)
        if is_end(block):
            _read_end(stream)
            return
        header = parse_header(block)
        if header.size > _MAX_SIZES.get(header.name, _MIN_LIMIT):
            raise BadHeaderError(f"{header.name} claims to have {header.size} bytes")
        contents = _contents(stream, header.size)
        yield header, contents
        for _piece in contents:
            pass
        stream.read_whole(padding(header.size))
    raise BadHeaderError(f"it contains more than {_MAX_HEADERS} files")


def _contents(stream: XzStream, size: int) -> Iterator[bytes]:
    while size:
        piece = stream.read(min(size, _CHUNK))
        if not piece:
            raise CutOffError("the archive is cut off")
        size -= len(piece)
        yield piece


def _read_end(stream: XzStream) -> None:
    tail = 0
    while piece := stream.read(_CHUNK):
        tail += len(piece)
        if tail > _MAX_TAIL or piece.strip(b"\0"):
            raise BadHeaderError("data follows the end of the archive")
    stream.finish()
