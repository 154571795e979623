# SPDX-License-Identifier: LGPL-2.1-or-later

"""The vmcore as a file: what drgn reads there, and what it must not."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from drgn import Architecture, FaultError, Platform, Program

from drgn_zonedev.export.core_writer import Read, write_core
from drgn_zonedev.export.elf_writer import Encoding
from drgn_zonedev.export.trace import MemoryRun

BASE = 0xFFFF888000000000
INFO = b"OSRELEASE=6.1.0-test\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)=ffffffff82a0c000\n"
ENCODING = Encoding(Platform(Architecture.X86_64))


def bytes_of(run: MemoryRun) -> bytes:
    return bytes((run.vaddr + i) % 251 for i in range(run.size))


def core(
    path: Path, runs: list[MemoryRun], read: Read = bytes_of
) -> tuple[Program, list[MemoryRun]]:
    with path.open("wb") as f:
        lost = write_core(f, ENCODING, INFO, [(run, read) for run in runs])
    prog = Program()
    prog.set_core_dump(path)
    return prog, lost


def test_runs_of_any_size_at_any_address_are_read_back(tmp_path: Path) -> None:
    runs = [MemoryRun(BASE + 3, 0x5003, 1), MemoryRun(BASE + 0x1007, 0x9007, 0x2345)]
    prog, lost = core(tmp_path / "vmcore", runs)
    assert not lost
    for run in runs:
        assert prog.read(run.vaddr, run.size) == bytes_of(run)
        assert run.paddr is not None
        assert prog.read(run.paddr, run.size, physical=True) == bytes_of(run)


def test_runs_that_touch_are_read_in_one_go(tmp_path: Path) -> None:
    runs = [MemoryRun(BASE, 0x5000, 0x1000), MemoryRun(BASE + 0x1000, 0x9000, 0x10)]
    prog, _ = core(tmp_path / "vmcore", runs)
    assert prog.read(BASE + 0xFF8, 16) == bytes_of(MemoryRun(BASE + 0xFF8, 0, 16))


@pytest.mark.parametrize(
    ("address", "size"), [(BASE - 1, 1), (BASE + 8, 1), (BASE + 4, 8), (BASE - 1, 2), (0, 8)]
)
def test_what_is_left_out_faults(tmp_path: Path, address: int, size: int) -> None:
    prog, _ = core(tmp_path / "vmcore", [MemoryRun(BASE, 0x5000, 8)])
    with pytest.raises(FaultError):
        prog.read(address, size)


def test_what_is_left_out_faults_physically(tmp_path: Path) -> None:
    prog, _ = core(
        tmp_path / "vmcore", [MemoryRun(BASE, 0x5000, 8), MemoryRun(BASE + 0x100, None, 8)]
    )
    assert prog.read(BASE + 0x100, 8)
    for address in (0x4FFF, 0x5008, 0x5100, 0):
        with pytest.raises(FaultError):
            prog.read(address, 1, physical=True)


def test_more_runs_than_the_elf_header_can_count(tmp_path: Path) -> None:
    runs = [MemoryRun(BASE + 16 * i, 0x10000 + 16 * i, 8) for i in range(70000)]
    prog, _ = core(tmp_path / "vmcore", runs)
    for i in (0, 65534, 65535, 69999):
        assert prog.read(runs[i].vaddr, 8) == bytes_of(runs[i])
        with pytest.raises(FaultError):
            prog.read(runs[i].vaddr + 8, 1)


def test_memory_that_is_mapped_twice_is_stored_once(tmp_path: Path) -> None:
    runs = [MemoryRun(BASE + i * 0x1000, 0x7000, 0x1000) for i in range(100)]
    prog, _ = core(tmp_path / "vmcore", runs, lambda run: b"\x5a" * run.size)
    assert prog.read(runs[99].vaddr, 0x1000) == b"\x5a" * 0x1000
    assert (tmp_path / "vmcore").stat().st_size < 3 * 0x1000 + 100 * 56


def test_what_vanishes_while_it_is_written_is_not_there(tmp_path: Path) -> None:
    gone = MemoryRun(BASE + 0x1000, 0x9000, 8)

    def read(run: MemoryRun) -> bytes:
        if run.vaddr == gone.vaddr:
            raise FaultError("gone", run.vaddr)
        return bytes_of(run)

    there = [MemoryRun(BASE, 0x5000, 8), MemoryRun(BASE + 0x2000, 0xA000, 8)]
    prog, lost = core(tmp_path / "vmcore", [there[0], gone, there[1]], read)
    assert lost == [gone]
    assert [prog.read(run.vaddr, 8) for run in there] == [bytes_of(run) for run in there]
    with pytest.raises(FaultError):
        prog.read(gone.vaddr, 8)


def test_vmcoreinfo_is_that_of_the_source(tmp_path: Path) -> None:
    prog, _ = core(tmp_path / "vmcore", [MemoryRun(BASE, 0x5000, 8)])
    assert prog["VMCOREINFO"].string_() == INFO


def test_bytes_are_the_same_each_time() -> None:
    files = [io.BytesIO(), io.BytesIO()]
    for file in files:
        write_core(file, ENCODING, INFO, [(MemoryRun(BASE, 0x5000, 64), bytes_of)])
    assert files[0].getvalue() == files[1].getvalue()


def test_other_architectures_are_refused() -> None:
    with pytest.raises(ValueError, match="I386"):
        Encoding(Platform(Architecture.I386))
