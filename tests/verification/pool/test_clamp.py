# SPDX-License-Identifier: LGPL-2.1-or-later

"""No more processes than a few for each core, and a word about it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from support.dumpfiles import Machine, write_elf

from drgn_zonedev.opening.core import open_core
from drgn_zonedev.verification.pool import scanner


@pytest.mark.parametrize(("jobs", "started"), [(1, 0), (3, 2), (9999, 4)])
def test_processes_that_are_started(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    jobs: int,
    started: int,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1} if jobs < 4 else {0})
    wanted: list[int] = []
    monkeypatch.setattr(scanner, "start_workers", lambda prog, team, n: wanted.append(n))
    prog = open_core(str(write_elf(Machine(), tmp_path / "dump")))
    with caplog.at_level(logging.WARNING), scanner.scanner(prog, jobs):
        pass
    assert wanted == [min(started, 3)]
    assert ("4 processes instead of 9999" in caplog.text) == (jobs == 9999)
