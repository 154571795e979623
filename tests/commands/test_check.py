# SPDX-License-Identifier: LGPL-2.1-or-later

"""What ``check`` takes on the command line to look at a part of memory only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from drgn_zonedev.shell.cli import main

# [0x24000, 0x30000) is fsdax in the midst of RAM.
DUMP = str(Path(__file__).parents[2] / "vmcores" / "6.1-init-in-flight")


def _checked(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, object]:
    assert main(["-c", DUMP, "check", "--format", "json", *args]) == 0
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    return document


@pytest.mark.parametrize("span", ["0x24001..0x24500", "147457..0x24500"])
def test_pfns_are_half_open_and_in_any_notation(
    span: str, capsys: pytest.CaptureFixture[str]
) -> None:
    document = _checked(capsys, "--pfns", span)
    ranges = document["ranges"]
    assert isinstance(ranges, list)
    assert [(r["start_pfn"], r["end_pfn"], r["case"]) for r in ranges] == [
        (0x24001, 0x24002, "reserved"),
        (0x24002, 0x24400, "metadata"),
        (0x24400, 0x24500, "initializing"),
    ]
    assert document["scope"] == {"only": None, "start_pfn": 0x24001, "end_pfn": 0x24500}


@pytest.mark.parametrize(
    "span", ["5..5", "0x30..0x20", "1..0", "..", "7", "a..b", "-5..3", "0x24000-0x25000", "1..", ""]
)
def test_range_without_a_pfn_is_a_usage_error(
    span: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["-c", DUMP, "check", f"--pfns={span}"])
    assert caught.value.code == 2
    assert "--pfns" in capsys.readouterr().err


def test_kind_of_memory_that_there_is_not_is_a_usage_error() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["-c", DUMP, "check", "--only", "disks"])
    assert caught.value.code == 2


def test_pfns_without_memory_are_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    # The dump's RAM ends at 0x40000.
    assert main(["-c", DUMP, "check", "--pfns", "0x40000..0x50000"]) == 2
    assert "no memory at PFNs [0x40000, 0x50000)" in capsys.readouterr().err


def test_text_says_what_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--only", "devices", "--pfns", "0x24000..0x24400"]
    assert main(["-c", DUMP, "check", *args]) == 0
    out = capsys.readouterr().out
    assert "only memory of devices, only PFNs [0x24000, 0x24400)" in out
    assert "looked at: 2 reserved (5), 1022 metadata" in out


def test_what_is_not_asked_for_does_not_fail(capsys: pytest.CaptureFixture[str]) -> None:
    fail = ["--fail-on", "warning"]
    assert main(["-c", DUMP, "check", *fail]) == 1
    assert main(["-c", DUMP, "check", *fail, "--only", "ram"]) == 0
    assert main(["-c", DUMP, "check", *fail, "--pfns", "0..0x24000"]) == 0
    assert main(["-c", DUMP, "check", *fail, "--pfns", "0..0x24001"]) == 1
