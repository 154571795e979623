# SPDX-License-Identifier: LGPL-2.1-or-later

"""No command prints more than a screen of a machine with thousands of ranges."""

from __future__ import annotations

import io
import json
import os
import re
import sys

import pytest
from support import machines
from support.fakekernel import FakeKernel, collision
from support.opening import open_instead

from drgn_zonedev.model import Case, Report
from drgn_zonedev.render import as_text
from drgn_zonedev.render.cases import LETTERS, TELLING
from drgn_zonedev.render.screen import (
    Screen,
    chosen,
    current_screen,
    cut,
    height,
    is_folded,
    more,
    placed,
    share,
    with_gaps,
)
from drgn_zonedev.shell import cli

SCREENS = [Screen(23, 80), Screen(29, 40), Screen(50, 200), Screen(40)]


def test_every_case_has_its_place_and_a_letter_of_its_own() -> None:
    assert sorted(TELLING, key=lambda c: c.value) == sorted(Case, key=lambda c: c.value)
    assert set(LETTERS) == set(Case)
    assert len(set(LETTERS.values())) == len(Case)


def test_wrapped_lines_are_counted_as_often_as_they_wrap() -> None:
    text = "x" * 80 + "\n" + "x" * 81 + "\n\nx"
    assert height(text, Screen(24, 80)) == 1 + 2 + 1 + 1
    assert height(text, Screen(24)) == 4


def test_lines_that_are_cut_do_not_wrap() -> None:
    screen = Screen(24, 10)
    assert cut("0123456789\n0123456789a", screen) == "0123456789\n0123456..."
    assert cut("0123456789a", Screen(24)) == "0123456789a"


@pytest.mark.parametrize(
    ("lines", "wanted", "weights", "shares"),
    [
        (30, [5, 5], [1, 1], [5, 5]),
        (30, [100, 100, 100], [1, 1, 1], [10, 10, 10]),
        (29, [100, 100, 100], [1, 3, 1], [7, 15, 7]),
        (30, [2, 100, 100], [1, 1, 1], [2, 14, 14]),
        (30, [100, 2, 100], [1, 1, 1], [14, 2, 14]),
        (30, [100, 4, 100], [1, 3, 1], [13, 4, 13]),
        (0, [100, 2], [1, 1], [3, 2]),
        (10, [], [], []),
    ],
)
def test_lines_are_shared(
    lines: int, wanted: list[int], weights: list[int], shares: list[int]
) -> None:
    assert share(lines, wanted, weights, 3) == shares


def test_first_of_every_kind_is_chosen_before_the_most_important() -> None:
    kinds, ranks = ["dull"] * 5 + ["bad"] * 5 + ["worse"], [2] * 5 + [1] * 5 + [0]
    assert chosen(kinds, ranks, 3) == [0, 5, 10]
    assert chosen(kinds, ranks, 5) == [0, 5, 6, 7, 10]
    assert chosen(kinds, ranks, 1) == [10]
    assert chosen(kinds, ranks, 99) == list(range(11))


@pytest.mark.parametrize(
    ("room", "shown"),
    [
        # The worst is in the middle: it needs a line, and one on each side for the others.
        (2, []),
        (3, [6]),
        (4, [0, 6]),
        (7, [0, 1, 2, 3, 6]),
        # A line that would count a single one is that one.
        (8, [0, 1, 2, 3, 4, 5, 6]),
        (9, [0, 1, 2, 3, 4, 5, 6, 7]),
        (10, list(range(10))),
    ],
)
def test_lines_stay_in_place_and_leave_room_for_those_that_count(
    room: int, shown: list[int]
) -> None:
    kinds, ranks = ["dull"] * 6 + ["worst"] + ["dull"] * 3, [2] * 6 + [0] + [2] * 3
    found = placed(kinds, ranks, room)
    assert found == shown
    lines = list(with_gaps([str(i) for i in found], found, range(10), "things", str, Screen(9)))
    assert len(lines) <= room
    # What is shown and what is counted is everything, in order.
    at = 0
    for line in lines:
        counted = re.match(r"\.\.\. (\d+) more things", line)
        assert counted or int(line) == at
        assert not counted or int(counted[1]) > 1
        at += int(counted[1]) if counted else 1
    assert at == 10
    # How to see them is said once.
    assert sum("--all" in line for line in lines) == (len(found) < 10)


