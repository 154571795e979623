# SPDX-License-Identifier: LGPL-2.1-or-later

"""Paths of any bytes and any length, and what messages call a file that was unpacked."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import drgn
import pytest
from drgn.commands import run_command

from drgn_zonedev.export.store import ARCHIVE, StoredDump, default_directory
from drgn_zonedev.opening.core import open_dump
from drgn_zonedev.shell import cli
from drgn_zonedev.util.strings import printable

NAMES = (b"\xff\xe9", b"caf\xe9", b"a\n\x1b[2J", b"\xed\xb3\xbf")
LONG = ("x" * 300, "x/" * 2500 + "x")
FILES = ("vmcore", "vmlinux", "meta.json")


@pytest.fixture(params=NAMES, ids=repr)
def odd(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """An export in a directory of an odd name, packed, too."""
    directory = default_directory()
    assert directory
    odd = tmp_path / os.fsdecode(request.param)
    with StoredDump(directory / "6.1-empty").files() as files:
        shutil.copytree(files, odd)
    shutil.copy(directory / "6.1-empty" / ARCHIVE, odd / "packed.tar.xz")
    return odd


@pytest.mark.parametrize("command", ["check", "ranges --format json", "pfn 1", "check -j 2 --all"])
def test_dump_is_opened_by_any_name(
    odd: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = set()
    for words in (
        ["-c", f"{odd}/vmcore", "-s", f"{odd}/vmlinux"],
        ["-c", str(odd)],
        ["-c", f"{odd}/packed.tar.xz"],
    ):
        assert cli.main([*words, *command.split()]) == 0
        # A report says which dump it is of.
        said.add(capsys.readouterr().out.replace(printable(words[1]), "DUMP"))
    assert len(said) == 1


@pytest.mark.parametrize("command", [
    "-c {odd}/nothing check", "-c {odd}/vmlinux check", "-c {odd}/meta.json check",
    "-c {odd}/packed.tar.xz -s {odd}/nothing check", "-c {odd} check -o {odd}/nothing/report",
    "-c {odd} check -o {odd}/vmcore", "-c {odd} export --force {odd}", "demo --vmcores {odd}",
    "-c {odd} export {odd}/nothing/out", "-c {odd} export {odd}/vmcore",
    "-c {odd}/nothing check --format junit -o {odd}/report", "--qemu {odd}/socket check",
    "demo {odd}", "lab run --kernel {odd}/nothing --vmlinux {odd}/vmlinux",
    "lab run --kernel {odd}/vmcore --vmlinux {odd}/vmlinux", "-c {odd} pfn {odd}",
])  # fmt: skip
def test_error_about_any_name_is_one_line(
    odd: Path, command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whether the output is a file of a cached kernel takes long to find out.
    monkeypatch.setenv("XDG_CACHE_HOME", str(odd.parent / "cache"))
    assert cli.main([word.format(odd=odd) for word in command.split()]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err[:-1].isprintable()


def test_outputs_have_any_name(odd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["-c", str(odd), "check", "--format", "json", "-o", f"{odd}/report"]) == 0
    assert json.loads((odd / "report").read_bytes())["ranges"]
    for out in ("out", "out.tar.xz"):
        assert cli.main(["-c", str(odd), "export", f"{odd}/{out}"]) == 0
        assert cli.main(["-c", f"{odd}/vmcore", "-s", f"{odd}/vmlinux", "export", "--force",
                         f"{odd}/{out}"]) == 0  # fmt: skip
        assert cli.main(["-c", f"{odd}/{out}", "check"]) == 0
    assert all(c.isprintable() or c == "\n" for c in capsys.readouterr().out)


def test_repl_writes_beside_a_dump_of_any_name(odd: Path) -> None:
    prog = open_dump(odd / "vmcore", odd / "vmlinux")
    drgn.set_default_prog(prog)
    run_command(prog, f"zonedev export {odd.parent / 'out'}")
    assert sorted(os.listdir(odd.parent / "out")) == sorted(FILES)


@pytest.mark.parametrize("long", LONG, ids=["NAME_MAX", "PATH_MAX"])
@pytest.mark.parametrize("command", [
    "-c {long} check", "-c {long}.tar.xz check", "-c {long} --architecture x86_64 check",
    "-c {dump} -s {long} check", "-c {dump} check -o {long}", "-c {dump} export {long}",
    "-c {dump} export {long}.tar.xz", "-c {dump} export --force {long}.tar.xz",
    "-c {dump} check --format junit -o {long}", "-c {long} check --format junit -o {long}",
    "demo --vmcores {long}", "--qemu {long} check",
    "lab run --kernel {long} --vmlinux {long}",
])  # fmt: skip
def test_path_that_is_too_long(
    command: str, long: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    dump = default_directory()
    assert dump
    monkeypatch.chdir(tmp_path)
    words = [word.format(long=long, dump=dump / "6.1-empty") for word in command.split()]
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), os.listdir(tmp_path)) == ("", 1, [])


Damage = Callable[[Path], object]
DAMAGES: dict[str, Damage] = {
    "no dump": lambda files: (files / "vmcore").write_bytes(b"abc"),
    "an ELF header": lambda files: os.truncate(files / "vmcore", 64),
    "swapped": lambda files: shutil.copy(files / "vmlinux", files / "vmcore"),
    "cut off": lambda files: os.truncate(files / "vmcore", (files / "vmcore").stat().st_size - 9),
    "no symbols": lambda files: (files / "vmlinux").write_bytes(b"abc"),
    "symbols cut off": lambda files: os.truncate(files / "vmlinux", 20000),
    "an ELF header of symbols": lambda files: os.truncate(files / "vmlinux", 64),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["archive", "stored"])
def test_messages_name_the_archive(
    tmp_path: Path, damage: str, kind: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    directory = default_directory()
    assert directory
    (tmp_path / "here").mkdir()
    packed = tmp_path / "here" / ARCHIVE
    with StoredDump(directory / "6.1-empty").files() as files:
        shutil.copytree(files, tmp_path / "files")
    DAMAGES[damage](tmp_path / "files")
    with tarfile.open(packed, "w:xz", format=tarfile.USTAR_FORMAT) as tar:
        for name in FILES:
            tar.add(tmp_path / "files" / name, name)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    core = packed if kind == "archive" else packed.parent
    cli.main(["-c", str(core), "check"])
    err = capsys.readouterr().err
    assert f" of {core}" in err
    assert str(tmp_path / "tmp") not in err
