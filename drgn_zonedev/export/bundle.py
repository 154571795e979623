# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Directories that are there as a whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ("checksum", "new_directory", "write_file")


@contextlib.contextmanager
def new_directory(target: Path, *, force: bool = False) -> Iterator[Path]:
    """
    Yield a directory to fill, which becomes ``target`` if nothing goes wrong.

    :param force: Replace ``target`` if it exists.
    :raises FileExistsError: if it exists, and is not to be replaced
    """
    target = Path(os.path.abspath(target))
    if not force:
        _refuse(target)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        temporary.chmod(0o777 & ~_umask())
        yield temporary
        _sync(temporary)
        _move(temporary, target, force)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _sync(target.parent)


def _refuse(target: Path) -> None:
    if os.path.lexists(target):
        raise FileExistsError(f"{target} exists")


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _move(temporary: Path, target: Path, force: bool) -> None:
    if not force:
        _refuse(target)
    elif os.path.lexists(target):
        # Out of the way first: a directory cannot be replaced by renaming.
        old = temporary.with_name(temporary.name + ".old")
        target.rename(old)
        try:
            temporary.rename(target)
        except OSError:
            old.rename(target)
            raise
        _remove(old)
        return
    temporary.rename(target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, contents: bytes) -> None:
    """Write a file, and see it on the disk."""
    with path.open("wb") as f:
        f.write(contents)
        f.flush()
        os.fsync(f.fileno())


def checksum(path: Path) -> dict[str, int | str]:
    """Return the size and the SHA-256 checksum of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    return {"size": path.stat().st_size, "sha256": digest.hexdigest()}
