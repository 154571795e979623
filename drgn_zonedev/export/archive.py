# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Exports in one compressed file, for keeping: the same export always makes the
same file.
"""

from __future__ import annotations

import io
import lzma
import tarfile
from pathlib import Path

__all__ = ("FILES", "ArchiveError", "pack", "unpack")

FILES = ("meta.json", "vmlinux", "vmcore")

# Nobody keeps larger ones, and an archive can claim anything.
_MAX_SIZE = 1 << 32


class ArchiveError(Exception):
    """The file is no packed export, or not a whole one. It is not named here."""


def pack(directory: Path, archive: Path) -> None:
    """Pack an export into a ``.tar.xz`` file."""
    with tarfile.open(archive, "w:xz", format=tarfile.USTAR_FORMAT, preset=9) as tar:
        for name in FILES:
            contents = (directory / name).read_bytes()
            # Everything else of a new one is the same for everybody.
            member = tarfile.TarInfo(name)
            member.size = len(contents)
            tar.addfile(member, io.BytesIO(contents))


def unpack(archive: Path, directory: Path) -> None:
    """
    Unpack an export.

    Only the files of an export are looked for, and written as plain files, so
    an archive from anywhere does no harm.

    :raises ArchiveError: if one is missing or damaged
    :raises OSError: if the archive cannot be read, or the files cannot be written
    """
    try:
        with tarfile.open(archive, "r:xz") as tar:
            for name in FILES:
                _extract(tar, name, directory)
    except EOFError as e:
        raise ArchiveError("the file is cut off") from e
    except (tarfile.TarError, lzma.LZMAError, KeyError) as e:
        raise ArchiveError(f"this is no packed export: {e.args[0]}") from e


def _extract(tar: tarfile.TarFile, name: str, directory: Path) -> None:
    member = tar.getmember(name)
    source = tar.extractfile(member) if member.isreg() else None
    if source is None or member.size > _MAX_SIZE:
        raise KeyError(f"{name} is no plain file")
    with (directory / name).open("wb") as f:
        while chunk := source.read(1 << 20):
            f.write(chunk)
