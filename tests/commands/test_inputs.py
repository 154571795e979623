# SPDX-License-Identifier: LGPL-2.1-or-later

"""Whatever the arguments are, nothing that is read is ever written."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import drgn
import pytest
from drgn.commands import CommandError, run_command

from drgn_zonedev.export.store import StoredDump, default_directory
from drgn_zonedev.opening.core import open_dump
from drgn_zonedev.shell import cli

Inputs = dict[str, str]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An export with links of all kinds to its files, as the working directory."""
    dumps = default_directory()
    assert dumps
    with StoredDump(dumps / "6.1-empty").files() as files:
        shutil.copytree(files, tmp_path / "d")
    shutil.copy(dumps / "6.1-empty/dump.tar.xz", tmp_path / "packed.tar.xz")
    for name in ("vmcore", "vmlinux"):
        (tmp_path / f"symbolic-{name}").symlink_to(f"d/{name}")
        os.link(tmp_path / "d" / name, tmp_path / f"hard-{name}")
    (tmp_path / "symbolic.tar.xz").symlink_to("packed.tar.xz")
    os.link(tmp_path / "packed.tar.xz", tmp_path / "hard.tar.xz")
    for directory, name, target in (
        ("stored", "dump.tar.xz", "packed.tar.xz"),
        *(("linked", file, f"d/{file}") for file in ("vmcore", "vmlinux", "meta.json")),
    ):
        (tmp_path / directory).mkdir(exist_ok=True)
        os.link(tmp_path / target, tmp_path / directory / name)
    (tmp_path / "twice").symlink_to("symbolic-vmcore")
    (tmp_path / "e").symlink_to("d")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(work: Path) -> Inputs:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(work.rglob("*"))
        if path.is_file()
    }


CORES = [
    ("-c", "d"),
    ("-c", "d/vmcore", "-s", "d/vmlinux"),
    ("-c", "symbolic-vmcore", "-s", "hard-vmlinux"),
]
NAMES = ("vmcore", "vmlinux")
LINKS = ("d/{}", "./d/../d/{}", "symbolic-{}", "hard-{}", "e/{}")


@pytest.mark.parametrize("core", CORES, ids=" ".join)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("command", ["check", "ranges --map", "pfn 0", "check --format junit"])
def test_output_is_no_input(
    capsys: pytest.CaptureFixture[str],
    work: Path,
    core: tuple[str, ...],
    name: str,
    link: str,
    command: str,
) -> None:
    before = contents(work)
    status = cli.main([*core, *command.split(), "-o", link.format(name)])
    out, err = capsys.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert link.format(name) in err
    assert contents(work) == before


@pytest.mark.parametrize("arguments", [
    ("-c", "packed.tar.xz", "check", "-o", "packed.tar.xz"),
    ("-c", "d", "check", "-o", "d/meta.json"),
    ("-c", "d", "check", "-o", "twice"),
    ("-c", "d", "export", "d", "--force"),
    ("-c", "e", "export", "d", "--force"),
    ("-c", "d/vmcore", "-s", "d/vmlinux", "export", "d", "--force"),
    ("-c", "hard-vmcore", "-s", "d/vmlinux", "export", "d", "--force"),
    ("-c", "d/vmcore", "-s", "d/vmlinux", "export", "d/vmcore"),
    ("-c", "d/vmcore", "-s", "d/vmlinux", "export", "hard-vmlinux", "--force"),
    ("-c", "packed.tar.xz", "export", "packed.tar.xz", "--force"),
    ("-c", "packed.tar.xz", "export", "--force", "symbolic.tar.xz"),
    ("-c", "symbolic.tar.xz", "export", "--force", "packed.tar.xz"),
    ("-c", "hard.tar.xz", "export", "--force", "packed.tar.xz"),
    ("-c", "packed.tar.xz", "export", "--force", "hard.tar.xz"),
    ("-c", "stored", "export", "--force", "stored/dump.tar.xz"),
    ("-c", "stored", "export", "--force", "packed.tar.xz"),
    ("-c", "packed.tar.xz", "-s", "d/vmlinux", "export", "--force", "d"),
    ("-c", "packed.tar.xz", "-s", "hard-vmlinux", "export", "--force", "d"),
    ("-c", "packed.tar.xz", "-s", "symbolic-vmlinux", "export", "--force", "d"),
    ("-c", "linked", "export", "--force", "d"),
    ("-c", "d", "export", "--force", "linked"),
    ("lab", "run", "--kernel", "d/vmcore", "--vmlinux", "d/vmlinux", "--junit", "d/vmlinux"),
    ("lab", "run", "--kernel", "d/vmcore", "--vmlinux", "d/vmlinux", "--json", "symbolic-vmcore"),
    ("lab", "run", "--kernel", "hard-vmcore", "--vmlinux", "d/vmlinux", "--junit", "d/vmcore"),
    # Cannot be opened, and the error would go to the output.
    ("-c", "d/vmlinux", "check", "--format", "junit", "-o", "d/vmlinux"),
    ("-c", "d/vmcore", "-s", "d/vmcore", "check", "--format", "junit", "-o", "hard-vmcore"),
    ("-c", "d/vmcore", "-s", "missing", "check", "--format", "junit", "-o", "d/vmcore"),
])  # fmt: skip
def test_no_input_is_ever_modified(
    capsys: pytest.CaptureFixture[str], work: Path, arguments: tuple[str, ...]
) -> None:
    before = contents(work)
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert contents(work) == before


def test_files_beside_the_input_are_no_inputs(work: Path) -> None:
    before = contents(work)
    assert cli.main(["-c", "d", "check", "-o", "d/report"]) == 0
    assert cli.main(["-c", "d/vmcore", "-s", "d/vmlinux", "check", "-o", "d/meta.json"]) == 0
    after = contents(work)
    changed = {path for path in after if after[path] != before.get(path)}
    assert {os.path.relpath(path, work) for path in changed} == {
        "d/report", "d/meta.json", "e/report", "e/meta.json",
    } & {os.path.relpath(path, work) for path in after}  # fmt: skip


def test_standard_output_is_no_input_either(work: Path) -> None:
    before = contents(work)
    command = [sys.executable, "-m", "drgn_zonedev", "-c", "d", "ranges"]
    with (work / "d/vmcore").open("ab") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(b"zonedev: error: standard output is redirected to an input")
    assert contents(work) == before


def test_repl_overwrites_nothing_either(work: Path) -> None:
    before = contents(work)
    prog = open_dump(work / "d/vmcore", work / "d/vmlinux")
    drgn.set_default_prog(prog)
    for name in ("d/vmcore", "hard-vmlinux"):
        with pytest.raises(CommandError, match="is an input"):
            run_command(prog, f"zonedev check -o {name}")
    assert contents(work) == before


def test_error_for_standard_output_makes_no_file(work: Path) -> None:
    before = contents(work)
    assert cli.main(["-c", "missing", "check", "--format", "junit", "-o", "-"]) == 2
    assert contents(work) == before
