# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Take the few needed files out of a kernel's Debian packages, whatever their layout.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from pathlib import Path, PurePosixPath

from drgn_zonedev.lab.host.errors import LabError
from drgn_zonedev.lab.host.tools import find_tool

__all__ = ("destination", "unpack_everything", "unpack_members", "unpack_package")

_MODULES = r"(?:usr/)?lib/modules/(?P<release>[^/]+)"
_DESTINATIONS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), destination)
    for pattern, destination in (
        # ppc64el's is not compressed.
        (r"boot/vmlinu[xz]-[^/]+", "vmlinuz"),
        (rf"{_MODULES}/vmlinuz", "vmlinuz"),
        (
            rf"{_MODULES}/(?P<rest>kernel/.+\.ko(?:\.xz)?|modules\.(?:order|builtin[^/]*))",
            r"usr/lib/modules/\g<release>/\g<rest>",
        ),
        (r"usr/lib/debug/boot/(vmlinux|System\.map)-[^/]+", r"\1"),
        (rf"usr/lib/debug/{_MODULES}/(?P<rest>vmlinux|System\.map)", r"\g<rest>"),
        # Small modules, which hold the names of the structures around a dev_pagemap.
        (
            rf"usr/lib/debug/{_MODULES}/kernel/(?:.+/)?"
            r"(?P<rest>(?:nd_\w+|libnvdimm|nfit|(?:\w+_)?dax(?:_\w+)?|virtio_pmem|kmem)\.ko)",
            r"debug/\g<rest>",
        ),
    )
)


def destination(member: str) -> str | None:
    """Return where a file of a kernel package goes, below the kernel's directory, or None."""
    path = PurePosixPath(member)
    if path.is_absolute() or ".." in path.parts:
        return None
    for pattern, template in _DESTINATIONS:
        if found := pattern.fullmatch(str(path)):
            return found.expand(template)
    return None


def unpack_members(archive: tarfile.TarFile, directory: Path) -> None:
    """Write the wanted files of a tar archive below `directory`; links are left out."""
    for member in archive:
        target = destination(member.name)
        source = archive.extractfile(member) if target and member.isfile() else None
        if target is None or source is None:
            continue
        path = directory / target
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)


def unpack_everything(deb: Path, directory: Path) -> None:
    """Unpack all of a Debian package."""
    command = [find_tool("dpkg-deb"), "-x", str(deb), str(directory)]
    try:
        subprocess.run(command, check=True, timeout=60)
    except subprocess.SubprocessError as e:
        raise LabError(f"{deb.name} cannot be unpacked: {e}") from e


def unpack_package(deb: Path, directory: Path) -> None:
    """Write the wanted files of a Debian package below `directory`."""
    command = [find_tool("dpkg-deb"), "--fsys-tarfile", str(deb)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                unpack_members(archive, directory)
        except tarfile.TarError as e:
            raise LabError(f"{deb.name} cannot be unpacked: {e}") from e
        # Padding follows the last member; leaving it unread would break dpkg-deb's pipe.
        while process.stdout.read(1 << 16):
            pass
    if process.returncode:
        raise LabError(f"{deb.name} cannot be unpacked: dpkg-deb says {process.returncode}")
