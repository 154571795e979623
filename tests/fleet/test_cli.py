# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev survey`` on real dumps: the answer for each is what ``check`` says of it alone."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cellar import (
    Alone,
    check_of,
    copy_stored,
    damaged_copies,
    let_dumps_misbehave,
    survey_store,
    unpack_stored,
)

from drgn_zonedev.export.store import default_directory, stored_dumps
from drgn_zonedev.shell import cli

HOSTILE = ("hang", "crash", "eat", "grow")
ENDINGS = {"hang": "timeout", "crash": "crashed", "eat": "memory", "grow": "changed"}


@pytest.fixture
def survey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return lambda *words: cli.main(["survey", "--store", str(tmp_path / "s.db"), *map(str, words)])


def rows(directory: Path, query: str) -> list[tuple[Any, ...]]:
    with survey_store(directory / "s.db") as store:
        return list(store.connection.execute(query))


def answers(directory: Path) -> dict[str, tuple[str, str, bytes]]:
    query = "SELECT path, ending, reason, document FROM dumps LEFT JOIN reports ON dump = id"
    return {
        path: (ending, reason, zlib.decompress(document).rstrip(b"\n") if document else b"")
        for path, ending, reason, document in rows(directory, query)
    }


def assert_same(answer: tuple[str, str, bytes], alone: Alone) -> None:
    ending, reason, report = answer
    assert report == alone.report
    if not report:
        assert ending == {2: "not opened", 3: "not judged"}[alone.status]
        assert alone.errors.rstrip("\n").endswith(reason)


def test_every_answer_is_that_of_check(tmp_path: Path, survey: Callable[..., int]) -> None:
    cellar = tmp_path / "cellar"
    paths = [copy_stored("7.3-init-in-flight", cellar / "packed.tar.xz")]
    paths += damaged_copies("6.1-two-in-one", cellar / "damaged", 4, seed=23)
    survey(cellar, "--fail-on", "info")
    found = answers(tmp_path)
    assert len(found) == 1 + 4 + 1
    for path in paths:
        assert_same(found[str(path)], check_of(path))


@pytest.mark.long("500 damaged dumps take ten minutes; four are in every run")
def test_every_answer_about_500_defects_is_that_of_check(
    tmp_path: Path, survey: Callable[..., int]
) -> None:
    directory = default_directory()
    assert directory
    names = [dump.name for dump in stored_dumps(directory)]
    cellar = tmp_path / "cellar"
    paths = [copy_stored(name, cellar / f"{name}.tar.xz") for name in names]
    for seed, name in enumerate(names):
        paths += damaged_copies(name, cellar / name, 10, seed)
    assert len(paths) >= 500
    survey(cellar)
    found = answers(tmp_path)
    for path in paths:
        assert_same(found[str(path)], check_of(path))


def make_hostile(directory: Path, each: int) -> list[Path]:
    made = [
        copy_stored("6.1-empty", directory / f"{what}-{number}.tar.xz")
        for what in HOSTILE for number in range(each)
    ]  # fmt: skip
    for number in range(each):
        dump = unpack_stored("6.1-ghost", directory / f"cut-{number}")
        os.truncate(dump, 30_000 + number)
        made.append(dump)
    return made


def expect_rows(found: dict[str, tuple[str, str, bytes]], hostile: list[Path]) -> None:
    for path in hostile:
        ending, reason, report = found[str(path)]
        assert ending == ENDINGS.get(path.name.partition("-")[0], "not opened")
        assert reason
        assert report == b""


