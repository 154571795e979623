# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Pack the Python that is running, and the packages that ours needs, for a guest.

The guest runs the same Python as the host.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path

from drgn_zonedev.lab.host.errors import LabError
from drgn_zonedev.lab.host.tools import find_tool

__all__ = ("ENVIRONMENT", "PROGRAM", "interpreter_digest", "pack_interpreter")

PROGRAM = "/python/bin/python"
ENVIRONMENT = {
    "PYTHONHOME": "/python",
    "PYTHONPATH": "/packages:/extra",
    # Compiled files of the host are used, others are not worth their time.
    "PYTHONDONTWRITEBYTECODE": "1",
    "LD_LIBRARY_PATH": "/lib",
    # More threads than processors only cost in an emulated machine.
    "OPENBLAS_NUM_THREADS": "1",
}
"""How the interpreter finds its files below the tree's root."""

_DISTRIBUTIONS = ("drgn", "numpy", "tabulate", "tqdm")
_LEFT_OUT = (
    *("test", "tests", "idlelib", "tkinter", "ensurepip", "lib2to3", "turtledemo"),
    *("site-packages", "dist-packages", "config-*", "pydoc_data", "*.a", "_tkinter*", "_test*"),
)
_MOUNT_POINTS = ("proc", "sys", "dev", "tmp", "extra")


def interpreter_digest() -> str:
    """Return a name for what :func:`pack_interpreter` makes."""
    versions = [f"{name} {version(name)}" for name in _DISTRIBUTIONS]
    recipe = (sys.version, sys.executable, versions, _LEFT_OUT, _MOUNT_POINTS)
    return hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]


def pack_interpreter(tree: Path) -> None:
    """Make `tree` a root file system that holds Python; what to run is mounted on /extra."""
    for name in _MOUNT_POINTS:
        (tree / name).mkdir(parents=True)
    _copy_standard_library(tree / "python")
    for name in _DISTRIBUTIONS:
        _copy_distribution(name, tree / "packages")
    program = tree / PROGRAM[1:]
    program.parent.mkdir(parents=True)
    shutil.copy(Path(sys.executable).resolve(), program)
    _copy_libraries(tree)


_ignore = shutil.ignore_patterns(*_LEFT_OUT)


def _copy_standard_library(home: Path) -> None:
    library = Path(sysconfig.get_path("stdlib"))
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copytree(library, home / "lib" / name, ignore=_ignore)


def _copy_distribution(name: str, target: Path) -> None:
    try:
        found = files(name)
    except PackageNotFoundError:
        found = None
    if found is None:
        raise LabError(f"the guest needs the Python package {name}, which is not installed")
    for path in found:
        # Files elsewhere are scripts.
        if ".." in path.parts or "tests" in path.parts:
            continue
        source = Path(str(path.locate()))
        if source.is_file():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / path)


def _copy_libraries(tree: Path) -> None:
    inside = [PROGRAM[1:], *(str(p.relative_to(tree)) for p in tree.rglob("*.so*"))]
    (tree / "lib").mkdir()
    for library in sorted(set(_libraries(tree, inside))):
        # The loader's name is absolute in every program.
        loader = library.name.startswith("ld-linux")
        target = tree / str(library)[1:] if loader else tree / "lib" / library.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)


def _libraries(tree: Path, names: Iterable[str]) -> Iterator[Path]:
    """Yield the host's libraries that programs and libraries of the tree are linked with."""
    # ldd fails for files without dependencies; the guest will report any missing library.
    done = subprocess.run(
        [find_tool("ldd"), *(f"./{name}" for name in names)],
        cwd=tree,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    for path in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", done.stdout, re.MULTILINE):
        if not Path(path).resolve().is_relative_to(tree.resolve()):
            yield Path(path)
