# SPDX-License-Identifier: LGPL-2.1-or-later

"""A directory appears as a whole, or not at all."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from drgn_zonedev.util.directories import checksum, new_directory, write_file


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


def refuse(target: Path, why: str, **options: list[str]) -> None:
    with pytest.raises(FileExistsError, match=why), new_directory(target, **options):
        pytest.fail("too late to refuse")


def test_file_is_not_replaced(tmp_path: Path) -> None:
    write_file(tmp_path / "out", b"precious")
    refuse(tmp_path / "out", "is a file", replaced=["out"])
    assert (tmp_path / "out").read_bytes() == b"precious"


def test_directory_with_anything_else_in_it_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name in ("old", "precious"):
        write_file(tmp_path / "out" / name, b"")
    refuse(tmp_path / "out", "is not empty", replaced=["old"])
    assert names(tmp_path / "out") == ["old", "precious"]


def test_empty_directory_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o700)
    with new_directory(tmp_path / "out") as directory:
        write_file(directory / "file", b"")
    assert names(tmp_path / "out") == ["file"]
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700


@pytest.mark.parametrize("to", ["real", "nowhere"])
def test_symbolic_link_is_not_followed(tmp_path: Path, to: str) -> None:
    (tmp_path / "real").mkdir()
    write_file(tmp_path / "real" / "old", b"")
    (tmp_path / "out").symlink_to(to)
    refuse(tmp_path / "out", "is a symbolic link", replaced=["old"])
    assert names(tmp_path / "real") == ["old"]
    assert names(tmp_path) == ["out", "real"]


@pytest.mark.parametrize("inside", ["", "below"])
@pytest.mark.parametrize("alias", ["out", "alias/out"])
def test_directory_that_one_is_in_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str, alias: str
) -> None:
    (tmp_path / "out" / "below").mkdir(parents=True)
    (tmp_path / "alias").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path / "out" / inside)
    refuse(tmp_path / alias, "is the working directory, or above it", replaced=["below"])
    assert names(tmp_path / "out") == ["below"]


def test_what_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    def race() -> None:
        with new_directory(tmp_path / "out"):
            (tmp_path / "out").mkdir()
            write_file(tmp_path / "out" / "mine", b"")

    with pytest.raises(FileExistsError):
        race()
    assert names(tmp_path / "out") == ["mine"]
    assert names(tmp_path) == ["out"]


def replace(out: Path) -> None:
    with new_directory(out, replaced=["old"]) as directory:
        write_file(directory / "new", b"")


def test_what_may_be_replaced_is(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_file(tmp_path / "out" / "old", b"")
    replace(tmp_path / "out")
    assert names(tmp_path / "out") == ["new"]
    assert names(tmp_path) == ["out"]


def test_what_joins_it_meanwhile_is_kept(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_file(tmp_path / "out" / "old", b"")

    def race() -> None:
        with new_directory(tmp_path / "out", replaced=["old"]):
            write_file(tmp_path / "out" / "mine", b"")

    with pytest.raises(FileExistsError):
        race()
    assert names(tmp_path / "out") == ["mine", "old"]
    assert names(tmp_path) == ["out"]


def test_replacing_that_fails_keeps_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_file(tmp_path / "out" / "old", b"")
    with pytest.raises(KeyboardInterrupt), new_directory(tmp_path / "out", replaced=["old"]):
        raise KeyboardInterrupt
    assert names(tmp_path / "out") == ["old"]
    assert names(tmp_path) == ["out"]


def test_checksum(tmp_path: Path) -> None:
    write_file(tmp_path / "file", b"abc")
    assert checksum(tmp_path / "file") == {
        "size": 3,
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    }
