# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from drgn_zonedev.export.archive import unpack
from drgn_zonedev.export.store import ARCHIVE, default_directory
from drgn_zonedev.opening.core import dump_of, open_core, reopen
from drgn_zonedev.opening.failures import CannotOpenError
from drgn_zonedev.opening.given_vmcoreinfo import read_vmcoreinfo
from drgn_zonedev.shell import cli

NAME = b"VMCOREINFO\0"


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    dumps = default_directory()
    assert dumps is not None
    unpack(dumps / "6.1-fsdax-collision" / ARCHIVE, tmp_path)
    return tmp_path / "vmcore"


@pytest.fixture
def text(whole: Path) -> Path:
    path = whole.with_name("vmcoreinfo")
    path.write_bytes(open_core(str(whole))["VMCOREINFO"].string_())
    return path


@pytest.fixture
def nameless(whole: Path, text: Path) -> Path:
    """A dump whose note has another name."""
    contents = whole.read_bytes()
    assert contents.count(NAME) == 1
    path = whole.with_name("nameless")
    path.write_bytes(contents.replace(NAME, NAME[::-1].strip(b"\0") + b"\0"))
    return path


def answer(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    assert cli.main([*args, "check", "--format", "json", "--jobs", "2"]) in (0, 1)
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_dump_without_vmcoreinfo_is_judged_with_one_that_is_given(
    whole: Path, text: Path, nameless: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CannotOpenError):
        open_core(str(nameless))
    given = answer(capsys, "--vmcoreinfo", str(text), "-c", str(nameless))
    expected = answer(capsys, "-c", str(whole))
    # They are of different files.
    for document in (given, expected):
        document.pop("provenance")
    assert given == expected


def test_worker_opens_the_dump_with_what_was_given(text: Path, nameless: Path) -> None:
    prog = open_core(str(nameless), vmcoreinfo=read_vmcoreinfo(str(text)))
    assert reopen(dump_of(prog))["VMCOREINFO"].string_() == text.read_bytes()


@pytest.mark.parametrize(
    ("contents", "why"),
    [
        (b"", "valid OSRELEASE"),
        (b"OSRELEASE=6.1.0\n", "valid PAGESIZE"),
        (b"\n" * 100_000, "too long for VMCOREINFO"),
    ],
)
def test_file_of_something_else_is_refused(contents: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "something"
    path.write_bytes(contents)
    with pytest.raises(CannotOpenError, match=f"{path}.*{why}"):
        read_vmcoreinfo(str(path))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotOpenError, match=r"missing: No such file.*--vmcoreinfo"):
        read_vmcoreinfo(str(tmp_path / "missing"))


def test_it_is_not_overwritten(whole: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = text.read_bytes()
    args = ["--vmcoreinfo", str(text), "-c", str(whole), "check", "-o", str(text)]
    assert cli.main(args) == 2
    assert "is an input" in capsys.readouterr().err
    assert text.read_bytes() == before
