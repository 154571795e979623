# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev pins``, from the command line and in the REPL."""

from __future__ import annotations

from pathlib import Path

import drgn
import pytest
from drgn.commands import CommandError, run_command
from support.usedpages import FIRST, machine, mapped_file

from drgn_zonedev import plugin
from drgn_zonedev.commands.base import Session
from drgn_zonedev.commands.pins import PINS
from drgn_zonedev.page_users.pins import Pins
from drgn_zonedev.shell.cli import main, make_parser


def status(prog: drgn.Program, *words: str) -> int:
    return int(PINS.run(Session(prog), make_parser().parse_args(["pins", *words])).status)


def test_the_status_says_whether_pages_are_used() -> None:
    assert status(machine("7.2").kernel.program()) == 0
    assert status(mapped_file("7.2").kernel.program()) == 1
    assert status(mapped_file("7.2").kernel.program(), hex(FIRST + 1)) == 0


def test_without_an_answer_the_status_says_so() -> None:
    made = machine("7.2")
    hidden = frozenset({"bit_wait_table"})
    assert status(made.kernel.program(hidden=hidden)) == 3
    # A user that was found is one, whatever else there is.
    assert status(mapped_file("7.2").kernel.program(hidden=hidden)) == 1


def test_the_repl_returns_pins(capsys: pytest.CaptureFixture[str]) -> None:
    prog = mapped_file("6.1").kernel.program()
    plugin.drgn_prog_set(prog)
    found = run_command(prog, f"zonedev pins {FIRST:#x}", globals={})
    assert isinstance(found, Pins)
    assert "first (PID 100) maps 1 page" in capsys.readouterr().out


def test_what_is_no_device_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    prog = machine("6.1").kernel.program()
    plugin.drgn_prog_set(prog)
    with pytest.raises(CommandError, match="not device memory"):
        run_command(prog, "zonedev pins 0x12", globals={})


def test_a_dump_without_processes_says_what_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    vmcore = Path(__file__).parents[2] / "vmcores" / "7.3-devdax-2m"
    assert main(["-c", str(vmcore), "pins", "dax0.0"]) == 3
    out = capsys.readouterr().out
    assert "0 of 65536 pages are used" in out
    assert "NOT SEARCHED: debugging information" in out
