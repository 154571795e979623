# SPDX-License-Identifier: LGPL-2.1-or-later

"""What is kept of a survey, and what a store survives."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drgn_zonedev.fleet.check_alone import Checked, Ending, Limits
from drgn_zonedev.fleet.find import Found
from drgn_zonedev.fleet.store import SCHEMA_VERSION, DumpRecord, Store, StoreError, opened_store
from drgn_zonedev.vmcore.vmcoreinfo_words import DumpedKernel

LIMITS = Limits(60, 1 << 30)


def finding(slug: str, start: int, **more: Any) -> dict[str, Any]:
    return {
        "slug": slug, "severity": "error", "case": "device", "start_pfn": start,
        "end_pfn": start + 8, "count": 3, "pgmap": "0xff", "message": "bad", **more,
    }  # fmt: skip


def report(*findings: dict[str, Any]) -> bytes:
    pgmap = {
        "address": "0xff", "type": "MEMORY_DEVICE_FS_DAX", "in_progress": False,
        "ranges": [{"start_pfn": 100, "end_pfn": 300}], "altmap": None,
        "device": {"name": "pmem0", "kind": "nd_pmem"},
    }  # fmt: skip
    range_ = {"start_pfn": 0, "end_pfn": 1 << 70, "case": "device", "memmap": "mapped",
              "pgmap": None}  # fmt: skip
    document = {"kernel": {"release": "6.1", "page_size": 4096}, "pgmaps": [pgmap],
                "ranges": [range_], "findings": findings}  # fmt: skip
    return json.dumps(document).encode()


def entry(path: str = "/dumps/1", **changes: Any) -> DumpRecord:
    checked = Checked(Ending.JUDGED, "", report(finding("device-page-zone", 100)), 1.5, 1 << 20)
    made = DumpRecord(
        Found(path, "ELF", 1000), "1:2:3:4", "aa", DumpedKernel("6.1", "b1", 99), "[]",
        LIMITS, checked,
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened_store(tmp_path / "s.db", create=True) as opened:
        yield opened


def rows(store: Store, query: str) -> list[tuple[Any, ...]]:
    return list(store.connection.execute(query))


def test_report_is_kept_whole_and_as_tables(store: Store) -> None:
    store.put(entry(), store.begin_run("[]"))
    (document,) = rows(store, "SELECT document FROM reports")[0]
    assert zlib.decompress(document) == entry().checked.report
    assert rows(store, "SELECT slug, start_pfn, end_pfn, pages, first_run FROM findings") == [
        ("device-page-zone", 100, 108, 3, 1)
    ]
    assert rows(store, "SELECT type, pages, device FROM pgmaps") == [
        ("MEMORY_DEVICE_FS_DAX", 200, "pmem0")
    ]
    assert rows(store, "SELECT release, build_id FROM kernels") == [("6.1", "b1")]
    assert rows(store, "SELECT crash_time, page_size, ending FROM dumps") == [(99, 4096, "judged")]


def test_number_that_sqlite_cannot_hold_is_the_largest(store: Store) -> None:
    store.put(entry(), store.begin_run("[]"))
    assert rows(store, "SELECT end_pfn FROM ranges") == [((1 << 63) - 1,)]


def test_result_takes_the_place_of_the_one_before(store: Store) -> None:
    run = store.begin_run("[]")
    store.put(entry(), run)
    store.end_run(run)
    later = Checked(
        Ending.JUDGED, "",
        report(finding("device-page-zone", 100), finding("ghost", 7, known_bugs=["bug"])), 2, 0,
    )  # fmt: skip
    store.put(entry(checked=later), store.begin_run("[]"))
    assert rows(store, "SELECT count(*) FROM dumps") == [(1,)]
    assert rows(store, "SELECT slug, first_run FROM findings ORDER BY number") == [
        ("device-page-zone", 1), ("ghost", 2),
    ]  # fmt: skip
    assert rows(store, "SELECT finding, bug FROM known_bugs") == [(1, "bug")]
    assert rows(store, "SELECT first_run, checked_run FROM dumps") == [(1, 2)]


def test_failure_leaves_no_finding_of_before(store: Store) -> None:
    run = store.begin_run("[]")
    store.put(entry(), run)
    store.put(entry(checked=Checked(Ending.CRASHED, "SIGSEGV ended it", None, 1, 0)), run)
    assert rows(store, "SELECT count(*) FROM findings") == [(0,)]
    assert rows(store, "SELECT ending, reason FROM dumps") == [("crashed", "SIGSEGV ended it")]
    assert rows(store, "SELECT count(*) FROM reports") == [(0,)]


def test_known_is_what_would_be_answered_again(store: Store) -> None:
    run, found = store.begin_run("[]"), entry().found
    assert not store.knows(found, "1:2:3:4", "[]", LIMITS)
    store.put(entry(), run)
    assert store.knows(found, "1:2:3:4", "[]", LIMITS)
    assert store.knows(found, "1:2:3:4", "[]", Limits(5, 1))
    assert not store.knows(found, "1:2:3:5", "[]", LIMITS)
    assert not store.knows(found, "1:2:3:4", "[1]", LIMITS)
    assert not store.knows(Found("/dumps/2", "ELF"), "1:2:3:4", "[]", LIMITS)


def test_what_broke_a_limit_is_tried_with_another_one(store: Store) -> None:
    checked = Checked(Ending.TIMEOUT, "", None, 1, 0)
    store.put(entry(checked=checked), store.begin_run("[]"))
    assert store.knows(entry().found, "1:2:3:4", "[]", LIMITS)
    assert not store.knows(entry().found, "1:2:3:4", "[]", Limits(3600, 1 << 30))


def test_what_was_being_written_is_tried_again(store: Store) -> None:
    store.put(entry(checked=Checked(Ending.CHANGED, "", None, 1, 0)), store.begin_run("[]"))
    assert not store.knows(entry().found, "1:2:3:4", "[]", LIMITS)


def test_same_bytes_have_the_same_report(store: Store) -> None:
    run = store.begin_run("[]")
    store.put(entry(), run)
    same = store.same_content("aa", "[]")
    assert same is not None
    assert same[1].report == entry().checked.report
    assert store.same_content("ab", "[]") is None
    assert store.same_content("aa", "[1]") is None
    store.put(entry("/dumps/2", same_as=same[0]), run)
    assert rows(store, "SELECT path FROM dumps WHERE same_as = 1") == [("/dumps/2",)]
    # The first one becomes another dump.
    store.put(entry(content="ff"), run)
    assert rows(store, "SELECT count(same_as) FROM dumps") == [(0,)]
    again = store.same_content("aa", "[]")
    assert again is not None
    assert again[0] == 2


def test_any_path_is_a_key(store: Store) -> None:
    run = store.begin_run("[]")
    for path in ("/dumps/\udcff\x1b", r"/dumps/\xff\x1b"):
        store.put(entry(path), run)
    assert rows(store, "SELECT location, path FROM dumps ORDER BY id") == [
        (b"/dumps/\xff\x1b", r"/dumps/\xff\x1b"), (rb"/dumps/\xff\x1b", r"/dumps/\xff\x1b"),
    ]  # fmt: skip


def test_interrupted_run_goes_on_and_another_question_is_another_run(store: Store) -> None:
    assert store.begin_run("a") == 1
    assert store.begin_run("a") == 1
    assert store.begin_run("b") == 2
    store.end_run(2)
    assert store.begin_run("b") == 3


def test_store_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with opened_store(path, create=True) as first:
        first.put(entry(), first.begin_run("[]"))
    with opened_store(path, create=False) as second:
        assert rows(second, "PRAGMA integrity_check") == [("ok",)]
        assert rows(second, "SELECT count(*) FROM dumps") == [(1,)]


def test_other_files_are_refused_and_stay_what_they_are(tmp_path: Path) -> None:
    dump, other, later = (tmp_path / name for name in ("vmcore", "other.db", "later.db"))
    dump.write_bytes(b"\x7fELF" * 1000)
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE t (x)")
    with opened_store(later, create=True) as store:
        store.connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    for path, why in ((dump, "not a database"), (other, "something else"), (later, "schema 2")):
        before = path.read_bytes()
        with pytest.raises(StoreError, match=why), opened_store(path, create=True):
            pass
        assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("place", "create", "why"), [("s.db", False, "there is no store"), ("no/s.db", True, "cannot")]
)
def test_missing_store_is_not_made_by_reading(
    tmp_path: Path, place: str, create: bool, why: str
) -> None:
    with pytest.raises(StoreError, match=why), opened_store(tmp_path / place, create=create):
        pass
    assert list(tmp_path.iterdir()) == []
