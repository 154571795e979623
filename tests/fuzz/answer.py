# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Asking as a user would ask, and what every answer has to be.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import drgn
import fastjsonschema
from drgn.commands import CommandError, run_command
from support.schema import load_schema

from drgn_zonedev.opening.failures import CannotJudgeError
from drgn_zonedev.shell import cli
from drgn_zonedev.util.strings import printable

from .image import Image
from .question import OUT, may_be_refused

__all__ = ("Answer", "ask", "judge", "opens")

_JUNIT = {"testsuites", "testsuite", "properties", "property", "testcase"}
_JUNIT |= {"error", "failure", "skipped", "system-out"}
_SVG = {"svg", "g", "rect", "path", "text", "title", "desc", "defs", "pattern"}
_ACTIVE = re.compile("^on|href|style|src")


@dataclass(frozen=True)
class Answer:
    """``files`` are those that were written, by suffix."""

    status: int
    out: str
    err: str
    trace: str | None
    files: dict[str, str]


def ask(vmcore: Path, vmlinux: Path, command: Sequence[str], directory: Path) -> Answer:
    """
    Run a command.

    :param directory: Where it may write.
    """
    words = [word.replace(OUT, str(directory / "out")) for word in command]
    if words[0] == "%zonedev":
        answer = _answer(lambda: _in_repl(vmcore, vmlinux, words[1:]))
    else:
        answer = _answer(lambda: cli.main(["-c", str(vmcore), "-s", str(vmlinux), *words]))
    export = directory / "out"
    if export.is_dir():
        again = _answer(lambda: cli.main(["-c", str(export), "check", "--format", "json"]))
        answer.files["export"] = again.trace or again.out or again.err
    for path in directory.glob("out.*"):
        answer.files[path.suffix] = path.read_text(encoding="utf-8")
    return answer


def _answer(run: Callable[[], int]) -> Answer:
    out, err = io.StringIO(), io.StringIO()
    status, trace = -1, None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = run()
        except BaseException:
            trace = traceback.format_exc()
    return Answer(status, out.getvalue(), err.getvalue(), trace, {})


# What helpers raise, and whoever types a command in the REPL sees.
# The last is drgn's for headers of a dump that lead to where no file has anything.
_RAISED = (CommandError, LookupError, ValueError, drgn.FaultError, drgn.BadDataError, OSError)


def _in_repl(vmcore: Path, vmlinux: Path, words: list[str]) -> int:
    logging.getLogger("drgn").setLevel(logging.CRITICAL)
    prog = drgn.Program()
    try:
        prog.set_core_dump(vmcore)
    except Exception as e:
        print(e, file=sys.stderr)
        return 2
    if not prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL:
        print("not a Linux kernel", file=sys.stderr)
        return 2
    try:
        # drgn would go on to the list of modules, wherever that leads.
        next(prog.loaded_modules())[0].try_file(vmlinux)
        code = io.StringIO()
        with contextlib.redirect_stdout(code) if "--drgn" in words else contextlib.nullcontext():
            run_command(prog, shlex.join(["zonedev", *words]))
        # What people paste has to work.
        drgn.set_default_prog(prog)
        exec(compile(code.getvalue(), "--drgn", "exec"), {})
    except _RAISED as e:
        print(printable(str(e)) if isinstance(e, drgn.FaultError) else e, file=sys.stderr)
        if isinstance(e.__cause__, CannotJudgeError):
            return 3
        return 2 if isinstance(e, (CommandError, ValueError)) else 3
    return 0


def opens(vmcore: Path) -> bool:
    """
    Return what drgn itself makes of a file: only if it is no dump of a kernel to drgn,
    opening it may fail.
    """
    logging.getLogger("drgn").setLevel(logging.CRITICAL)
    prog = drgn.Program()
    try:
        prog.set_core_dump(vmcore)
    except Exception:
        return False
    return bool(prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL)


def judge(image: Image, command: Sequence[str], answer: Answer, opened: bool) -> list[str]:
    """Say what is wrong with an answer: nothing, if all is well."""
    name = " ".join(command)
    if answer.trace:
        return [f"{name}: traceback\n{answer.trace}"]
    return [f"{name}: {problem}" for problem in _problems(image, command, answer, opened)]


def _problems(image: Image, command: Sequence[str], answer: Answer, opened: bool) -> Iterator[str]:
    status, lines = answer.status, answer.err.splitlines()
    allowed = {0, 1, 3} if opened else {2}
    if may_be_refused(command, image):
        allowed |= {2}
    if status not in allowed:
        yield f"status {status}: {answer.err.strip()}"
    said = answer.out or answer.files
    if status in (2, 3) and not said and len(lines) != 1:
        yield f"status {status} with {len(lines)} lines: {answer.err!r}"
    if status in (0, 1) and not said:
        yield f"status {status} without an answer"
    for text in (answer.out, answer.err, *answer.files.values()):
        odd = {c for c in text if not c.isprintable() and c != "\n"}
        if odd:
            yield f"not printable: {sorted(odd)!r}"
    if "--drgn" in command:
        return
    for kind, text in _documents(command, answer):
        yield from (f"{kind}: {problem}" for problem in _CHECKS[kind](text))


def _documents(command: Sequence[str], answer: Answer) -> Iterator[tuple[str, str]]:
    # What is more than text, with what it has to be.
    if answer.out and "--format" in command:
        yield command[command.index("--format") + 1], answer.out
    if ".svg" in answer.files:
        yield "svg", answer.files[".svg"]
    if "export" in answer.files:
        yield "json", answer.files["export"]


@lru_cache(maxsize=1)
def _validate() -> Callable[[Any], Any]:
    # A validator that is compiled: there are many documents.
    validate: Callable[[Any], Any] = fastjsonschema.compile(load_schema())
    return validate


def _json_problems(text: str) -> Iterator[str]:
    try:
        _validate()(json.loads(text, parse_constant=_no_constant))
    except fastjsonschema.JsonSchemaException as e:
        yield f"against the schema: {str(e)[:300]}"
    except ValueError as e:
        yield f"{e}: {text[:300]!r}"


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _jsonl_problems(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield from _json_problems(line)


def _csv_problems(text: str) -> Iterator[str]:
    widths = {len(row) for row in csv.reader(text.splitlines())}
    if len(widths) != 1:
        yield f"rows of {sorted(widths)} cells"


def _xml_problems(text: str, known: set[str]) -> Iterator[str]:
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as e:
        yield f"{e}: {text[:300]!r}"
        return
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    if tags - known:
        yield f"elements that nobody drew: {sorted(tags - known)}"
    active = {name for element in root.iter() for name in element.attrib if _ACTIVE.search(name)}
    if active:
        yield f"attributes that do something: {sorted(active)}"


_CHECKS: dict[str, Callable[[str], Iterator[str]]] = {
    "json": _json_problems,
    "jsonl": _jsonl_problems,
    "csv": _csv_problems,
    "junit": lambda text: _xml_problems(text, _JUNIT),
    "svg": lambda text: _xml_problems(text, _SVG),
}
