# SPDX-License-Identifier: LGPL-2.1-or-later

"""zonedev pages: what it takes, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.sessions import ROOT

from drgn_zonedev.census.grouping import By
from drgn_zonedev.census.kinds import PAGE_KINDS
from drgn_zonedev.commands import pages as module
from drgn_zonedev.export.store import StoredDump
from drgn_zonedev.shell import cli


@pytest.fixture(scope="module")
def dump() -> Iterator[Path]:
    with StoredDump(ROOT / "vmcores" / "6.1-fsdax-collision").files() as directory:
        yield directory


def run(dump: Path, *words: str) -> int:
    return cli.main(["-c", str(dump / "vmcore"), "-s", str(dump / "vmlinux"), "pages", *words])


def test_choices_are_those_that_there_are() -> None:
    assert tuple(kind.value for kind in PAGE_KINDS) == module._KINDS
    assert tuple(by.value for by in By) == module._BY


@pytest.mark.parametrize(
    "words",
    [
        ["0x24001..0x24001"],
        ["0x24002..0x24001"],
        ["0x24001..0x24002", "--by", "order"],
        ["0x24001..0x24002", "--jobs", "1"],
        ["--jobs", "0"],
        ["--kind", "slab"],
        ["--limit", "5"],
        ["--as", "pfn"],
        ["0x24001..0x24002", "--flag", ""],
        ["0x24001..0x24002", "--pgmap", "0x1"],
        ["0x24001..0x24002", "--flag", "nonsense"],
        ["0x24001..0x24002", "--refcount", "many"],
        ["0x24001..0x24002", "--limit", "0"],
        ["nonsense"],
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_a_usage_error(
    dump: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = run(dump, *words)
    except SystemExit as e:
        status = int(e.code or 0)
    assert status == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "zonedev" in err


@pytest.mark.parametrize("flag", ["reserved", "RESERVED", "PG_reserved", "PG_RESERVED"])
def test_flag_is_written_in_any_way(
    dump: Path, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # The first page of the reserve and one of the metadata.
    assert run(dump, "0x24001..0x24003", "--flag", flag, "--format", "json") == 0
    assert [page["pfn"] for page in json.loads(capsys.readouterr().out)["pages"]] == [0x24002]


def test_numbers_can_be_of_a_kind(dump: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(dump, "0x24002000..0x24003000", "--as", "phys", "--format", "json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert (listed["start_pfn"], listed["end_pfn"]) == (0x24002, 0x24003)


def test_resource_is_listed_whole(dump: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["Persistent Memory", "--kind", "device", "--limit", "2", "--format", "json"]
    assert run(dump, *words) == 0
    listed = json.loads(capsys.readouterr().out)
    assert (listed["start_pfn"], listed["end_pfn"]) == (0x24000, 0x30000)
    assert listed["matching"] == 0x30000 - 0x24400
    assert [page["pfn"] for page in listed["pages"]] == [0x24400, 0x24401]
    assert listed["pages"][0]["owner"]["type"] == "pgmap"
