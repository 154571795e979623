# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Finding Dumps
-------------

Finds dumps of kernels below directories, by patterns and in lists, and tells them from other
files by what is in them.
"""

from __future__ import annotations

import contextlib
import glob
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Callable

from drgn_zonedev.fleet.packed import is_packed_export
from drgn_zonedev.vmcore.vmcoreinfo_note import file_format, opened_reader

__all__ = ("PACKED_EXPORT", "Found", "find_dumps")

PACKED_EXPORT = "export"
"""The format of a packed export; that of other dumps is a ``FileFormat``."""

_LIST_MARK, _COMMENT = "@", "#"
# Files that the kernel makes up. /proc/kcore is an ELF dump of the running kernel.
_MADE_UP = ("/proc/", "/sys/")
# A list of a million dumps.
_MAX_LIST = 256 << 20


@dataclass(frozen=True)
class Found:
    """
    A dump, or a file that was named as one but is not.

    :ivar path: Absolute, without symbolic links.
    :ivar format: ``None`` if it is not a dump, or cannot be read.
    :ivar size: In bytes.
    """

    path: str
    format: str | None
    size: int = 0


Complain = Callable[[str], None]


def find_dumps(words: Iterable[str], complain: Complain) -> Iterator[Found]:
    """
    Find dumps, each file once, however many links lead to it.

    Directories are searched with everything below them; symbolic links are followed, but not into
    loops; devices and pipes are not opened.

    :param words: Paths of dumps and directories, patterns, and ``@FILE``, which lists some, one per
        line.
    :param complain: Called with what cannot be searched, and what was named but is not a dump.
    """
    seen: set[tuple[int, int]] = set()
    for word in words:
        for path in _paths(word, complain):
            yield from _below(path, seen, complain)


def _paths(word: str, complain: Complain) -> Iterator[str]:
    if word.startswith(_LIST_MARK) and not os.path.lexists(word):
        yield from _listed(word[len(_LIST_MARK) :], complain)
    else:
        yield from _matching(word, complain)


def _listed(path: str, complain: Complain) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as f:
            text = f.read(_MAX_LIST)
    except OSError as e:
        complain(f"cannot read {path}: {e.strerror or e}")
        return
    if "\0" in text:
        complain(f"{path} is not a list of paths")
        return
    for line in text.split("\n"):
        if line and not line.startswith(_COMMENT):
            yield from _matching(line, complain)


def _matching(word: str, complain: Complain) -> Iterator[str]:
    if os.path.lexists(word) or not glob.has_magic(word):
        yield word
        return
    matching = sorted(glob.glob(word, recursive=True))
    if not matching:
        complain(f"nothing matches {word}")
    yield from matching


def _below(path: str, seen: set[tuple[int, int]], complain: Complain) -> Iterator[Found]:
    path = os.path.realpath(path)
    try:
        status = os.stat(path)
    except OSError as e:
        complain(f"cannot read {path}: {e.strerror or e}")
        return
    if stat.S_ISDIR(status.st_mode):
        yield from _in_directory(path, seen, complain)
    elif not stat.S_ISREG(status.st_mode):
        complain(f"{path} is not a regular file")
    else:
        found = _look_at(path, status, seen)
        if found and found.format is None:
            complain(f"{path} is not a dump of a kernel")
        yield from _dumps(found)


def _in_directory(path: str, seen: set[tuple[int, int]], complain: Complain) -> Iterator[Found]:
    # Not recursive: directories may be nested more deeply than Python's calls.
    stack = [path]
    while stack:
        directory = stack.pop()
        if f"{directory}/".startswith(_MADE_UP):
            continue
        try:
            is_new = _is_new(os.stat(directory), seen)
            entries = sorted(_entries(directory)) if is_new else []
        except OSError as e:
            complain(f"cannot search {directory}: {e.strerror or e}")
            continue
        below = []
        for entry, status in entries:
            if stat.S_ISDIR(status.st_mode):
                below.append(entry)
            elif stat.S_ISREG(status.st_mode):
                yield from _dumps(_look_at(entry, status, seen))
        stack += reversed(below)


def _entries(directory: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(directory) as found:
        for entry in found:
            # A link that leads nowhere, and a file that has gone, are left out.
            with contextlib.suppress(OSError):
                path = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
                yield path, entry.stat()


def _dumps(found: Found | None) -> Iterator[Found]:
    if found and found.format is not None:
        yield found


def _look_at(path: str, status: os.stat_result, seen: set[tuple[int, int]]) -> Found | None:
    if path.startswith(_MADE_UP) or not _is_new(status, seen):
        return None
    return Found(path, dump_format(path), status.st_size)


def _is_new(status: os.stat_result, seen: set[tuple[int, int]]) -> bool:
    identity = status.st_dev, status.st_ino
    if identity in seen:
        return False
    seen.add(identity)
    return True


def dump_format(path: str) -> str | None:
    """Get the format of a dump; ``None`` if it is not one, or cannot be read."""
    try:
        if is_packed_export(path):
            return PACKED_EXPORT
        with opened_reader(path) as (read, is_flattened):
            found = file_format(read, is_flattened)
    except OSError:
        return None
    return found.value if found else None
