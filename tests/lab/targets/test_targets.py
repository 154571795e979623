# SPDX-License-Identifier: LGPL-2.1-or-later
"""The other ways in, as far as they need no guest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from drgn_zonedev.lab import KERNELS, Kernel, LabError
from drgn_zonedev.lab.host.apt import Suite
from drgn_zonedev.lab.targets import FORMATS, NOT_POSSIBLE, capture, filtered, image, program
from drgn_zonedev.lab.targets.interpreter import interpreter_digest
from drgn_zonedev.lab.targets.program import LOADER, DebianProgram


def debian_program(directory: Path, script: str) -> DebianProgram:
    """Return a program whose "loader" is a shell script."""
    loader = directory / LOADER
    loader.write_text(f"#!/bin/sh\n{script}\n")
    loader.chmod(0o755)
    (directory / "tool").write_bytes(b"")
    (directory / "version").write_text("1.2-3\n")
    return DebianProgram("tool", "1.2-3", directory)


def test_what_is_not_possible_is_a_kernel_and_a_format() -> None:
    names = {str(form) for form in FORMATS}
    assert all(kernel in KERNELS and form in names for kernel, form in NOT_POSSIBLE)
    assert all(NOT_POSSIBLE.values())


def test_a_program_runs_with_its_own_loader_and_libraries(tmp_path: Path) -> None:
    found = debian_program(tmp_path, 'echo "$@"')
    done = subprocess.run(found.command("-v"), capture_output=True, text=True, check=True)
    assert done.stdout == f"--library-path {tmp_path} {tmp_path}/tool -v\n"
    assert found.guest_command("x") == f"/x/{LOADER} --library-path /x /x/tool"
    assert [entry.name for entry in found.entries("x")] == [f"x/{LOADER}", "x/tool"]


def test_a_program_of_another_architecture_runs_in_an_emulator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "find_tool", lambda name: f"/bin/{name}")
    found = DebianProgram("tool", "1.2-3", tmp_path, "arm64")
    loader = f"{tmp_path}/ld-linux-aarch64.so.1"
    assert found.command("-v")[:2] == ["/bin/qemu-aarch64-static", loader]


def test_a_kernel_has_the_makedumpfile_of_its_suite_and_architecture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Suite] = []
    monkeypatch.setattr(filtered, "fetch_program", lambda _, suite, *rest: asked.append(suite))
    for name in ("6.1", "7.3-arm64"):
        filtered.makedumpfile(Kernel(name, "", "", Path(), Path(), None, (), None))
    assert asked == [Suite("bookworm"), Suite("forky", architecture="arm64")]


def test_a_filter_that_fails_is_quoted(tmp_path: Path) -> None:
    found = debian_program(tmp_path, 'printf "10%%\\r100%%\\nno memory map\\n"; exit 1')
    with pytest.raises(LabError, match=r"1\.2-3 failed: 10% / 100% / no memory map"):
        filtered.write_filtered(found, tmp_path / "in", tmp_path / "out", FORMATS[0])


def test_a_filter_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filtered, "_SECONDS", 0.2)
    found = debian_program(tmp_path, "exec sleep 30")
    with pytest.raises(LabError, match=r"did not finish within 0\.2 s"):
        filtered.write_filtered(found, tmp_path / "in", tmp_path / "out", FORMATS[0])


@pytest.mark.parametrize(
    ("architecture", "libraries", "loader"),
    [
        ("amd64", "usr/lib/x86_64-linux-gnu", LOADER),
        ("arm64", "usr/lib/aarch64-linux-gnu", "ld-linux-aarch64.so.1"),
    ],
)
def test_only_the_program_its_libraries_and_the_loader_are_kept(
    architecture: str, libraries: str, loader: str, tmp_path: Path
) -> None:
    tree, flat = tmp_path / "tree", tmp_path / "flat"
    flat.mkdir()
    names = ["usr/bin/tool", "usr/bin/other", f"{libraries}/libx.so.1.2", f"lib64/{loader}"]
    for name in (*names, f"{libraries}/plugins/liby.so", f"{libraries}/libx.a"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    (tree / libraries / "libx.so.1").symlink_to("libx.so.1.2")
    program._flatten(tree, "tool", flat, architecture)
    found = {path.name for path in flat.iterdir()}
    assert found == {"tool", "libx.so.1", "libx.so.1.2", loader}
    assert not any(path.is_symlink() for path in flat.iterdir())
    with pytest.raises(LabError, match="holds no another"):
        program._flatten(tree, "another", flat, architecture)


def test_packages_that_are_no_libraries_are_left_out() -> None:
    kept = [
        name
        for name in ("libc6", "zlib1g", "perl", "libgcc-s1", "libelf1t64", "libc-bin")
        if program._is_library(name)
    ]
    assert kept == ["libc6", "zlib1g", "libelf1t64"]


def test_an_image_holds_the_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("contents\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package/module.py").write_text("pass\n")
    made = tmp_path / "image"
    image.file_image([tmp_path / "file", tmp_path / "package"], made)
    assert not made.with_name("image.tree").exists()
    data = made.read_bytes()
    assert b"contents\n" in data
    assert b"module.py" in data


def test_the_vmcore_is_cut_from_the_disk(tmp_path: Path) -> None:
    disk, vmcore = tmp_path / "disk", tmp_path / "vmcore"
    disk.write_bytes(b"x" * (3 << 19) + b"\0" * 100)
    capture._cut(disk, vmcore, 3 << 19)
    assert vmcore.read_bytes() == b"x" * (3 << 19)
    with pytest.raises(LabError, match="saved 0 bytes"):
        capture._cut(disk, vmcore, 0)


def test_another_python_is_another_image(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = interpreter_digest()
    assert digest == interpreter_digest()
    monkeypatch.setattr(sys, "version", "4.0")
    assert digest != interpreter_digest()
