# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from drgn_zonedev.lab import KERNELS, PLAIN_KERNELS, SCENARIOS, Kernel
from drgn_zonedev.lab.machine import qemu
from drgn_zonedev.lab.scenarios.arithmetic import MemoryArea
from drgn_zonedev.lab.scenarios.steps import device_map, device_pages
from drgn_zonedev.lab.verdict.proofs import PROOFS
from drgn_zonedev.model import Case

GUEST_SCRIPT = Path(qemu.__file__).parents[1] / "guest" / "init"
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
    assert "\nload $(cat /base_modules)\n" in GUEST_SCRIPT.read_text()


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
    device = "nvdimm,id=nvdimm1,memdev=nvdimm1-memory,addr=0x100000000"
    assert device in values(command, "-device")


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


@pytest.mark.parametrize("name", SCENARIOS)
def test_guests_have_four_level_page_tables_unless_they_are_about_five(name: str) -> None:
    (cpu,) = values(command_line(name), "-cpu")
    assert ("la57=on" if name == "la57" else "la57=off") in cpu.split(",")


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_is_expected_is_sorted_and_made_of_cases(name: str) -> None:
    expected = SCENARIOS[name].expected
    assert all(start < end for start, end, _ in expected)
    assert all(a.end_pfn <= b.start_pfn for a, b in zip(expected, expected[1:]))
    assert {case for _, _, case in expected} <= {case.value for case in Case}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_names_only_what_exists(name: str) -> None:
    scenario = SCENARIOS[name]
    assert set(scenario.proofs) <= set(PROOFS)
    assert set(scenario.impossible) <= {*KERNELS, *PLAIN_KERNELS}
    sources = (*scenario.programs, *scenario.guest_modules)
    assert all((GUEST_SCRIPT.parent / f"{name}.c").exists() for name in sources)


@pytest.mark.parametrize("name", SCENARIOS)
def test_something_is_expected_or_proven(name: str) -> None:
    assert SCENARIOS[name].expected or SCENARIOS[name].proofs


def test_the_driver_of_device_memory_knows_every_command_that_it_is_given() -> None:
    source = (GUEST_SCRIPT.parent / "zonedev_device.c").read_text()
    known = set(re.findall(r'strcmp\(name, "(\w+)"\)', source))
    steps = [step for scenario in SCENARIOS.values() for step in scenario.steps]
    given = {step[1] for step in steps if step[0] == "device"}
    assert given
    assert given <= known
    mapped = {step[2] for step in steps if step[:2] == ("device", "map")}
    assert mapped <= known


def test_memory_of_the_driver_is_written_as_its_source_says() -> None:
    areas = MemoryArea(0x100000000, 0x8000000), MemoryArea(0, 0x200000)
    assert device_map("private", *areas, shift=9) == (
        *("device", "map", "private", "9", "0x8000000@0x100000000", "0x200000@0x0"),
    )
    assert device_pages("take 0x10 4") == (("device", "take", "0x10", "4"),)
