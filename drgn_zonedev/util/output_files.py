# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Files that are written as a whole or stay what they were, and never the ones that are
read.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TextIO, Union

from drgn_zonedev.util.signals import held_back

__all__ = ("Identity", "PathLike", "identities", "is_one_of", "output_file")

PathLike = Union[str, "os.PathLike[str]"]

Identity = tuple[int, int]
"""Device and inode, which all links to a file share."""

# Of what is open already, whatever file that is: it has another name, or none.
_DESCRIPTOR = re.compile(r"/dev/(stdin|stdout|stderr|fd/\d+)|/proc/[^/]+/(task/\d+/)?fd/\d+")
_MAX_LINKS = 40


def identities(paths: Iterable[PathLike]) -> frozenset[Identity]:
    """
    Identify files; of directories, the files in them. What is not there, and what keeps
    nothing of what is written (a terminal, a pipe, /dev/null), has no identity.
    """
    return frozenset(identity for path in paths for identity in _identities(Path(path)))


def _identities(path: Path) -> Iterator[Identity]:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            for entry in os.scandir(path):
                with contextlib.suppress(OSError):
                    # /dev/stdout leads to what this process writes, which is not in /dev.
                    if not (entry.is_symlink() and os.readlink(entry).startswith("/proc/")):
                        yield from _identity(entry.stat())
        else:
            yield from _identity(status)
    except OSError:
        # Opening the file will report the error.
        return


def _identity(status: os.stat_result) -> Iterator[Identity]:
    if stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode):
        yield status.st_dev, status.st_ino


def is_one_of(output: PathLike | int, inputs: Collection[Identity]) -> bool:
    """
    Return whether an output is one of the files that are read, or a directory that holds
    one of them.

    :param output: Its path, or a file descriptor.
    """
    if isinstance(output, int):
        with contextlib.suppress(OSError):
            status = os.fstat(output)
            return (status.st_dev, status.st_ino) in inputs
        return False
    return not identities([output]).isdisjoint(inputs)


@contextlib.contextmanager
def output_file(path: PathLike) -> Iterator[TextIO]:
    """
    Write a text file beside its place, and move it there in the end: if anything goes
    wrong, what was there stays. The mode stays, and so does the owner if that is allowed.

    What is not a regular file, such as a pipe, a terminal or ``/dev/stdout``, is written
    as it is. So is a file in a directory that takes no others.

    :raises OSError: if it cannot be written
    """
    target = _target(os.fspath(path))
    with contextlib.ExitStack() as stack:
        with held_back():
            temporary = _beside(target) if target else None
            if temporary:
                stack.callback(_remove, temporary)
        with open(temporary or path, "w", encoding="utf-8") as f:
            yield f
            f.flush()
            if temporary:
                os.fsync(f.fileno())
        if temporary and target:
            os.replace(temporary, target)


def _target(path: str) -> str | None:
    """Get the path behind all links, or nothing if it does not lead to a regular file."""
    if not path or path.endswith("/"):
        return None
    path = os.path.join(os.getcwd(), path)
    for _ in range(_MAX_LINKS):
        if _DESCRIPTOR.fullmatch(os.path.normpath(path)):
            return None
        if not os.path.islink(path):
            break
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    path = os.path.realpath(path)
    return path if not os.path.exists(path) or os.path.isfile(path) else None


def _beside(target: str) -> str | None:
    """Make the file that takes the place of another one; nothing if there cannot be one."""
    import tempfile

    try:
        before = os.stat(target)
    except FileNotFoundError:
        before = None
    if before and not os.access(target, os.W_OK):
        return None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=".zonedev-", dir=os.path.dirname(target))
    except PermissionError:
        return None
    os.close(descriptor)
    if before:
        with contextlib.suppress(OSError):
            os.chown(temporary, before.st_uid, before.st_gid)
    os.chmod(temporary, stat.S_IMODE(before.st_mode) if before else 0o666 & ~_umask())
    return temporary


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _remove(temporary: str) -> None:
    # The file is gone if it has replaced the target.
    with contextlib.suppress(OSError):
        os.unlink(temporary)
