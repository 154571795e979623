# SPDX-License-Identifier: LGPL-2.1-or-later

"""A directory appears as a whole, or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from drgn_zonedev.util.directories import (
    NotEmptyError,
    checksum,
    create_file,
    new_directory,
    new_file,
    write_file,
)


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


def refuse(target: Path, why: str, replaced: Sequence[str] = ()) -> None:
    with pytest.raises(FileExistsError, match=why), new_directory(target, replaced=replaced):
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


# Files.


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    with new_file(tmp_path / "out") as path:
        assert mode_of(path.parent) == 0o700
        path.write_bytes(b"contents")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out").read_bytes() == b"contents"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_nothing_is_left_of_a_file_that_went_wrong(
    tmp_path: Path, error: BaseException, replace: bool
) -> None:
    if replace:
        (tmp_path / "out").write_bytes(b"old")

    def fail() -> None:
        with new_file(tmp_path / "out", replace=replace) as path:
            path.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"] * replace


def test_file_is_replaced_only_if_it_may_be(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"old")
    with pytest.raises(NotEmptyError), new_file(tmp_path / "out"):
        pytest.fail("too late to refuse")
    assert (tmp_path / "out").read_bytes() == b"old"
    with new_file(tmp_path / "out", replace=True) as path:
        path.write_bytes(b"new")
    assert (tmp_path / "out").read_bytes() == b"new"


@pytest.mark.parametrize("kind", ["directory", "link", "fifo"])
def test_only_a_plain_file_is_replaced(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    if kind == "directory":
        target.mkdir()
    elif kind == "link":
        target.symlink_to("precious")
    else:
        os.mkfifo(target)
    with pytest.raises(FileExistsError), new_file(target, replace=True):
        pytest.fail("too late to refuse")
    assert target.is_symlink() == (kind == "link")


@pytest.mark.parametrize("links", [True, False])
def test_file_that_came_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse_links(*args: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    def make() -> None:
        with new_file(tmp_path / "out") as path:
            path.write_bytes(b"ours")
            (tmp_path / "out").write_bytes(b"theirs")

    if not links:
        monkeypatch.setattr(os, "link", refuse_links)
    with pytest.raises(NotEmptyError):
        make()
    assert (tmp_path / "out").read_bytes() == b"theirs"


def test_filesystem_without_links_gets_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_links(*args: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse_links)
    with new_file(tmp_path / "out") as path:
        path.write_bytes(b"contents")
    assert (tmp_path / "out").read_bytes() == b"contents"


# Modes.


@pytest.mark.parametrize("umask", [0o022, 0o077])
@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600, 0o640, 0o644, 0o664])
def test_file_allows_no_more_than_mode_and_umask(tmp_path: Path, mode: int, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_file(tmp_path / "out", b"old", mode)
        write_file(tmp_path / "out", b"new", mode)
        with create_file(tmp_path / "other", mode) as f:
            f.write(b"new")
    finally:
        os.umask(before)
    for path in tmp_path.iterdir():
        assert mode_of(path) == mode & ~umask
        assert path.read_bytes() == b"new"


def test_file_is_not_created_twice(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        create_file(tmp_path / "out")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("existing", [None, 0o700, 0o750, 0o2755])
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_directory_allows_no_more_than_its_mode(
    tmp_path: Path, existing: int | None, mode: int
) -> None:
    if existing is not None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out").chmod(existing)
    with new_directory(tmp_path / "out", mode=mode):
        pass
    allowed = 0o755 if existing is None else existing
    assert mode_of(tmp_path / "out") == allowed & (mode | 0o7000)
