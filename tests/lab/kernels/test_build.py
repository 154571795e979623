# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import json
from pathlib import Path

import pytest

from drgn_zonedev.lab import LabError, fetch_kernel
from drgn_zonedev.lab.kernels import build
from drgn_zonedev.lab.kernels.known import BUILT_KERNELS, kernel_dir

(NAME,) = BUILT_KERNELS
RELEASE = "6.12.1-pfn-zone-device"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def store(**record: object) -> None:
    kernel_dir(NAME).mkdir(parents=True)
    record = {"release": RELEASE, "version": "6.12.1-1", **record}
    (kernel_dir(NAME) / "kernel.json").write_text(json.dumps(record))


def test_a_kernel_that_is_not_built_says_how_to() -> None:
    with pytest.raises(LabError, match="is not built yet: zonedev lab build-kernel"):
        fetch_kernel(NAME)


def test_a_built_kernel_needs_neither_network_nor_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda program, path=None: None)
    store(recipe=build.recipe_digest())
    assert build.build_kernel(NAME) == fetch_kernel(NAME)
    assert fetch_kernel(NAME).release == RELEASE


@pytest.mark.parametrize("file", ["_EDITS", "_CONFIG"])
def test_a_kernel_of_another_patch_or_config_is_refused(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(recipe=build.recipe_digest())
    changed = tmp_path / "changed"
    changed.write_bytes(getattr(build, file).read_bytes() + b"#\n")
    monkeypatch.setattr(build, file, changed)
    with pytest.raises(LabError, match="from another patch or config: zonedev lab build-kernel"):
        fetch_kernel(NAME)


def test_what_a_build_lacks_is_named_before_anything_is_downloaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(build, "private_apt", None)  # Calling it would fail.
    monkeypatch.setattr("shutil.which", lambda program, path=None: None)
    with pytest.raises(LabError, match=r"bc is not installed: apt-get install bc$"):
        build.build_kernel(NAME)
    monkeypatch.setattr("shutil.which", lambda program, path=None: f"/bin/{program}")
    monkeypatch.setattr(build, "_LIBELF", Path("/nowhere/libelf.h"))
    with pytest.raises(LabError, match=r"apt-get install libelf-dev$"):
        build.build_kernel(NAME)


def test_only_our_own_kernels_are_built() -> None:
    with pytest.raises(LabError, match=r"6\.1 is not built here: choose one of 6\.12-proposal"):
        build.build_kernel("6.1")


def test_what_the_compiler_said_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = tmp_path / "make"
    make.write_text("#!/bin/sh\necho 'x.c:1: warning: y' >&2\necho 'x.c:2: error: z' >&2\nexit 2\n")
    make.chmod(0o755)
    monkeypatch.setattr(build, "find_tool", lambda program: str(tmp_path / program))
    with pytest.raises(LabError, match=r"make failed: x.c:2: error: z"):
        build._run(["make", "bzImage"])
