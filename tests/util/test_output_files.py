# SPDX-License-Identifier: LGPL-2.1-or-later

"""Outputs are there as a whole or not at all, and what they replace stays what it was."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from drgn_zonedev.util.output_files import identities, is_one_of, output_file


def write(path: Path | str, text: str = "new") -> None:
    with output_file(path) as f:
        f.write(text)


def write_half(path: Path) -> None:
    with output_file(path) as f:
        f.write("half of the new one")
        f.flush()
        raise KeyError


def test_new_file_has_the_mode_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    write(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "new"
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_mode_stays_and_nothing_is_left_beside(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o640)
    write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["file"]


def test_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyError):
        write_half(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    code = f"""
import resource, signal
from drgn_zonedev.util.output_files import output_file
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
with output_file({str(path)!r}) as f:
    f.write("new" * 10000)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 1
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real/file", tmp_path / "link"
    target.write_text("old")
    link.symlink_to("real/file")
    write(link)
    assert link.is_symlink()
    assert target.read_text() == "new"
    dangling = tmp_path / "dangling"
    dangling.symlink_to("real/other")
    write(dangling)
    assert (tmp_path / "real/other").read_text() == "new"


def test_pipe_is_written_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(path.read_text()))
    reader.start()
    write(path)
    reader.join()
    assert read == ["new"]
    assert stat.S_ISFIFO(path.stat().st_mode)


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_standard_output_is_written_as_it_is(tmp_path: Path, path: str) -> None:
    (tmp_path / "link").symlink_to("/dev/stdout")
    code = f"""
from drgn_zonedev.util.output_files import output_file
with output_file({path!r}) as f:
    f.write("new")
"""
    with (tmp_path / "out").open("wb") as out:
        inode = os.fstat(out.fileno()).st_ino
        subprocess.run([sys.executable, "-c", code], stdout=out, cwd=tmp_path, check=True)
    assert (tmp_path / "out").read_text() == "new"
    assert (tmp_path / "out").stat().st_ino == inode


def test_device_is_written_as_it_is() -> None:
    write("/dev/null")
    with pytest.raises(OSError, match="No space left on device"):
        write("/dev/full")
    assert all(stat.S_ISCHR(os.stat(path).st_mode) for path in ("/dev/null", "/dev/full"))


@pytest.mark.parametrize("name", ["", ".", "directory", "new/", "no/such", "x" * 300])
def test_what_is_no_place_for_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "directory").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match=r"(?i)no such|directory|too long"):
        write(name)
    assert os.listdir(tmp_path) == ["directory"]


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user")
def test_owner_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    os.chown(path, 12345, 23456)
    write(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)


def test_files_are_known_by_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    core, other = tmp_path / "core", tmp_path / "other"
    core.write_text("")
    other.write_text("")
    (tmp_path / "symbolic").symlink_to("core")
    os.link(core, tmp_path / "hard")
    (tmp_path / "sub").mkdir()
    os.link(core, tmp_path / "sub/core")
    known = identities([core, tmp_path / "missing", tmp_path / ("x" * 5000)])
    monkeypatch.chdir(tmp_path / "sub")
    for name in ("core", "symbolic", "hard", "sub/../core", "sub", "sub/core"):
        assert is_one_of(tmp_path / name, known), name
    assert is_one_of("../core", known)
    assert not is_one_of(other, known)
    assert not is_one_of(tmp_path / "new", known)
    assert is_one_of(tmp_path / "sub/core", identities([tmp_path]))
    with core.open() as f, other.open() as g:
        assert is_one_of(f.fileno(), known)
        assert not is_one_of(g.fileno(), known)
    assert not is_one_of(-1, known)


def test_devices_in_a_directory_are_not_what_is_read() -> None:
    known = identities(["/dev"])
    with open(os.devnull, "w") as null:
        assert not is_one_of(null.fileno(), known)
    assert not is_one_of(1, known)
