# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import lzma
import struct
from pathlib import Path

import pytest

from drgn_zonedev.lab import SCENARIOS, Kernel, LabError, Scenario
from drgn_zonedev.lab.machine import initramfs
from drgn_zonedev.lab.machine.initramfs import (
    Entry,
    base_modules,
    build_initramfs,
    cpio,
    file_entry,
    is_static,
    module_closure,
    parse_modules_dep,
    steps_script,
)


def unpack(archive: bytes) -> dict[str, tuple[int, bytes, tuple[int, int]]]:
    """Read a newc archive by the format's description: name -> (mode, data, device)."""
    entries: dict[str, tuple[int, bytes, tuple[int, int]]] = {}
    offset = 0
    while True:
        assert archive[offset : offset + 6] == b"070701"
        fields = [int(archive[offset + 6 + 8 * i : offset + 14 + 8 * i], 16) for i in range(13)]
        name_start = offset + 110
        name = archive[name_start : name_start + fields[11] - 1].decode()
        data_start = (name_start + fields[11] + 3) & ~3
        if name == "TRAILER!!!":
            return entries
        data = archive[data_start : data_start + fields[6]]
        entries[name] = (fields[1], data, (fields[9], fields[10]))
        offset = (data_start + fields[6] + 3) & ~3


def test_the_archive_holds_what_was_put_in() -> None:
    console = Entry("dev/console", 0o020600, device=(5, 1))
    entries = unpack(cpio([file_entry("init", b"12345", 0o755), console]))
    assert entries["init"] == (0o100755, b"12345", (0, 0))
    assert entries["dev/console"] == (0o020600, b"", (5, 1))


def test_parents_come_before_their_files() -> None:
    assert list(unpack(cpio([file_entry("a/b/c", b"")]))) == ["a", "a/b", "a/b/c"]


DEP = """\
kernel/drivers/nvdimm/nd_pmem.ko.xz: kernel/drivers/nvdimm/nd_btt.ko.xz kernel/libnvdimm.ko.xz
kernel/drivers/nvdimm/nd_btt.ko.xz: kernel/libnvdimm.ko.xz
kernel/libnvdimm.ko.xz:
kernel/dax/dax-hmem.ko.xz:
"""


def test_modules_bring_what_they_need_once() -> None:
    closures = parse_modules_dep(DEP)
    assert module_closure(["nd_pmem", "libnvdimm"], closures, []) == [
        "kernel/drivers/nvdimm/nd_btt.ko.xz",
        "kernel/drivers/nvdimm/nd_pmem.ko.xz",
        "kernel/libnvdimm.ko.xz",
    ]


def test_a_dash_in_a_modules_file_is_an_underscore_in_its_name() -> None:
    assert module_closure(["dax_hmem"], parse_modules_dep(DEP), []) == ["kernel/dax/dax-hmem.ko.xz"]


def test_a_built_in_module_needs_no_file() -> None:
    assert module_closure(["dax"], {}, ["kernel/drivers/dax/dax.ko"]) == []


def test_a_module_that_the_kernel_lacks_is_refused() -> None:
    with pytest.raises(LabError, match="no module virtio_pmem"):
        module_closure(["virtio_pmem"], parse_modules_dep(DEP), [])


def test_steps_are_quoted_for_the_shell() -> None:
    scenario = Scenario("x", "", modules=("a", "b"), steps=(("say", "two words"), ("go",)))
    assert steps_script(scenario) == "load a b\nsay 'two words'\ngo\n"


def elf(*types: int) -> bytes:
    header = b"\x7fELF\x02".ljust(32, b"\0") + struct.pack("<Q", 64)
    header = header.ljust(54, b"\0") + struct.pack("<HH", 56, len(types))
    return header.ljust(64, b"\0") + b"".join(struct.pack("<I52x", kind) for kind in types)


def test_a_program_that_names_a_loader_is_not_static() -> None:
    load, interpreter = 1, 3
    assert is_static(elf(load, load))
    assert not is_static(elf(load, interpreter))
    assert not is_static(b"#!/bin/sh\n")


def test_the_guest_gets_its_script_steps_and_plain_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(initramfs, "_busybox", lambda architecture: b"busybox")
    modules = tmp_path / "lib/modules/7.3"
    (modules / "kernel").mkdir(parents=True)
    names = ("libnvdimm", "qemu_fw_cfg", "nd_e820", "nd_pmem", "unused")
    for name in names:
        (modules / f"kernel/{name}.ko.xz").write_bytes(lzma.compress(name.encode()))
    dep = "".join(f"kernel/{name}.ko.xz: kernel/libnvdimm.ko.xz\n" for name in names)
    (modules / "modules.dep").write_text(dep)
    (modules / "modules.builtin").write_text("kernel/drivers/dax/dax.ko\n")
    none = tmp_path / "none"
    kernel = Kernel("7.3", "7.3", "1", none, none, modules, (), none)

    entries = unpack(build_initramfs(kernel, SCENARIOS["fsdax-collision"]))

    assert entries["init"][0] == 0o100755
    assert entries["init"][1].startswith(b"#!/bin/busybox sh\n")
    assert entries["bin/busybox"][1] == b"busybox"
    assert b"namespace region0 fsdax dev 2097152\n" in entries["steps"][1]
    assert entries["lib/modules/7.3/kernel/nd_pmem.ko"][1] == b"nd_pmem"
    assert "lib/modules/7.3/kernel/unused.ko" not in entries
    assert b".xz" not in entries["lib/modules/7.3/modules.dep"][1]
    assert "zonedev_truth.ko" not in entries
    assert entries["base_modules"][1] == b"libnvdimm qemu_fw_cfg"

    truth = tmp_path / "zonedev_truth-1234.ko"
    truth.write_bytes(b"truth")
    entries = unpack(
        build_initramfs(kernel, SCENARIOS["fsdax-collision"], {"zonedev_truth": truth})
    )
    assert entries["zonedev_truth.ko"][1] == b"truth"


def test_a_machine_without_fw_cfg_gets_no_module_of_it() -> None:
    none = Path("/none")
    kernel = Kernel("6.12-ppc64el", "6.12", "1", none, none, None, (), none, "ppc64el")
    assert base_modules(kernel) == ()
