# SPDX-License-Identifier: LGPL-2.1-or-later

"""All dumps together, and what is said of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drgn_zonedev.fleet.check_alone import Checked, Ending, Limits
from drgn_zonedev.fleet.find import Found
from drgn_zonedev.fleet.store import DumpRecord, Store, opened_store
from drgn_zonedev.fleet.summarise import (
    BugCount,
    Failure,
    FindingCount,
    KernelCount,
    MachineCount,
    dumps_seen,
    kinds_found,
    summarise,
)
from drgn_zonedev.fleet.summary_text import bytes_text, summary_text
from drgn_zonedev.vmcore.vmcoreinfo_words import DumpedKernel

GIB = 1 << 30
BOOK = Path(__file__).parents[2] / "docs" / "fleet.md"


def put(
    store: Store, run: int, path: str, kernel: DumpedKernel, severities: str, pages: int
) -> None:
    findings = [
        {"slug": f"found-{s}", "severity": s, "case": "device", "start_pfn": i, "end_pfn": i + 1,
         "count": 10, "pgmap": None, "message": "", "known_bugs": ["bug"] if s == "error" else []}
        for i, s in enumerate(severities.split())
    ]  # fmt: skip
    pgmap = {"address": "0x1", "type": "T", "in_progress": False, "altmap": None, "device": None,
             "ranges": [{"start_pfn": 0, "end_pfn": pages}]}  # fmt: skip
    document = {"kernel": {"release": kernel.release, "page_size": 4096}, "ranges": [],
                "pgmaps": [pgmap] if pages else [], "findings": findings}  # fmt: skip
    checked = Checked(Ending.JUDGED, "", json.dumps(document).encode(), 1, 0)
    found = Found(path, "ELF", 1)
    store.put(DumpRecord(found, "", None, kernel, "", Limits(1, 0), checked), run)


OLD, NEW, REBUILT = (DumpedKernel(*words) for words in (("5.10", "1"), ("6.1", "2"), ("6.1", "3")))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened_store(tmp_path / "s.db", create=True) as opened:
        first = opened.begin_run("")
        put(opened, first, "/1", OLD, "error warning", GIB // 4096)
        put(opened, first, "/2", OLD, "warning warning", 0)
        opened.end_run(first)
        second = opened.begin_run("")
        put(opened, second, "/3", NEW, "error", 3 * GIB // 4096)
        put(opened, second, "/4", REBUILT, "info", (5 << 40) // 4096)
        crashed = Checked(Ending.CRASHED, "SIGSEGV ended it", None, 1, 0)
        entry = DumpRecord(Found("/5", "kdump", 1), "", None, NEW, "", Limits(1, 0), crashed)
        opened.put(entry, second)
        opened.end_run(second)
        yield opened


def test_summary(store: Store) -> None:
    summary = summarise(store.connection)
    assert (summary.dumps, summary.judged, summary.new_dumps) == (5, 4, 3)
    assert summary.kernels == (KernelCount("5.10", 1, 2, 1, 0), KernelCount("6.1", 2, 3, 1, 1))
    assert summary.findings == (
        FindingCount("found-error", "error", "5.10", 1, 10, 0),
        FindingCount("found-error", "error", "6.1", 1, 10, 1),
        FindingCount("found-warning", "warning", "5.10", 2, 30, 0),
        FindingCount("found-info", "info", "6.1", 1, 10, 1),
    )
    assert summary.bugs == (BugCount("bug", "5.10", 1), BugCount("bug", "6.1", 1))
    assert summary.machines == (
        MachineCount(-1, 0, 1),
        MachineCount(0, GIB, 1),
        MachineCount(GIB, 16 * GIB, 1),
        MachineCount(1 << 40, None, 1),
    )
    assert summary.failures == (Failure("/5", "crashed", "SIGSEGV ended it"),)


def test_a_run_answers_for_its_own_dumps(store: Store) -> None:
    assert dumps_seen(store.connection, 0) == (5, 1)
    assert dumps_seen(store.connection, 2) == (3, 1)
    severities = {f.severity.value for f in kinds_found(store.connection, 2)}
    assert severities == {"error", "info"}


def test_text_says_all_of_it(store: Store) -> None:
    text = summary_text(summarise(store.connection))
    lines = [line.split() for line in text.splitlines()]
    assert ["error", "found-error", "6.1", "1", "10", "1"] in lines
    assert ["bug", "5.10", "1"] in lines
    assert ["more", "than", "1", "TiB", "1"] in lines
    assert ["crashed", "/5", "SIGSEGV", "ended", "it"] in lines
    assert text.endswith("5 dumps, 4 judged, 3 new since the last run")


def test_nothing_is_new_in_the_first_run(tmp_path: Path) -> None:
    with opened_store(tmp_path / "one.db", create=True) as store:
        put(store, store.begin_run(""), "/1", OLD, "error", 0)
        text = summary_text(summarise(store.connection))
    assert "new" not in text
    assert text.endswith("1 dump, 1 judged")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1.02e+03 B"),
        (1536, "1.5 KiB"),
        (1 << 30, "1 GiB"),
        (1 << 60, "1.02e+03 PiB"),
    ],
)
def test_bytes(count: int, text: str) -> None:
    assert bytes_text(count) == text


QUESTIONS = re.findall(r"```sql\n(.*?)```", BOOK.read_text(encoding="utf-8"), re.DOTALL)


def ask(store: Store, words: str) -> list[tuple[Any, ...]]:
    (query,) = [q for q in QUESTIONS if words in q]
    return list(store.connection.execute(query))


def test_the_book_answers_ten_questions(store: Store) -> None:
    assert len(QUESTIONS) == 10
    for question in QUESTIONS:
        store.connection.execute(question).fetchall()


def test_answers_are_those_of_the_dumps(store: Store) -> None:
    assert ask(store, "SELECT bug") == [("bug", "5.10", 1), ("bug", "6.1", 1)]
    assert ask(store, "SELECT release, build_id") == [
        ("5.10", "1", 2, 1), ("6.1", "2", 2, 1), ("6.1", "3", 1, 0),
    ]  # fmt: skip
    assert ask(store, "SELECT ending") == [("crashed", "SIGSEGV ended it", "/5")]
    assert {row[0] for row in ask(store, "findings.first_run")} == {"/3", "/4"}
    assert ask(store, "gibibytes DESC") == [("/4", 5 << 10), ("/3", 3), ("/1", 1)]
    assert ask(store, "WHERE in_progress") == []
    assert len(ask(store, "ORDER BY seconds")) == 5
