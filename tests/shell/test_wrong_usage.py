# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A hundred wrong usages: each ends with the right status and words that say what to do, never with
a traceback.
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from drgn_zonedev.shell import cli

VMCORES = Path(__file__).parents[2] / "vmcores"
DUMP = str(VMCORES / "6.1-empty")
DEVICE = str(VMCORES / "6.12-fsdax-collision")
USAGE, NOT_JUDGED = 2, 3

# Words of the command line, and some of the answer.
WRONG = [
    ("", "give a COMMAND"),
    ("--bogus", "unrecognized arguments: --bogus"),
    ("chekc", "invalid choice: 'chekc'"),
    ("-c", "expected one argument"),
    ("-c '' check", "it is empty"),
    ("--qemu '' check", "it is empty"),
    ("--vmcoreinfo '' check", "it is empty"),
    ("--kernel-directory '' check", "it is empty"),
    ("-c none check", "cannot open none: No such file"),
    ("-c . check", "directory"),
    ("-c empty check", "it is empty"),
    ("-c text check", "not an ELF core file"),
    ("-c zeros check", "not an ELF core file"),
    ("-c x --qemu y check", "not allowed with"),
    ("-k -c x check", "not allowed with"),
    ("-c x --pause check", "--pause is for a guest"),
    ("--qemu none check", "is QEMU running"),
    ("--qemu localhost:x check", "give HOST:PORT, with a PORT from 1 to 65535"),
    ("--qemu localhost:65536 check", "give HOST:PORT"),
    ("--qemu localhost: check", "give HOST:PORT"),
    ("--qemu : check", "give HOST:PORT"),
    ("--types wrong check", "invalid choice: 'wrong'"),
    ("--architecture z80 check", "invalid choice: 'z80'"),
    ("--try-symbols-by nonsense -c DUMP check", "nonsense"),
    ("-s none -c DUMP check", "none"),
    ("--vmcoreinfo none -c DUMP check", "none"),
    ("--types btf -c DUMP check", "has a vmlinux but no BTF"),
    # Options at the wrong place.
    ("check -c DUMP", "options that select the program come before the command"),
    ("check -k", "options that select the program come before the command"),
    ("check --qemu=x", "options that select the program come before the command"),
    ("pfn 1 -s vmlinux", "options that select the program come before the command"),
    ("--map check", "--map comes after its command: check, ranges"),
    ("--format json check", "--format comes after its command"),
    ("--format=json check", "--format comes after its command"),
    ("-c DUMP --all check", "--all comes after its command"),
    ("--fail-on error check", "--fail-on comes after its command: check, survey"),
    ("--junit x lab run", "--junit comes after its command: lab run"),
    ("ranges --fail-on error", "--fail-on is an option of check, survey"),
    ("sections --map", "--map is an option of check, ranges"),
    ("pgmaps --walker kcore", "--walker is an option of walkers"),
    ("check --drgn", "it is for %zonedev, in drgn's REPL"),
    ("-c DUMP demo", "remove --core"),
    ("-k lab list", "remove --kernel"),
    ("-s vmlinux lab fetch 6.1", "remove --symbols"),
    ("--qemu x completion bash", "remove --qemu"),
    ("-c DUMP help check", "remove --core"),
    # Values.
    ("check --fail-on nonsense", "'nonsense' is not a severity"),
    ("check --fail-on case2", "'case2' is not a severity"),
    ("check --fail-on ''", "'' is not a severity"),
    ("check --fail-on error,", "'' is not a severity"),
    ("check --fail-on error --fail-on wrong", "'wrong' is not a severity"),
    ("check --fail-on case5-reservd", "case5-reserved"),
    ("check --format yaml", "invalid choice: 'yaml'"),
    ("check --format ''", "invalid choice: ''"),
    ("check -j 0", "'0' is not a number of processes"),
    ("check -j -1", "'-1' is not a number of processes"),
    ("check -j many", "'many' is not a number of processes"),
    ("check --only some", "invalid choice: 'some'"),
    ("check --pfns 5", "is not START..END"),
    ("check --pfns 5..5", "no PFN is in"),
    ("check --pfns 9..5", "no PFN is in"),
    ("check --pfns x..y", "is not a number"),
    ("check --pfns 1..", "'1..' is not START..END, such as"),
    ("check --pfns ..1", "'..1' is not START..END, such as"),
    ("-c DUMP export out --pfns ..", "'..' is not START..END, such as"),
    ("check --pfns -1..5", "expected one argument"),
    ("check --color maybe", "invalid choice: 'maybe'"),
    ("check extra", "unrecognized arguments: extra"),
    ("check --fail", "unrecognized arguments: --fail"),
    ("check -o ''", "it is empty"),
    ("-c DUMP check -o none/report", "cannot write none/report"),
    ("-c DUMP check -o .", "cannot write ."),
    ("-c DUMP check --map --format json", "--map draws a picture"),
    ("-c DUMP check --map -o map.png", "choose a name that ends in .svg"),
    ("-c DUMP check -o map.svg", "only --map draws SVG"),
    ("-c DUMP check --quiet --map", "--quiet prints a line of text"),
    ("-c DUMP check --quiet --format junit", "--quiet prints a line of text"),
    ("-c DUMP check --baseline ''", "it is empty"),
    ("-c DUMP check --baseline none", "cannot read none"),
    ("-c DUMP check --baseline text", "text is not JSON"),
    ("-c DUMP check --baseline .", "cannot read ."),
    ("-c DUMP check --baseline empty", "empty is empty: write one with check"),
    ("-c DUMP check --baseline blank", "blank is empty: write one with check"),
    ("-c DUMP check --pfns 0x999999..0x99999a", "no memory at PFNs"),
    ("-c DUMP ranges --map -o map.pdf", "choose a name that ends in .svg"),
    ("sections x", "'x' is not a number"),
    ("sections 12z", "'12z' is not a number"),
    ("-c DUMP sections -1", "-1 is not a section number on this machine: give one from 0 to"),
    ("-c DUMP sections 99999999999", "99999999999 is not a section number on this machine"),
    ("-c DUMP sections 4 0x80000 --format json", "524288 is not a section number"),
    ("pfn", "the following arguments are required: PFN"),
    ("pfn ''", "it is empty"),
    ("pfn 1 --as frame", "invalid choice: 'frame'"),
    ("-c DUMP pfn ' '", "expected a PFN"),
    ("-c DUMP pfn nothing-like-it", "there is no resource 'nothing-like-it'"),
    ("-c DUMP pfn 24400a", "give 0x24400a"),
    ("-c DUMP pfn -- -1", "is not a PFN"),
    ("-c DUMP pfn 0xffffffffffffffffff", "is not a"),
    ("-c DUMP pfn 9..5", "no PFN is in 9..5"),
    ("-c DUMP pfn 5..", "expected a PFN"),
    ("-c DUMP pfn 0x999999..0x99999a", "there is no memory at PFNs"),
    ("-c DUMP pfn 1 --as page", "is not a struct page pointer"),
    ("-c DUMP walkers --walker nobody", "nobody"),
    ("oops", "give a FILE"),
    ("oops none", "cannot read none"),
    ("oops empty", "empty is empty"),
    ("oops .", "cannot read ."),
    ("-c DUMP bugreport --finding nothing", "unrecognized arguments: --finding"),
    ("-c DUMP bugreport nothing", "neither a finding nor a page: give a finding that check shows"),
    ("-c DUMP bugreport orphan-sectoin", "such as orphan-section, or a PFN"),
    ("-c DUMP bugreport orphan-section", "check finds no orphan-section: give a PFN"),
    ("-c DUMP pins nothing", "give the address of a struct dev_pagemap, which pgmaps lists"),
    ("-c DEVICE pins nothing", "give the name of a device ('pfn0.0', 'pmem0')"),
    ("-c DEVICE pins 0", "PFN 0x0 is not device memory: give a page of a device"),
    ("diff", "the following arguments are required: OLD"),
    ("diff DUMP", "give NEW, or select a program"),
    ("diff none DUMP", "none"),
    ("diff text DUMP", "not an ELF core file"),
    ("-c DUMP diff DUMP DUMP", "omit NEW"),
    ("export", "the following arguments are required: OUT"),
    ("-c DUMP export ''", "empty"),
    ("-c DUMP export .tar.xz", "there is no name in front of .tar.xz"),
    ("-c DUMP export ./.txz", "there is no name in front of .txz"),
    ("-c DUMP export out --all-memmap", "left out the struct pages of RAM"),
    ("lab run --kernel . --vmlinux text", ". is a directory"),
    ("-c DUMP export . --margin -1", "'-1'"),
    ("demo 9.9", "choose one of 5.10"),
    ("demo --vmcores none", "there are no dumps"),
    ("lab", "the following arguments are required: VERB"),
    ("lab boot", "invalid choice: 'boot'"),
    ("lab fetch", "the following arguments are required: KERNEL"),
    ("lab fetch 9.9", "choose among 5.10, 6.1, 6.12, 7.2, 7.3"),
    ("lab build-kernel 9.9", "no kernel that is built here is called '9.9'"),
    ("lab run --jobs none", "'none' is not a positive number"),
    ("lab shell", "the following arguments are required"),
    ("completion", "the following arguments are required: SHELL"),
    ("completion tcsh", "invalid choice: 'tcsh'"),
    ("completion bash zsh", "unrecognized arguments: zsh"),
    ("completion bash --all", "unrecognized arguments: --all"),
    ("help chekc", "invalid choice: 'chekc'"),
    ("help lab boot", "invalid choice: 'boot'"),
    ("help check more", "unrecognized arguments: more"),
    ("help help help", "unrecognized arguments: help"),
    ("help lab run more words", "unrecognized arguments: more words"),
    ("survey", "the following arguments are required: PATH"),
    ("survey --dask '' dump", "argument --dask: it is empty"),
]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").touch()
    Path("blank").write_text(" \n")
    Path("text").write_text("no core at all\n")
    Path("zeros").write_bytes(bytes(1 << 16))
    Path("dump").symlink_to(DUMP)
    Path("device").symlink_to(DEVICE)
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path))


