# SPDX-License-Identifier: LGPL-2.1-or-later

"""When a dump is the one that was checked."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from drgn_zonedev.fleet import sameness
from drgn_zonedev.fleet.sameness import content_hash, quick_key


def make(directory: Path, contents: bytes = b"dump", symbols: bytes | None = None) -> str:
    directory.mkdir(exist_ok=True)
    (directory / "vmcore").write_bytes(contents)
    if symbols is not None:
        (directory / "vmlinux").write_bytes(symbols)
    return str(directory / "vmcore")


def test_key_stays_until_a_file_is_written(tmp_path: Path) -> None:
    path = make(tmp_path)
    before = quick_key(path)
    assert quick_key(path) == before
    with open(path, "ab") as f:
        f.write(b"more")
    assert quick_key(path) != before


def test_key_changes_if_symbols_come(tmp_path: Path) -> None:
    path = make(tmp_path)
    before = quick_key(path)
    make(tmp_path, symbols=b"DWARF")
    os.utime(path, ns=(0, int(before.rpartition(":")[2])))
    assert quick_key(path) != before


def test_one_byte_makes_another_dump(tmp_path: Path) -> None:
    first = make(tmp_path / "1", bytes(3 << 20))
    second = shutil.copytree(tmp_path / "1", tmp_path / "2") / "vmcore"
    assert content_hash(str(second)) == content_hash(first)
    with second.open("r+b") as f:
        f.seek(2 << 20)
        f.write(b"\1")
    assert content_hash(str(second)) != content_hash(first)


def test_symbols_are_part_of_what_is_the_same(tmp_path: Path) -> None:
    hashes = {
        content_hash(make(tmp_path / "1")),
        content_hash(make(tmp_path / "2", symbols=b"")),
        content_hash(make(tmp_path / "3", symbols=b"DWARF")),
        content_hash(make(tmp_path / "4", b"dumpDWARF")),
    }
    assert len(hashes) == 4


def test_large_dump_is_never_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sameness, "MAX_HASHED", 5)
    assert content_hash(make(tmp_path, b"12345"))
    assert content_hash(make(tmp_path, b"123456")) is None
