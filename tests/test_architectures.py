# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Tests of the architecture stand in a few places only, each of which names the file of the kernel
that it follows. Whatever else depends on the machine is read in the dump.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.fakekernel.layouts import TABLES
from support.layoutmachine import BIG_ENDIAN, JUDGED

from drgn_zonedev.lab.kernels.known import ARM64_KERNELS, KERNELS

LIMITS = Path(__file__).parents[1] / "docs" / "limits.md"
PACKAGE = Path(__file__).parents[1] / "drgn_zonedev"

# The file, and what it follows. Logs are of machines that nobody has, and the lab makes machines.
PLACES = {
    "vmcore/entry_format.py": (
        "arch/x86/include/asm/pgtable_types.h",
        "arch/arm64/include/asm/pgtable-hwdef.h",
    ),
    "kernel/memmap.py": ("include/linux/poison.h",),
    "kernel/pageblock.py": ("include/linux/pageblock-flags.h",),
    "kernel/vmemmap.py": ("arch/x86/mm/init_64.c", "arch/arm64/mm/mmu.c"),
    "known_bugs/in_findings.py": ("arch/arm64/mm/mmu.c",),
    # Not about the kernel: numbers of ELF, and what a user says of a dump.
    "export/elf_writer.py": ("include/uapi/linux/elf-em.h",),
    "opening/core.py": ("Kconfig",),
}
ELSEWHERE = ("lab/", "oops_log/", "known_bugs/in_logs.py")

NAMES = "x86_64|x86-64|aarch64|arm64|ppc64|ppc64le|s390x|riscv64|loongarch64"
ASKS = re.compile(
    r"Architecture\.(?!UNKNOWN)[A-Z]"
    r"|\.arch (==|!=|in|not in|is) "
    rf"|(==|!=|\bin) [(\[]?[\"']({NAMES})[\"']"
    rf"|startswith\([\"']({NAMES})"
    rf"|^\s*[\"']({NAMES})[\"']:",
    re.IGNORECASE | re.MULTILINE,
)


def asking() -> list[str]:
    files = (p for p in sorted(PACKAGE.rglob("*.py")) if ASKS.search(p.read_text(encoding="utf-8")))
    names = (p.relative_to(PACKAGE).as_posix() for p in files)
    return [name for name in names if not name.startswith(ELSEWHERE)]


def test_the_architecture_is_asked_for_in_few_places() -> None:
    assert asking() == sorted(PLACES)


@pytest.mark.parametrize(("name", "followed"), PLACES.items())
def test_each_place_names_what_it_follows(name: str, followed: tuple[str, ...]) -> None:
    text = (PACKAGE / name).read_text(encoding="utf-8")
    for file in followed:
        assert file in text


@pytest.mark.parametrize(
    "line",
    [
        "if prog.platform.arch == Architecture.X86_64:",
        "    if prog.platform.arch in known:",
        'if name == "aarch64":',
        "if facts.architecture in ('x86_64', 'aarch64'):",
        'return {\n    "AARCH64": 3,\n}',
        'if machine.startswith("ppc64"):',
    ],
)
def test_what_asks_for_the_architecture_is_recognised(line: str) -> None:
    assert ASKS.search(line)


@pytest.mark.parametrize(
    "line",
    [
        "name = prog.platform.arch.name.lower()",
        "# On x86-64, it is 9.",
        "other is Architecture.UNKNOWN",
    ],
)
def test_what_only_names_it_is_not(line: str) -> None:
    assert not ASKS.search(line)


# The table in docs/limits.md.

CALLED = {"X86_64": "x86-64", "AARCH64": "arm64", "PPC64": "ppc64le, radix MMU"}


def rows() -> list[list[str]]:
    lines = LIMITS.read_text(encoding="utf-8").split("## Which architectures\n")[1].splitlines()
    table = [line for line in lines if line.startswith("| ")][1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def machines(names: list[str]) -> set[tuple[str, str]]:
    macros = [TABLES[name].macros for name in names]
    sizes = ((CALLED.get(m.architecture, m.architecture.lower()), m.page_shift) for m in macros)
    return {(name, f"{(1 << shift) >> 10}K") for name, shift in sizes}


def test_machines_that_are_made_up_are_those_that_are_documented() -> None:
    assert {(row[0], row[1]) for row in rows() if row[4] == "yes"} == machines(JUDGED)


def test_kernels_that_are_booted_are_those_that_are_documented() -> None:
    booted = {(row[0], row[1]): row[3] for row in rows() if row[3] != "no"}
    arm64 = [name.partition("-")[0] for name in ARM64_KERNELS if not name.endswith("16k")]
    arm64_16k = [name.partition("-")[0] for name in ARM64_KERNELS if name.endswith("16k")]
    assert booted == {
        ("x86-64", "4K"): ", ".join(KERNELS),
        ("arm64", "4K"): ", ".join(arm64),
        ("arm64", "16K"): ", ".join(arm64_16k),
    }


def test_a_machine_that_nothing_judges_is_documented_as_refused() -> None:
    refused = {(row[0], row[1]) for row in rows() if row[5] == "everything"}
    assert machines(BIG_ENDIAN) <= refused
    assert all(row[3] == row[4] == "no" for row in rows() if row[5] == "everything")
