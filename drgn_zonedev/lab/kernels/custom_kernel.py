# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A kernel that the user built, given by its files.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
from pathlib import Path

from drgn_zonedev.lab.host.errors import LabError
from drgn_zonedev.lab.kernels.known import Kernel

__all__ = ("OWN", "bzimage_release", "custom_kernel", "vmlinux_release")

OWN = "own"
"""The name of such a kernel."""

_MAGIC_OFFSET, _VERSION_OFFSET, _HEADER_SIZE = 0x202, 0x20E, 0x210


def custom_kernel(
    bzimage: Path, vmlinux: Path, modules: Path | None = None, system_map: Path | None = None
) -> Kernel:
    """
    Return a kernel that was built by the user.

    :param modules: ``lib/modules/RELEASE``, or where ``make modules_install`` has put ``lib``;
        None if everything is built in
    """
    for path in (bzimage, vmlinux, *([system_map] if system_map else [])):
        if os.path.isdir(path):
            raise LabError(f"{path} is a directory: give the bzImage or vmlinux in it")
        if not os.path.isfile(path):
            raise LabError(
                f"there is no file {path}: check --kernel, --vmlinux, --modules and --system-map"
            )
    release = bzimage_release(bzimage)
    other = vmlinux_release(vmlinux)
    if other not in (release, None):
        raise LabError(
            f"{vmlinux} is of Linux {other}, and {bzimage} of {release}: "
            "give the vmlinux of the same build"
        )
    return Kernel(
        name=OWN,
        release=release,
        version="",
        vmlinuz=bzimage.absolute(),
        vmlinux=vmlinux.absolute(),
        modules=_modules(modules.absolute(), release) if modules else None,
        debug_modules=(),
        system_map=system_map.absolute() if system_map else None,
    )


def bzimage_release(bzimage: Path) -> str:
    """Return what ``uname -r`` will say, from the header of a bzImage (x86 boot protocol)."""
    with bzimage.open("rb") as file:
        header = file.read(_HEADER_SIZE)
        if header[_MAGIC_OFFSET : _MAGIC_OFFSET + 4] != b"HdrS":
            raise LabError(f"{bzimage} is not a bzImage: give arch/x86/boot/bzImage")
        (offset,) = struct.unpack_from("<H", header, _VERSION_OFFSET)
        file.seek(0x200 + offset)
        version = file.read(256).partition(b"\0")[0].decode(errors="replace")
    release = version.partition(" ")[0]
    # It becomes part of paths.
    if not re.fullmatch(r"[\w.+~-]+", release):
        raise LabError(f"{bzimage} does not say what release it is: give arch/x86/boot/bzImage")
    return release


def vmlinux_release(vmlinux: Path) -> str | None:
    """Return the release in a vmlinux's ``linux_banner``; None if it has been left out."""
    with vmlinux.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as contents:
            found = re.search(rb"Linux version ([\w.+~-]+) \(", contents)
            return found[1].decode() if found else None


def _modules(directory: Path, release: str) -> Path:
    candidates = (
        directory,
        directory / "lib/modules" / release,
        directory / "modules" / release,
        # Debian 13 has merged /lib into /usr/lib.
        directory / "usr/lib/modules" / release,
        directory / release,
    )
    for candidate in candidates:
        if candidate.name == release and os.path.isdir(candidate / "kernel"):
            _require_dependencies(candidate, release)
        if os.path.isfile(candidate / "modules.dep"):
            if candidate.name != release:
                raise LabError(
                    f"{candidate} has the modules of another kernel than {release}: "
                    "give INSTALL_MOD_PATH of make modules_install"
                )
            return candidate
    raise LabError(
        f"{directory} has no modules of {release}: run make modules_install "
        f"INSTALL_MOD_PATH={directory}, or depmod"
    )


def _require_dependencies(directory: Path, release: str) -> None:
    if not os.path.isfile(directory / "modules.dep"):
        command = f"depmod -b {_base(directory)} {release}"
        raise LabError(f"{directory} has modules, but no modules.dep: run {command}")


def _base(directory: Path) -> Path:
    """Get what depmod -b takes: the directory that lib/modules/RELEASE is in."""
    return directory.parents[2] if len(directory.parents) > 2 else Path("/")
