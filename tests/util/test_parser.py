# SPDX-License-Identifier: LGPL-2.1-or-later

"""No value of an option is silently ignored."""

from __future__ import annotations

import pytest

from drgn_zonedev.util.parser import CommandParser


def parser() -> CommandParser:
    top = CommandParser(prog="tool")
    top.add_argument("--core")
    top.add_argument("--types", default="auto")
    command = top.add_subparsers().add_parser("check")
    command.add_argument("--pfns", type=int)
    return top


@pytest.mark.parametrize(
    ("line", "option"),
    [("--core a --core b check", "--core"), ("check --pfns 1 --pfns 2", "--pfns")],
)
def test_second_value_is_refused(
    line: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(line.split())
    assert f"argument {option}: it is given more than once" in capsys.readouterr().err


def test_same_value_may_be_given_again() -> None:
    assert parser().parse_args(["check", "--pfns", "1", "--pfns", "01"]).pfns == 1


def test_last_value_overrides_a_default() -> None:
    assert parser().parse_args(["--types", "btf", "--types", "dwarf", "check"]).types == "dwarf"
