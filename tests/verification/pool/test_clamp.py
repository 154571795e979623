# SPDX-License-Identifier: LGPL-2.1-or-later

"""No more processes than a few for each core and a piece for each, and a word about it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from support.dumpfiles import Machine, write_elf
from support.fakekernel import collision

from drgn_zonedev.export.store import StoredDump, default_directory
from drgn_zonedev.kernel import memmap
from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.opening.core import Dump, open_core
from drgn_zonedev.shell import cli
from drgn_zonedev.verification.pool import process, scanner, scheduler
from drgn_zonedev.verification.promises import MetadataPages
from drgn_zonedev.verification.scan import scanning
from drgn_zonedev.verification.work import Work

MIB = 1 << 20
# struct pages of 64 bytes.
PER_MIB = MIB // 64


@pytest.mark.parametrize(
    ("jobs", "mebibytes", "early", "number", "why"),
    [
        (1, 4096, 0, 1, ""),
        (3, 4096, 2, 3, ""),
        # Two cores.
        (9999, 4096, 7, 8, "8 processes instead of 9999: 4 for each core"),
        (9999, 30, 3, 4, "4 processes instead of 9999: pieces of work: 4"),
        (3, 8, 0, 1, "one process instead of 3: pieces of work: 1"),
        (3, 16, 1, 2, "2 processes instead of 3: pieces of work: 2"),
        (2, 16, 1, 2, ""),
    ],
)
def test_processes_that_are_started(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    jobs: int,
    mebibytes: int,
    early: int,
    number: int,
    why: str,
) -> None:
    layout = page_layout(collision("6.1").program())
    monkeypatch.setattr(memmap, "page_layout", lambda prog: layout)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(scheduler, "scan_in_processes", lambda *args: iter(()))
    wanted: list[int] = []
    monkeypatch.setattr(scanner, "start_workers", lambda prog, team, n: wanted.append(n))
    dump = write_elf(Machine(), tmp_path / "dump")
    # Of so much memmap, there is no less in the file.
    os.truncate(dump, mebibytes * MIB)
    prog = open_core(str(dump))
    work = Work(MetadataPages(()), np.array([[0, mebibytes * PER_MIB]]))
    with caplog.at_level(logging.WARNING), scanner.scanner(prog, jobs) as scan_all:
        scan_all(prog, scanning(layout), [work], lambda pages: None)
    assert wanted == [early] + [number - 1] * (number > 1)
    assert caplog.messages == [why] * bool(why)


# Where there is nothing to go through, no number of processes is too many.
@pytest.mark.parametrize(("dump", "said"), [("6.1-empty", False), ("6.1-fsdax-collision", True)])
def test_small_export_starts_no_process_for_9999(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, dump: str, said: bool
) -> None:
    def refuse(dump: object) -> None:
        raise AssertionError("there is too little for another process")

    directory = default_directory()
    assert directory
    monkeypatch.setattr(process, "_start", refuse)
    with StoredDump(directory / dump).files() as files:
        assert cli.main(["-c", str(files), "check", "-j", "9999"]) == 0
    assert ("one process instead of 9999: pieces of work: " in caplog.text) is said


def test_process_that_is_one_too_many_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    layout = page_layout(collision("6.1").program())
    monkeypatch.setattr(memmap, "page_layout", lambda prog: layout)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(scheduler, "scan_in_processes", lambda *args: iter(()))
    dump = write_elf(Machine(), tmp_path / "dump")
    os.truncate(dump, 32 * MIB)
    prog = open_core(str(dump))
    started = []
    start = process._start

    def watched(dump: Dump) -> process.Worker:
        started.append(start(dump))
        return started[-1]

    monkeypatch.setattr(process, "_start", watched)
    with scanner.scanner(prog, 4) as scan_all:
        assert len(started) == 3
        work = Work(MetadataPages(()), np.array([[0, 9 * PER_MIB]]))
        scan_all(prog, scanning(layout), [work], lambda pages: None)
        assert [worker.process.poll() is None for worker in started] == [True, False, False]
    assert all(worker.process.poll() is not None for worker in started)
