# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Sessions in the Documentation
-----------------------------

Every fenced block of README.md and docs/*.md that shows something being run is
run. The info string says how:

``console``
    A shell, in a directory with ``vmcore`` and ``vmlinux``, which are the stored
    dump :data:`DUMP`, and ``vmcores``. What is printed must be what is written.
``console clone``
    A shell in a fresh clone of this repository.
``console guest``
    A shell, and commands that boot a real kernel: addresses may differ.
``pycon``
    drgn's REPL on ``vmcore``.
``python``
    A script, in a directory as above.

A line ``...`` stands for any number of lines.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import drgn
import drgn.cli
import drgn.commands

from drgn_zonedev.opening.core import open_dump

ROOT = Path(__file__).parents[2]
DUMP = "6.1-init-in-flight"
RUN = ("console", "console clone", "console guest", "pycon", "python")
# What is only looked at.
SHOWN = ("", "text", "json", "yaml", "toml", "c", "sql", "mermaid", "{toctree}", "{eval-rst}")
_MARK = "==end of command=="


@dataclass(frozen=True)
class Block:
    """A fenced block; ``line`` is that of its first line of text, from 1."""

    path: Path
    line: int
    info: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


def documents() -> list[Path]:
    """What is written by hand; findings.md is generated and has a test of its own."""
    docs = sorted((ROOT / "docs").rglob("*.md"))
    return [ROOT / "README.md", *(path for path in docs if path.name != "findings.md")]


def blocks(path: Path) -> Iterator[Block]:
    """Find the fenced blocks of a document."""
    info, start, inside = "", 0, False
    lines = path.read_text(encoding="utf-8").splitlines()
    for i, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if inside:
            yield Block(path, start + 1, info, tuple(lines[start:i]))
        else:
            info, start = line[3:].strip(), i + 1
        inside = not inside


def commands(block: Block) -> list[tuple[str, list[str]]]:
    """Divide a shell session into commands and what each is said to print."""
    found: list[tuple[str, list[str]]] = []
    for line in block.lines:
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found and found[-1][0].endswith("\\") and not found[-1][1]:
            found[-1] = (f"{found[-1][0]}\n{line}", [])
        else:
            assert found, f"{block}: output before the first command"
            found[-1][1].append(line)
    return found


def matches(written: list[str], printed: list[str]) -> bool:
    """Compare lines; ``...`` in what is written stands for any of them."""
    pattern = "".join("(?:.*\n)*?" if w == "..." else re.escape(w) + "\n" for w in written)
    return re.fullmatch(pattern, "".join(line + "\n" for line in printed)) is not None


def without_addresses(lines: list[str]) -> list[str]:
    """Blank out what differs from boot to boot."""
    return [re.sub(r"\b(0x)?[0-9a-f]{12,16}\b *", "ADDRESS ", line) for line in lines]


def run_shell(block: Block, directory: Path) -> list[list[str]]:
    """Run the commands of a session; return the lines that each printed."""
    script = "".join(
        f"{command}\n(s=$?; echo; echo '{_MARK}'; exit $s)\n" for command, _ in commands(block)
    )
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=directory,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    outputs = done.stdout.split(f"\n{_MARK}\n")[:-1]
    return [output.rstrip("\n").splitlines() for output in outputs]


def _environment() -> dict[str, str]:
    programs = Path(sys.executable).parent
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES")}
    return {**kept, "PATH": f"{programs}:{os.environ['PATH']}", "TERM": "dumb"}


def run_python(block: Block, directory: Path) -> str:
    """Run a script; return what it prints."""
    return subprocess.run(
        [sys.executable, "-c", "\n".join(block.lines)],
        cwd=directory,
        env=_environment(),
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    ).stdout


def run_repl(block: Block, files: Path) -> None:
    """Run a session of drgn's REPL; raises ``AssertionError`` where it differs."""
    prog = open_dump(files / "vmcore", files / "vmlinux")
    text = "\n".join(re.sub(r"^>>> %(.*)", r'>>> _command("\1")', line) for line in block.lines)
    names = drgn.cli.default_globals(prog)
    names["_command"] = lambda source: _run_command(prog, source, names)
    test = doctest.DocTestParser().get_doctest(text, names, str(block), str(block.path), block.line)
    report = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
    with _displayed(), drgn_default(prog):
        runner.run(test, out=report.write, clear_globs=False)
    assert not runner.failures, report.getvalue()


def _run_command(prog: drgn.Program, source: str, names: dict[str, Any]) -> None:
    # A pipe needs a real file to write to.
    with tempfile.TemporaryFile("w+") as f:
        with contextlib.redirect_stdout(f):
            drgn.commands.run_command(prog, source, globals=names)
        f.seek(0)
        print(f.read(), end="")


@contextlib.contextmanager
def drgn_default(prog: drgn.Program) -> Iterator[None]:
    """Make a program drgn's default, as it is in the REPL."""
    drgn.set_default_prog(prog)
    try:
        yield
    finally:
        drgn.set_default_prog(None)


@contextlib.contextmanager
def _displayed() -> Iterator[None]:
    # doctest puts Python's own hook in place of drgn's, which shows objects as C.
    before, sys.__displayhook__ = sys.__displayhook__, drgn.cli._displayhook
    try:
        yield
    finally:
        sys.__displayhook__ = before


def furnish(directory: Path, files: Path) -> None:
    """Put what sessions may use into a directory."""
    for name in ("vmcore", "vmlinux"):
        shutil.copy(files / name, directory / name)
    for name in ("vmcores", "docs"):
        (directory / name).symlink_to(ROOT / name)
