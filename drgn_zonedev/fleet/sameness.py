# SPDX-License-Identifier: LGPL-2.1-or-later

"""
When a Dump Is the Same
-----------------------

A dump at a path is the one that was checked before if the device, inode, size and time of
modification of all files that a check reads there are what they were. A dump at another path
is the same only if a hash of every byte is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

__all__ = ("MAX_HASHED", "content_hash", "quick_key")

MAX_HASHED = 1 << 30
"""The largest dump that is hashed, in bytes: checking reads less of larger ones."""

_CHUNK = 1 << 20


def _files(path: str) -> Iterator[str]:
    # A dump's debugging symbols may be beside it.
    yield path
    beside = os.path.join(os.path.dirname(path), "vmlinux")
    if os.path.isfile(beside):
        yield beside


def quick_key(path: str) -> str:
    """
    Get what changes if a dump, or the ``vmlinux`` beside it, is another one or written.

    :raises OSError: if there is no such file
    """
    statuses = [os.stat(file) for file in _files(path)]
    return " ".join(f"{s.st_dev}:{s.st_ino}:{s.st_size}:{s.st_mtime_ns}" for s in statuses)


def content_hash(path: str) -> str | None:
    """
    Hash every byte of a dump, and of the ``vmlinux`` beside it. ``None`` if they have more
    than :data:`MAX_HASHED` bytes.

    :raises OSError: if they cannot be read
    """
    files = {file: os.stat(file).st_size for file in _files(path)}
    if sum(files.values()) > MAX_HASHED:
        return None
    digest, left = hashlib.sha256(), MAX_HASHED
    for file, size in files.items():
        digest.update(size.to_bytes(8, "little"))
        with open(file, "rb") as f:
            while chunk := f.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    # It grows.
                    return None
                digest.update(chunk)
    return digest.hexdigest()
