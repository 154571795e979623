# SPDX-License-Identifier: LGPL-2.1-or-later

"""Many dumps at a time."""

from __future__ import annotations

import json
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from drgn_zonedev.fleet.check_alone import Checked, Ending, Limits, Task
from drgn_zonedev.fleet.find import Found
from drgn_zonedev.fleet.run import SurveyQuestion, run
from drgn_zonedev.fleet.store import Store, opened_store

QUESTION = SurveyQuestion((), (), ("1",), Limits(60, 0))
NOT_JUDGED = Checked(Ending.NOT_JUDGED, "no symbols", None, 0, 0)


def make(directory: Path, count: int) -> list[Found]:
    dumps = []
    for number in range(count):
        path = directory / str(number) / "vmcore"
        path.parent.mkdir()
        path.write_bytes(number.to_bytes(4, "big"))
        dumps.append(Found(str(path), "ELF", 4))
    return dumps


def survey(
    dumps: list[Found], store: Store, engine: Callable[[Task, Callable[[], bool]], Checked],
    jobs: int = 2,
) -> list[str]:  # fmt: skip
    seen: list[str] = []
    run(dumps, store, QUESTION, engine, jobs, lambda found, checked: seen.append(found.path))
    return seen


def test_each_dump_is_checked_once_and_then_known(tmp_path: Path) -> None:
    dumps, checked = make(tmp_path, 9), list[str]()

    def engine(task: Task, is_stopping: Callable[[], bool]) -> Checked:
        checked.append(task.path)
        return NOT_JUDGED

    with opened_store(tmp_path / "s.db", create=True) as store:
        assert sorted(survey(dumps, store, engine)) == sorted(checked) == [d.path for d in dumps]
        assert len(survey(dumps, store, engine)) == 9
        assert len(checked) == 9
        assert [*store.connection.execute("SELECT count(*), min(seen_run) FROM dumps")] == [(9, 2)]


def test_no_more_than_so_many_at_a_time(tmp_path: Path) -> None:
    lock, now, most = threading.Lock(), 0, 0

    def engine(task: Task, is_stopping: Callable[[], bool]) -> Checked:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1
        return NOT_JUDGED

    with opened_store(tmp_path / "s.db", create=True) as store:
        survey(make(tmp_path, 12), store, engine, jobs=3)
    assert most == 3


def test_dumps_are_found_while_others_are_checked(tmp_path: Path) -> None:
    taken, finished = 0, 0

    def found() -> object:
        nonlocal taken
        for dump in make(tmp_path, 50):
            taken += 1
            assert taken - finished <= 2 * 2 + 2
            yield dump

    def count(dump: Found, checked: Checked | None) -> None:
        nonlocal finished
        finished += 1

    with opened_store(tmp_path / "s.db", create=True) as store:
        run(found(), store, QUESTION, lambda task, stop: NOT_JUDGED, 2, count)  # type: ignore[arg-type]
    assert finished == 50


def test_interrupt_keeps_what_is_done_and_the_next_run_goes_on(tmp_path: Path) -> None:
    dumps, checked = make(tmp_path, 6), list[str]()

    def engine(task: Task, is_stopping: Callable[[], bool]) -> Checked:
        checked.append(task.path)
        return NOT_JUDGED

    def interrupt(dump: Found, result: Checked | None) -> None:
        raise KeyboardInterrupt

    with opened_store(tmp_path / "s.db", create=True) as store:
        with pytest.raises(KeyboardInterrupt):
            run(dumps, store, QUESTION, engine, 1, interrupt)
        (kept,) = store.connection.execute("SELECT count(*) FROM dumps").fetchone()
        assert 1 <= kept < 6
        checked.clear()
        survey(dumps, store, engine)
        assert len(checked) == 6 - kept
        assert [*store.connection.execute("SELECT count(*), count(ended) FROM runs")] == [(1, 1)]


def test_interrupt_ends_what_is_being_checked(tmp_path: Path) -> None:
    ended = threading.Event()

    def engine(task: Task, is_stopping: Callable[[], bool]) -> Checked:
        if task.path.endswith("/0/vmcore"):
            return NOT_JUDGED
        while not is_stopping():
            time.sleep(0.01)
        ended.set()
        return NOT_JUDGED

    def interrupt(dump: Found, result: Checked | None) -> None:
        raise KeyboardInterrupt

    with opened_store(tmp_path / "s.db", create=True) as store:
        with pytest.raises(KeyboardInterrupt):
            run(make(tmp_path, 2), store, QUESTION, engine, 2, interrupt)
        assert [*store.connection.execute("SELECT count(*) FROM dumps")] == [(1,)]
    assert ended.is_set()


def test_dump_that_goes_away_is_a_row(tmp_path: Path) -> None:
    with opened_store(tmp_path / "s.db", create=True) as store:
        survey([Found(str(tmp_path / "gone"), "ELF", 4)], store, lambda task, stop: NOT_JUDGED)
        assert [*store.connection.execute("SELECT ending FROM dumps")] == [("changed",)]


def test_copy_of_a_judged_dump_is_not_checked_again(tmp_path: Path) -> None:
    kernel = {"release": "6", "page_size": 1}
    body = {"kernel": kernel, "pgmaps": [], "ranges": [], "findings": []}
    paths = [tmp_path / name / "vmcore" for name in ("a", "b", "c")]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(b"same" if path.parent.name != "c" else b"some")
    checked = list[str]()

    def engine(task: Task, is_stopping: Callable[[], bool]) -> Checked:
        checked.append(task.path)
        report = json.dumps({**body, "provenance": {"source": task.path}}).encode()
        return Checked(Ending.JUDGED, "", report, 0, 0)

    with opened_store(tmp_path / "s.db", create=True) as store:
        for path in paths:
            survey([Found(str(path), "ELF", 4)], store, engine)
        assert checked == [str(paths[0]), str(paths[2])]
        assert [*store.connection.execute("SELECT same_as FROM dumps")] == [(None,), (1,), (None,)]
        # Each says where it comes from.
        documents = store.connection.execute("SELECT document FROM reports ORDER BY dump")
        sources = [json.loads(zlib.decompress(d))["provenance"]["source"] for (d,) in documents]
        assert sources == [str(path) for path in paths]
