# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Build the kernel that has pfn_zone_device(): Debian's source, ``patches/``, and a small config.

Only the files for booting and debugging it are kept, and a tree to build modules against.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drgn_zonedev.lab.host.apt import find_mirror, private_apt
from drgn_zonedev.lab.host.errors import LabError, StepProgress, report
from drgn_zonedev.lab.host.lock import lock
from drgn_zonedev.lab.host.tools import find_tool, run_build
from drgn_zonedev.lab.kernels.edits import apply_edits, parse_edits
from drgn_zonedev.lab.kernels.known import (
    BUILT_KERNELS,
    Kernel,
    cache_dir,
    check_space,
    kernel_dir,
    load_kernel,
    replace_directory,
)
from drgn_zonedev.lab.kernels.unpack import destination

__all__ = ("build_kernel", "build_tree", "built_kernel", "recipe_digest")

_PATCHES = Path(__file__).parents[1] / "patches"
_CONFIG = _PATCHES / "config"
_EDITS = _PATCHES / "pfn_zone_device.edit"

# All that "make" needs.
_PROGRAMS = ("bc", "bison", "dpkg-deb", "flex", "gcc", "ld", "make", "tar", "xz")
_LIBELF = Path("/usr/include/libelf.h")

# By far the largest part of 1.6 GiB.
_NOT_NEEDED = "*/drivers/gpu/drm/amd/include/asic_reg"
_NEEDED_BYTES = 5 << 30
_BUILD_SECONDS = 4 * 3600


def recipe_digest() -> str:
    """Return a digest of the patch and the config."""
    digest = hashlib.sha256()
    for path in (_EDITS, _CONFIG):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def built_kernel(name: str) -> Kernel:
    """
    Return a kernel that was built before.

    :raises LabError: if it was not built, or from another patch or config
    """
    directory = kernel_dir(name)
    kernel = load_kernel(name, directory)
    if kernel is None:
        raise LabError(f"{name} is not built yet: zonedev lab build-kernel (takes a while)")
    if _record(directory).get("recipe") != recipe_digest():
        raise LabError(f"{name} was built from another patch or config: zonedev lab build-kernel")
    return kernel


def build_tree(kernel: Kernel) -> Path:
    """Return the tree to build modules against, for a kernel that was built here."""
    return kernel.vmlinux.parent / "tree"


def build_kernel(
    name: str, *, jobs: int | None = None, refresh: bool = False, progress: StepProgress = None
) -> Kernel:
    """
    Return the kernel, building it if it is not in the cache.

    :param jobs: how many compilers at a time; default: as many as there are processors
    :param refresh: ask the mirror for newer source than what was built
    """
    suite = BUILT_KERNELS.get(name)
    if suite is None:
        raise LabError(f"{name} is not built here: choose one of {', '.join(BUILT_KERNELS)}")
    if not refresh:
        try:
            return built_kernel(name)
        except LabError:
            pass
    for program in _PROGRAMS:
        find_tool(program)
    if not _LIBELF.exists():
        raise LabError(f"{_LIBELF} is missing: apt-get install libelf-dev")
    cache = cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    # Not the lock for booting kernels, so that others can boot meanwhile.
    with lock(cache / "build-lock", progress), _work(cache) as work:
        package = f"linux-source-{name.partition('-')[0]}"
        report(progress, f"asking the mirror for the newest {package} of {suite.codename}")
        apt = private_apt(work / "apt", suite, find_mirror())
        apt.update()
        source = apt.show(package)[package]
        if _is_current(name, source.version):
            return built_kernel(name)
        report(progress, f"downloading {package} {source.version} ({source.size >> 20} MiB)")
        deb = apt.download(source, work / "download")
        tree = _unpack(deb, work, progress)
        shutil.rmtree(deb.parent)
        started = time.monotonic()
        root = _make(tree, work / "kernel", jobs or len(os.sched_getaffinity(0)), progress)
        seconds = round(time.monotonic() - started)
        record = {"version": source.version, "recipe": recipe_digest(), "seconds": seconds}
        record["release"] = (tree / "include/config/kernel.release").read_text().strip()
        (root / "kernel.json").write_text(json.dumps(record) + "\n")
        replace_directory(root, kernel_dir(name), work / "old")
        report(progress, f"{name} is {record['release']}, built in {seconds} s")
    return built_kernel(name)


