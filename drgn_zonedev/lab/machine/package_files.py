# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Firmware of a Debian package, without installing it.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from drgn_zonedev.lab.host.apt import Suite, find_mirror, private_apt
from drgn_zonedev.lab.host.errors import LabError, StepProgress, report
from drgn_zonedev.lab.host.lock import lock
from drgn_zonedev.lab.host.tools import find_tool
from drgn_zonedev.lab.kernels.known import cache_dir

__all__ = ("fetch_firmware",)

# QEMU's option -bios takes code and variables in one file.
_FILES = {"ovmf": "usr/share/ovmf/OVMF.fd"}
_SUITE = Suite("bookworm")
_UNPACK_SECONDS = 60


def fetch_firmware(package: str, progress: StepProgress = None) -> Path:
    """
    Return the firmware of a package, downloading it if it is not in the cache.

    :param package: ``ovmf``
    """
    firmware = cache_dir() / "programs" / _SUITE.codename / Path(_FILES[package]).name
    if not firmware.exists():
        with lock(cache_dir() / "lock", progress):
            # Another process may have fetched it while this one waited for the lock.
            if not firmware.exists():
                with tempfile.TemporaryDirectory(prefix="fetch-", dir=cache_dir()) as work:
                    _fetch(package, Path(work), firmware, progress)
    return firmware


def _fetch(package: str, work: Path, firmware: Path, progress: StepProgress) -> None:
    find_tool("dpkg-deb")  # Say so before downloading.
    apt = private_apt(work / "apt", _SUITE, find_mirror())
    apt.update()
    found = apt.show(package)[package]
    report(progress, f"downloading {package} ({found.size >> 20} MiB)")
    deb = apt.download(found, work / "download")
    try:
        subprocess.run(
            [find_tool("dpkg-deb"), "-x", str(deb), str(work / "tree")],
            check=True,
            timeout=_UNPACK_SECONDS,
        )
    except subprocess.SubprocessError as e:
        raise LabError(f"{deb.name} cannot be unpacked: {e}") from e
    unpacked = work / "tree" / _FILES[package]
    if not unpacked.exists():
        raise LabError(f"the package {package} holds no {_FILES[package]}: its layout has changed")
    firmware.parent.mkdir(parents=True, exist_ok=True)
    unpacked.replace(firmware)
