# SPDX-License-Identifier: LGPL-2.1-or-later

"""Machines of which nothing can be said are refused in one line, by every command."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from drgn import Architecture, Platform, Program

from drgn_zonedev.commands import every_command
from drgn_zonedev.opening.failures import (
    CannotJudgeError,
    require_little_endian,
    require_page_tables,
)
from drgn_zonedev.shell import cli

VMCOREINFO = b"""OSRELEASE=6.14.0-imagined
PAGESIZE=4096
SYMBOL(swapper_pg_dir)=1000
SYMBOL(_stext)=0
NUMBER(SECTION_SIZE_BITS)=28
NUMBER(MAX_PHYSMEM_BITS)=46
KERNELOFFSET=0
"""
# What each command needs besides the dump. Those that need none, or a log, are not asked.
ARGUMENTS = {
    "pfn": ("0",),
    "diff": ("{directory}/vmcore",),
    "export": ("{directory}/export",),
    "bugreport": ("0",),
}
WITHOUT_DUMP = ("oops",)
EACH = [c.name for c in every_command() if c.name not in WITHOUT_DUMP]

# ELF numbers of machines, and the order of their bytes.
S390X, PPC64_BIG = (22, ">"), (21, ">")
RISCV64, LOONGARCH64 = (243, "<"), (258, "<")


def dump(path: Path, machine: tuple[int, str]) -> Path:
    """Write a dump of that machine, with one page."""
    number, order = machine
    note = struct.pack(f"{order}III", 11, len(VMCOREINFO), 0) + b"VMCOREINFO\0\0" + VMCOREINFO
    note += bytes(-len(note) % 4)
    headers = struct.pack(f"{order}IIQQQQQQ", 4, 0, 176, 0, 0, len(note), len(note), 4)
    headers += struct.pack(f"{order}IIQQQQQQ", 1, 7, 4096, 0, 0, 4096, 4096, 4096)
    ident = b"\x7fELF\x02" + (b"\x01" if order == "<" else b"\x02") + b"\x01"
    rest = (4, number, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    header = ident.ljust(16, b"\0") + struct.pack(f"{order}HHIQQQIHHHHHH", *rest)
    path.write_bytes((header + headers + note).ljust(4096, b"\0") + bytes(4096))
    return path


def refusal(
    command: str, machine: tuple[int, str], directory: Path, capsys: pytest.CaptureFixture[str]
) -> str:
    """Ask a command about a dump that it must refuse, and get the line that it says."""
    arguments = [a.format(directory=directory) for a in ARGUMENTS.get(command, ())]
    core = str(dump(directory / "vmcore", machine))
    assert cli.main(["-c", core, command, *arguments]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("machine", [S390X, PPC64_BIG], ids=["s390x", "ppc64"])
@pytest.mark.parametrize("command", EACH)
def test_every_command_refuses_big_endian_machines(
    command: str, machine: tuple[int, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "big-endian" in refusal(command, machine, tmp_path, capsys)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["vmcore"]


@pytest.mark.parametrize("machine", [RISCV64, LOONGARCH64], ids=["riscv64", "loongarch64"])
@pytest.mark.parametrize("command", EACH)
def test_every_command_refuses_what_drgn_cannot_translate(
    command: str, machine: tuple[int, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(command, machine, tmp_path, capsys)
    assert "drgn cannot translate virtual addresses" in line


@pytest.mark.parametrize("name", ["X86_64", "AARCH64", "PPC64"])
def test_machines_that_can_be_read(name: str) -> None:
    info = VMCOREINFO.decode() + "NUMBER(VA_BITS)=48\n"
    platform = Platform(Architecture[name])
    prog = Program(platform, vmcoreinfo=info)
    prog.set_linux_kernel_custom(info, False)
    require_page_tables(prog, "x")


def test_guests_and_running_kernels_are_refused_by_the_same_words() -> None:
    prog = Program(Platform(Architecture.S390X))
    with pytest.raises(
        CannotJudgeError, match="the running kernel is of s390x, which is big-endian"
    ):
        require_little_endian(prog, "the running kernel")
    require_little_endian(Program(Platform(Architecture.AARCH64)), "x")
