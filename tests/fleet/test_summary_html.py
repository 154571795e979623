# SPDX-License-Identifier: LGPL-2.1-or-later

"""The report as one HTML file."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from drgn_zonedev.fleet.check_alone import Checked, Ending, Limits
from drgn_zonedev.fleet.find import Found
from drgn_zonedev.fleet.store import DumpRecord, Store, opened_store
from drgn_zonedev.fleet.summary_html import write_html
from drgn_zonedev.model import CASES
from drgn_zonedev.vmcore.vmcoreinfo_words import DumpedKernel

VOID = {"meta", "br"}
HOSTILE = "<script>alert(1)</script>\"'&]]>"


class Reader(HTMLParser):
    """Sees that every element ends where it should."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def count(self, tag: str) -> int:
        return sum(seen == tag for seen, _ in self.seen)


def put(store: Store, path: str, ranges: int = 40, findings: int = 12) -> None:
    document = {
        "kernel": {"release": "6.1", "page_size": 4096}, "pgmaps": [],
        "ranges": [
            {"start_pfn": i << 20, "end_pfn": i + 1 << 20, "case": CASES[i % len(CASES)].value,
             "memmap": "mapped", "pgmap": None} for i in range(ranges)
        ],
        "findings": [
            {"slug": "device-page-zone", "severity": "error", "case": "device", "start_pfn": i,
             "end_pfn": i + 1, "count": 1, "pgmap": None, "message": HOSTILE * 100}
            for i in range(findings)
        ],
    }  # fmt: skip
    checked = Checked(Ending.JUDGED, HOSTILE, json.dumps(document).encode(), 1, 0)
    record = DumpRecord(
        Found(path, "ELF", 1), "", None, DumpedKernel(HOSTILE, "f" * 40), "", Limits(1, 0), checked
    )
    store.put(record, store.begin_run(""))


def page(store: Store) -> str:
    out = io.StringIO()
    write_html(store.connection, out)
    return out.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened_store(tmp_path / "s.db", create=True) as opened:
        yield opened


def test_each_dump_has_a_section_and_a_picture(store: Store) -> None:
    for number in range(3):
        put(store, f"/{HOSTILE}{number}", ranges=5, findings=12)
    read = Reader(page(store))
    assert read.open == []
    assert (read.count("details"), read.count("svg"), read.count("rect")) == (3, 3, 15)
    assert "and 7 more, in the store" in read.words
    # What a stranger wrote is text.
    assert read.count("script") == 0
    assert HOSTILE in read.words


def test_file_is_on_its_own(store: Store) -> None:
    put(store, "/1")
    read = Reader(page(store))
    assert all(not {"src", "href"} & attributes.keys() for _, attributes in read.seen)
    assert "url(" not in page(store)
    assert "default-src 'none'" in page(store)


def test_boxes_fill_the_picture(store: Store) -> None:
    put(store, "/1", ranges=7)
    boxes = [a for tag, a in Reader(page(store)).seen if tag == "rect"]
    ends = [int(a["x"] or 0) + int(a["width"] or 0) for a in boxes]
    assert [int(a["x"] or 0) for a in boxes] == [0, *ends[:-1]]
    assert 620 < ends[-1] <= 640


def test_thousand_dumps_are_less_than_5_mb(store: Store) -> None:
    for number in range(20):
        put(store, f"/{'long/' * 20}{number}")
    empty = 60_000
    assert (len(page(store).encode()) - empty) / 20 * 1000 < 5_000_000
