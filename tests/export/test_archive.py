# SPDX-License-Identifier: LGPL-2.1-or-later

"""Packed exports: the same each time, and harmless and cheap wherever they come from."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.archives import ATTACKS, END, header, member, packed, tar

from drgn_zonedev.export import archive as module
from drgn_zonedev.export.archive import FILES, ArchiveError, beginnings, pack, unpack

VMCORES = Path(__file__).parents[2] / "vmcores"


def _export(directory: Path) -> Path:
    directory.mkdir()
    for name in FILES:
        (directory / name).write_bytes(name.encode() * 1000)
    return directory


def _unpacked(tmp_path: Path, contents: bytes) -> dict[str, bytes]:
    archive, directory = tmp_path / "some.tar.xz", tmp_path / "unpacked"
    archive.write_bytes(contents)
    directory.mkdir()
    unpack(archive, directory)
    return {path.name: path.read_bytes() for path in directory.iterdir()}


# Packing.


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


def test_archive_that_would_be_refused_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = _export(tmp_path / "in")
    with (export / "vmcore").open("wb") as f:
        f.truncate(3 << 20)
    monkeypatch.setattr(module, "_MIN_LIMIT", 2 << 20)
    with pytest.raises(ArchiveError, match="too large"):
        pack(export, tmp_path / "dump.tar.xz")
    assert not (tmp_path / "dump.tar.xz").exists()


def test_archive_has_the_mode_of_the_dump(tmp_path: Path) -> None:
    export = _export(tmp_path / "in")
    (export / "vmcore").chmod(0o400)
    pack(export, tmp_path / "dump.tar.xz")
    assert stat.S_IMODE((tmp_path / "dump.tar.xz").stat().st_mode) == 0o400
    (tmp_path / "out").mkdir()
    unpack(tmp_path / "dump.tar.xz", tmp_path / "out")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()}
    assert modes == {0o400}


# What people pack by hand.


@pytest.mark.parametrize("prefix", ["", "./", "out/", "./out/", "home/me/out/"])
def test_files_may_be_in_a_directory(tmp_path: Path, prefix: str) -> None:
    parents = [header(f"{prefix[: i + 1]}", 0, b"5") for i, c in enumerate(prefix) if c == "/"]
    found = _unpacked(tmp_path, packed(tar(prefix, *parents)))
    assert found == {name: name.encode() for name in FILES}


@pytest.mark.parametrize("tar_format", ["ustar", "gnu", "v7", "oldgnu"])
@pytest.mark.parametrize("what", [".", "out"])
def test_archive_of_gnu_tar_is_unpacked(tmp_path: Path, tar_format: str, what: str) -> None:
    export = _export(tmp_path / "out")
    inside = export if what == "." else tmp_path
    archive = tmp_path / "by-hand.txz"
    argv = ["tar", f"--format={tar_format}", "-C", str(inside), "-cJf", str(archive), what]
    subprocess.run(argv, check=True)
    (tmp_path / "unpacked").mkdir()
    unpack(archive, tmp_path / "unpacked")
    assert {path.name for path in (tmp_path / "unpacked").iterdir()} == set(FILES)


def test_what_else_is_in_an_archive_stays_there(tmp_path: Path) -> None:
    more = [member(name, b"evil") for name in ("../evil", "/evil", "more", "._vmcore")]
    assert set(_unpacked(tmp_path, packed(tar("", *more)))) == set(FILES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["some.tar.xz", "unpacked"]


def test_archive_may_be_filled_up_with_zeros(tmp_path: Path) -> None:
    assert set(_unpacked(tmp_path, packed(tar() + END * 20))) == set(FILES)


def test_sixteen_headers_are_not_too_many(tmp_path: Path) -> None:
    assert set(_unpacked(tmp_path, packed(header("m") * 13 + tar()))) == set(FILES)


# What strangers send.


def _tarfile(path: Path, members: list[tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w:xz") as archive:
        for info in members:
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    return path


def test_link_is_not_followed(tmp_path: Path) -> None:
    link = tarfile.TarInfo("meta.json")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
    others = [tarfile.TarInfo(name) for name in FILES if name != "meta.json"]
    archive = _tarfile(tmp_path / "dump.tar.xz", [link, *others])
    (tmp_path / "out").mkdir()
    with pytest.raises(ArchiveError, match="symbolic link"):
        unpack(archive, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("contents", [b"", b"no archive", b"\xfd7zXZ\0cut off"])
def test_damaged_archive_is_one_clear_error(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "dump.tar.xz").write_bytes(contents)
    with pytest.raises(ArchiveError, match="not a packed export"):
        unpack(tmp_path / "dump.tar.xz", tmp_path)


def test_archive_that_is_cut_off_is_told_from_another_file(tmp_path: Path) -> None:
    pack(_export(tmp_path / "in"), tmp_path / "dump.tar.xz")
    whole = (tmp_path / "dump.tar.xz").read_bytes()
    (tmp_path / "dump.tar.xz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArchiveError, match="cut off"):
        unpack(tmp_path / "dump.tar.xz", tmp_path)


def test_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    archive = _tarfile(tmp_path / "dump.tar.xz", [tarfile.TarInfo("vmcore")])
    with pytest.raises(ArchiveError, match=r"not a packed export: it does not contain meta\.json"):
        unpack(archive, tmp_path)


def test_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "dump.tar.xz")
    with pytest.raises(ArchiveError, match="not a regular file"):
        unpack(tmp_path / "dump.tar.xz", tmp_path)


def test_beginnings_are_of_every_file(tmp_path: Path) -> None:
    (tmp_path / "a.txz").write_bytes(packed(tar("", member("more", b"and more"))))
    assert beginnings(tmp_path / "a.txz", 4) == {
        "more": b"and ",
        **{name: name.encode()[:4] for name in FILES},
    }


@dataclass(frozen=True)
class _Run:
    status: int
    lines: list[str]
    seconds: float
    memory: int
    largest: int


# Of which half is Python and drgn.
_SECONDS, _MEMORY, _DISK = 2.0, 300 << 20, 257 << 20
_ADDRESS_SPACE = 1 << 30


# A process that has just been forked counts as large as the one it comes from: who
# measures it has to be small.
_LAUNCHER = """
import json, os, resource, sys
for name, limit in json.loads(sys.argv[1]).items():
    resource.setrlimit(getattr(resource, name), (limit, limit))
