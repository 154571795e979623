# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Build modules for a guest's kernel: the one that asks it for the truth (``guest/zonedev_truth.c``),
and a driver of device memory (``guest/zonedev_device.c``).

The kernel's headers come from its Debian suite and are not installed. The host's compiler works
for all kernels; the kernel's own build programs need the C library of their suite, and run with it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from drgn_zonedev.lab.host.apt import Apt, Mirror, Package, Suite, find_mirror, private_apt
from drgn_zonedev.lab.host.boards import BOARDS, Board
from drgn_zonedev.lab.host.errors import LabError, StepProgress, report
from drgn_zonedev.lab.host.tools import find_tool, run_build
from drgn_zonedev.lab.kernels.build import build_tree
from drgn_zonedev.lab.kernels.known import ALL_KERNELS, BUILT_KERNELS, Kernel, made_once

__all__ = ("TRUTH", "build_module", "guest_module", "is_of_the_lab")

TRUTH = "zonedev_truth"
"""The module that asks."""

_GUEST = Path(__file__).parents[1] / "guest"
_BUILD_SECONDS = 300

# For kernels that were built with a compiler or pahole that the host does not have: how
# functions are aligned does not matter here, and neither do symbols for a debugger.
_SETTINGS = (
    "CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=",
    "CONFIG_DEBUG_INFO=",
    "CONFIG_DEBUG_INFO_BTF_MODULES=",
)

# The programs of linux-kbuild that a module's build runs. Where a program exists for several
# machines, it is a small one that runs the one with the suffix.
_BUILD_PROGRAMS = ("scripts/basic/fixdep", "scripts/mod/modpost", "tools/objtool/objtool")
_SUFFIXES = (".real-lsb-64", ".real-x86")
_HOST = "amd64"
_LIBRARIES = r"libc6|libelf1(t64)?|zlib1g|libzstd1"


def is_of_the_lab(kernel: Kernel) -> bool:
    """Return whether modules can be built for a kernel."""
    return kernel.name in ALL_KERNELS or kernel.name in BUILT_KERNELS


def guest_module(kernel: Kernel, name: str, *, progress: StepProgress = None) -> Path:
    """
    Return a module for `kernel`, building it if it is not in the cache.

    :param name: of its source in ``guest/``, without ``.c``
    :raises LabError: if a compiler or the kernel's headers are missing
    """
    if not is_of_the_lab(kernel):
        raise LabError(
            f"{kernel.release} is not one of the lab's kernels: build {_GUEST} against its tree"
        )
    # In the kernel's directory, so that a newer kernel replaces it.
    module = kernel.vmlinux.parent / f"{name}-{_recipe_digest(name)}.ko"
    if not module.exists():
        for program in (BOARDS[kernel.architecture].compiler, "make", "dpkg-deb"):
            find_tool(program)
    return made_once(
        module, lambda work: _make_module(kernel, name, module, work, progress), progress
    )


def _sources(name: str) -> tuple[Path, ...]:
    return _GUEST / f"{name}.c", _GUEST / "live_pgmap.h", _GUEST / "Kbuild"


def _recipe_digest(name: str) -> str:
    digest = hashlib.sha256(repr(_SETTINGS).encode())
    for source in _sources(name):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _make_module(
    kernel: Kernel, name: str, module: Path, work: Path, progress: StepProgress
) -> None:
    if kernel.name in BUILT_KERNELS:
        tree = build_tree(kernel)
    else:
        packages = module.parent / "headers"
        if not packages.exists():
            _download(kernel, work / "headers", work, progress)
            (work / "headers").rename(packages)
        tree = _unpack(packages, work / "tree", kernel.release)
    report(progress, f"building {name} for {kernel.release}")
    build_module(tree, name, work / "module.ko", BOARDS[kernel.architecture])
    (work / "module.ko").replace(module)


def _download(kernel: Kernel, directory: Path, work: Path, progress: StepProgress) -> None:
    """Download the packages that a module's build needs into a new directory."""
    report(progress, f"downloading the headers of {kernel.release} (16 MiB)")
    directory.mkdir()
    suite = ALL_KERNELS[kernel.name]
    # Packages in backports are built on the suite itself, and need its packages.
    base = Suite(suite.codename.replace("-backports", ""))
    mirror = find_mirror()
    apt = _updated(work / "apt", suite, mirror)
    # The kernel's build programs run here, whatever they build for.
    host_suite = replace(suite, architecture=_HOST)
    host_apt = apt if suite == host_suite else _updated(work / "host-apt", host_suite, mirror)
    base_apt = (
        host_apt if base.codename == suite.codename else _updated(work / "base-apt", base, mirror)
    )
    headers, programs = _header_packages(apt, host_apt, kernel)
    libraries = _library_packages(base_apt, programs)
    for source, packages in ((apt, headers), (host_apt, programs), (base_apt, libraries)):
        for package in packages:
            deb = source.download(package, work / "download")
            deb.rename(directory / deb.name)
            shutil.rmtree(work / "download")


