# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from drgn_zonedev.lab import SCENARIOS, LabError
from drgn_zonedev.lab.host.errors import NotPossible
from drgn_zonedev.lab.kernels.addresses import elf_functions, function_address
from drgn_zonedev.lab.kernels.custom_kernel import bzimage_release, custom_kernel, vmlinux_release
from drgn_zonedev.lab.machine.boot import _check_possible
from drgn_zonedev.lab.machine.initramfs import binds_at_boot

RELEASE = "7.4.0-rc1-me+"


@pytest.fixture
def bzimage(tmp_path: Path) -> Path:
    """The beginning of a bzImage, as the x86 boot protocol has it."""
    data = bytearray(0x500)
    data[0x202:0x206] = b"HdrS"
    data[0x20E:0x210] = (0x200).to_bytes(2, "little")
    version = f"{RELEASE} (me@here) #1 SMP".encode()
    data[0x400 : 0x400 + len(version)] = version
    path = tmp_path / "bzImage"
    path.write_bytes(data)
    return path


@pytest.fixture
def vmlinux(tmp_path: Path) -> Path:
    """An ELF file with a symbol table: any will do."""
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("no compiler")
    from drgn_zonedev.lab.machine.programs import compile_program

    path = tmp_path / "vmlinux"
    path.write_bytes(compile_program("busy"))
    return path


def test_an_image_says_its_release(bzimage: Path) -> None:
    assert bzimage_release(bzimage) == RELEASE


def test_another_file_is_no_image(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(b"\x7fELF" + bytes(0x300))
    with pytest.raises(LabError, match="is not a bzImage"):
        bzimage_release(path)


def test_a_vmlinux_says_its_release(bzimage: Path, vmlinux: Path) -> None:
    assert vmlinux_release(vmlinux) is None
    custom_kernel(bzimage, vmlinux)
    banner = "Linux version %s (%s)\0Linux version {} (me@here) (gcc) #1 SMP\n"
    with vmlinux.open("ab") as file:
        file.write(banner.format(RELEASE).encode())
    assert vmlinux_release(vmlinux) == RELEASE
    custom_kernel(bzimage, vmlinux)
    (vmlinux.parent / "empty").touch()
    assert vmlinux_release(vmlinux.parent / "empty") is None


def test_a_vmlinux_of_another_release_is_refused(bzimage: Path, tmp_path: Path) -> None:
    other = tmp_path / "vmlinux"
    other.write_bytes(b"\x7fELF Linux version 7.4.0-rc2 (me@here)")
    with pytest.raises(
        LabError, match=r"is of Linux 7\.4\.0-rc2, and .* of 7\.4\.0-rc1-me\+: give"
    ):
        custom_kernel(bzimage, other)


@pytest.mark.parametrize("parents", ["lib/modules", "", "."])
def test_modules_are_found_where_they_were_installed(
    tmp_path: Path, bzimage: Path, parents: str
) -> None:
    modules = tmp_path / "root" / parents / RELEASE
    modules.mkdir(parents=True)
    (modules / "modules.dep").touch()
    given = modules if parents == "." else tmp_path / "root"
    assert custom_kernel(bzimage, bzimage, given).modules == modules


def test_modules_of_another_kernel_are_refused(tmp_path: Path, bzimage: Path) -> None:
    (tmp_path / "modules.dep").touch()
    with pytest.raises(LabError, match="modules of another kernel"):
        custom_kernel(bzimage, bzimage, tmp_path)


def test_missing_modules_are_told(tmp_path: Path, bzimage: Path) -> None:
    with pytest.raises(LabError, match="make modules_install"):
        custom_kernel(bzimage, bzimage, tmp_path)


def test_a_missing_file_is_told(tmp_path: Path, bzimage: Path) -> None:
    with pytest.raises(LabError, match="there is no file"):
        custom_kernel(bzimage, tmp_path / "vmlinux")


def test_without_modules_a_driver_is_there_before_any_breakpoint(bzimage: Path) -> None:
    kernel = custom_kernel(bzimage, bzimage)
    assert binds_at_boot(kernel, "nd_pmem")
    _check_possible(kernel, SCENARIOS["fsdax-collision"])
    with pytest.raises(NotPossible, match="nd_pmem is built in"):
        _check_possible(kernel, SCENARIOS["teardown"])


def test_functions_are_found_in_vmlinux(bzimage: Path, vmlinux: Path) -> None:
    address = dict(elf_functions(vmlinux))["run"]
    assert function_address(custom_kernel(bzimage, vmlinux), "run") == address
    with pytest.raises(LabError, match="has no function walk"):
        function_address(custom_kernel(bzimage, vmlinux), "walk")


def test_a_file_that_is_no_elf_has_no_functions(bzimage: Path) -> None:
    with pytest.raises(LabError, match="is not a 64-bit little-endian ELF file"):
        list(elf_functions(bzimage))


@pytest.mark.parametrize("given", ["usr/lib/modules", "modules"])
def test_modules_of_debian_13_are_found(tmp_path: Path, bzimage: Path, given: str) -> None:
    modules = tmp_path / given / bzimage_release(bzimage)
    modules.mkdir(parents=True)
    (modules / "modules.dep").touch()
    assert custom_kernel(bzimage, bzimage, tmp_path).modules == modules


def test_modules_without_their_dependencies_say_what_to_run(tmp_path: Path, bzimage: Path) -> None:
    release = bzimage_release(bzimage)
    (tmp_path / "lib/modules" / release / "kernel").mkdir(parents=True)
    with pytest.raises(LabError, match=rf"no modules.dep: run depmod -b {tmp_path} {release}"):
        custom_kernel(bzimage, bzimage, tmp_path)


def test_a_directory_is_no_kernel(tmp_path: Path, bzimage: Path) -> None:
    with pytest.raises(LabError, match="is a directory: give the bzImage"):
        custom_kernel(tmp_path, bzimage)