def test_left_out_things_are_counted_by_kind() -> None:
    left_out = ["device"] * 2000 + ["reserved"] * 34
    line = more("ranges", left_out, str, Screen(40))
    assert line == "... 2,034 more ranges: 2,000 device, 34 reserved (--all shows them)"
    assert is_folded(f"something\n{line}")
    assert not is_folded("something")


def test_line_that_counts_stays_short_for_many_kinds() -> None:
    left_out = [*"aabcdefg", *map(str, range(992))]
    line = more("sections", left_out, str, Screen(40))
    assert "2 a, 1 b, 1 c, 1 d, 1 e, 994 others" in line
    for columns, counted in ((60, " sections: 2 a, 998 others"), (45, " sections"), (40, "")):
        line = more("sections", left_out, str, Screen(40, columns))
        assert line == f"... 1,000 more{counted} (--all shows them)"


@pytest.fixture(scope="module")
def thousand() -> Report:
    return machines.many_pgmaps(1000)


@pytest.mark.parametrize("screen", SCREENS)
def test_report_of_a_thousand_pgmaps_fits_on_a_screen(thousand: Report, screen: Screen) -> None:
    text = as_text.report_text(thousand, screen=screen)
    assert height(text, screen) <= screen.lines
    for title in ("PGMAPS", "RANGES", "FINDINGS", "NOT JUDGED"):
        assert title in text.splitlines()


def test_report_shows_what_is_wrong_and_counts_the_rest(thousand: Report) -> None:
    text = as_text.report_text(thousand, screen=Screen(40))
    lines = text.splitlines()
    # One of each finding, with the only error first.
    shown = [line.split()[:2] for line in lines if re.match("error|warning", line)]
    assert shown[0] == ["error:", "device-page-uninitialized"]
    assert ["warning:", "case4-initializing"] in shown
    # There is room for the evidence of the worst.
    assert lines[lines.index(next(x for x in lines if x.startswith("error"))) + 1].startswith(
        "    struct page of PFN 0x1f380258"
    )
    # Whatever is shown and whatever is counted is everything there is.
    counted = [re.match(r"\.\.\. ([\d,]+) more (.*?): ", line) for line in lines]
    left_out = {m[2]: int(m[1].replace(",", "")) for m in counted if m}
    assert left_out["findings"] + len(shown) == 1002
    ranges = text[text.index("RANGES") : text.index("FINDINGS")]
    assert left_out["ranges"] + ranges.count("[0x") == 3001
    assert "initializing (4)" in ranges
    pgmaps = text[: text.index("RANGES")]
    assert left_out["ranges of pgmaps"] + pgmaps.count("[0x") == 1000
    assert "initializing, 1 ref" in pgmaps
    assert lines[-1] == "1 error, 1001 warnings, 0 info"


def test_everything_is_shown_where_there_is_no_screen(thousand: Report) -> None:
    text = as_text.report_text(thousand)
    assert not is_folded(text)
    assert text.count("case5-reserved") == 1000
    assert text.count("struct page of PFN") == 3 * 1002


def test_small_report_is_not_folded() -> None:
    report = machines.many_pgmaps(2)
    assert as_text.report_text(report, screen=Screen(100)) == as_text.report_text(report)


def test_ranges_that_fit_on_the_last_line_are_all_shown() -> None:
    ranges = [machines.range_(i, i + 1, Case.ONLINE) for i in range(39)]
    facts = machines.kernel()
    assert not is_folded(as_text.ranges_text(facts, ranges, screen=Screen(40)))
    text = as_text.ranges_text(facts, [*ranges, *ranges], screen=Screen(40))
    assert len(text.splitlines()) == 40
    assert text.endswith(f"... {78 - 38} more ranges: 40 online (--all shows them)")


