# SPDX-License-Identifier: LGPL-2.1-or-later

"""A directory appears as a whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from drgn_zonedev.export.bundle import checksum, new_directory, write_file


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_directory_appears_when_it_is_complete(tmp_path: Path) -> None:
    with new_directory(tmp_path / "out") as directory:
        assert not (tmp_path / "out").exists()
        write_file(directory / "file", b"contents")
    assert (tmp_path / "out" / "file").read_bytes() == b"contents"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_of_what_went_wrong(tmp_path: Path, error: BaseException) -> None:
    def fail() -> None:
        with new_directory(tmp_path / "out") as directory:
            write_file(directory / "file", b"contents")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert names(tmp_path) == []


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch])
def test_what_exists_is_not_replaced(tmp_path: Path, make: object) -> None:
    assert callable(make)
    make(tmp_path / "out")
    with pytest.raises(FileExistsError), new_directory(tmp_path / "out"):
        pytest.fail("too late to refuse")
    assert names(tmp_path) == ["out"]


def test_what_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    def race() -> None:
        with new_directory(tmp_path / "out"):
            (tmp_path / "out").mkdir()
            write_file(tmp_path / "out" / "mine", b"")

    with pytest.raises(FileExistsError):
        race()
    assert names(tmp_path / "out") == ["mine"]
    assert names(tmp_path) == ["out"]


def test_force_replaces(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_file(tmp_path / "out" / "old", b"")
    with new_directory(tmp_path / "out", force=True) as directory:
        write_file(directory / "new", b"")
    assert names(tmp_path / "out") == ["new"]
    assert names(tmp_path) == ["out"]


def test_force_that_fails_keeps_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_file(tmp_path / "out" / "old", b"")
    with pytest.raises(KeyboardInterrupt), new_directory(tmp_path / "out", force=True):
        raise KeyboardInterrupt
    assert names(tmp_path / "out") == ["old"]
    assert names(tmp_path) == ["out"]


def test_checksum(tmp_path: Path) -> None:
    write_file(tmp_path / "file", b"abc")
    assert checksum(tmp_path / "file") == {
        "size": 3,
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    }
