# SPDX-License-Identifier: LGPL-2.1-or-later

"""What ``%zonedev`` says of itself, and of a program that it can say nothing of."""

from __future__ import annotations

from pathlib import Path

import pytest
from drgn import Program
from drgn.commands import CommandArgumentError, CommandError, run_command
from support.fakekernel import partial

from drgn_zonedev import plugin
from drgn_zonedev.commands import COMMANDS
from drgn_zonedev.export.archive import unpack
from drgn_zonedev.export.store import ARCHIVE, default_directory
from drgn_zonedev.opening.symbols import MissingSymbolsError
from drgn_zonedev.repl.repl import COMMAND_NAMES
from drgn_zonedev.report import check
from drgn_zonedev.util.tool_version import tool_version

CALLED = [("zonedev", "%zonedev"), ("crash zonedev", "zonedev")]


@pytest.fixture
def prog() -> Program:
    pytest.importorskip("drgn.commands._crash")
    program = partial("6.1").program()
    plugin.drgn_prog_set(program)
    return program


@pytest.mark.parametrize(("line", "called"), CALLED)
def test_help_calls_it_what_the_user_called_it(
    line: str, called: str, prog: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(prog, f"{line} check --help")
    helped = capsys.readouterr().out
    assert helped.startswith(f"usage: {called} check [-h]")
    run_command(prog, f"{line} help check")
    assert capsys.readouterr().out == helped
    run_command(prog, f"{line} help")
    assert capsys.readouterr().out.startswith(f"usage: {called} [-h] COMMAND")
    with pytest.raises(CommandArgumentError, match="unrecognized arguments: more"):
        run_command(prog, f"{line} help check more")


@pytest.mark.parametrize(("line", "called"), CALLED)
def test_wrong_option_is_an_error_of_that_name(line: str, called: str, prog: Program) -> None:
    with pytest.raises(CommandArgumentError, match=rf"^{called}: error: .* --nosuch$"):
        run_command(prog, f"{line} check --nosuch")


def test_program_without_symbols_is_one_line(tmp_path: Path) -> None:
    dumps = default_directory()
    assert dumps is not None
    unpack(dumps / "6.1-empty" / ARCHIVE, tmp_path)
    prog = Program()
    prog.set_core_dump(tmp_path / "vmcore")
    plugin.drgn_prog_set(prog)
    with pytest.raises(CommandError, match=r"^no debugging symbols for Linux 6\.1") as raised:
        run_command(prog, "zonedev check")
    assert isinstance(raised.value.__cause__, MissingSymbolsError)


@pytest.mark.parametrize("line", ["check --only devices", "check --map", "ranges --map"])
def test_report_says_where_it_comes_from_as_in_the_shell(
    prog: Program, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(prog, f"zonedev {line} --all")
    origin = f"a program in drgn, types from DWARF, zonedev {tool_version()}"
    assert origin in capsys.readouterr().out.splitlines()


def test_dump_is_named_by_its_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dumps = default_directory()
    assert dumps is not None
    unpack(dumps / "6.1-empty" / ARCHIVE, tmp_path)
    prog = Program()
    prog.set_core_dump(tmp_path / "vmcore")
    prog.load_debug_info([tmp_path / "vmlinux"])
    plugin.drgn_prog_set(prog)
    run_command(prog, "zonedev check --only devices")
    said = capsys.readouterr().out
    assert f"\n{tmp_path / 'vmcore'}, build ID " in said
    assert str(check(prog, only="devices")) == said.rstrip("\n")


def test_its_commands_are_all_there_are() -> None:
    # Written down, since a plugin must not import them.
    assert ", ".join(COMMANDS) == COMMAND_NAMES
