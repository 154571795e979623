# SPDX-License-Identifier: LGPL-2.1-or-later

"""What is said of a real kernel without its vmlinux is what is said with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.guests import PAGE, Booted, each_guest, on_kernels, require_free, zonedev

from drgn_zonedev.lab import SCENARIOS, fetch_kernel
from drgn_zonedev.lab.scenarios.arm64 import arm64_scenarios
from drgn_zonedev.lab.targets import Format, boot_inside_alone, makedumpfile, write_filtered

pytestmark = pytest.mark.qemu

COLLISION = "fsdax-collision"
# A page of RAM, one of the device, and one whose struct page is on the device itself.
PFNS = ("0x1000", "0x24400", "0x28000")
COMMANDS = (
    *(("check",), ("check", "--map"), ("walkers",), ("proposal",), ("pgmaps",), ("sections",)),
    *(("ranges",), *(("pfn", pfn) for pfn in PFNS)),
)
WITH_JSON = tuple(command for command in COMMANDS if "--map" not in command)
# 5.10 says nothing of its symbols in VMCOREINFO, and 7.3 is the newest.
EXTREMES = ("5.10", "7.3")

# What names the source of types.
SOURCE_OF_TYPES = re.compile(", types from (BTF|DWARF)")


def command_name(words: tuple[str, ...]) -> str:
    return "-".join(words)


def answer(*args: str) -> Any:
    result = zonedev(*args, "--format", "json")
    assert result.status in (0, 1), result.stderr
    return result.document


def assert_same_json(core: Path, symbols: tuple[str, ...], command: tuple[str, ...]) -> None:
    whole = answer("--types", "dwarf", "-c", str(core), *symbols, *command)
    builtin = answer("--types", "btf", "-c", str(core), *command)
    assert builtin["kernel"].pop("types") == "btf"
    assert builtin == whole
    # The order of keys, too.
    assert json.dumps(builtin) == json.dumps(whole)


def assert_same(core: Path, symbols: tuple[str, ...], command: tuple[str, ...]) -> None:
    whole = zonedev("--types", "dwarf", "-c", str(core), *symbols, *command)
    builtin = zonedev("--types", "btf", "-c", str(core), *command)
    assert whole.status in (0, 1), whole.stderr
    assert "types from BTF" in builtin.stdout or "types from DWARF" not in whole.stdout
    said = [SOURCE_OF_TYPES.sub("", result.stdout) for result in (builtin, whole)]
    assert said[0] == said[1]
    assert (builtin.status, builtin.stderr) == (whole.status, whole.stderr)
    if command in WITH_JSON:
        assert_same_json(core, symbols, command)


@each_guest(on_kernels(COLLISION, ["7.3"]))
@pytest.mark.parametrize("command", COMMANDS, ids=command_name)
def test_dump_without_vmlinux_gets_the_same_answer(
    booted: Booted, command: tuple[str, ...]
) -> None:
    assert_same(booted.dump, booted.symbols, command)


@each_guest([("7.3-arm64", COLLISION)])
def test_arm64_dump_without_vmlinux_gets_the_same_answers(booted: Booted) -> None:
    (device,) = arm64_scenarios(PAGE)[COLLISION].device_tree
    start, end = device.start // PAGE, device.end // PAGE
    # RAM begins at 1 GiB. What PFNS are on x86-64: the last page's struct page is on the device.
    pfns = dict(zip(PFNS, (f"{0x41000:#x}", f"{start + 0x400:#x}", f"{end - 1:#x}")))
    for command in WITH_JSON:
        words = tuple(pfns.get(word, word) for word in command)
        # Texts are compared on x86-64.
        assert_same_json(booted.dump, booted.symbols, words)


@pytest.fixture(scope="module")
def filtered(booted: Booted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    # Of kdump format, makedumpfile is not up to Linux 7.2 (see NOT_POSSIBLE).
    is_new = booted.kernel.name.startswith("7")
    form = Format("elf", "-E", 31) if is_new else Format("lzo", "-l", 31)
    core = tmp_path_factory.mktemp("filtered") / "vmcore"
    write_filtered(makedumpfile(booted.kernel), booted.for_makedumpfile, core, form)
    yield core
    core.unlink()


@each_guest(on_kernels(COLLISION, ["7.3"]))
def test_filtered_dump_without_vmlinux_gets_the_same_answers(
    booted: Booted, filtered: Path
) -> None:
    for command in WITH_JSON:
        assert_same_json(filtered, booted.symbols, command)


@each_guest(on_kernels(COLLISION, ["6.1"], ["6.1", "7.3"]))
def test_export_without_vmlinux_gives_the_same_answers(booted: Booted, tmp_path: Path) -> None:
    exports = []
    for types, options in (("btf", booted.dumped.options[:2]), ("dwarf", booted.dumped.options)):
        exports.append(str(tmp_path / types))
        made = zonedev("--types", types, *options, "export", exports[-1])
        assert made.status == 0, made.stderr
    for command in WITH_JSON:
        builtin, whole = (answer("-c", export, *command) for export in exports)
        assert "types" not in builtin["kernel"]
        assert builtin == whole, command


@each_guest(on_kernels(COLLISION, EXTREMES))
def test_guest_without_vmlinux_is_judged(booted: Booted) -> None:
    require_free(booted.guest)
    found = answer(*booted.live.options[:2], "check")
    assert found["kernel"]["types"] == "btf"
    assert found["pgmaps"]
    assert found["coverage"]["pages_verified"] > 0


inside_too = pytest.mark.long("7.3 judges itself in every run")


@pytest.mark.parametrize(
    "name", ["7.3", *(pytest.param(name, marks=inside_too) for name in ("5.10", "6.1"))]
)
def test_guest_without_packages_judges_itself(name: str) -> None:
    kernel = fetch_kernel(name)
    with boot_inside_alone(kernel, SCENARIOS[COLLISION]) as guest:
        outside = zonedev(
            "--qemu", guest.qmp_socket, "-s", str(kernel.vmlinux), "check", "--format", "json"
        )
        facts = guest.facts
    # The kernel gave pages behind its RAM a zone that it does not have.
    assert facts["inside_status"].strip() == "1", facts["inside_errors"]
    assert facts["inside_errors"].splitlines() == [
        "zonedev: there is no vmlinux: types come from the kernel's BTF"
    ]
    found, expected = json.loads(facts["inside"]), outside.document
    assert found["kernel"].pop("types") == "btf"
    assert found["kernel"].pop("live")
    expected["kernel"].pop("live")
    for key in ("kernel", "ranges", "findings"):
        assert found[key] == expected[key], key
    # /proc/kcore shows System RAM only: struct pages on the device are not in it.
    # The free areas of a running kernel may change each time that they are compared.
    lasting = [u for u in found["unjudged"] if "free_area" not in u["reason"]]
    assert [(u["start_pfn"], u["end_pfn"]) for u in lasting] == [(0x28000, 0x30000)]
    assert [u for u in expected["unjudged"] if "free_area" not in u["reason"]] == []