def status_of(words: list[str]) -> int:
    try:
        return cli.main(words)
    except SystemExit as e:
        return int(e.code or 0)


@pytest.mark.parametrize(("line", "said"), WRONG, ids=[line or "nothing" for line, _ in WRONG])
def test_wrong_usage_says_what_is_wrong(
    line: str, said: str, files: None, capsys: pytest.CaptureFixture[str]
) -> None:

    assert status_of(shlex.split(line.replace("DUMP", "dump").replace("DEVICE", "device"))) == USAGE
    done = capsys.readouterr()
    assert done.out == ""
    assert said in done.err
    assert "Traceback" not in done.err
    *_, last = done.err.splitlines()
    assert last.startswith("zonedev")
    assert ": error: " in last


def valued(
    parser: argparse.ArgumentParser, command: str = ""
) -> Iterator[tuple[str, argparse.ArgumentParser, argparse.Action]]:
    """Get the arguments of all commands that take any text."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, each in action.choices.items():
                yield from valued(each, f"{command}{name} ")
        elif action.nargs != 0 and not action.choices:
            yield f"{command}{action.dest}", parser, action


# Names, of which none is empty, are looked up when the command runs.
LOOKED_UP = {
    "symbol_methods",
    "completion words",
    "help words",
    *(f"lab {verb} names" for verb in ("fetch", "build-kernel", "run", "walk", "shell")),
}


def may_be_empty(parser: argparse.ArgumentParser, action: argparse.Action) -> bool:
    try:
        parser._get_value(action, "")
    except argparse.ArgumentError:
        return False
    return True


def test_no_argument_may_be_empty() -> None:
    arguments = [each for each in valued(cli.make_parser()) if each[0] not in LOOKED_UP]
    assert len(arguments) > 50
    assert [name for name, of, action in arguments if may_be_empty(of, action)] == []


@pytest.mark.parametrize("name", ["help", "lab fetch", "lab build-kernel", "lab run", "lab walk"])
def test_no_name_may_be_empty(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of([*name.split(), ""]) == USAGE
    assert ": error: " in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--try-symbols-by", "--no-symbols-by"])
def test_no_method_may_be_empty(
    option: str, files: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of([option, "", "-c", "dump", "check"]) == USAGE
    assert ": error: " in capsys.readouterr().err


@pytest.mark.parametrize("vmlinux", ["text", "empty"])
def test_a_wrong_vmlinux_is_named(
    vmlinux: str, files: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(["-s", vmlinux, "-c", "dump", "check"]) == NOT_JUDGED
    (error,) = capsys.readouterr().err.splitlines()
    assert vmlinux in error


def test_there_are_a_hundred() -> None:
    assert len(dict(WRONG)) >= 100
