# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from drgn_zonedev.lab import SCENARIOS, Kernel, qemu
from drgn_zonedev.lab.initramfs import BASE_MODULES

GUEST_SCRIPT = Path(qemu.__file__).parent / "guest" / "init"
NONE = Path("/none")
KERNEL = Kernel("6.1", "6.1.0", "1", Path("/k/vmlinuz"), NONE, NONE, (), NONE)


@pytest.fixture(autouse=True)
def _qemu_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "find_tool", lambda program: f"/usr/bin/{program}")


def command_line(scenario: str) -> list[str]:
    return qemu.qemu_command(KERNEL, SCENARIOS[scenario], Path("/w"), memory_mib=1024, accel="tcg")


def values(command: list[str], option: str) -> list[str]:
    return [command[i + 1] for i, word in enumerate(command) if word == option]


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_is_found_by_its_name_and_says_in_one_line_what_it_is(name: str) -> None:
    assert SCENARIOS[name].name == name
    assert SCENARIOS[name].summary
    assert "\n" not in SCENARIOS[name].summary


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_guest_script_knows_every_step(name: str) -> None:
    known = re.findall(r"^(\w+)\(\) \{$", GUEST_SCRIPT.read_text(), re.MULTILINE)
    assert {step[0] for step in SCENARIOS[name].steps} <= set(known)


def test_the_guest_script_is_valid_shell() -> None:
    subprocess.run(["sh", "-n", str(GUEST_SCRIPT)], check=True)


def test_the_guest_script_loads_the_modules_that_every_guest_gets() -> None:
    assert f"\nload {' '.join(BASE_MODULES)}\n" in GUEST_SCRIPT.read_text()


def test_drgn_has_a_qmp_server_of_its_own() -> None:
    assert values(command_line("fsdax-collision"), "-qmp") == [
        "unix:/w/monitor.sock,server=on,wait=off",
        "unix:/w/drgn.sock,server=on,wait=off",
    ]


def test_collision_takes_its_device_from_boot_ram() -> None:
    command = command_line("fsdax-collision")
    (append,) = values(command, "-append")
    assert "memmap=192M!0x24000000" in append.split()
    assert "nokaslr" not in append.split()
    assert "-S" not in command


def test_the_partial_section_comes_from_an_nvdimm() -> None:
    command = command_line("nvdimm-partial")
    assert values(command, "-object") == ["memory-backend-ram,id=nvdimm1-memory,size=320M"]
    assert "nvdimm,id=nvdimm1,memdev=nvdimm1-memory" in values(command, "-device")


def test_a_guest_with_a_breakpoint_waits_for_it_at_a_known_address() -> None:
    command = command_line("init-in-flight")
    assert "-S" in command
    assert values(command, "-gdb") == ["unix:/w/gdb.sock,server=on,wait=off"]
    assert "nokaslr" in values(command, "-append")[0].split()


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_panic_ends_every_guest(name: str) -> None:
    command = command_line(name)
    assert "-no-reboot" in command
    assert "panic=1" in values(command, "-append")[0].split()


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_guest_has_a_vmcoreinfo_device(name: str) -> None:
    assert "vmcoreinfo" in values(command_line(name), "-device")
