# SPDX-License-Identifier: LGPL-2.1-or-later

"""
ustar
-----

Headers of tar archives, as POSIX defines them for ustar, and as GNU tar and V7 tar write them for
plain files.

:mod:`tarfile` follows every extension wherever it leads: sizes in base 256, sparse
files, names and attributes of a gigabyte. An export does not need extensions, so they are refused
here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ("BLOCK", "BadHeaderError", "Header", "is_end", "padding", "parse_header")

BLOCK = 512

_ZEROS = bytes(BLOCK)
_CHECKSUM = slice(148, 156)
_OCTAL = re.compile(rb" *([0-7]+)[ \0]*")
_FILES, _DIRECTORY = (b"0", b"\0"), b"5"
_HINT = "which tar --format=ustar does not write"
_REFUSED = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a FIFO",
    b"g": f"a pax header, {_HINT}",
    b"x": f"a pax header, {_HINT}",
    b"K": f"a GNU long link, {_HINT}",
    b"L": f"a GNU long name, {_HINT}",
    b"S": f"a GNU sparse file, {_HINT}",
}


class BadHeaderError(Exception):
    """A block is not a header of a plain file or a directory."""


@dataclass(frozen=True)
class Header:
    """A member of an archive: the last part of its path, and its size in bytes."""

    name: str
    size: int
    is_directory: bool


def is_end(block: bytes) -> bool:
    """Return whether a block marks the end of an archive."""
    return block == _ZEROS


def padding(size: int) -> int:
    """Return how many bytes follow the contents of a member, up to the next block."""
    return -size % BLOCK


def parse_header(block: bytes) -> Header:
    """
    Read the header of a plain file or a directory.

    :raises BadHeaderError: if it is damaged, or the header of anything else
    """
    _verify(block)
    path = block[:100].split(b"\0")[0].decode("utf-8", "backslashreplace")
    kind, size = block[156:157], _octal(block[124:136], "size")
    name = path.rstrip("/").rpartition("/")[2]
    if kind not in (*_FILES, _DIRECTORY):
        raise BadHeaderError(f"{name} is {_REFUSED.get(kind, f'an extension, {_HINT}')}")
    # V7 tar has no type for directories, and writes them as files with such a name.
    is_directory = kind == _DIRECTORY or path.endswith("/")
    if is_directory and size:
        raise BadHeaderError(f"{name} is a directory with contents")
    return Header(name, size, is_directory)


def _verify(block: bytes) -> None:
    # In the sum, the checksum field counts as spaces.
    total = sum(block) - sum(block[_CHECKSUM]) + 8 * ord(" ")
    if _octal(block[_CHECKSUM], "checksum") != total:
        raise BadHeaderError("the checksum of a header is wrong")


def _octal(field: bytes, what: str) -> int:
    # GNU tar writes numbers that do not fit, or are negative, in base 256.
    found = _OCTAL.fullmatch(field)
    if not found:
        raise BadHeaderError(f"the {what} in a header is not an octal number")
    return int(found[1], 8)
