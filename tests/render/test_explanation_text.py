# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import re

import pytest
from support.fakekernel import FakeKernel, collision, in_flight
from support.opening import open_instead

from drgn_zonedev.explanation.explain import explain
from drgn_zonedev.render.explanation_text import explanation_text
from drgn_zonedev.render.screen import Screen, height, is_folded
from drgn_zonedev.shell import cli

SCREENS = [Screen(23, 80), Screen(29, 40), Screen(40), Screen(60, 120)]
RESERVED, DEVICE, RAM, NOTHING = 0x24000, 0x28000, 0x10, 0x1000000


def damaged() -> FakeKernel:
    """One device page of collision() lacks its pgmap, and another word is not looked at."""
    kernel = collision("6.1")
    kernel.poke_page_word(DEVICE, 1, 0xFFFF888000000000)
    return kernel


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("pfn", [RESERVED, DEVICE, RAM, NOTHING])
def test_explanation_fits_on_a_screen_and_ends_with_the_verdict(pfn: int, screen: Screen) -> None:
    explanation = explain(damaged().program(), pfn)
    text = explanation_text(explanation, screen=screen)
    assert height(text, screen) <= screen.lines
    assert re.sub(r"\s+", " ", text).endswith(explanation.verdict)
    assert text.startswith(f"PFN {pfn:#x}: ")


@pytest.mark.parametrize("lines", [29, 40])
def test_what_differs_is_shown_first(lines: int) -> None:
    text = explanation_text(explain(damaged().program(), DEVICE), screen=Screen(lines))
    assert is_folded(text)
    (line,) = (line for line in text.splitlines() if line.endswith("DIFFERS"))
    assert line.startswith("+08")
    assert "error: device-page-pgmap" in text


def test_what_is_shown_and_what_is_counted_is_everything() -> None:
    explanation = explain(collision("6.1").program(), RESERVED)
    whole = [line for line in explanation_text(explanation).splitlines() if line]
    folded = explanation_text(explanation, screen=Screen(40)).splitlines()
    counted = [int(m[1]) for m in (re.match(r"\.\.\. (\d+) more", line) for line in folded) if m]
    assert counted
    # The verdict is on a line of its own where there is room for that.
    shown = [line for line in folded[:-1] if not line.startswith("...")]
    assert set(shown) <= set(whole)
    assert folded[-1] == f"VERDICT: {whole[-1]}"
    assert len(shown) + sum(counted) == len(whole) - 2
    for predicate in ("pfn_valid()", "pfn_to_online_page()", "get_dev_pagemap()"):
        assert any(line.startswith(predicate) for line in shown)


def test_small_screen_has_all_answers_and_no_headers_without_rows() -> None:
    explanation = explain(in_flight("6.1").program(), 0x24400)
    text = explanation_text(explanation, screen=Screen(23, 80))
    words = re.sub(r"\s+", " ", text)
    for predicate in explanation.predicates:
        if not predicate.name.endswith("_section"):
            assert f"{predicate.name}() " in words
    lines = text.splitlines()
    walkers = lines[lines.index("WALKERS THAT WOULD TOUCH IT") + 1]
    assert walkers.startswith(explanation.walkers[0].name)
    assert "warning: case4-initializing [0x24400, 0x24401)" in text
    for title in ("AT ", "PREDICATE ", "WALKER ", "PFNS "):
        for header, below in zip(lines, lines[1:]):
            assert not (header.strip().startswith(title) and below.startswith("..."))


def test_tiny_screen_counts_what_a_view_would_show() -> None:
    explanation = explain(in_flight("6.1").program(), 0x24400)
    lines = explanation_text(explanation, screen=Screen(12, 80)).splitlines()
    walkers = len(explanation.walkers)
    assert f"WALKERS THAT WOULD TOUCH IT: {walkers} walkers (--all shows them)" in lines


def test_explanation_that_fits_is_not_folded() -> None:
    explanation = explain(in_flight("6.1").program(), DEVICE)
    whole = explanation_text(explanation)
    assert explanation_text(explanation, screen=Screen(len(whole.splitlines()))) == whole


def test_command_prints_a_screen_unless_asked_for_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    open_instead(monkeypatch, collision("6.1").program)
    monkeypatch.setattr("drgn_zonedev.commands.base.current_screen", lambda: Screen(40))
    assert cli.main(["pfn", hex(RESERVED)]) == 0
    folded = capsys.readouterr()
    assert len(folded.out.splitlines()) == 40
    assert folded.err == ""
    assert cli.main(["pfn", hex(RESERVED), "--all"]) == 0
    everything = capsys.readouterr()
    explanation = explain(collision("6.1").program(), RESERVED)
    assert everything.out == explanation_text(explanation) + "\n"
    assert everything.err == ""
