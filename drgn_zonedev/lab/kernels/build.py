# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Build kernels from Debian's source, changed by the scripts in ``patches/``, with a config there.

Only the files for booting and debugging them are kept, and a tree to build modules against.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

from drgn_zonedev.lab.host.apt import Suite, find_mirror, private_apt
from drgn_zonedev.lab.host.boards import BOARDS, Board
from drgn_zonedev.lab.host.errors import LabError, StepProgress, report
from drgn_zonedev.lab.host.lock import lock
from drgn_zonedev.lab.host.tools import find_tool, run_build
from drgn_zonedev.lab.kernels.edits import edited_files, parse_edits, read_files, write_changed
from drgn_zonedev.lab.kernels.known import (
    BUILT_KERNELS,
    Kernel,
    Recipe,
    cache_dir,
    check_space,
    kernel_dir,
    load_kernel,
    replace_directory,
)
from drgn_zonedev.lab.kernels.unpack import destination

__all__ = ("build_kernels", "build_tree", "built_kernel", "recipe_digest")

_PATCHES = Path(__file__).parents[1] / "patches"

# All that "make" needs.
_PROGRAMS = ("bc", "bison", "dpkg-deb", "flex", "gcc", "ld", "make", "tar", "xz")
_LIBELF = Path("/usr/include/libelf.h")

# By far the largest part of 1.6 GiB.
_NOT_NEEDED = "*/drivers/gpu/drm/amd/include/asic_reg"
_NEEDED_BYTES = 5 << 30
_BUILD_SECONDS = 4 * 3600


def recipe_digest(name: str) -> str:
    """Return a digest of the edits and the config of a kernel that is built here."""
    recipe = _recipe(name)
    digest = hashlib.sha256(b"".join((_PATCHES / name).read_bytes() for name in recipe.configs))
    digest.update(_edits(recipe).encode())
    return digest.hexdigest()[:16]


def _recipe(name: str) -> Recipe:
    try:
        return BUILT_KERNELS[name]
    except KeyError:
        raise LabError(
            f"{name} is not built here: choose one of {', '.join(BUILT_KERNELS)}"
        ) from None


def _edits(recipe: Recipe) -> str:
    return "".join((_PATCHES / name).read_text() for name in recipe.edits)


def built_kernel(name: str) -> Kernel:
    """
    Return a kernel that was built before.

    :raises LabError: if it was not built, or from another patch or config
    """
    directory = kernel_dir(name)
    kernel = load_kernel(name, directory)
    how = f"zonedev lab build-kernel {name}"
    if kernel is None:
        raise LabError(f"{name} is not built yet: {how} (takes a while)")
    if _record(directory).get("recipe") != recipe_digest(name):
        raise LabError(f"{name} was built from another patch or config: {how}")
    return kernel


def build_tree(kernel: Kernel) -> Path:
    """Return the tree to build modules against, for a kernel that was built here."""
    return kernel.vmlinux.parent / "tree"


def build_kernels(
    names: Sequence[str],
    *,
    jobs: int | None = None,
    refresh: bool = False,
    progress: StepProgress = None,
) -> list[Kernel]:
    """
    Return kernels, building those that are not in the cache.

    Those that follow one another, and have their source and config in common, are built in one
    tree, so that only what their edits change is compiled twice.

    :param jobs: how many compilers at a time; default: as many as there are processors
    :param refresh: ask the mirror for newer source than what was built
    """
    wanted = [name for name in names if refresh or not _is_built(name)]
    jobs = jobs or len(os.sched_getaffinity(0))
    for (_, suite, _), together in groupby(wanted, key=_common):
        _require_programs(BOARDS[suite.architecture])
        cache = cache_dir()
        cache.mkdir(parents=True, exist_ok=True)
        # Not the lock for booting kernels, so that others can boot meanwhile.
        with lock(cache / "build-lock", progress), _work(cache) as work:
            _build(list(together), work, jobs, progress)
    return [built_kernel(name) for name in names]


def _common(name: str) -> tuple[str, Suite, tuple[str, ...]]:
    recipe = _recipe(name)
    return f"linux-source-{name.partition('-')[0]}", recipe.suite, recipe.configs


def _is_built(name: str) -> bool:
    _recipe(name)
    try:
        built_kernel(name)
    except LabError:
        return False
    return True


def _require_programs(board: Board) -> None:
    for program in (*_PROGRAMS, board.compiler):
        find_tool(program)
    if not _LIBELF.exists():
        raise LabError(f"{_LIBELF} is missing: apt-get install libelf-dev")


