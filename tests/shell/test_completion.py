# SPDX-License-Identifier: LGPL-2.1-or-later

"""The shells themselves complete zonedev."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from drgn_zonedev.commands import every_command
from drgn_zonedev.shell import cli, completion

# Sources a script and completes a line the way that readline would.
BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
function=$(complete -p zonedev | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function zonedev "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    script = tmp_path_factory.mktemp("completion") / "zonedev.bash"
    script.write_text(completion.completion_script(cli.make_parser(), "bash"))
    return script


def _complete(script: Path, *words: str) -> set[str]:
    done = subprocess.run(
        ["bash", "--norc", "-c", BASH, "bash", script, "zonedev", *words],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not done.stderr, done.stderr
    return {line.strip() for line in done.stdout.splitlines() if line.strip()}


def test_bash_completes_commands(bash: Path) -> None:
    assert {command.name for command in every_command()} | {"lab", "demo"} <= _complete(bash, "")
    assert _complete(bash, "pgm") == {"pgmaps"}


def test_bash_completes_options_of_the_command(bash: Path) -> None:
    assert "--fail-on" in _complete(bash, "check", "--f")
    assert "--fail-on" not in _complete(bash, "pgmaps", "--f")
    assert _complete(bash, "lab", "ru") == {"run"}


def test_bash_completes_choices(bash: Path) -> None:
    assert _complete(bash, "check", "--format", "j") == {"json", "jsonl", "junit"}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("check", "--fail-on", "case"), {"case3", "case4", "case5"}),
        (("check", "--only", ""), {"devices", "ram"}),
        (("check", "--pf"), {"--pfns"}),
        (("walkers", "--walker", "hwp"), {"hwpoison-inject"}),
        (("lab", "fetch", "6.12"), {"6.12", "6.12-proposal"}),
        (("lab", "run", "6.12", "init-"), {"init-in-flight", "init-halfway"}),
    ],
)
def test_bash_completes_what_is_hard_to_remember(
    bash: Path, words: tuple[str, ...], found: set[str]
) -> None:
    assert {w for w in _complete(bash, *words) if w.startswith(words[-1])} >= found


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_script_is_good_for_its_shell(shell: str, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(completion.completion_script(cli.make_parser(), shell))
    subprocess.run([program, "-n", script], check=True, timeout=60)


def test_command_prints_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "bash"]) == 0
    printed = capsys.readouterr().out
    assert printed == completion.completion_script(cli.make_parser(), "bash")


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_without_the_generator_the_shell_asks(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert cli.main(["completion", shell]) == 0
    assert "zonedev completion words" in capsys.readouterr().out


def test_bash_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    programs = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    script = tmp_path / "zonedev.bash"
    script.write_text(completion.completion_script(cli.make_parser(), "bash"))
    assert _complete(script, "pg") == {"pgmaps"}
    assert _complete(script, "check", "--format", "js") == {"json", "jsonl"}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["che"], ["check"]),
        (["-c", "vmcore", "pg"], ["pgmaps"]),
        (["check", "--fo"], ["--format"]),
        (["check", "--format", "js"], ["json", "jsonl"]),
        (["lab", "fe"], ["fetch"]),
        (["lab", "fetch", "6.1-unf"], ["6.1-unfixed"]),
        (["-c", ""], []),
    ],
)
def test_words_without_a_package(words: list[str], found: list[str]) -> None:
    assert completion.words_for(cli.make_parser(), words) == found


def test_the_manual_page_names_every_command_and_option() -> None:
    page = (
        (Path(__file__).parents[2] / "docs" / "zonedev.1")
        .read_text(encoding="utf-8")
        .replace("\\-", "-")
    )
    for section in (".SH EXAMPLES", ".SH EXIT STATUS", ".SH ENVIRONMENT"):
        assert section in page

    def names(parser: argparse.ArgumentParser) -> Iterator[str]:
        for action in parser._actions:
            yield from action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                for name, command in action.choices.items():
                    yield name
                    yield from names(command)

    missing = {name for name in names(cli.make_parser()) if name not in page}
    assert not missing, "scripts/write-man >docs/zonedev.1"