def test_a_terminal_has_its_size_and_a_pipe_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert current_screen() is None
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "132")
    monkeypatch.setenv("LINES", "50")
    assert current_screen() == Screen(49, 132)


@pytest.fixture
def big_kernel(monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    """120 sections, every other one shared with a device that is no longer there."""
    kernel = FakeKernel("6.1")
    for nr in range(120):
        kernel.section(2 * nr, online=True, early=True, taint=nr == 100)
        kernel.memory_block(2 * nr)
    open_instead(monkeypatch, kernel.program)
    return kernel


def _counted(text: str) -> int:
    return sum(int(n) for n in re.findall(r"^\.\.\. (\d+) more ", text, re.MULTILINE))


def _rows(text: str) -> int:
    return len(re.findall(r"^(?!\.\.\.).*\[0x", text, re.MULTILINE))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output is a terminal of 41 lines that has no pager."""
    monkeypatch.setattr("drgn_zonedev.commands.base.current_screen", lambda: Screen(40))


@pytest.mark.parametrize("command", ["ranges", "sections"])
def test_command_prints_a_screen_unless_asked_for_all(
    big_kernel: FakeKernel, command: str, terminal: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command]) == 0
    folded = capsys.readouterr()
    assert len(folded.out.splitlines()) == 40
    assert _counted(folded.out) + _rows(folded.out) == 120
    assert f" more {command}: " in folded.out
    assert folded.err == ""
    assert cli.main([command, "--all"]) == 0
    everything = capsys.readouterr()
    assert len(everything.out.splitlines()) == 121
    assert everything.err == ""


@pytest.mark.parametrize("command", ["ranges", "sections"])
def test_a_pipe_gets_every_line(
    big_kernel: FakeKernel, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command]) == 0
    piped = capsys.readouterr()
    assert (_rows(piped.out), _counted(piped.out), piped.err) == (120, 0, "")


def test_shared_section_comes_before_plain_ones(
    big_kernel: FakeKernel, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["sections"]) == 0
    assert re.search(r"^200 .*TAINT", capsys.readouterr().out, re.MULTILINE)


def test_json_is_always_complete(
    big_kernel: FakeKernel, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["sections", "--format", "json"]) == 0
    done = capsys.readouterr()
    assert len(json.loads(done.out)["sections"]) == 120
    assert done.err == ""


def test_file_is_complete(
    big_kernel: FakeKernel, tmp_path: os.PathLike[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = os.path.join(tmp_path, "sections.txt")
    assert cli.main(["sections", "-o", out]) == 0
    with open(out) as f:
        assert len(f.readlines()) == 121
    assert capsys.readouterr().err == ""


def test_small_machine_is_shown_with_all_its_evidence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    open_instead(monkeypatch, collision("6.1").program)
    assert cli.main(["check"]) == 0
    done = capsys.readouterr()
    assert "struct page of PFN 0x24000" in done.out
    assert done.err == ""


def test_hyphen_is_standard_output(
    big_kernel: FakeKernel,
    tmp_path: os.PathLike[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sections"]) == 0
    printed = capsys.readouterr().out
    assert cli.main(["sections", "-o", "-"]) == 0
    assert capsys.readouterr().out == printed
    assert not os.listdir(tmp_path)


def test_section_that_is_asked_for_but_absent_is_named(
    big_kernel: FakeKernel, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["sections", "400000"]) == 0
    assert capsys.readouterr().out == "section 400000 is not present\n"
    assert cli.main(["sections", "2", "3"]) == 0
    out = capsys.readouterr().out
    assert re.search("^2 ", out, re.MULTILINE)
    assert out.endswith("\nsection 3 is not present\n")
