# SPDX-License-Identifier: LGPL-2.1-or-later

"""The documentation: every session in it does what it says, and the book builds."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.sessions import (
    DUMP,
    ROOT,
    RUN,
    SHOWN,
    Block,
    blocks,
    commands,
    documents,
    furnish,
    matches,
    run_python,
    run_repl,
    run_shell,
    without_addresses,
)

import drgn_zonedev
from drgn_zonedev.export.store import StoredDump
from drgn_zonedev.shell import cli

ALL = [block for path in documents() for block in blocks(path)]


def each_block(*infos: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("block", [b for b in ALL if b.info in infos], ids=str)


@pytest.fixture(scope="module")
def files() -> Iterator[Path]:
    with StoredDump(ROOT / "vmcores" / DUMP).files() as directory:
        yield directory


@pytest.fixture
def scratch(tmp_path: Path, files: Path) -> Path:
    furnish(tmp_path, files)
    return tmp_path


def check_session(block: Block, printed: list[list[str]]) -> None:
    told = commands(block)
    assert len(printed) == len(told), f"{block}: the shell went away"
    for (command, written), output in zip(told, printed):
        assert matches(written, output), f"{block}: $ {command}\n" + "\n".join(output)


@each_block("console")
def test_session_prints_what_is_written(block: Block, scratch: Path) -> None:
    check_session(block, run_shell(block, scratch))


@each_block("pycon")
def test_repl_session_prints_what_is_written(block: Block, files: Path) -> None:
    run_repl(block, files)


@each_block("python")
def test_script_runs(block: Block, scratch: Path) -> None:
    run_python(block, scratch)


@pytest.mark.qemu
@each_block("console clone")
def test_session_in_a_fresh_clone_prints_what_is_written(block: Block, tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "-q", ROOT, tmp_path / "drgn_zonedev"], check=True, timeout=60)
    check_session(block, run_shell(block, tmp_path / "drgn_zonedev"))


@pytest.mark.qemu
@each_block("console guest")
def test_session_with_a_guest_prints_what_is_written(block: Block, scratch: Path) -> None:
    printed = [without_addresses(output) for output in run_shell(block, scratch)]
    told = tuple(without_addresses(list(block.lines)))
    check_session(Block(block.path, block.line, block.info, told), printed)


def test_every_block_is_run_or_is_no_session() -> None:
    for block in ALL:
        assert block.info in RUN + SHOWN, f"{block}: nobody runs {block.info!r}"
        if block.info in SHOWN:
            assert not any(re.match(r"(\$|>>>) ", line) for line in block.lines), str(block)


def test_every_link_leads_somewhere() -> None:
    for path in documents():
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_every_command_is_in_the_book() -> None:
    from drgn_zonedev.commands import every_command

    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    missing = [c.name for c in every_command() if f"\n## {c.name}\n" not in text]
    assert missing == []


def test_the_readme_lists_every_command_and_chapter() -> None:
    from drgn_zonedev.shell.cli import make_parser

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    usage = make_parser().format_help()
    commands_ = re.findall(r"^    (\w+) ", usage, re.MULTILINE)
    assert {"check", "walkers", "completion"} <= set(commands_)
    assert [c for c in commands_ if not re.search(rf"^\| `{c}[ `]", readme, re.MULTILINE)] == []
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    chapters = re.search(r"toctree}\n(?::.*\n)+\n((?:\w+\n)+)", index)
    assert chapters is not None
    assert [c for c in chapters[1].split() if f"](docs/{c}.md)" not in readme] == []


def test_the_readme_begins_with_a_picture() -> None:
    first = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:40]
    assert any(re.match(r"\$ zonedev .* --map$", line) for line in first)
    assert any(line.startswith("I initializing (4)") for line in first)


def test_the_readme_is_short_and_says_first_what_to_type() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 200
    above_the_fold = lines[:16]
    assert any("./scripts/demo" in line for line in above_the_fold)
    assert any(line.startswith("zonedev -c vmcore check") for line in above_the_fold)
    assert any("(docs/init-in-flight.svg)" in line for line in above_the_fold)


def test_the_picture_is_what_the_tool_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = tmp_path / "map.svg"
    # It says which dump it shows.
    monkeypatch.chdir(ROOT)
    assert cli.main(["-c", f"vmcores/{DUMP}", "check", "--map", "-o", str(drawn)]) == 0
    assert drawn.read_bytes() == (ROOT / "docs" / "init-in-flight.svg").read_bytes()


def test_the_workflow_for_ci_gives_arguments_that_there_are() -> None:
    from drgn_zonedev.lab import SCENARIOS
    from drgn_zonedev.shell.cli import make_parser

    workflow = (ROOT / "docs" / "examples" / "kernel-ci.yml").read_text(encoding="utf-8")
    lines = workflow.replace("\\\n", " ").splitlines()
    commands = [line.partition("||")[0] for line in lines if line.strip().startswith("zonedev ")]
    given = [shlex.split(command)[1:] for command in commands]
    parsed = [make_parser().parse_args(words) for words in given]
    assert len(parsed) == 2
    assert set(parsed[0].names) <= set(SCENARIOS)


def test_the_recipes_give_arguments_that_there_are() -> None:
    from drgn_zonedev.lab import SCENARIOS
    from drgn_zonedev.shell.cli import make_parser

    lines = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8").splitlines()
    commands = [line.strip().removeprefix("- ") for line in lines]
    given = [shlex.split(line)[1:] for line in commands if line.startswith("zonedev ")]
    parsed = [make_parser().parse_args(words) for words in given]
    (lab,) = (args for args in parsed if hasattr(args, "truth"))
    assert set(lab.names) <= set(SCENARIOS)
    # From outside, from a dump, with a baseline, from a running kernel.
    assert any(args.qemu and args.pause for args in parsed)
    assert any(args.core and getattr(args, "baseline", None) for args in parsed)
    assert any(hasattr(args, "old") and args.live for args in parsed)


@pytest.mark.parametrize(("dumps", "status"), [((), 0), (("a", "b", "c"), 3)])
def test_the_workflow_for_ci_judges_every_dump(
    dumps: tuple[str, ...], status: int, tmp_path: Path
) -> None:
    workflow = (ROOT / "docs" / "examples" / "kernel-ci.yml").read_text(encoding="utf-8")
    step = workflow.partition("- name: Judge what it left in memory")[2].partition("      - uses")[
        0
    ]
    (tmp_path / "dumps").mkdir()
    for name in dumps:
        (tmp_path / "dumps" / f"{name}.elf").touch()
    # It cannot judge the second one.
    fake = tmp_path / "zonedev"
    fake.write_text('#!/bin/sh\nshift $(($# - 1)); touch "$1"; [ "$1" != b.xml ] || exit 3\n')
    fake.chmod(0o755)
    # As GitHub runs it.
    done = subprocess.run(
        ["bash", "-e", "-c", textwrap.dedent(step.partition("run: |\n")[2])],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        check=False,
        timeout=60,
    )
    assert done.returncode == status
    assert sorted(path.stem for path in tmp_path.glob("*.xml")) == list(dumps)


def test_the_book_builds_without_warnings(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", ROOT / "docs", tmp_path],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (tmp_path / "index.html").exists()


@pytest.mark.parametrize(
    ("written", "printed", "same"),
    [
        (["a", "b"], ["a", "b"], True),
        (["a"], ["a", "b"], False),
        (["a", "b"], ["a"], False),
        (["a", "...", "d"], ["a", "b", "c", "d"], True),
        (["a", "...", "d"], ["a", "d"], True),
        (["a", "...", "d"], ["a", "b", "c"], False),
        (["..."], [], True),
        (["a.c"], ["abc"], False),
    ],
)
def test_comparison_of_lines(written: list[str], printed: list[str], same: bool) -> None:
    assert matches(written, printed) is same


def test_every_public_name_is_in_the_book() -> None:
    text = (ROOT / "docs" / "helpers.md").read_text(encoding="utf-8")
    modules = set(re.findall(r"automodule:: (\S+)", text))
    named = set(re.findall(r"autofunction:: drgn_zonedev\.(\w+)$", text, re.MULTILINE))
    for name in drgn_zonedev.__all__:
        home = f"drgn_zonedev.{drgn_zonedev._HOME[name]}"
        assert name in named or (
            home in modules and name in importlib.import_module(home).__all__
        ), name