def test_hostile_dumps_are_rows(
    tmp_path: Path, survey: Callable[..., int], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    let_dumps_misbehave(tmp_path / "site", monkeypatch)
    cellar = tmp_path / "cellar"
    hostile = make_hostile(cellar, 1)
    sound = [copy_stored(f"6.1-{name}", cellar / f"{name}.tar.xz") for name in ("ghost", "orphan")]
    assert survey("--timeout", "8", "--memory", "400M", "-j", "2", cellar) == 3
    found = answers(tmp_path)
    assert len(found) == len(hostile) + len(sound)
    expect_rows(found, hostile)
    for path in sound:
        assert_same(found[str(path)], check_of(path))
    assert "7 dumps, 2 judged" in capsys.readouterr().out


@pytest.mark.long("200 dumps take three minutes; seven are in every run")
def test_twenty_hostile_dumps_among_two_hundred(
    tmp_path: Path, survey: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    let_dumps_misbehave(tmp_path / "site", monkeypatch)
    cellar = tmp_path / "cellar"
    hostile = make_hostile(cellar, 4)
    sound = []
    for number in range(18):
        sound += damaged_copies("6.1-ghost", cellar / str(number), 10, number)
    survey("--timeout", "30", "--memory", "400M", cellar)
    found = answers(tmp_path)
    assert len(hostile) == 20
    expect_rows(found, hostile)
    for path in sound:
        assert_same(found[str(path)], check_of(path))


def test_exit_statuses(
    tmp_path: Path, survey: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    cellar = tmp_path / "cellar"
    cellar.mkdir()
    assert survey(cellar) == 2
    assert not (tmp_path / "s.db").exists()
    assert survey("report") == 2
    copy_stored("6.1-empty", cellar / "empty.tar.xz")
    assert survey(cellar) == 0
    assert survey("report") == 0
    copy_stored("6.1-ghost", cellar / "ghost.tar.xz")
    assert survey(cellar) == 0
    assert survey("report", "--fail-on", "ghost-pages") == 1
    assert survey("report", "--fail-on", "orphan-section") == 0
    cut = copy_stored("6.1-orphan", cellar / "orphan.tar.xz")
    os.truncate(cut, 5000)
    assert survey(cellar) == 3
    assert survey(cellar, "--fail-on", "warning") == 1
    # It answers for the dumps that were asked for.
    assert survey(cellar / "empty.tar.xz", "--fail-on", "warning") == 0
    err = capsys.readouterr().err
    assert "no dump of a kernel was found" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "words", [("-j", "0"), ("--memory", "much"), ("--memory", "0"), ("--timeout", "nan"), ()]
)
def test_usage(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        cli.main(["survey", *words, *(["/tmp"] if words else [])])
    assert e.value.code == 2


def test_program_is_not_selected(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["-c", "vmcore", "survey", "vmcore"]) == 2
    assert "takes its dumps as arguments" in capsys.readouterr().err


def test_copy_elsewhere_is_the_same_and_another_is_not(
    tmp_path: Path, survey: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    copy_stored("6.1-ghost", tmp_path / "1" / "d.tar.xz")
    assert survey(tmp_path / "1") == 0
    copy_stored("6.1-ghost", tmp_path / "2" / "d.tar.xz")
    copy_stored("6.1-empty", tmp_path / "2" / "e.tar.xz")
    assert survey(tmp_path / "2") == 0
    assert rows(tmp_path, "SELECT same_as FROM dumps ORDER BY path") == [(None,), (1,), (None,)]
    copy = tmp_path / "2" / "d.tar.xz"
    assert_same(answers(tmp_path)[str(copy)], check_of(copy))
    assert "1 the same as another one, 2 new since the last run" in capsys.readouterr().out


def start(directory: Path, cellar: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "drgn_zonedev", "survey", "-j", "2"]
    command += ["--store", str(directory / "s.db"), str(cellar)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for_rows(directory: Path, count: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            with sqlite3.connect(directory / "s.db", timeout=10) as connection:
                (found,) = connection.execute("SELECT count(*) FROM dumps").fetchone()
        except sqlite3.Error:
            found = 0
        if found >= count:
            return
        time.sleep(0.02)
    pytest.fail("the survey stores nothing")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_survey_that_is_ended_is_resumed(
    tmp_path: Path, survey: Callable[..., int], number: signal.Signals, status: int
) -> None:
    cellar = tmp_path / "cellar"
    for name in ("empty", "ghost", "orphan", "teardown", "devdax-2m"):
        copy_stored(f"7.2-{name}", cellar / f"{name}.tar.xz")
    process = start(tmp_path, cellar)
    wait_for_rows(tmp_path, 1)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (status, b"", b"")
    assert rows(tmp_path, "PRAGMA integrity_check") == [("ok",)]
    (kept,) = rows(tmp_path, "SELECT count(*), max(checked_run) FROM dumps")
    assert kept[0] < 5
    survey(cellar)
    assert rows(tmp_path, "SELECT count(*), count(ended) FROM runs") == [(1, 1)]
    assert len(answers(tmp_path)) == 5
    assert {ending for ending, _, _ in answers(tmp_path).values()} == {"judged"}


@pytest.mark.long("twenty interrupted surveys take two minutes; one is in every run")
def test_store_opens_whenever_the_survey_was_killed(
    tmp_path: Path, survey: Callable[..., int]
) -> None:
    cellar, rng = tmp_path / "cellar", random.Random(23)
    for number in range(40):
        copy_stored("6.1-empty", cellar / f"{number}.tar.xz").open("ab").write(bytes(4 * number))
    for _ in range(20):
        process = start(tmp_path, cellar)
        time.sleep(rng.uniform(0.3, 4))
        process.kill()
        process.communicate()
        if (tmp_path / "s.db").exists():
            assert rows(tmp_path, "PRAGMA integrity_check") == [("ok",)]
    survey(cellar)
    assert len(answers(tmp_path)) == 40


def test_report_is_written_in_every_form(
    tmp_path: Path, survey: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy_stored("6.1-ghost", tmp_path / "c" / "d.tar.xz")
    page, tables = tmp_path / "out.html", tmp_path / "tables"
    assert survey(path, "--html", page, "--export", "jsonl", "--into", tables) == 0
    assert "ghost-pages" in page.read_text()
    assert "ghost-pages" in (tables / "findings.jsonl").read_text()
    page.unlink()
    assert survey("report", "--html", page) == 0
    assert "ghost-pages" in page.read_text()


def test_report_takes_the_place_of_no_dump_and_no_store(
    tmp_path: Path, survey: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy_stored("6.1-ghost", tmp_path / "c" / "d.tar.xz")
    before = path.read_bytes()
    assert survey(path, "--html", path) == 2
    assert survey("report", "--html", tmp_path / "s.db") == 2
    assert survey("report", "--export", "jsonl", "--into", tmp_path / "c") == 2
    assert path.read_bytes() == before
    assert survey("report") == 0
    assert capsys.readouterr().err.count("\n") == 3
