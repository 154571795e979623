# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Disks for guests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from drgn_zonedev.lab.host.errors import LabError
from drgn_zonedev.lab.host.tools import find_tool

__all__ = ("blank_image", "disk_device", "file_image", "make_image")

_MAKE_SECONDS = 120
_SPARE_BYTES = 32 << 20


def disk_device(image: Path, *, readonly: bool) -> tuple[str, ...]:
    """Return QEMU arguments for a virtio disk: the first one is /dev/vda, and so on."""
    option = "on" if readonly else "off"
    return ("-drive", f"file={image},if=virtio,format=raw,cache=unsafe,readonly={option}")


def make_image(tree: Path, image: Path) -> None:
    """Make `image` an ext2 file system with what is below `tree`; no root is needed."""
    files = [path for path in tree.rglob("*") if not path.is_symlink()]
    size = sum(path.stat().st_size for path in files if path.is_file())
    # Inodes and the unused end of each file's last block come on top.
    size += len(files) * 8192 + size // 50 + _SPARE_BYTES
    command = [find_tool("mke2fs"), "-q", "-F", "-t", "ext2", "-m", "0", "-d", str(tree)]
    try:
        subprocess.run(
            [*command, str(image), f"{size >> 10}k"],
            check=True,
            capture_output=True,
            text=True,
            timeout=_MAKE_SECONDS,
        )
    except subprocess.CalledProcessError as e:
        raise LabError(f"mke2fs cannot make {image}: {e.stderr.strip()}") from e
    except subprocess.TimeoutExpired as e:
        raise LabError(f"mke2fs did not finish within {_MAKE_SECONDS} s") from e


def file_image(files: Iterable[Path], image: Path) -> None:
    """Make an image of some files and directories, all at its root."""
    tree = image.with_name(f"{image.name}.tree")
    tree.mkdir()
    try:
        for path in files:
            _link(path, tree / path.name)
        make_image(tree, image)
    finally:
        shutil.rmtree(tree)


def _link(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        return
    # Symbols are hundreds of megabytes, copied once anyhow.
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def blank_image(image: Path, size: int) -> None:
    """Make a disk of zeros, which takes no space."""
    with image.open("wb") as file:
        file.truncate(size)
