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
    ("-c DUMP export .tar.xz", "expected a name before .tar.xz"),
    ("-c DUMP export ./.txz", "expected a name before .txz"),
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
    # What was given twice, of which one would be ignored.
    ("-c DUMP -c DEVICE check", "argument -c/--core: it is given more than once"),
    ("-c DUMP check -o one -o other", "argument -o/--output: it is given more than once"),
    ("-c DUMP check --pfns 0..5 --pfns 5..9", "argument --pfns: it is given more than once"),
    ("-c DUMP check --only ram --only devices", "argument --only: it is given more than once"),
    ("-c DUMP pages 0..5 --kind free --kind slab", "argument --kind: it is given more than once"),
    ("-c DUMP pfn 0 --as phys --as pfn", "argument --as: it is given more than once"),
    ("lab run --kernel a --kernel b", "argument --kernel: it is given more than once"),
    ("diff DUMP --vmcoreinfo a --vmcoreinfo b", "come before the command"),
    # What is neither a dump, nor a report, nor a log.
    ("-c fifo check", "cannot open fifo: it is a pipe"),
    ("-c loop check", "cannot open loop: Too many levels"),
    ("-c utf16 check", "not an ELF core file"),
    ("--qemu fifo check", "is QEMU running"),
    ("-s . -c DUMP check", "give the vmlinux in it to -s"),
    ("--vmcoreinfo . -c DUMP check", "cannot read .: Is a directory"),
    ("--vmcoreinfo zeros -c DUMP check", "give a file of VMCOREINFO's text"),
    ("--kernel-directory text -c DUMP check", "there is no directory text"),
    ("-c DUMP check --baseline list", "it has no schema"),
    ("-c DUMP check --baseline future", "its schema is 'drgn-zonedev/report/9'"),
    ("-c DUMP check --baseline partial", "a part of it is damaged or missing ('kernel')"),
    ("-c DUMP check --baseline deep", "deep is not JSON"),
    ("-c DUMP check --baseline utf16", "utf16 is not JSON"),
    ("-c DUMP check --baseline endless", "endless is longer than 1 GiB"),
    ("-c DUMP diff future", "its schema is 'drgn-zonedev/report/9'"),
    ("oops endless", "endless is longer than 1 GiB: give another log"),
    ("oops loop", "cannot read loop: Too many levels"),
    # Other numbers than they look like.
    ("check --pfns 0..5..9", "'0..5..9' is not START..END"),
    ("check --pfns 0...5", "'0...5' is not START..END"),
    ("check --pfns 1e3..2e3", "'1e3' is not a number"),
    ("-c DUMP check --pfns 0x10000000000000000..0x10000000000000001", "no memory at PFNs"),
    ("-c DUMP pfn 1e5", "give 0x1e5"),
    ("-c DUMP pfn 18446744073709551616", "is not a"),
    ("-c DUMP pfn 0x24400,0x24401", "there is no resource '0x24400,0x24401'"),
    ("-c DUMP sections 5..7", "'5..7' is not a number"),
    ("-c DUMP pages 5..3", "no page is in '5..3'"),
    ("-c DUMP pins -- -1", "-0x1 is not a PFN on this machine"),
    ("-c DEVICE pins 0x24000..", "there is no device '0x24000..'"),
    ("-c DUMP export out --margin 1.5", "'1.5' is not a number"),
    ("survey DUMP --timeout nan", "'nan' is not a number of seconds"),
    ("survey DUMP --memory 1XB", "'1XB' is not a size"),
    # Where nothing can be written.
    ("-c DUMP check -o loop", "cannot write loop: Too many levels"),
    ("-c DUMP check -o /dev/full", "cannot write /dev/full: No space left"),
    ("-c DUMP check -o DUMP/dump.tar.xz", "is an input, which -o would overwrite"),
    ("-c DUMP export DUMP/dump.tar.xz", "is an input, which OUT would overwrite"),
    ("-c DUMP export text", "text is a file: choose another name"),
    ("lab run --junit . fsdax-collision", "cannot write ."),
    ("lab run --dump text fsdax-collision", "cannot write text"),
]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").touch()
    Path("blank").write_text(" \n")
    Path("text").write_text("no core at all\n")
    Path("zeros").write_bytes(bytes(1 << 16))
    Path("utf16").write_text("h\xe4llo", "utf-16")
    Path("list").write_text("[1, 2]")
    Path("future").write_text('{"schema": "drgn-zonedev/report/9"}')
    Path("partial").write_text('{"schema": "drgn-zonedev/report/2"}')
    Path("deep").write_text("[" * 100_000)
    Path("loop").symlink_to("loop")
    Path("endless").symlink_to("/dev/zero")
    os.mkfifo("fifo")
    # A GiB takes seconds to read.
    monkeypatch.setattr("drgn_zonedev.commands.inputs._MAX_BYTES", 1 << 20)
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


def overridden(parser: argparse.ArgumentParser, action: argparse.Action) -> bool:
    namespace = argparse.Namespace(**{action.dest: action.default})
    action(parser, namespace, ["first"])
    try:
        action(parser, namespace, ["second"])
    except argparse.ArgumentError:
        return False
    return getattr(namespace, action.dest) == ["second"]


def options(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from options(each)
        elif action.option_strings and action.nargs != 0:
            yield action


def test_only_what_has_a_default_is_overridden_by_another_value() -> None:
    parser = cli.make_parser()
    each = [action for action in options(parser) if overridden(parser, action)]
    assert {action.option_strings[-1] for action in each if action.default is None} == set()
    assert {"--format", "--color", "--types"} <= {a.option_strings[-1] for a in each}


@pytest.mark.parametrize("line", ["oops -", "diff - dump", "-c dump check --baseline -"])
def test_closed_standard_input_is_a_wrong_usage(
    line: str, files: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert status_of(line.split()) == USAGE
    assert "cannot read -: standard input is closed" in capsys.readouterr().err


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
