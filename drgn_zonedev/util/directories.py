# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Directories and files that are there as a whole or not at all, whatever signal comes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from drgn_zonedev.util.signals import held_back

if TYPE_CHECKING:
    import tempfile

__all__ = (
    "NotEmptyError",
    "checksum",
    "create_file",
    "new_directory",
    "new_file",
    "temporary_directory",
    "write_file",
)

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


@contextlib.contextmanager
def temporary_directory(prefix: str) -> Iterator[Path]:
    """Yield a directory that is removed in the end."""
    import tempfile

    with contextlib.ExitStack() as stack:
        with held_back():
            directory = tempfile.TemporaryDirectory(prefix=prefix)
            stack.callback(_clean_up, directory)
        yield Path(directory.name)


def _clean_up(directory: tempfile.TemporaryDirectory[str]) -> None:
    with held_back():
        directory.cleanup()


class NotEmptyError(FileExistsError):
    """There is more in a directory, or in the place of a file, than may be replaced."""


@contextlib.contextmanager
def new_directory(
    target: Path, *, replaced: Collection[str] = (), mode: int = 0o777
) -> Iterator[Path]:
    """
    Yield a directory to fill, which becomes ``target`` if nothing goes wrong.

    ``target`` may exist if it is an empty directory.

    :param replaced: The names of files that it may hold nevertheless, which go with it.
        Nothing else is ever deleted.
    :param mode: The most that it may allow; the process's umask, and the mode of what is
        replaced, may allow less.
    :raises NotEmptyError: if it holds anything else
    :raises FileExistsError: if it is not a directory, or one that this process is in
    """
    target = Path(os.path.abspath(target))
    _refuse(target, replaced)
    with contextlib.ExitStack() as stack:
        temporary = _sibling(target, stack)
        temporary.chmod(_mode(target) & (mode | ~0o777))
        yield temporary
        _sync(temporary)
        _refuse(target, replaced)
        # What was there is out of the way for a moment.
        with held_back():
            _move(temporary, target, replaced)
    _sync(target.parent)


@contextlib.contextmanager
def new_file(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """
    Yield the path of a file to make, which becomes ``target`` if nothing goes wrong. Its
    directory is beside ``target``, open to this user only, and goes in the end.

    :param replace: ``target`` may exist if it is a plain file.
    :raises NotEmptyError: if it exists, and is not to be replaced
    :raises FileExistsError: if it is anything but a plain file
    """
    target = Path(os.path.abspath(target))
    _refuse_file(target, replace)
    with contextlib.ExitStack() as stack:
        temporary = _sibling(target, stack) / target.name
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        _refuse_file(target, replace)
        with held_back():
            _move_file(temporary, target, replace)
    _sync(target.parent)


def _sibling(target: Path, stack: contextlib.ExitStack) -> Path:
    import tempfile

    with held_back():
        made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        stack.callback(_remove, made)
    return made


def _refuse_file(target: Path, replace: bool) -> None:
    if target.is_symlink():
        raise FileExistsError(f"{target} is a symbolic link")
    if target.exists() and not target.is_file():
        raise FileExistsError(f"{target} is not a file")
    if target.exists() and not replace:
        raise NotEmptyError(f"{target} exists")


def _move_file(temporary: Path, target: Path, replace: bool) -> None:
    if replace:
        temporary.rename(target)
        return
    try:
        # Unlike renaming, this never replaces what came meanwhile.
        os.link(temporary, target)
    except FileExistsError as e:
        raise NotEmptyError(f"{target} exists") from e
    except OSError as e:
        if e.errno not in _NO_LINKS:
            raise
        temporary.rename(target)


def _remove(directory: Path) -> None:
    import shutil

    with held_back():
        shutil.rmtree(directory, ignore_errors=True)


def _refuse(target: Path, replaced: Collection[str]) -> None:
    if target.is_symlink():
        raise FileExistsError(f"{target} is a symbolic link")
    if not target.exists():
        return
    if not target.is_dir():
        raise FileExistsError(f"{target} is a file")
    here = Path.cwd()
    if target.resolve() in (here, *here.parents):
        raise FileExistsError(f"{target} is the working directory, or above it")
    if any(name not in replaced for name in os.listdir(target)):
        raise NotEmptyError(f"{target} is not empty")


def _mode(target: Path) -> int:
    # Who made the directory before has decided who may read it.
    if target.exists():
        return stat.S_IMODE(target.stat().st_mode)
    umask = os.umask(0)
    os.umask(umask)
    return 0o777 & ~umask


def _move(temporary: Path, target: Path, replaced: Collection[str]) -> None:
    if not replaced:
        # An empty directory can be replaced by renaming; with anything in it, this fails.
        temporary.rename(target)
        return
    # Move the old directory out of the way.
    old = temporary.with_name(temporary.name + ".old")
    target.rename(old)
    try:
        temporary.rename(target)
    except OSError:
        old.rename(target)
        raise
    for name in replaced:
        (old / name).unlink()
    old.rmdir()


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create_file(path: Path, mode: int = 0o666) -> BinaryIO:
    """
    Open a new file for writing.

    :param mode: The most that it may allow; the process's umask may allow less.
    :raises FileExistsError: if it exists
    """
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode & 0o666))


def write_file(path: Path, contents: bytes, mode: int = 0o666) -> None:
    """Write a file, or make another one of that name, and see it on the disk."""
    path.unlink(missing_ok=True)
    with create_file(path, mode) as f:
        f.write(contents)
        f.flush()
        os.fsync(f.fileno())


def checksum(path: Path) -> dict[str, int | str]:
    """Return the size and the SHA-256 checksum of a file."""
    import hashlib

    digest = hashlib.sha256()
    with path.open("rb") as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    return {"size": path.stat().st_size, "sha256": digest.hexdigest()}
