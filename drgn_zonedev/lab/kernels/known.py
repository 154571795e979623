# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The kernels the lab can boot, and the cache that holds them.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from drgn_zonedev.lab.host.apt import Suite
from drgn_zonedev.lab.host.errors import LabError, StepProgress
from drgn_zonedev.lab.host.lock import lock

__all__ = (
    "ALL_KERNELS",
    "ARM64_KERNELS",
    "BUILT_KERNELS",
    "KERNELS",
    "PLAIN_KERNELS",
    "PPC64EL_KERNELS",
    "UNFIXED_KERNELS",
    "Kernel",
    "Recipe",
    "cache_dir",
    "check_space",
    "kernel_dir",
    "load_kernel",
    "made_once",
    "replace_directory",
    "suite_of",
)


@dataclass(frozen=True)
class Recipe:
    """How a kernel is built: its source, and what is in ``lab/patches/`` for it."""

    suite: Suite
    configs: tuple[str, ...]
    """Files of what it needs on top of ``make allnoconfig``; a later one overrides the others."""
    summary: str
    """How it differs from Debian's, in a few words."""
    edits: tuple[str, ...] = ()
    """Files of the changes to its source, made in this order."""


KERNELS: dict[str, Suite] = {
    "5.10": Suite("bullseye"),
    "6.1": Suite("bookworm", security=True),
    "6.12": Suite("trixie"),
    "7.2": Suite("forky"),
    "7.3": Suite("trixie-backports"),
}

PLAIN_KERNELS: dict[str, Suite] = {
    "6.1-amd64": Suite("bookworm", security=True, flavour="amd64"),
    "7.3-amd64": Suite("trixie-backports", flavour="amd64"),
}
"""
Debian's kernels for any machine: with memory failure (5.10 and 6.1 lack it otherwise), fake NUMA
nodes, and page extensions, which make a ``struct mem_section`` 32 bytes. Only booted by name.
"""

UNFIXED_KERNELS: dict[str, Suite] = {
    # Debian 12 without its security updates: 6.1.176, without "mm/mm_init: fix
    # uninitialized struct pages for ZONE_DEVICE". See the scenario devdax-collision.
    "6.1-unfixed": Suite("bookworm"),
}
"""Kernels with a bug that the tool must find: only booted by name."""


def _arm64(codename: str, flavour: str = "cloud-arm64", *, security: bool = False) -> Suite:
    return Suite(codename, security=security, architecture="arm64", flavour=flavour)


ARM64_KERNELS: dict[str, Suite] = {
    # Without CONFIG_ZONE_DEVICE.
    "6.1-arm64": _arm64("bookworm", security=True),
    "6.12-arm64": _arm64("trixie"),
    "6.12-arm64-16k": _arm64("trixie", "arm64-16k"),
    "7.3-arm64": _arm64("trixie-backports"),
    "7.3-arm64-16k": _arm64("trixie-backports", "arm64-16k"),
}
"""Kernels for arm64, with pages of 4K unless the name says otherwise."""

PPC64EL_KERNELS: dict[str, Suite] = {
    # Without CONFIG_LIBNVDIMM.
    "6.12-ppc64el": Suite("trixie", architecture="ppc64el", flavour="powerpc64le"),
}
"""Kernels for ppc64el with pages of 4K, of which RAM is compared."""

# By the ends of flavours.
_PAGE_SIZES = {"16k": 16384, "64k": 65536}

_TRIXIE, _BACKPORTS = Suite("trixie"), Suite("trixie-backports")
_SMALL = ("small.config",)
_WITH_DRIVERS = (*_SMALL, "drivers.config")


def _variant(summary: str, *edits: str) -> Recipe:
    return Recipe(_BACKPORTS, ("proposal-7.3.config",), summary, ("device_bits-7.3.edit", *edits))


def _proposal(summary: str, *more: str) -> Recipe:
    return _variant(summary, "pfn_zone_device-7.3.edit", *more)


