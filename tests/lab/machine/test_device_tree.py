# SPDX-License-Identifier: LGPL-2.1-or-later

"""Device trees with persistent memory, as dtc reads them, and the machine that they are for."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from drgn_zonedev.lab import Kernel
from drgn_zonedev.lab.machine import device_tree, qemu
from drgn_zonedev.lab.machine.device_tree import make_device_tree
from drgn_zonedev.lab.scenarios.arithmetic import GIB, MIB, MemoryArea
from drgn_zonedev.lab.scenarios.scenario import Scenario

NONE = Path("/none")
KERNEL = Kernel("6.12-arm64", "6.12.0", "1", NONE, NONE, None, (), None, "arm64")
AREAS = (MemoryArea(0x5C000000, 192 * MIB), MemoryArea(512 * GIB, 64 * MIB))
SCENARIO = Scenario("x", "x", machine="virt,gic-version=max", device_tree=AREAS)


def fake_qemu(command: list[str], **_: object) -> None:
    """Write what QEMU would, to where it is told to."""
    machine = command[command.index("-M") + 1]
    assert machine.startswith("virt,")
    source = b"/dts-v1/; / { #address-cells = <2>; #size-cells = <2>; };"
    path = machine.rpartition("dumpdtb=")[2]
    REAL_RUN(["dtc", "-I", "dts", "-O", "dtb", "-o", path], input=source, check=True)


REAL_RUN = subprocess.run


def test_regions_come_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", fake_qemu)
    monkeypatch.setattr(device_tree, "run_tool", lambda program, *args: REAL_RUN([program, *args]))
    tree = make_device_tree(KERNEL, SCENARIO, tmp_path, 1024)
    command = ["dtc", "-I", "dtb", "-O", "dts", str(tree)]
    text = REAL_RUN(command, check=True, capture_output=True, text=True).stdout
    assert re.findall(r"pmem@(\w+)", text) == ["5c000000", "8000000000"]
    assert re.findall(r"reg = <(.*)>", text) == [
        "0x00 0x5c000000 0x00 0xc000000",
        "0x80 0x00 0x00 0x4000000",
    ]
    assert text.count('compatible = "pmem-region"') == 2


def test_a_machine_of_arm64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "find_tool", lambda program: program)
    command = qemu.qemu_command(
        KERNEL, SCENARIO, Path("/w"), memory_mib=1024, accel="tcg", device_tree=Path("/w/x.dtb")
    )
    assert command[0] == "qemu-system-aarch64"
    assert command[command.index("-dtb") + 1] == "/w/x.dtb"
    # The second port is on PCI, which the guest script is told.
    assert "pci-serial,chardev=facts" in command
    append = command[command.index("-append") + 1].split()
    assert "console=ttyAMA0" in append
    assert "facts_port=ttyS0" in append


def test_a_pc_has_no_device_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "find_tool", lambda program: program)
    kernel = Kernel("6.12", "6.12.0", "1", NONE, NONE, None, (), None)
    command = qemu.qemu_command(kernel, Scenario("x", "x"), NONE, memory_mib=1024, accel="tcg")
    assert command[0] == "qemu-system-x86_64"
    assert "-dtb" not in command
    assert "facts_port" not in " ".join(command)