def _build(names: Sequence[str], work: Path, jobs: int, progress: StepProgress) -> None:
    """Build kernels that have their source and config in common, and put them into the cache."""
    package, suite, configs = _common(names[0])
    report(progress, f"asking the mirror for the newest {package} of {suite.codename}")
    apt = private_apt(work / "apt", suite, find_mirror())
    apt.update()
    source = apt.show(package)[package]
    old = [name for name in names if not _is_current(name, source.version)]
    if not old:
        return
    report(progress, f"downloading {package} {source.version} ({source.size >> 20} MiB)")
    deb = apt.download(source, work / "download")
    tree = _unpack(deb, work, progress)
    shutil.rmtree(deb.parent)
    config = work / "wanted.config"
    config.write_text(merged_config((_PATCHES / name).read_text() for name in configs))
    edits = {name: parse_edits(_edits(BUILT_KERNELS[name])) for name in old}
    untouched = read_files(tree, [edit for name in old for edit in edits[name]])
    for name in old:
        started = time.monotonic()
        # make compiles what is newer than its object file, whatever changed.
        write_changed(tree, edited_files(untouched, edits[name]))
        report(progress, f"building {name} with {jobs} jobs")
        root = _make(tree, work / name, config, jobs, BOARDS[suite.architecture])
        seconds = round(time.monotonic() - started)
        record = {"version": source.version, "recipe": recipe_digest(name), "seconds": seconds}
        record["release"] = (tree / "include/config/kernel.release").read_text().strip()
        (root / "kernel.json").write_text(json.dumps(record) + "\n")
        replace_directory(root, kernel_dir(name), work / f"old-{name}")
        report(progress, f"{name} is {record['release']}, built in {seconds} s")


@contextmanager
def _work(cache: Path) -> Iterator[Path]:
    for leftover in cache.glob("build-*"):  # Left by a process that was killed.
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
    check_space(cache, _NEEDED_BYTES, "a build")
    with tempfile.TemporaryDirectory(prefix="build-", dir=cache) as directory:
        yield Path(directory)


def _record(directory: Path) -> dict[str, object]:
    record: dict[str, object] = json.loads((directory / "kernel.json").read_text())
    return record


def _is_current(name: str, version: str) -> bool:
    return _is_built(name) and _record(kernel_dir(name)).get("version") == version


def _unpack(deb: Path, work: Path, progress: StepProgress) -> Path:
    """Unpack the source, and return its tree."""
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
    return tree


def _make(tree: Path, root: Path, config: Path, jobs: int, board: Board) -> Path:
    """Build, and collect what is needed of it in a new directory, whose name is the kernel's."""
    suffix = root.name.partition("-")[2]
    make = ["make", "-C", str(tree), f"-j{jobs}", f"CC={board.compiler}", "HOSTCC=gcc"]
    make += [*board.make, f"LOCALVERSION=-{suffix}"]
    _run([*make, f"KCONFIG_ALLCONFIG={config}", "allnoconfig"])
    check_config((tree / ".config").read_text(), config.read_text())
    _run([*make, board.image.name, "modules"])
    # As the lab's other kernels have it: see load_kernel().
    (root / "usr/lib").mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    _run([*make, f"INSTALL_MOD_PATH={root}", "INSTALL_MOD_STRIP=1", "modules_install"])
    for file, name in (
        (board.image, "vmlinuz"),
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
    _install_headers(tree, root / "tree", board.image.parts[1])
    return root


def _install_headers(tree: Path, directory: Path, arch: str) -> None:
    """
    Collect what the build of a module needs of a kernel's tree in a new directory.

    :param arch: name of the directory in ``arch/``
    """
    script = tree / "scripts/package/install-extmod-build"
    if script.exists():
        # With two compilers, it would build the build's programs for the guest.
        env = {"srctree": ".", "SRCARCH": arch, "CC": "gcc", "HOSTCC": "gcc", "MAKE": "make"}
        _run([str(script), str(directory)], cwd=tree, env=env)
    else:
        _copy_headers(tree, directory, arch)


def _copy_headers(tree: Path, directory: Path, arch: str) -> None:
    """
    Do what deploy_kernel_headers() of 6.1's scripts/package/builddeb does, in a tree where the
    source is built.
    """
    ours = tree / "arch" / arch
    directories = [tree / "include", tree / "scripts"]
    directories += [d for d in ours.rglob("*") if d.is_dir() and d.name in ("include", "scripts")]
    for source in directories:
        target = directory / source.relative_to(tree)
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    files = [tree / "Module.symvers", tree / ".config"]
    files += tree.glob("tools/objtool/objtool")  # Built with CONFIG_OBJTOOL only.
    files += [*tree.glob("Makefile*"), *ours.glob("Makefile*")]
    files += [*ours.rglob("Kbuild.platforms"), *ours.rglob("Platform")]
    for source in files:
        target = directory / source.relative_to(tree)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def merged_config(configs: Iterable[str]) -> str:
    """Return one configuration of several: a later one overrides the others."""
    lines = {}
    for config in configs:
        lines.update(_options(config))
    return "".join(f"{line}\n" for line in lines.values())


def _options(config: str) -> dict[str, str]:
    """Return the lines of a configuration that set an option or unset it, by the option."""
    found = re.finditer(r"^(?:# )?(CONFIG_\w+)(?:=.*| is not set)$", config, re.MULTILINE)
    return {line[1]: line[0] for line in found}


def check_config(config: str, ours: str) -> None:
    """
    Raise LabError if a kernel's configuration does not have a line of our own config.

    Kconfig silently drops unknown options, and those with unmet dependencies, and sets what
    others select. An option that must not be set may be missing altogether.
    """
    have = _options(config)
    missing = [
        line
        for option, line in _options(ours).items()
        if have.get(option, f"# {option} is not set") != line
    ]
    if missing:
        raise LabError(f"this source cannot be configured as wanted: no {', '.join(missing)}")


def _run(command: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    program = Path(command[0])
    if not program.is_absolute():
        command = [find_tool(command[0]), *command[1:]]
    run_build(command, _BUILD_SECONDS, f"{program.name} failed", cwd=cwd, env=env)