@contextmanager
def _work(cache: Path) -> Iterator[Path]:
    for leftover in cache.glob("build-*"):  # Of a process that was killed.
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
    check_space(cache, _NEEDED_BYTES, "a build")
    with tempfile.TemporaryDirectory(prefix="build-", dir=cache) as directory:
        yield Path(directory)


def _record(directory: Path) -> dict[str, object]:
    record: dict[str, object] = json.loads((directory / "kernel.json").read_text())
    return record


def _is_current(name: str, version: str) -> bool:
    try:
        built_kernel(name)
    except LabError:
        return False
    return _record(kernel_dir(name)).get("version") == version


def _unpack(deb: Path, work: Path, progress: StepProgress) -> Path:
    """Unpack the source, change it, and return its tree."""
    report(progress, "unpacking the source")
    package, tree = work / "package", work / "source"
    tree.mkdir()
    _run(["dpkg-deb", "-x", str(deb), str(package)])
    archives = list((package / "usr/src").glob("linux-source-*.tar.xz"))
    if len(archives) != 1:
        raise LabError(f"{deb.name} holds no source: its layout has changed")
    _run(
        [
            *("tar", "--strip-components=1", "--wildcards", f"--exclude={_NOT_NEEDED}"),
            *("-C", str(tree), "-xf", str(archives[0])),
        ]
    )
    shutil.rmtree(package)
    apply_edits(tree, parse_edits(_EDITS.read_text()))
    return tree


def _make(tree: Path, root: Path, jobs: int, progress: StepProgress) -> Path:
    """Build, and collect what is needed of it in a new directory."""
    make = ["make", "-C", str(tree), f"-j{jobs}", "CC=gcc", "HOSTCC=gcc"]
    _run([*make, f"KCONFIG_ALLCONFIG={_CONFIG}", "allnoconfig"])
    check_config((tree / ".config").read_text())
    report(progress, f"building it with {jobs} jobs")
    _run([*make, "bzImage", "modules"])
    # As the lab's other kernels have it: see load_kernel().
    (root / "usr/lib").mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    _run([*make, f"INSTALL_MOD_PATH={root}", "INSTALL_MOD_STRIP=1", "modules_install"])
    for file, name in (
        ("arch/x86/boot/bzImage", "vmlinuz"),
        ("vmlinux", "vmlinux"),
        ("System.map", "System.map"),
        (".config", "config"),
    ):
        shutil.copy(tree / file, root / name)
    for module in tree.rglob("*.ko"):
        wanted = destination(f"usr/lib/debug/lib/modules/x/kernel/{module.relative_to(tree)}")
        if wanted:
            (root / wanted).parent.mkdir(exist_ok=True)
            shutil.copy(module, root / wanted)
    for link in root.glob("usr/lib/modules/*/build"):
        link.unlink()  # It points into a tree that is about to be deleted.
    _run(
        [str(tree / "scripts/package/install-extmod-build"), str(root / "tree")],
        cwd=tree,
        env={"srctree": ".", "SRCARCH": "x86", "CC": "gcc", "HOSTCC": "gcc", "MAKE": "make"},
    )
    return root


def check_config(config: str) -> None:
    """
    Raise LabError if a kernel's configuration does not have a line of our own config.

    Kconfig silently drops unknown options, and those with unmet dependencies.
    """
    have = set(config.splitlines())
    wanted = [line for line in _CONFIG.read_text().splitlines() if line.startswith("CONFIG_")]
    missing = [line for line in wanted if line not in have]
    if missing:
        raise LabError(f"this source cannot be configured as wanted: no {', '.join(missing)}")


def _run(command: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    program = Path(command[0])
    if not program.is_absolute():
        command = [find_tool(command[0]), *command[1:]]
    run_build(command, _BUILD_SECONDS, f"{program.name} failed", cwd=cwd, env=env)
