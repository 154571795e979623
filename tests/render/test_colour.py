# SPDX-License-Identifier: LGPL-2.1-or-later

"""Colour marks what is there, and changes nothing else."""

from __future__ import annotations

import io
import re
import sys

import pytest
from support.fakekernel import partial
from support.opening import open_instead

from drgn_zonedev import check
from drgn_zonedev.render.as_text import report_text
from drgn_zonedev.render.colour import coloured_text
from drgn_zonedev.render.screen import has_colour
from drgn_zonedev.shell import cli

SGR = re.compile("\x1b\\[([0-9;]*)m")


def plain(text: str) -> str:
    return SGR.sub("", text)


def test_text_without_its_colour_is_the_text() -> None:
    text = report_text(check(partial("6.1").program()))
    coloured = coloured_text(text)
    assert coloured != text
    assert plain(coloured) == text
    # Each colour ends where it began.
    assert [sgr == "0" for sgr in SGR.findall(coloured)] == [False, True] * coloured.count(
        "\x1b[0m"
    )


@pytest.mark.parametrize(
    ("line", "word", "sgr"),
    [
        ("error: device-flags [0x1, 0x2)", "error", "1;31"),
        ("! warning: case5-reserved [0x1, 0x2)", "warning", "33"),
        ("new: info: what [0x1, 0x2)", "info", "36"),
        ("WHAT THE KERNEL WOULD SAY", "WHAT THE KERNEL WOULD SAY", "1"),
        ("pfn_valid()  true  because", "true", "32"),
        ("+00  page->flags  0x1  DIFFERS", "DIFFERS", "1;31"),
    ],
)
def test_words_have_their_colours(line: str, word: str, sgr: str) -> None:
    assert coloured_text(line) == line.replace(word, f"\x1b[{sgr}m{word}\x1b[0m", 1)


@pytest.mark.parametrize("line", ["an error: of mine", "is online memory", "the device (2) is"])
def test_prose_has_none(line: str) -> None:
    assert coloured_text(line) == line


@pytest.mark.parametrize(
    ("choice", "is_terminal", "variables", "wanted"),
    [
        ("auto", True, {"TERM": "xterm"}, True),
        ("auto", True, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        ("auto", True, {"TERM": "dumb"}, False),
        ("auto", False, {"TERM": "xterm"}, False),
        ("always", False, {"TERM": "dumb", "NO_COLOR": "1"}, True),
        ("never", True, {"TERM": "xterm"}, False),
    ],
)
def test_who_wants_colour(
    choice: str,
    is_terminal: bool,
    variables: dict[str, str],
    wanted: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert has_colour(choice) is wanted


@pytest.mark.parametrize(
    "command", [["check"], ["ranges"], ["pfn", "0x100801"], ["check", "--map"]]
)
def test_a_pipe_gets_colour_only_if_asked_for(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    open_instead(monkeypatch, partial("6.1").program)
    cli.main(command)
    without = capsys.readouterr().out
    assert "\x1b" not in without
    cli.main([*command, "--color", "always"])
    coloured = capsys.readouterr().out
    assert "\x1b[" in coloured
    assert plain(coloured) == without
    cli.main([*command, "--format", "json"] if "--map" not in command else command)
    assert "\x1b" not in capsys.readouterr().out
