# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The host programs that the lab runs, and their Debian packages.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from drgn_zonedev.lab.host.errors import LabError

__all__ = (
    "DEBIAN_PACKAGES",
    "find_tool",
    "missing_seldom_needed",
    "missing_tools",
    "run_build",
    "run_tool",
)

_PACKAGE_OF = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-system-aarch64": "qemu-system-arm",
    "qemu-system-ppc64": "qemu-system-ppc",
    # They put memory into the device trees of arm64, and build what guests of it run.
    "fdtput": "device-tree-compiler",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
    "powerpc64le-linux-gnu-gcc": "gcc-powerpc64le-linux-gnu",
    "busybox": "busybox-static",
    "depmod": "kmod",
    # They build the module that asks the guest's kernel for the truth.
    "gcc": "gcc",
    "make": "make",
    # They make the disk of a guest that runs this tool itself.
    "mke2fs": "e2fsprogs",
    "ldd": "libc-bin",
    # It makes a file system of a guest whose pages are used.
    "mkfs.xfs": "xfsprogs",
    # Part of every Debian; named so that other systems get a useful message.
    "apt-get": "apt",
    "apt-cache": "apt",
    "dpkg-deb": "dpkg",
    "setpriv": "util-linux",
}

# Only needed to build a kernel from source, or to filter a dump of arm64.
_SELDOM_NEEDED = {
    "bc": "bc",
    "bison": "bison",
    "flex": "flex",
    "ld": "binutils",
    "qemu-aarch64-static": "qemu-user-static",
}

DEBIAN_PACKAGES = (
    *("qemu-system-x86", "busybox-static", "kmod", "gcc", "make", "e2fsprogs", "xfsprogs"),
    *("qemu-system-arm", "device-tree-compiler", "gcc-aarch64-linux-gnu"),
    *("qemu-system-ppc", "gcc-powerpc64le-linux-gnu"),
)
"""What a Debian machine needs on top of its essential packages (no recommended ones)."""


def _which(program: str) -> str | None:
    # depmod lives in sbin, which ordinary users often do not have in PATH.
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    return shutil.which(program, path=path)


def find_tool(program: str) -> str:
    """Return the path of a host program, or raise LabError naming its package."""
    found = _which(program)
    if found is None:
        package = {**_PACKAGE_OF, **_SELDOM_NEEDED}.get(program, program)
        raise LabError(f"{program} is not installed: apt-get install {package}")
    return found


def run_tool(program: str, *args: str, data: bytes = b"") -> bytes:
    """Run a host program on some data and return its output."""
    try:
        done = subprocess.run(
            [find_tool(program), *args], input=data, capture_output=True, check=True, timeout=60
        )
    except subprocess.SubprocessError as e:
        raise LabError(f"{program} failed: {e}") from e
    return done.stdout


def run_build(
    command: list[str],
    seconds: float,
    failure: str,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """
    Run what builds something; LabError begins with `failure`, and says what the compiler said.

    :param command: with the program's path
    :param seconds: how long it may take
    """
    # If make runs this process, do not pass its variables on.
    own = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL")}
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**own, **(env or {}), "LC_ALL": "C"},
            timeout=seconds,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        program = os.path.basename(command[0])
        raise LabError(f"{program} did not finish within {seconds:.0f} s") from e
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        complaint = next((line for line in lines if "error" in line.lower()), lines[-1])
        raise LabError(f"{failure}: {complaint}")


def missing_tools() -> list[tuple[str, str]]:
    """Return ``(program, Debian package)`` of everything that is not installed."""
    return _missing(_PACKAGE_OF)


def missing_seldom_needed() -> list[tuple[str, str]]:
    """Like :func:`missing_tools()`, of what only building a kernel or filtering arm64 needs."""
    return _missing(_SELDOM_NEEDED)


def _missing(packages: Mapping[str, str]) -> list[tuple[str, str]]:
    return [item for item in packages.items() if _which(item[0]) is None]
