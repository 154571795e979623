# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Tests of the architecture stand in a few places only, each of which names the file of the kernel
that it follows. Whatever else depends on the machine is read in the dump.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.archasks import asks, followed
from support.fakekernel.layouts import TABLES
from support.layoutmachine import BIG_ENDIAN, JUDGED

from drgn_zonedev.lab.kernels.known import ARM64_KERNELS, BUILT_KERNELS, KERNELS, PPC64EL_KERNELS

LIMITS = Path(__file__).parents[1] / "docs" / "limits.md"
PACKAGE = Path(__file__).parents[1] / "drgn_zonedev"

# The file, and what it follows. Logs are of machines that nobody has, and the lab makes machines.
PLACES = {
    "vmcore/entry_format.py": {
        "arch/x86/include/asm/pgtable_types.h",
        "arch/x86/include/asm/pgtable_64.h",
        "arch/x86/include/asm/pgtable-invert.h",
        "arch/arm64/Kconfig",
        "arch/arm64/include/asm/assembler.h",
        "arch/arm64/include/asm/pgtable.h",
        "arch/arm64/include/asm/pgtable-hwdef.h",
        "arch/arm64/include/asm/pgtable-prot.h",
    },
    "kernel/memmap.py": {"include/linux/poison.h"},
    "kernel/pageblock.py": {
        "arch/x86/Kconfig",
        "arch/x86/include/asm/pgtable_64_types.h",
        "arch/arm64/include/asm/pgtable-hwdef.h",
        "arch/riscv/include/asm/pgtable-64.h",
        "arch/loongarch/include/asm/pgtable.h",
    },
    "kernel/vmemmap.py": {
        "arch/x86/mm/init_64.c",
        "arch/arm64/mm/mmu.c",
        "arch/s390/mm/vmem.c",
        "arch/powerpc/mm/book3s64/radix_pgtable.c",
    },
    "known_bugs/in_findings.py": {"arch/arm64/mm/mmu.c", "arch/riscv/mm/init.c"},
    # Not about the kernel: numbers of ELF, and what a user says of a dump.
    "export/elf_writer.py": {"include/uapi/linux/elf-em.h"},
    "opening/core.py": {"arch/Kconfig"},
}
ELSEWHERE = ("lab/", "oops_log/", "known_bugs/in_logs.py")


def asking() -> dict[str, str]:
    """The files that ask, and what is in them."""
    files = ((p.relative_to(PACKAGE).as_posix(), p) for p in sorted(PACKAGE.rglob("*.py")))
    texts = {name: p.read_text("utf-8") for name, p in files if not name.startswith(ELSEWHERE)}
    return {name: text for name, text in texts.items() if asks(text)}


def test_only_few_places_ask_for_the_architecture_and_name_what_they_follow() -> None:
    found = {name: list(followed(text)) for name, text in asking().items()}
    assert {name for name, files in found.items() if not all(files)} == set()
    assert {name: set[str]().union(*files) for name, files in found.items()} == PLACES


@pytest.mark.parametrize(
    "line",
    [
        "prog.platform.arch == Architecture.X86_64",
        "prog.platform.arch in known",
        "Architecture.AARCH64 is machine",
        "other.PPC64",
        "getattr(drgn.Architecture, 'X86_64')",
        "name == 'aarch64'",
        "'arm64' == name",
        "facts.architecture in ('x86_64', 'aarch64')",
        "facts.architecture in {'x86-64'}",
        "facts.architecture != other",
        "{'AARCH64': 3}",
        "machine.startswith('ppc64')",
        "'-arm64' in release",
        "table.get('amd64')",
        "table[prog.platform.arch]",
        "re.search(r'x86_64|aarch64', release)",
        "name.endswith('+deb13-arm64-16k')",
    ],
)
def test_what_asks_for_the_architecture_is_recognised(line: str) -> None:
    assert asks(line)
    assert asks(f"def f():\n    if not ({line}):\n        return None")
    assert list(followed(f"# arch/x86/mm/init.c\nX = {line}\nY = {line}\n")) == [
        {"arch/x86/mm/init.c"},
        set(),
    ]


def test_a_case_of_a_match_statement_is_recognised() -> None:
    assert asks("match name:\n    case 'aarch64':\n        pass")


@pytest.mark.parametrize(
    "line",
    [
        "name = prog.platform.arch.name.lower()",
        "# On x86-64, it is 9.",
        "'On arm64, it is 9.'",
        "other.arch is not Architecture.UNKNOWN",
        "one.arch in (other.arch, Architecture.UNKNOWN)",
    ],
)
def test_what_only_names_it_is_not(line: str) -> None:
    assert not asks(line)


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
        ("arm64", "64K"): ", ".join(n.partition("-")[0] for n in BUILT_KERNELS if "64k" in n),
        ("ppc64le, radix MMU", "4K"): ", ".join(n.partition("-")[0] for n in PPC64EL_KERNELS),
    }


def test_a_machine_that_nothing_judges_is_documented_as_refused() -> None:
    refused = {(row[0], row[1]) for row in rows() if row[5] == "everything"}
    assert machines(BIG_ENDIAN) <= refused
    assert all(row[3] == row[4] == "no" for row in rows() if row[5] == "everything")
