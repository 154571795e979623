# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from drgn_zonedev.lab import Kernel, LabError
from drgn_zonedev.lab.host.apt import Apt, Package
from drgn_zonedev.lab.truth import module as truth
from drgn_zonedev.lab.truth.answers import Answer, Kpageflags
from drgn_zonedev.lab.truth.guest_facts import parse_facts

TOLD = """\
== begin truth\r
24000 24002 1 0 ffff8e70923018b0 0 1 0 - -\r
24400 30000 1 0 ffff8e70923018b0 1 4 0 9 ffff8e70923018b0 1 1 0\r
30000 30001 1 1 0 0 1 0 - -\r
30001 30002 1 0 ffff8e70923018b0 1 4 1 x ffff8e70923018b8\r
114000 118000 0 0 0 0 - - - - - - -\r
== end truth\r
== begin kpageflags\r
0 24000 flags\r
24000 30000 nopage\r
30000 40000 zero\r
== end kpageflags\r
"""
PGMAP = 0xFFFF8E70923018B0


def test_the_kernels_answers_are_parsed() -> None:
    assert parse_facts(TOLD)["truth"] == (
        Answer(0x24000, 0x24002, True, False, PGMAP, False, 1, 0, None, None),
        Answer(0x24400, 0x30000, True, False, PGMAP, True, 4, 0, 9, PGMAP, True, True, False),
        Answer(0x30000, 0x30001, True, True, 0, False, 1, 0, None, None),
        Answer(0x30001, 0x30002, True, False, PGMAP, True, 4, 1, -1, PGMAP + 8),
        Answer(0x114000, 0x118000, False, False, 0, False, None, None, None, None),
    )
    assert parse_facts(TOLD)["kpageflags"] == (
        Kpageflags(0, 0x24000, "flags"),
        Kpageflags(0x24000, 0x30000, "nopage"),
        Kpageflags(0x30000, 0x40000, "zero"),
    )


# --- what a kernel's build needs ---

RELEASE = "6.12.1-cloud-amd64"


DEPENDS: dict[str, tuple[str, ...]] = {
    f"linux-headers-{RELEASE}": (
        "linux-base",
        "linux-headers-6.12.1-common",
        f"linux-image-{RELEASE}",
        "linux-kbuild-6.12.1",
        "gcc-14",
    ),
    "linux-headers-6.12.1-common": (),
    "linux-kbuild-6.12.1": ("libc6", "libelf1t64", "libssl3t64", "zlib1g", "pahole"),
    "libc6": ("libgcc-s1",),
    "libelf1t64": ("libc6", "libzstd1", "zlib1g"),
    "libzstd1": ("libc6",),
    "zlib1g": ("libc6",),
}


class FakeApt(Apt):
    """Packages by their dependencies."""

    def show(self, *names: str) -> dict[str, Package]:
        assert names
        for name in names:
            if name not in DEPENDS:
                raise LabError(f"the mirror has no package {name}")
        return {name: Package(name, "1", 0, DEPENDS[name]) for name in names}


def kernel(name: str, directory: Path) -> Kernel:
    file = directory / "vmlinux"
    return Kernel(name, RELEASE, "1", file, file, directory, (), file)


def test_headers_and_the_libraries_of_their_programs_are_found(tmp_path: Path) -> None:
    apt = FakeApt(tmp_path)
    headers, programs = truth._header_packages(apt, apt, kernel("6.12", tmp_path))
    assert [package.name for package in headers] == [
        f"linux-headers-{RELEASE}",
        "linux-headers-6.12.1-common",
    ]
    assert [package.name for package in programs] == ["linux-kbuild-6.12.1"]
    libraries = truth._library_packages(apt, programs)
    assert {p.name for p in libraries} == {"libc6", "libelf1t64", "libzstd1", "zlib1g"}
    assert len(libraries) == 4


def test_headers_that_the_mirror_no_longer_has_need_a_newer_kernel(tmp_path: Path) -> None:
    old = Kernel("6.12", "6.12.0", "1", tmp_path, tmp_path, tmp_path, (), tmp_path)
    with pytest.raises(LabError, match=r"6\.12\.0: zonedev lab fetch --refresh 6\.12$"):
        truth._header_packages(FakeApt(tmp_path), FakeApt(tmp_path), old)


def test_a_build_program_runs_with_the_library_beside_it(tmp_path: Path) -> None:
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    loader = libraries / "ld-linux-x86-64.so.2"
    loader.write_text('#!/bin/sh\necho "$@"\n')
    loader.chmod(0o755)
    program = tmp_path / "objtool"
    for name in ("objtool", "objtool.real-x86"):
        (tmp_path / name).write_text("")
    truth._run_with_libraries(program, libraries)
    told = subprocess.run([program, "--orc"], capture_output=True, text=True, check=True).stdout
    assert told == f"--library-path {libraries} {tmp_path}/objtool.real-x86 --orc\n"


def test_a_program_without_variants_is_moved_aside(tmp_path: Path) -> None:
    program = tmp_path / "fixdep"
    program.write_text("ELF")
    truth._run_with_libraries(program, tmp_path)
    assert (tmp_path / "fixdep.real-x86").read_text() == "ELF"
    assert program.read_text().startswith("#!/bin/sh\n")


# --- the module ---


def test_a_module_that_was_built_before_is_not_built_again(tmp_path: Path) -> None:
    for name in ("zonedev_truth", "zonedev_device"):
        module = tmp_path / f"{name}-{truth._recipe_digest(name)}.ko"
        module.write_text("")
        assert truth.guest_module(kernel("6.1", tmp_path), name) == module


def test_kernels_of_the_user_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="not one of the lab's kernels"):
        truth.guest_module(kernel("mine", tmp_path), truth.TRUTH)


def test_without_a_compiler_its_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda program, path=None: None)
    with pytest.raises(LabError, match="gcc is not installed: apt-get install gcc"):
        truth.guest_module(kernel("6.1", tmp_path), truth.TRUTH)


def test_a_failed_build_says_what_make_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = tmp_path / "make"
    make.write_text("#!/bin/sh\necho 'warning: x' >&2\necho 'gcc: error: no -fx' >&2\nexit 2\n")
    make.chmod(0o755)
    monkeypatch.setattr(truth, "find_tool", lambda program: str(tmp_path / program))
    with pytest.raises(
        LabError, match="the module zonedev_device cannot be built: gcc: error: no -fx"
    ):
        truth.build_module(tmp_path, "zonedev_device", tmp_path / "module.ko")
    assert not (tmp_path / "module.ko").exists()
