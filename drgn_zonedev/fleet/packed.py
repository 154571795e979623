# SPDX-License-Identifier: LGPL-2.1-or-later

"""Tells packed exports from other archives, by the names of the first files in them."""

from __future__ import annotations

import lzma
import os
from pathlib import Path

from drgn_zonedev.export.archive import FILES, is_archive_name
from drgn_zonedev.export.ustar import BLOCK, BadHeaderError, is_end, padding, parse_header
from drgn_zonedev.export.xz_stream import MAGIC

__all__ = ("is_packed_export",)

# Behind directories and a small file at most.
_MUCH = 1 << 20
_MAX_MEMORY = 80 << 20


def is_packed_export(path: str) -> bool:
    """
    Return whether a file is a packed export, or one that is cut off before it says.

    :raises OSError: if it cannot be read
    """
    if not is_archive_name(Path(path)):
        return False
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        packed = os.pread(fd, _MUCH, 0)
    finally:
        os.close(fd)
    return packed.startswith(MAGIC) and _holds_export(_unpacked_beginning(packed))


def _unpacked_beginning(packed: bytes) -> bytes:
    xz = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_MEMORY)
    try:
        return xz.decompress(packed, _MUCH)
    except (lzma.LZMAError, MemoryError):
        return b""


def _holds_export(tar: bytes) -> bool:
    at = 0
    while len(block := tar[at : at + BLOCK]) == BLOCK:
        if is_end(block):
            return False
        try:
            header = parse_header(block)
        except BadHeaderError:
            return False
        if header.name in FILES:
            return True
        at += BLOCK + header.size + padding(header.size)
    return len(tar) < BLOCK
