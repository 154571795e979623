# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Dumps whose program headers or VMCOREINFO are damaged: what was wrong before is found, or
something is not judged. Nothing is all clear because it could not be looked at.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.damagedheaders import (
    damaged,
    headers,
    loads,
    with_headers,
    with_vmcoreinfo,
    with_word,
    with_wrong_zone,
)
from support.sampled import sampled

from drgn_zonedev.export.store import StoredDump, default_directory, stored_dumps
from drgn_zonedev.model import Case
from drgn_zonedev.opening.core import open_dump
from drgn_zonedev.report import check
from drgn_zonedev.shell import cli

Json = dict[str, Any]
_SAMPLE = 2
_SIZEOF_PAGE = 64


def dumps() -> list[StoredDump]:
    return stored_dumps(default_directory() or Path())


@pytest.fixture
def files(request: pytest.FixtureRequest) -> Iterator[Path]:
    (dump,) = (d for d in dumps() if d.name == request.param)
    with dump.files() as files:
        yield files


def ask(
    capsys: pytest.CaptureFixture[str], files: Path, dump: Path, *command: str
) -> tuple[int, str, str]:
    status = cli.main(["-c", str(dump), "-s", str(files / "vmlinux"), *command])
    return status, *capsys.readouterr()


def with_wrong_page(files: Path) -> bytes:
    """Get a dump of which one struct page of a device is wrong, if there is one."""
    dump = (files / "vmcore").read_bytes()
    prog = open_dump(files / "vmcore", files / "vmlinux")
    vmemmap = prog["vmemmap"].value_()
    device = [r for r in check(prog).ranges if r.case is Case.DEVICE]
    # Those of a device may be missing, and that is found, too.
    with contextlib.suppress(LookupError, IndexError):
        return with_wrong_zone(dump, vmemmap + _SIZEOF_PAGE * device[0].start_pfn)
    return dump


def errors(document: Json) -> set[tuple[str, int, int]]:
    return {
        (f["slug"], f["start_pfn"], f["end_pfn"])
        for f in document["findings"]
        if f["severity"] == "error"
    }


def cases(document: Json) -> list[tuple[int, int, str]]:
    return [(r["start_pfn"], r["end_pfn"], r["case"]) for r in document["ranges"]]


def assert_nothing_was_lost(before: Json, status: int, out: str, what: str) -> None:
    assert status in (0, 1, 3), what
    if not out or status == 3:
        return
    after = json.loads(out)
    lost = errors(before) - errors(after)
    assert not lost or after["unjudged"], (what, lost)
    if status == 0:
        assert not errors(before), what
        assert cases(after) == cases(before) or after["unjudged"], what


@pytest.mark.parametrize("files", sampled([dump.name for dump in dumps()], 4), indirect=True)
def test_damaged_program_headers(
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    files: Path,
) -> None:
    whole, dump = with_wrong_page(files), tmp_path / "vmcore"
    dump.write_bytes(whole)
    _, out, _ = ask(capsys, files, dump, "check", "--format", "json")
    before = json.loads(out)
    table, rng = headers(whole), random.Random(request.node.callspec.params["files"])
    tried = list(damaged(table, rng, 1))
    worst = [damage for damage in tried if damage[0].startswith(f"memsz {1 << 63:#x} of all")]
    assert worst
    for what, after in worst + rng.sample(tried, _SAMPLE):
        dump.write_bytes(with_headers(whole, after))
        status, out, _ = ask(capsys, files, dump, "check", "--format", "json")
        assert_nothing_was_lost(before, status, out, what)


@pytest.mark.parametrize("files", ["6.1-devdax-2m"], indirect=True)
def test_errors_do_not_vanish_with_the_sizes_of_segments(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, files: Path
) -> None:
    prog = open_dump(files / "vmcore", files / "vmlinux")
    (device,) = (r for r in check(prog).ranges if r.case is Case.DEVICE)
    # compound_head of a tail page.
    page = prog["vmemmap"].value_() + _SIZEOF_PAGE * (device.start_pfn + 5)
    whole, dump = (files / "vmcore").read_bytes(), tmp_path / "vmcore"
    broken = with_word(whole, page + 8, 0)
    dump.write_bytes(broken)
    status, out, _ = ask(capsys, files, dump, "check")
    assert status == 1
    assert "device-tail-link" in out
    table = headers(broken)
    table["memsz"][loads(table)] = 1 << 63
    dump.write_bytes(with_headers(broken, table))
    status, out, err = ask(capsys, files, dump, "check")
    assert status in (1, 3)
    assert "device-tail-link" in out or status == 3
    assert "contradict each other" in out + err


@pytest.mark.parametrize("files", ["7.2-fsdax-collision"], indirect=True)
@pytest.mark.parametrize("command", ["check", "ranges", "pgmaps", "pfn 0x24000", "walkers"])
@pytest.mark.parametrize("size", [b"8192", b"1024", b"  16", b"4095"])
def test_page_size_that_the_architecture_does_not_have(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, files: Path, command: str, size: bytes
) -> None:
    whole, dump = (files / "vmcore").read_bytes(), tmp_path / "vmcore"
    dump.write_bytes(with_vmcoreinfo(whole, b"PAGESIZE=4096\n", b"PAGESIZE=" + size + b"\n"))
    status, out, err = ask(capsys, files, dump, *command.split())
    assert (out, err.count("\n")) == ("", 1)
    # What is no power of two is no VMCOREINFO to drgn.
    assert status == (2 if size == b"4095" else 3)
