# SPDX-License-Identifier: LGPL-2.1-or-later

"""Packed exports: the same each time, and harmless wherever they come from."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from drgn_zonedev.export.archive import FILES, ArchiveError, pack, unpack


def _export(directory: Path) -> Path:
    directory.mkdir()
    for name in FILES:
        (directory / name).write_bytes(name.encode() * 1000)
    return directory


def test_what_is_packed_is_unpacked(tmp_path: Path) -> None:
    pack(_export(tmp_path / "in"), tmp_path / "dump.tar.xz")
    (tmp_path / "out").mkdir()
    unpack(tmp_path / "dump.tar.xz", tmp_path / "out")
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == name.encode() * 1000


def test_same_export_makes_the_same_archive(tmp_path: Path) -> None:
    for name in ("one", "two"):
        pack(_export(tmp_path / name), tmp_path / f"{name}.tar.xz")
    assert (tmp_path / "one.tar.xz").read_bytes() == (tmp_path / "two.tar.xz").read_bytes()


def _archive(path: Path, members: list[tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w:xz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return path


def test_link_is_not_followed(tmp_path: Path) -> None:
    link = tarfile.TarInfo("meta.json")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
    others = [tarfile.TarInfo(name) for name in FILES if name != "meta.json"]
    archive = _archive(tmp_path / "dump.tar.xz", [link, *others])
    (tmp_path / "out").mkdir()
    with pytest.raises(ArchiveError):
        unpack(archive, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_else_is_in_an_archive_stays_there(tmp_path: Path) -> None:
    members = [tarfile.TarInfo(name) for name in (*FILES, "../evil", "more")]
    (tmp_path / "out").mkdir()
    unpack(_archive(tmp_path / "dump.tar.xz", members), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dump.tar.xz", "out"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(FILES)


@pytest.mark.parametrize("contents", [b"", b"no archive", b"\xfd7zXZ\0cut off"])
def test_damaged_archive_is_one_clear_error(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "dump.tar.xz").write_bytes(contents)
    with pytest.raises(ArchiveError, match="no packed export"):
        unpack(tmp_path / "dump.tar.xz", tmp_path)


def test_archive_that_is_cut_off_is_told_from_another_file(tmp_path: Path) -> None:
    pack(_export(tmp_path / "in"), tmp_path / "dump.tar.xz")
    whole = (tmp_path / "dump.tar.xz").read_bytes()
    (tmp_path / "dump.tar.xz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArchiveError, match="cut off"):
        unpack(tmp_path / "dump.tar.xz", tmp_path)


def test_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    archive = _archive(tmp_path / "dump.tar.xz", [tarfile.TarInfo("vmcore")])
    with pytest.raises(ArchiveError, match="no packed export"):
        unpack(archive, tmp_path)
