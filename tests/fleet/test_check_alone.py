# SPDX-License-Identifier: LGPL-2.1-or-later

"""One dump, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cellar import check_of, copy_stored, let_dumps_misbehave, unpack_stored

from drgn_zonedev.fleet.check_alone import Ending, Limits, Task, check_alone


def task(path: Path, seconds: float = 120, memory: int = 0) -> Task:
    return Task(str(path), (), (), Limits(seconds, memory))


@pytest.fixture
def misbehaving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    let_dumps_misbehave(tmp_path / "site", monkeypatch)
    return tmp_path


def test_result_is_that_of_check(tmp_path: Path) -> None:
    packed = copy_stored("6.1-ghost", tmp_path / "ghost.tar.xz")
    checked = check_alone(task(packed))
    assert checked.ending is Ending.JUDGED
    assert checked.report is not None
    assert checked.report.rstrip(b"\n") == check_of(packed).report
    assert checked.peak > 1 << 20


@pytest.mark.parametrize("size", [30_000, 300_000, 1_200_000])
def test_cut_off_dump_is_what_check_says_of_it(tmp_path: Path, size: int) -> None:
    dump = unpack_stored("6.1-ghost", tmp_path / "d")
    os.truncate(dump, size)
    alone, checked = check_of(dump), check_alone(task(dump))
    ending = {2: Ending.NOT_OPENED, 3: Ending.NOT_JUDGED}.get(alone.status, Ending.JUDGED)
    assert checked.ending is ending
    assert (checked.report or b"").rstrip(b"\n") == alone.report
    assert checked.reason
    assert alone.errors.splitlines()[-1].endswith(checked.reason)


def test_no_dump_is_not_opened(tmp_path: Path) -> None:
    other = tmp_path / "vmcore"
    other.write_bytes(b"\x7fELF" + bytes(100))
    checked = check_alone(task(other))
    assert checked.ending is Ending.NOT_OPENED
    assert str(other) in checked.reason


def test_dump_that_hangs_takes_no_longer_than_its_limit(misbehaving: Path) -> None:
    dump = copy_stored("6.1-empty", misbehaving / "hang-1.tar.xz")
    checked = check_alone(task(dump, seconds=0.5))
    assert checked.ending is Ending.TIMEOUT
    assert 0.5 <= checked.seconds < 10


def test_dump_that_crashes_the_reader_says_by_which_signal(misbehaving: Path) -> None:
    checked = check_alone(task(copy_stored("6.1-empty", misbehaving / "crash-1.tar.xz")))
    assert (checked.ending, checked.reason) == (Ending.CRASHED, "SIGSEGV ended it")


def test_dump_that_eats_memory_is_ended_near_its_limit(misbehaving: Path) -> None:
    dump = copy_stored("6.1-empty", misbehaving / "eat-1.tar.xz")
    checked = check_alone(task(dump, memory=300 << 20))
    assert checked.ending is Ending.MEMORY
    assert 300 << 20 < checked.peak < 1200 << 20


def test_dump_that_grows_while_it_is_read_has_no_report(misbehaving: Path) -> None:
    checked = check_alone(task(copy_stored("6.1-empty", misbehaving / "grow-1.tar.xz")))
    assert (checked.ending, checked.report) == (Ending.CHANGED, None)


def test_dump_that_has_gone_says_so(tmp_path: Path) -> None:
    assert check_alone(task(tmp_path / "vmcore")).ending is Ending.CHANGED


def test_nothing_is_left_of_a_check_that_was_ended(
    misbehaving: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = misbehaving / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    dump = copy_stored("6.1-empty", misbehaving / "hang-1.tar.xz")
    check_alone(task(dump, seconds=0.2))
    assert list(temporary.iterdir()) == []
    assert processes_about(dump) == []


def processes_about(path: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(path) in words:
                found.append(int(entry.name))
    return found


def test_check_ends_with_the_process_that_started_it(misbehaving: Path) -> None:
    dump = copy_stored("6.1-empty", misbehaving / "hang-1.tar.xz")
    code = textwrap.dedent(f"""
        from drgn_zonedev.fleet.check_alone import Limits, Task, check_alone
        check_alone(Task({str(dump)!r}, (), (), Limits(60, 0)))
    """)
    script = misbehaving / "parent"
    script.write_text(code)
    parent = subprocess.Popen([sys.executable, str(script)])
    try:
        wait_until(lambda: bool(processes_about(dump)))
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: not processes_about(dump))


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_nothing_of_the_working_directory_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump = copy_stored("6.1-empty", tmp_path / "d.tar.xz")
    for name in ("numpy", "drgn", "drgn_zonedev", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(99)")
    monkeypatch.chdir(tmp_path)
    assert check_alone(task(dump)).ending is Ending.JUDGED


def test_survey_is_stopped_at_once(misbehaving: Path) -> None:
    dump = copy_stored("6.1-empty", misbehaving / "hang-1.tar.xz")
    assert check_alone(task(dump), lambda: True).seconds < 10
