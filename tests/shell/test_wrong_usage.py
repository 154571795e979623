# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A hundred wrong usages: each ends with the right status and words that say what to do, never with
a traceback.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from drgn_zonedev.shell import cli

VMCORES = Path(__file__).parents[2] / "vmcores"
DUMP = str(VMCORES / "6.1-empty")
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
    ("-c DUMP check --pfns 0x999999..0x99999a", "no memory at PFNs"),
    ("-c DUMP ranges --map -o map.pdf", "choose a name that ends in .svg"),
    ("sections x", "'x' is not a number"),
    ("sections 12z", "'12z' is not a number"),
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
    ("-c DUMP bugreport --finding nothing", ""),
    ("diff", "the following arguments are required: OLD"),
    ("diff DUMP", "give NEW, or select a program"),
    ("diff none DUMP", "none"),
    ("diff text DUMP", "not an ELF core file"),
    ("-c DUMP diff DUMP DUMP", "omit NEW"),
    ("export", "the following arguments are required: OUT"),
    ("-c DUMP export ''", "empty"),
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
    ("help chekc", "invalid choice: 'chekc'"),
    ("help lab boot", "invalid choice: 'boot'"),
    ("survey", "survey"),
]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").touch()
    Path("text").write_text("no core at all\n")
    Path("zeros").write_bytes(bytes(1 << 16))
    Path("dump").symlink_to(DUMP)
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

    assert status_of(shlex.split(line.replace("DUMP", "dump"))) == USAGE
    done = capsys.readouterr()
    assert done.out == ""
    assert said in done.err
    assert "Traceback" not in done.err
    *_, last = done.err.splitlines()
    assert last.startswith("zonedev")
    assert ": error: " in last


@pytest.mark.parametrize("vmlinux", ["text", "empty"])
def test_a_wrong_vmlinux_is_named(
    vmlinux: str, files: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(["-s", vmlinux, "-c", "dump", "check"]) == NOT_JUDGED
    (error,) = capsys.readouterr().err.splitlines()
    assert vmlinux in error


def test_there_are_a_hundred() -> None:
    assert len(dict(WRONG)) >= 100
