# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Files of Debian packages that guests get, without installing them.
"""

from __future__ import annotations

from pathlib import Path

from drgn_zonedev.lab.host.apt import Suite, find_mirror, private_apt
from drgn_zonedev.lab.host.errors import LabError, StepProgress, report
from drgn_zonedev.lab.host.tools import find_tool
from drgn_zonedev.lab.kernels.known import cache_dir, made_once
from drgn_zonedev.lab.kernels.unpack import unpack_everything

__all__ = ("fetch_busybox", "fetch_firmware")

# QEMU's option -bios takes code and variables in one file.
_FIRMWARE = {
    "ovmf": "usr/share/ovmf/OVMF.fd",
    "qemu-efi-aarch64": "usr/share/AAVMF/AAVMF_CODE.fd",
}
_CODENAME = "bookworm"


def fetch_firmware(package: str, progress: StepProgress = None) -> Path:
    """
    Return the firmware of a package, downloading it if it is not in the cache.

    :param package: ``ovmf``, or ``qemu-efi-aarch64``
    """
    file = _FIRMWARE[package]
    kept = cache_dir() / "programs" / _CODENAME / Path(file).name
    return _fetch(package, file, Suite(_CODENAME), kept, progress)


def fetch_busybox(architecture: str, progress: StepProgress = None) -> Path:
    """
    Return a busybox that needs no library, downloading it if it is not in the cache.

    :param architecture: Debian's name of it
    """
    suite = Suite(_CODENAME, architecture=architecture)
    kept = cache_dir() / "programs" / _CODENAME / f"busybox-{architecture}"
    return _fetch("busybox-static", "bin/busybox", suite, kept, progress)


def _fetch(package: str, file: str, suite: Suite, kept: Path, progress: StepProgress) -> Path:
    def download(work: Path) -> None:
        find_tool("dpkg-deb")  # Say so before downloading.
        apt = private_apt(work / "apt", suite, find_mirror())
        apt.update()
        found = apt.show(package)[package]
        report(progress, f"downloading {package} ({max(found.size >> 20, 1)} MiB)")
        unpack_everything(apt.download(found, work / "download"), work / "tree")
        unpacked = work / "tree" / file
        if not unpacked.exists():
            raise LabError(f"the package {package} holds no {file}: its layout has changed")
        kept.parent.mkdir(parents=True, exist_ok=True)
        unpacked.replace(kept)

    return made_once(kept, download, progress)
