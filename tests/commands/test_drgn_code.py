# SPDX-License-Identifier: LGPL-2.1-or-later

"""The code that ``%zonedev COMMAND --drgn`` prints is run, and must yield the command's answer."""

from __future__ import annotations

import ast
import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drgn
import pytest
from drgn.commands import run_command
from support.fakekernel import partial

from drgn_zonedev import plugin
from drgn_zonedev.commands import every_command


@pytest.fixture
def prog() -> Iterator[drgn.Program]:
    kernel = partial("6.1")
    kernel.poke_page_word(0x100801, 1, 0)
    program = kernel.program()
    plugin.drgn_prog_set(program)
    drgn.set_default_prog(program)
    yield program
    drgn.set_default_prog(None)


def _printed(prog: drgn.Program, line: str) -> tuple[Any, str]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        value = run_command(prog, line)
    return value, out.getvalue()


def _executed(code: str) -> tuple[dict[str, Any], str]:
    # As in drgn's REPL: whatever it needs, it imports.
    variables: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, "--drgn", "exec"), variables)
    return variables, out.getvalue()


# A command line, and what the code calls the answer.
LINES = [
    ("check", "report"),
    ("check --all", "report"),
    ("check -v", "report"),
    ("check --format json", "report"),
    ("check --fail-on warning", "report"),
    ("check --only devices --all", "report"),
    ("check --only ram --pfns 0..0x1000 --all", "report"),
    ("check --pfns 0x100000..0x100800 --format json", "report"),
    ("check --map --all", "report"),
    ("check --map --pfns 0x100000..0x100800 --format svg", "report"),
    ("check --format html", "report"),
    ("ranges --all", "ranges"),
    ("ranges -v", "ranges"),
    ("ranges --format json", "ranges"),
    ("ranges --access --all", "ranges"),
    ("ranges --map --all", "ranges"),
    ("ranges --access --format svg", "ranges"),
    ("ranges --map --format html", "ranges"),
    ("sections --all", "sections"),
    ("sections 0x21 34 --all", "sections"),
    ("sections --format json", "sections"),
    ("pgmaps --all", "pgmaps"),
    ("pgmaps --format json", "pgmaps"),
    ("pfn 0x100801 --all", "explanation"),
    ("pfn 0x100801000 --all", "explanation"),
    ("pfn 0x100801 --as pfn --format json", "explanation"),
    ("proposal --all", "report"),
    ("proposal --format json", "report"),
    ("walkers --all", "report"),
    ("walkers --walker kpageflags --walker kcore --format json", "report"),
]


@pytest.mark.parametrize(("line", "name"), LINES)
def test_code_yields_what_the_command_yields(prog: drgn.Program, line: str, name: str) -> None:
    value, text = _printed(prog, f"zonedev {line}")
    nothing, code = _printed(prog, f"zonedev {line} --drgn")
    assert nothing is None
    variables, printed = _executed(code)
    assert value
    assert variables[name] == value
    assert "run_command" not in code
    if "--fail-on" in line:
        assert printed.endswith("there are findings\n")
    elif line not in ("check", "check --format json"):
        # Without --all the command leaves out what does not fit on a screen.
        assert printed == text


def test_pgmap_that_makes_no_sense_is_left_out_by_both(caplog: pytest.LogCaptureFixture) -> None:
    kernel = partial("6.1")
    kernel.pgmap((0x400000, 0x408000), nr_range=-1)
    program = kernel.program()
    plugin.drgn_prog_set(program)
    drgn.set_default_prog(program)
    try:
        value, _ = _printed(program, "zonedev pgmaps")
        variables, _ = _executed(_printed(program, "zonedev pgmaps --drgn")[1])
    finally:
        drgn.set_default_prog(None)
    assert variables["pgmaps"] == value
    assert [r.start_pfn for p in value for r in p.ranges] == [0x100000]
    assert caplog.messages == ["pgmap_array has unreadable or invalid entries: check shows them"]


def test_code_writes_the_file_that_the_command_writes(prog: drgn.Program, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    line = f"zonedev check --format json -o {out}"
    _printed(prog, line)
    written = out.read_text()
    out.unlink()
    _executed(_printed(prog, f"{line} --drgn")[1])
    assert out.read_text() == written


@pytest.mark.parametrize("name", ["map.txt", "map.svg", "map.html"])
def test_code_draws_into_the_file_that_the_command_draws_into(
    prog: drgn.Program, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    line = f"zonedev check --map -o {tmp_path / name}"
    _printed(prog, line)
    drawn = (tmp_path / name).read_text("utf-8")
    (tmp_path / name).unlink()
    _executed(_printed(prog, f"{line} --drgn")[1])
    assert (tmp_path / name).read_text("utf-8") == drawn


def test_code_exports_what_the_command_exports(prog: drgn.Program, tmp_path: Path) -> None:
    line = f"zonedev export {tmp_path / 'a'} --margin 0 --blank-names --pfns 0..0x40"
    _printed(prog, line)
    code = _printed(prog, f"{line} --drgn")[1]
    _executed(code.replace(repr(str(tmp_path / "a")), repr(str(tmp_path / "b"))))
    assert (tmp_path / "a" / "vmcore").read_bytes() == (tmp_path / "b" / "vmcore").read_bytes()
    meta = json.loads((tmp_path / "b" / "meta.json").read_text())
    assert meta["options"]["pfns"] == [[0, 0x40]]


@pytest.mark.parametrize("command", every_command(), ids=lambda c: c.name)
def test_every_command_has_code(prog: drgn.Program, command: Any) -> None:
    arguments = {"pfn": " 0x100801", "export": " out", "diff": " old.json"}.get(command.name, "")
    code = _printed(prog, f"zonedev {command.name}{arguments} --drgn")[1]
    assert ast.parse(code).body


def test_command_is_run_by_name_where_its_code_says_nothing_of_an_option(
    prog: drgn.Program,
) -> None:
    value, text = _printed(prog, "zonedev check --quiet")
    code = _printed(prog, "zonedev check --quiet --drgn")[1]
    assert "zonedev check --quiet" in code
    variables, printed = _executed(code)
    assert (variables["result"], printed) == (value, text)


def test_names_are_quoted(prog: drgn.Program) -> None:
    code = _printed(prog, 'zonedev pfn "it\'s a \\\\ name" --drgn')[1]
    (call,) = (n for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Constant))
    assert call.value == "it's a \\ name"


def test_code_compares_censuses(prog: drgn.Program, tmp_path: Path) -> None:
    _printed(prog, f"zonedev pages --by memory-block --format json -o {tmp_path / 'old.json'}")
    line = f"zonedev diff {tmp_path / 'old.json'}"
    value, printed = _printed(prog, line)
    variables, same = _executed(_printed(prog, f"{line} --drgn")[1])
    assert (variables["found"], same) == (value, printed)
    assert printed.endswith("\nno differences\n")