pid = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, used = os.wait4(pid, 0)
seconds, memory = used.ru_utime + used.ru_stime, used.ru_maxrss << 10
print(json.dumps([os.waitstatus_to_exitcode(status), seconds, memory]))
"""
_LIMITS = {"RLIMIT_CPU": 10, "RLIMIT_AS": _ADDRESS_SPACE, "RLIMIT_FSIZE": _DISK}


def _run(archive: Path, tmp: Path) -> _Run:
    tmp.mkdir()
    zonedev = [sys.executable, "-m", "drgn_zonedev", "-c", str(archive), "check", "-o", os.devnull]
    done = subprocess.run(
        [sys.executable, "-S", "-c", _LAUNCHER, json.dumps(_LIMITS), *zonedev],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp), "OPENBLAS_NUM_THREADS": "1"},
        check=True,
    )
    status, seconds, memory = json.loads(done.stdout)
    return _Run(status, done.stderr.splitlines(), seconds, memory, len(list(tmp.iterdir())))


@pytest.mark.parametrize("attack", ATTACKS)
def test_attack_is_one_line_and_costs_little(tmp_path: Path, attack: str) -> None:
    archive = tmp_path / "attack.tar.xz"
    archive.write_bytes(ATTACKS[attack]())
    assert archive.stat().st_size <= 1_000_000
    done = _run(archive, tmp_path / "tmp")
    assert (done.status, len(done.lines)) == (2, 1), done.lines
    assert done.lines[0].startswith(f"zonedev: error: cannot open {archive}: ")
    assert done.seconds <= _SECONDS
    assert done.memory <= _MEMORY
    assert done.largest == 0


def test_as_much_as_an_archive_may_hold_is_cheap(tmp_path: Path) -> None:
    size = 255 << 20
    zeros = bytes(1 << 20)
    contents = (zeros for _ in range(255))
    start = member("meta.json", b"{}") + member("vmlinux", b"") + header("vmcore", size)
    (tmp_path / "zeros.tar.xz").write_bytes(packed((start, *contents, END)))
    done = _run(tmp_path / "zeros.tar.xz", tmp_path / "tmp")
    assert (done.status, len(done.lines)) == (2, 1), done.lines
    assert done.seconds <= _SECONDS
    assert done.memory <= _MEMORY


@pytest.mark.parametrize("name", ["6.1-empty", "7.3-init-in-flight"])
def test_stored_dump_is_far_from_the_limits(name: str) -> None:
    archive = VMCORES / name / "dump.tar.xz"
    with tarfile.open(archive) as opened:
        sizes = {info.name: info.size for info in opened}
    assert sum(sizes.values()) < module._unpacked_limit(archive.stat().st_size) / 4
    assert all(sizes[file] < module._MAX_SIZES[file] / 10 for file in FILES)
