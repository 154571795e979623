# SPDX-License-Identifier: LGPL-2.1-or-later

"""How many processes go through struct pages, and why only one does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from drgn import Architecture, Platform, PlatformFlags, Program
from support.dumpfiles import VMEMMAP, Machine, write_elf, write_kdump
from support.fakekernel import collision

from drgn_zonedev.kernel import memmap
from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.verification.pool import scanner as module
from drgn_zonedev.verification.pool import scheduler
from drgn_zonedev.verification.pool.process import Worker
from drgn_zonedev.verification.pool.scanner import scanner, why_alone
from drgn_zonedev.verification.promises import MetadataPages
from drgn_zonedev.verification.scan import scanning
from drgn_zonedev.verification.task import ScanTask
from drgn_zonedev.verification.work import Scanned, Work

MIB, GIB = 1 << 20, 1 << 30
# struct pages of 64 bytes.
PER_MIB = MIB // 64


@pytest.fixture
def machine() -> Machine:
    made = Machine()
    made.frames[0x40] = bytearray(4096)
    made.map(VMEMMAP, 0x40)
    return made


def opened(path: Path) -> Program:
    prog = Program()
    prog.set_core_dump(path)
    return prog


@pytest.fixture
def elf(machine: Machine, tmp_path: Path) -> Program:
    return opened(write_elf(machine, tmp_path / "elf"))


@pytest.fixture
def kdump(machine: Machine, tmp_path: Path) -> Program:
    return opened(write_kdump(machine, tmp_path / "kdump"))


def test_running_kernel_is_read_by_one_process() -> None:
    prog = collision("6.1").program(is_live=True)
    assert why_alone(prog) == "what is running is read by one process"


def test_program_without_a_file_is_read_by_one_process() -> None:
    reason = why_alone(collision("6.1").program())
    assert reason == "only a core dump can be opened by more than one process"


def test_dump_can_be_opened_again(elf: Program, kdump: Program) -> None:
    assert why_alone(elf) is None
    assert why_alone(kdump) is None


@pytest.mark.parametrize(("holes", "alone"), [(True, True), (False, False)])
def test_what_a_dump_leaves_out_is_not_known_without_symbols_everywhere(
    holes: bool, alone: bool, machine: Machine, tmp_path: Path
) -> None:
    machine.lose(0x40)
    path = write_elf(machine, tmp_path / "vmcore", holes=holes)
    assert why_alone(opened(path)) is None
    with path.open("r+b") as file:
        file.seek(18)
        file.write((21).to_bytes(2, "little"))  # e_machine: EM_PPC64
    little = PlatformFlags.IS_64_BIT | PlatformFlags.IS_LITTLE_ENDIAN
    prog = Program(Platform(Architecture.PPC64, little))
    prog.set_core_dump(path)
    assert (why_alone(prog) is not None) is alone


# How many start. None of them really does.


class Started:
    """Records how many processes there are to be, and whether they get the work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.numbers: list[int] = []
        self.shared = False
        monkeypatch.setattr(module, "start_workers", self._start)
        monkeypatch.setattr(scheduler, "scan_in_processes", self._scan)

    def _start(self, prog: Program, workers: list[Worker], number: int) -> None:
        self.numbers.append(number)

    def _scan(
        self,
        prog: Program,
        task: ScanTask[Work, Scanned],
        works: Sequence[Work],
        progress: Callable[[int], None],
        workers: list[Worker],
    ) -> Iterator[Scanned]:
        self.shared = True
        return iter(Scanned() for _ in works)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    # A dump without debugging symbols does not know the layout of struct page.
    layout = page_layout(collision("6.1").program())
    monkeypatch.setattr(memmap, "page_layout", lambda prog: layout)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)))
    return Started(monkeypatch)


def work(mebibytes: int) -> Work:
    """So much memmap."""
    return Work(MetadataPages(()), np.array([[0, mebibytes * PER_MIB]]))


def scan(prog: Program, jobs: int | None, works: Sequence[Work]) -> None:
    with scanner(prog, jobs) as scan_all:
        # What one process does is not looked at here.
        scan_all(prog, scanning(memmap.page_layout(prog)), works, lambda pages: None)


@pytest.mark.parametrize(
    ("jobs", "mebibytes", "numbers", "shared"),
    [
        # Nothing starts early for a small dump; then one process for each 256 MiB.
        (None, 255, [0], False),
        (None, 511, [0], False),
        (None, 512, [0, 1], True),
        (None, 1024, [0, 3], True),
        # As many as there are cores.
        (None, 4096, [0, 3], True),
        (1, 4096, [0], False),
        # Who asks for some gets them, before anything is known.
        (2, 9, [1, 1], True),
        (6, 4096, [5, 5], True),
        # As far as there are pieces of 8 MiB.
        (2, 1, [1], False),
        (3, 16, [2, 1], True),
        (6, 40, [5, 4], True),
    ],
)
def test_number_of_processes_is_what_the_work_is_worth(
    jobs: int | None,
    mebibytes: int,
    numbers: list[int],
    shared: bool,
    kdump: Program,
    started: Started,
) -> None:
    scan(kdump, jobs, [work(mebibytes)])
    assert (started.numbers, started.shared) == (numbers, shared)


@pytest.mark.parametrize(("gibibytes", "numbers"), [(3, [0]), (4, [0, 1]), (16, [0, 3])])
def test_what_is_not_compressed_takes_less_time(
    gibibytes: int, numbers: list[int], elf: Program, started: Started
) -> None:
    scan(elf, None, [work(gibibytes * 1024)])
    assert started.numbers == numbers


def test_works_count_together(kdump: Program, started: Started) -> None:
    scan(kdump, None, [work(256), work(256)])
    assert started.numbers == [0, 1]


@pytest.mark.parametrize("jobs", [None, 3])
def test_no_work_is_done_here(jobs: int | None, kdump: Program, started: Started) -> None:
    scan(kdump, jobs, [])
    assert not started.shared


def test_more_than_eight_do_not_start_by_themselves(
    kdump: Program, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    scan(kdump, None, [work(1 << 16)])
    assert started.numbers == [0, 7]


@pytest.mark.parametrize(("size", "cores", "number"), [(0, 4, 1), (-1, 4, 0), (0, 1, 0)])
def test_large_compressed_dump_is_worth_one_process_from_the_start(
    size: int,
    cores: int,
    number: int,
    kdump: Program,
    started: Started,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert kdump.core_dump_path is not None
    os.truncate(kdump.core_dump_path, 256 * MIB + size)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    with scanner(kdump, None):
        assert started.numbers == [number]


def test_large_plain_dump_is_not(elf: Program, started: Started) -> None:
    assert elf.core_dump_path is not None
    os.truncate(elf.core_dump_path, GIB)
    with scanner(elf, None):
        assert started.numbers == [0]