def _updated(directory: Path, suite: Suite, mirror: Mirror) -> Apt:
    apt = private_apt(directory, suite, mirror)
    apt.update()
    return apt


def _header_packages(
    apt: Apt, host_apt: Apt, kernel: Kernel
) -> tuple[list[Package], list[Package]]:
    """Return the packages of headers, and of the programs that a build with them runs."""
    name = f"linux-headers-{kernel.release}"
    try:
        headers = apt.show(name)[name]
    except LabError as e:
        raise LabError(f"{e}: zonedev lab fetch --refresh {kernel.name}") from e
    common = [n for n in headers.depends if re.fullmatch(r"linux-headers-.*-common", n)]
    programs = [n for n in headers.depends if re.fullmatch(r"linux-kbuild-.*", n)]
    return [headers, *apt.show(*common).values()], list(host_apt.show(*programs).values())


def _library_packages(apt: Apt, users: Iterable[Package]) -> list[Package]:
    """Return the packages of the libraries that `users` need, and of those that these need."""
    found: dict[str, Package] = {}
    todo = list(users)
    while todo:
        names = {name for name in todo.pop().depends if re.fullmatch(_LIBRARIES, name)}
        new = apt.show(*sorted(names - set(found))) if names - set(found) else {}
        found.update(new)
        todo.extend(new.values())
    return list(found.values())


def _unpack(packages: Path, root: Path, release: str) -> Path:
    """Unpack the headers below `root`, fit them to live there, and return where to build."""
    for deb in sorted(packages.glob("*.deb")):
        command = [find_tool("dpkg-deb"), "-x", str(deb), str(root)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            raise LabError(f"{deb} is damaged: delete {packages}")
    tree = root / "usr/src" / f"linux-headers-{release}"
    makefile = tree / "Makefile"
    makefile.write_text(makefile.read_text().replace("/usr/src/", f"{root}/usr/src/"))
    libraries = _collect_libraries(root)
    for kbuild in (root / "usr/lib").glob("linux-kbuild-*"):
        for program in _BUILD_PROGRAMS:
            _run_with_libraries(kbuild / program, libraries)
    return tree


def _collect_libraries(root: Path) -> Path:
    directory = root / "libraries"
    directory.mkdir()
    for place in ("lib", "usr/lib"):
        for library in (root / place / "x86_64-linux-gnu").glob("*.so*"):
            if library.is_file():
                shutil.copy(library, directory)
    return directory


def _run_with_libraries(program: Path, libraries: Path) -> None:
    """Put a script in place of a program that runs it with the C library it was linked with."""
    names = [program.with_name(program.name + suffix) for suffix in _SUFFIXES]
    real = next((path for path in names if path.exists()), names[-1])
    if not real.exists():
        program.rename(real)
    loader = libraries / "ld-linux-x86-64.so.2"
    program.write_text(f'#!/bin/sh\nexec {loader} --library-path {libraries} {real} "$@"\n')
    program.chmod(0o755)


def build_module(tree: Path, name: str, module: Path, board: Board = BOARDS[_HOST]) -> None:
    """
    Build a module against a kernel tree that is ready for external modules.

    :param tree: what is ``/lib/modules/RELEASE/build`` on a machine that runs the kernel
    :param name: as for :func:`guest_module()`
    :param module: the file to write
    """
    with tempfile.TemporaryDirectory(prefix="zonedev-module-") as directory:
        for source in _sources(name):
            shutil.copy(source, directory)
        command = [find_tool("make"), "-C", str(tree), f"M={directory}", f"CC={board.compiler}"]
        command += [*board.make, *_SETTINGS]
        run_build(
            [*command, f"ZONEDEV_MODULE={name}", "modules"],
            _BUILD_SECONDS,
            f"the module {name} cannot be built",
        )
        shutil.move(Path(directory) / f"{name}.ko", module)