BUILT_KERNELS: dict[str, Recipe] = {
    "6.12-proposal": Recipe(
        _TRIXIE, ("proposal.config",), "with pfn_zone_device()", ("pfn_zone_device.edit",)
    ),
    "6.12-mended": Recipe(
        _TRIXIE, _SMALL, "without the zone bug of acpi-hole", ("page_zone-6.12.edit",)
    ),
    "7.3-small": Recipe(_BACKPORTS, _SMALL, "with a small configuration"),
    "7.3-mended": Recipe(
        _BACKPORTS, _SMALL, "without the zone bug of acpi-hole", ("page_zone.edit",)
    ),
    "7.3-debug": Recipe(
        _BACKPORTS, (*_WITH_DRIVERS, "debug-vm.config"), "with poisoned struct pages, without NUMA"
    ),
    "6.1-slab": Recipe(
        KERNELS["6.1"],
        (*_WITH_DRIVERS, "slab.config"),
        "with a struct page of 56 bytes",
    ),
    "7.3-proposal": _proposal("with pfn_zone_device(), and walkers that ask it"),
    "7.3-too-early": _proposal("with a defect: bits are set too early", "bit-too-early.edit"),
    "7.3-kept": _proposal("with a defect: bits are never cleared", "bit-kept.edit"),
    "7.3-forgotten": _proposal("with a defect: a bit is not set", "bit-forgotten.edit"),
    "7.3-series": _variant("with the series of November 2019", "series_2019-7.3.edit"),
    "7.3-section-flag": _variant("with a flag of the section", "section_flag-7.3.edit"),
    "7.3-taint": _variant("that is asked as it is, by functions", "taint-7.3.edit"),
    "7.3-raced": _proposal("with pfn_zone_device(), and poisoned pages", "poison.edit"),
    "7.3-raced-series": _variant(
        "with that series, and poisoned pages", "series_2019-7.3.edit", "poison.edit"
    ),
    "7.3-raced-taint": _variant(
        "that is asked as it is, with poisoned pages", "taint-7.3.edit", "poison.edit"
    ),
    "7.3-arm64-64k": Recipe(
        _arm64("trixie-backports", "arm64-64k"),
        ("small-arm64.config",),
        "for arm64, with pages of 64K",
    ),
}
"""Kernels that ``build_kernels()`` builds from Debian's source: only booted by name."""

ALL_KERNELS = {
    **KERNELS,
    **PLAIN_KERNELS,
    **UNFIXED_KERNELS,
    **ARM64_KERNELS,
    **PPC64EL_KERNELS,
}
"""All kernels that ``fetch_kernel()`` can fetch."""


def suite_of(name: str) -> Suite:
    """Return the suite of a kernel, or of its source; of one that is not the lab's, for amd64."""
    return BUILT_KERNELS[name].suite if name in BUILT_KERNELS else ALL_KERNELS.get(name, Suite(""))


@dataclass(frozen=True)
class Kernel:
    """A kernel in the cache: what QEMU boots and what a debugger needs."""

    name: str
    """Key in ALL_KERNELS or BUILT_KERNELS."""
    release: str
    """What ``uname -r`` says in the guest."""
    version: str
    """Version of the Debian packages."""
    vmlinuz: Path
    vmlinux: Path
    modules: Path | None
    """``lib/modules/RELEASE``, with the ``modules.dep`` that depmod made; None: all is built in."""
    debug_modules: tuple[Path, ...]
    system_map: Path | None
    """None: vmlinux has a symbol table, too."""
    architecture: str = "amd64"
    """Debian's name of it."""
    page_size: int = 4096


def cache_dir() -> Path:
    """Return the user's cache directory for this package (it may not exist yet)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification tells programs to ignore relative paths.
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "drgn_zonedev"


def made_once(made: Path, make: Callable[[Path], None], progress: StepProgress) -> Path:
    """
    Return a file or directory, making it if it is not there yet.

    :param make: Makes it, by way of the temporary directory that it gets, in the cache.
    """
    if not made.exists():
        cache_dir().mkdir(parents=True, exist_ok=True)
        with lock(cache_dir() / "lock", progress):
            # Another process may have made it while this one waited for the lock.
            if not made.exists():
                with tempfile.TemporaryDirectory(prefix="fetch-", dir=cache_dir()) as work:
                    make(Path(work))
    return made


def kernel_dir(name: str) -> Path:
    """Return the directory that holds the kernel called `name` once it is fetched."""
    return cache_dir() / "kernels" / name


def check_space(directory: Path, needed: int, what: str) -> None:
    """Raise LabError if a directory has less than `needed` bytes left for `what`."""
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise LabError(
            f"{directory} has {free >> 20} MiB left, {what} needs {needed >> 20} MiB for a "
            "while: make room, or set XDG_CACHE_HOME"
        )


def replace_directory(new: Path, old: Path, trash: Path) -> None:
    """Replace a directory by another one; move the old one to `trash`."""
    old.parent.mkdir(parents=True, exist_ok=True)
    if old.exists():
        old.rename(trash)
    new.rename(old)


def load_kernel(name: str, directory: Path) -> Kernel | None:
    """Return the kernel that `directory` holds, or None if there is none."""
    try:
        record = json.loads((directory / "kernel.json").read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as e:
        raise LabError(f"{directory} is damaged ({e}): delete it") from e
    release = record["release"]
    suite = suite_of(name)
    return Kernel(
        name=name,
        release=release,
        version=record["version"],
        vmlinuz=directory / "vmlinuz",
        vmlinux=directory / "vmlinux",
        modules=directory / "usr/lib/modules" / release,
        debug_modules=tuple(sorted((directory / "debug").glob("*.ko"))),
        system_map=directory / "System.map",
        architecture=suite.architecture,
        page_size=_PAGE_SIZES.get(suite.flavour.rpartition("-")[2], 4096),
    )
