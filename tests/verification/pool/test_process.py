# SPDX-License-Identifier: LGPL-2.1-or-later

"""Workers start, answer, and are gone afterwards, whatever they are in the middle of."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from drgn import Program
from support.dumpfiles import VMEMMAP, Machine, write_elf

from drgn_zonedev.verification.pool import process as module
from drgn_zonedev.verification.pool.process import Worker, end, end_all, start_workers, team

_SECONDS = 60


@pytest.fixture
def prog(tmp_path: Path) -> Program:
    machine = Machine()
    machine.frames[0x40] = bytearray(4096)
    machine.map(VMEMMAP, 0x40)
    prog = Program()
    prog.set_core_dump(write_elf(machine, tmp_path / "vmcore"))
    return prog


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    """Room for workers, all of which are gone afterwards."""
    with team() as made:
        yield made


def gone(worker: Worker) -> bool:
    return worker.process.poll() is not None and worker.connection.closed


def test_worker_opens_the_dump_of_the_program(prog: Program, workers: list[Worker]) -> None:
    start_workers(prog, workers, 1)
    (worker,) = workers
    assert (worker.ready, worker.begun) == (False, {})
    assert worker.connection.poll(_SECONDS)
    # What it says when it could.
    assert worker.connection.recv() == ""


def test_only_those_that_are_missing_start(prog: Program, workers: list[Worker]) -> None:
    start_workers(prog, workers, 1)
    first = workers[0]
    start_workers(prog, workers, 2)
    assert len(workers) == 2
    assert workers[0] is first
    start_workers(prog, workers, 1)
    start_workers(prog, workers, 0)
    assert len(workers) == 2


def test_team_ends_all_that_started(prog: Program) -> None:
    with team() as workers:
        start_workers(prog, workers, 2)
        started = list(workers)
    assert workers == []
    assert all(gone(worker) for worker in started)


def test_team_ends_all_if_something_fails(prog: Program) -> None:
    started: list[Worker] = []

    def fail() -> None:
        with team() as workers:
            start_workers(prog, workers, 1)
            started.extend(workers)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert gone(started[0])


def test_end_waits_for_a_worker_that_has_nothing_to_do(prog: Program) -> None:
    workers: list[Worker] = []
    start_workers(prog, workers, 1)
    worker = workers.pop()
    assert worker.connection.poll(_SECONDS)
    end(worker)
    assert gone(worker)
    # It ended by itself: nobody asks any more.
    assert worker.process.returncode == 0


def test_end_kills_what_does_not_end(monkeypatch: pytest.MonkeyPatch, prog: Program) -> None:
    monkeypatch.setattr(module, "_SECONDS_TO_END", 0.1)
    workers: list[Worker] = []
    start_workers(prog, workers, 1)
    worker = workers.pop()
    ours = worker.process
    # One that never looks at its connection.
    worker.process = subprocess.Popen(["sleep", "600"])
    end(worker)
    assert worker.process.returncode == -9
    ours.kill()
    ours.wait(_SECONDS)


def test_end_all_leaves_nothing(prog: Program) -> None:
    workers: list[Worker] = []
    start_workers(prog, workers, 2)
    started = list(workers)
    end_all(workers)
    assert workers == []
    assert all(gone(worker) for worker in started)


def test_what_cannot_start_is_said_and_left(
    prog: Program,
    workers: list[Worker],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    real = subprocess.Popen

    def popen(*args: Any, **options: Any) -> Any:
        if workers:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return real(*args, **options)

    monkeypatch.setattr(subprocess, "Popen", popen)
    before = len(os.listdir("/proc/self/fd"))
    with caplog.at_level(logging.WARNING):
        start_workers(prog, workers, 3)
    assert len(workers) == 1
    # With this process, there are to be four.
    assert "there are only 2 of 4 processes: Resource temporarily unavailable" in caplog.text
    # The connection of the one worker, and none of those that did not start.
    assert len(os.listdir("/proc/self/fd")) == before + 1


def test_worker_is_not_asked_to_load_plugins(
    prog: Program, workers: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRGN_PLUGINS", "drgn_zonedev.plugin")
    start_workers(prog, workers, 1)
    # It is what it is to be when it says something.
    assert workers[0].connection.poll(_SECONDS)
    environment = Path(f"/proc/{workers[0].process.pid}/environ").read_bytes().split(b"\0")
    assert b"DRGN_DISABLE_PLUGINS=*" in environment
    assert b"DRGN_PLUGINS=" in environment
