# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A program of a Debian package with its libraries, without installing them.

It runs on the host and in guests alike: its own dynamic loader starts it. On the host, QEMU runs
that of another architecture.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from drgn_zonedev.lab.host.apt import Apt, Suite, find_mirror, private_apt
from drgn_zonedev.lab.host.errors import LabError, StepProgress, report
from drgn_zonedev.lab.host.tools import find_tool
from drgn_zonedev.lab.kernels.known import cache_dir, made_once
from drgn_zonedev.lab.kernels.unpack import unpack_everything
from drgn_zonedev.lab.machine.initramfs import Entry, file_entry

__all__ = ("LOADER", "DebianProgram", "fetch_program")

LOADER = "ld-linux-x86-64.so.2"
"""The dynamic loader of amd64."""


@dataclass(frozen=True)
class _Architecture:
    loader: str
    libraries: str
    """The directory of libraries."""
    emulator: tuple[str, ...] = ()


_ARCHITECTURES = {
    "amd64": _Architecture(LOADER, "x86_64-linux-gnu"),
    "arm64": _Architecture("ld-linux-aarch64.so.1", "aarch64-linux-gnu", ("qemu-aarch64-static",)),
}
_LIBRARY = re.compile(r".*\.so(\.[\w.]+)?")
# Of the dependencies, only libraries are needed: scripts are not run here.
_LIBRARY_PACKAGE = re.compile(r"lib.+|zlib1g")
_NOT_NEEDED = re.compile(r"libgcc-s1|libcrypt1|.*-(data|bin|common)")


@dataclass(frozen=True)
class DebianProgram:
    """A program and, beside it, all of its libraries."""

    name: str
    version: str
    directory: Path
    architecture: str = "amd64"
    """Debian's name of what it was built for."""

    @property
    def _loader(self) -> str:
        return _ARCHITECTURES[self.architecture].loader

    def command(self, *arguments: str) -> list[str]:
        """
        Return what runs it on the host.

        :raises LabError: if it is of another architecture, and the emulator is not installed
        """
        emulator = [find_tool(name) for name in _ARCHITECTURES[self.architecture].emulator]
        loader = [str(self.directory / self._loader), "--library-path", str(self.directory)]
        return [*emulator, *loader, str(self.directory / self.name), *arguments]

    def entries(self, where: str) -> list[Entry]:
        """Return it for a guest's initramfs, where ``guest_command(where)`` runs it."""
        files = sorted(path for path in self.directory.iterdir() if path.name != "version")
        return [file_entry(f"{where}/{path.name}", path.read_bytes(), 0o755) for path in files]

    def guest_command(self, where: str) -> str:
        """Return the words that run it in a guest that has its ``entries(where)``."""
        return f"/{where}/{self._loader} --library-path /{where} /{where}/{self.name}"


def fetch_program(name: str, suite: Suite, progress: StepProgress = None) -> DebianProgram:
    """Return the program of the package of that name, downloading it if needed."""
    foreign = "" if suite.architecture == "amd64" else f"-{suite.architecture}"
    directory = cache_dir() / "programs" / suite.codename / f"{name}{foreign}"
    made_once(directory, lambda work: _fetch(name, suite, work, directory, progress), progress)
    version = (directory / "version").read_text().strip()
    return DebianProgram(name, version, directory, suite.architecture)


def _fetch(name: str, suite: Suite, work: Path, directory: Path, progress: StepProgress) -> None:
    apt = private_apt(work / "apt", suite, find_mirror())
    apt.update()
    packages = _with_libraries(apt, name)
    report(progress, f"downloading {name} of {suite.codename} ({len(packages)} packages)")
    tree, flat = work / "tree", work / "flat"
    flat.mkdir()
    found = apt.show(*packages)
    for package in packages:
        deb = apt.download(found[package], work / "download")
        unpack_everything(deb, tree)
        shutil.rmtree(deb.parent)
    _flatten(tree, name, flat, suite.architecture)
    (flat / "version").write_text(found[name].version + "\n")
    directory.parent.mkdir(parents=True, exist_ok=True)
    flat.rename(directory)


def _with_libraries(apt: Apt, name: str) -> list[str]:
    # One step down the dependencies at a time, for all packages of that step at once.
    known: list[str] = []
    step = [name]
    while step:
        known += step
        wanted = {d for package in apt.show(*step).values() for d in package.depends}
        step = sorted(d for d in wanted if _is_library(d) and d not in known)
    return known


def _is_library(package: str) -> bool:
    return bool(_LIBRARY_PACKAGE.fullmatch(package)) and not _NOT_NEEDED.fullmatch(package)


def _files(tree: Path) -> Iterable[Path]:
    for directory, _, names in os.walk(tree):
        yield from (Path(directory) / name for name in names)


def _flatten(tree: Path, name: str, flat: Path, architecture: str) -> None:
    """Put the program and the libraries into one directory, without links."""
    built_for = _ARCHITECTURES[architecture]
    for path in sorted(_files(tree)):
        program = path.name == name and path.parent.name in ("bin", "sbin")
        # Subdirectories hold plugins, which are not needed here.
        library = _LIBRARY.fullmatch(path.name) and path.parent.name == built_for.libraries
        loader = path.name == built_for.loader
        if (program or library or loader) and path.is_file():
            shutil.copyfile(path, flat / path.name)
            (flat / path.name).chmod(0o755)
    for wanted in (name, built_for.loader):
        if not (flat / wanted).exists():
            raise LabError(f"the package {name} holds no {wanted}: its layout has changed")
