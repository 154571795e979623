# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Fetch a Debian kernel and its debug symbols into the cache.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from drgn_zonedev.lab.host.apt import Apt, Mirror, Package, Suite, find_mirror, private_apt
from drgn_zonedev.lab.host.errors import LabError, StepProgress, report
from drgn_zonedev.lab.host.lock import lock
from drgn_zonedev.lab.host.tools import find_tool
from drgn_zonedev.lab.kernels.known import (
    Kernel,
    cache_dir,
    check_space,
    kernel_dir,
    load_kernel,
    replace_directory,
)
from drgn_zonedev.lab.kernels.unpack import unpack_package

__all__ = ("image_release", "install_kernel", "parts_of_image")

_NEEDED_BYTES = 3 << 30


def image_release(metapackage: Package) -> str:
    """Return the kernel release that a metapackage stands for, from what it depends on."""
    for name in metapackage.depends:
        if found := re.fullmatch(r"linux-image-(\d.*?)(-unsigned|-dbg)?", name):
            return found[1]
    raise LabError(f"{metapackage.name} {metapackage.version} depends on no kernel image")


def parts_of_image(image: Package, release: str) -> list[str]:
    """Return the packages besides `image` that hold its parts (7.x is split up)."""
    pattern = re.compile(rf"linux-(base|binary|modules)-{re.escape(release)}(-unsigned)?")
    return [name for name in image.depends if pattern.fullmatch(name)]


def _resolve(apt: Apt, flavour: str) -> tuple[str, list[Package]]:
    """Return the newest release and the packages that make it up, debug symbols last."""
    image_meta = f"linux-image-{flavour}"
    symbols_meta = f"{image_meta}-dbg"
    metapackages = apt.show(image_meta, symbols_meta)
    release = image_release(metapackages[image_meta])
    if image_release(metapackages[symbols_meta]) != release:
        raise LabError(f"the mirror has no debug symbols for {release} yet: try again later")
    names = [
        name
        for name in metapackages[image_meta].depends
        if re.fullmatch(rf"linux-image-{re.escape(release)}(-unsigned)?", name)
    ]
    for image in apt.show(*names).values():
        names += parts_of_image(image, release)
    names.append(f"linux-image-{release}-dbg")
    packages = apt.show(*names)
    return release, [packages[name] for name in names]


def _build(
    release: str, packages: Sequence[Package], apt: Apt, work: Path, progress: StepProgress
) -> Path:
    """Make the kernel's directory inside `work` and return it."""
    root = work / "kernel"
    root.mkdir()
    for package in packages:
        report(progress, f"downloading {package.name} ({max(package.size >> 20, 1)} MiB)")
        deb = apt.download(package, work / "download")
        unpack_package(deb, root)
        shutil.rmtree(deb.parent)
    for name in ("vmlinuz", "vmlinux", "System.map", f"usr/lib/modules/{release}/kernel"):
        if not (root / name).exists():
            raise LabError(f"the packages of {release} hold no {name}: their layout has changed")
    # depmod reads below lib/ or usr/lib/, depending on how it was built.
    (root / "lib").symlink_to("usr/lib")
    subprocess.run([find_tool("depmod"), "-b", str(root), release], check=True)
    record = {"release": release, "version": packages[0].version}
    (root / "kernel.json").write_text(json.dumps(record) + "\n")
    return root


def install_kernel(name: str, suite: Suite, progress: StepProgress = None) -> Kernel:
    """Fetch the newest kernel of `suite` into the cache, if it is not there yet."""
    find_tool("depmod")  # Say so before downloading 300 MB.
    mirror = find_mirror()
    cache = cache_dir()
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise LabError(f"cannot make {cache}: {e.strerror}; set XDG_CACHE_HOME") from e
    with lock(cache / "lock", progress):
        check_space(cache, _NEEDED_BYTES, "a kernel")
        for leftover in cache.glob("fetch-*"):  # Left by a process that was killed.
            shutil.rmtree(leftover, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=cache) as directory:
            return _install(name, suite, mirror, Path(directory), progress)


def _install(name: str, suite: Suite, mirror: Mirror, work: Path, progress: StepProgress) -> Kernel:
    if suite.security and mirror.security is None:
        report(progress, f"apt knows no security archive: {suite.codename} without it")
    report(progress, f"asking the mirror for the newest kernel of {suite.codename}")
    apt = private_apt(work / "apt", suite, mirror)
    apt.update()
    release, packages = _resolve(apt, suite.flavour)
    # Another process may have fetched it while this one waited for the lock.
    cached = load_kernel(name, kernel_dir(name))
    if cached and (cached.release, cached.version) == (release, packages[0].version):
        return cached
    try:
        new = _build(release, packages, apt, work, progress)
        replace_directory(new, kernel_dir(name), work / "old")
    except (OSError, subprocess.SubprocessError) as e:
        raise LabError(f"cannot store {release} in {cache_dir()}: {e}") from e
    kernel = load_kernel(name, kernel_dir(name))
    if kernel is None:
        raise LabError(f"{kernel_dir(name)} vanished while it was being made")
    report(progress, f"{name} is {release}, in {kernel_dir(name)}")
    return kernel
