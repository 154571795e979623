# SPDX-License-Identifier: LGPL-2.1-or-later

"""Which tests run, and in which order: see conftest.py and scripts/test."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = {
    "pyproject.toml": """
[tool.pytest.ini_options]
testpaths = ["tests"]
addopts = "--strict-markers"
markers = ["long(reason): x"]
""",
    "tests/test_alone.py": """
import pytest

@pytest.fixture(scope="module")
def made():
    print("made alone")

def test_one(made):
    pass

@pytest.mark.long("two will do")
def test_many(made):
    pass
""",
    "tests/test_first.py": """
import pytest

guests = [("6.1", "ghost"), ("7.3", "ghost")]

@pytest.mark.parametrize("booted", guests, ids=":".join, indirect=True)
def test_of_two(booted):
    pass
""",
    "tests/test_second.py": """
import pytest

guests = [("7.3", "ghost"), ("6.1", "empty")]

@pytest.mark.parametrize("booted", guests, ids=":".join, indirect=True)
def test_of_others(booted):
    pass
""",
}
BOOTED = """

@pytest.fixture(scope="session")
def booted(request):
    print("up", *request.param)
    yield
    print("down", *request.param)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "tests").mkdir()
    for name, text in PROJECT.items():
        (tmp_path / name).write_text(text)
    conftest = tmp_path / "tests" / "conftest.py"
    shutil.copy(Path(__file__).with_name("conftest.py"), conftest)
    with conftest.open("a") as file:
        file.write(BOOTED)
    return tmp_path


def run(project: Path, *words: str) -> str:
    command = [sys.executable, "-m", "pytest", "-ra", "-v", "-p", "no:cacheprovider", *words]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_guest_that_two_files_ask_about_boots_once(project: Path) -> None:
    said = re.findall(r"(made alone|(?:up|down) [\w.]+ \w+)", run(project, "-s"))
    guests = ["6.1 ghost", "7.3 ghost", "6.1 empty"]
    # One at a time, and none while the files run that have no shared guest.
    assert said == ["made alone", *(f"{what} {g}" for g in guests for what in ("up", "down"))]


def test_two_processes_share_no_guest_and_no_file(project: Path) -> None:
    words = ("-n", "2", "--dist", "loadgroup", "--no-loadscope-reorder", "--all")
    found = re.findall(r"\[(gw\d)\].* PASSED (\S+)::\w+(\[.*\])?", run(project, *words))
    assert len(found) == 6
    groups = {(process, guest or file) for process, file, guest in found}
    assert sorted(group for _, group in groups) == [
        "[6.1:empty]",
        "[6.1:ghost]",
        "[7.3:ghost]",
        "tests/test_alone.py",
    ]
    assert len({process for process, _ in groups}) == 2


def test_long_tests_are_skipped_with_their_reason_or_run(project: Path) -> None:
    assert re.search(r"SKIPPED .* only with --all: two will do$", run(project), re.MULTILINE)
    assert " 6 passed" in run(project, "--all")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The script among programs that only say how they are called."""
    directory, programs = tmp_path / "scripts", tmp_path / ".venv" / "bin"
    directory.mkdir()
    programs.mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "test", directory)
    said = "echo ran ${0##*/} $*"
    stubs = dict.fromkeys(("pytest", "ruff", "mypy", "lint-imports"), said)
    for path, text in (
        *((programs / name, text) for name, text in stubs.items()),
        (programs / "python", "echo 3"),
        (directory / "setup", "true"),
        (directory / "fuzz", said),
    ):
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    return directory / "test"


def call(script: Path, *words: str) -> tuple[list[str], str]:
    """What was run after style and types, and what was printed last."""
    done = subprocess.run(
        ["sh", script, *words], capture_output=True, text=True, timeout=60, check=True
    )
    ran = re.findall(r"^ran (pytest|fuzz)(.*)$", done.stdout, re.MULTILINE)
    return [name + rest for name, rest in ran], done.stdout.splitlines()[-1]


GUESTS = "pytest -q -ra -n 3 --dist loadgroup --no-loadscope-reorder -m qemu"


def test_the_script_says_what_it_leaves_out(script: Path) -> None:
    ran, last = call(script)
    assert ran == [
        "pytest -q -ra -n auto --dist loadfile -m not qemu",
        "fuzz --seed 1 --count 2000",
        GUESTS,
    ]
    assert "without the long tests" in last
    assert "2000 of 20000 damaged dumps" in last


def test_the_script_runs_all(script: Path) -> None:
    ran, last = call(script, "--all")
    assert ran == [
        "pytest -q -ra -n auto --dist loadfile -m not qemu --all",
        "fuzz --seed 1 --count 20000",
        f"{GUESTS} --all",
    ]
    assert "without" not in last


@pytest.mark.parametrize("words", [("-m", "not qemu"), ("--all", "-k", "churn"), ("tests/util",)])
def test_the_script_hands_arguments_to_pytest(script: Path, words: tuple[str, ...]) -> None:
    assert call(script, *words)[0] == [f"pytest {' '.join(words)}"]
