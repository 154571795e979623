# SPDX-License-Identifier: LGPL-2.1-or-later

"""The picture in letters."""

from __future__ import annotations

import dataclasses
import io
import re
import sys
from collections.abc import Callable

import pytest
from support import machines
from support.fakekernel import collision, in_flight, partial
from support.machines import MIB, TIB

from drgn_zonedev.model import Case, PgmapDevice, Provenance, Report
from drgn_zonedev.render.picture.scene import Picture, make_scene
from drgn_zonedev.render.picture.terminal import Terminal, current_terminal, terminal_text
from drgn_zonedev.render.screen import Screen, height
from drgn_zonedev.report import check

SGR = re.compile(r"\x1b\[[0-9;]*m")


def _scene(report: Report, *, findings: bool = True) -> Picture:
    return make_scene(
        report.kernel, report.ranges, report.pgmaps, report.findings if findings else None
    )


def _text(report: Report, width: int = 80, screen: Screen | None = None) -> str:
    return terminal_text(_scene(report), Terminal(width, colour=False), screen)


def test_collided_section_is_shown_to_the_subsection() -> None:
    lines = _text(check(collision("6.1").program())).splitlines()
    # Section 4: RAM, the reserve in one subsection with metadata, then the other
    # subsection of metadata, then 30 of device.
    assert f"!0x20000 {'o' * 32}Rm{'d' * 30} #1" in lines
    assert f" 0x28000 {'d' * 64} #1" in lines
    assert any(re.fullmatch(r" +0x0 o+ 4 rows, 512 MiB online o+", line) for line in lines)


def test_frontier_and_what_nobody_covers_are_capitals() -> None:
    assert f"{'o' * 32}Rm{'I' * 30} #1" in _text(check(in_flight("6.1").program()))
    text = _text(check(partial("6.1").program()))
    assert f"!0x110000 {'d' * 32}{'P' * 32} #1" in text
    assert re.search(r"^  0x10000 -+ 30 rows, 3.8 GiB no section -+$", text, re.MULTILINE)


def test_where_it_comes_from_is_said_if_there_is_room() -> None:
    report = check(collision("6.1").program())
    origin = Provenance("9.8.7", "the dump", "b" * 40, 1700000000, "BTF")
    scene = make_scene(report.kernel, report.ranges, report.pgmaps, provenance=origin)
    terminal = Terminal(200, colour=False)
    said = f"the dump, build ID {'b' * 40}, crashed 2023-11-14T22:13:20+00:00, types from BTF, "
    for screen in (None, Screen(24, 200)):
        assert f"\n{said}zonedev 9.8.7\n" in terminal_text(scene, terminal, screen)
    whole = terminal_text(scene, terminal, None).splitlines()
    small = terminal_text(scene, terminal, Screen(len(whole) - 1, 200)).splitlines()
    assert small == [line for line in whole if "the dump" not in line]


def test_legend_has_the_cases_that_occur_and_no_others() -> None:
    text = _text(check(partial("6.1").program()))
    assert "R reserved (5)  P partial (3)  m metadata  d device (2)  o online  - no section" in text
    assert "ghost" not in text


def _arm64(count: int) -> Report:
    """Sections of 512 MiB with pages of 64 KiB, a device in every other one."""
    pages = 512 * MIB // 65536
    ranges = [machines.range_(0, pages * 8, Case.ONLINE)]
    pgmaps = []
    for i in range(count):
        start = pages * (8 + 2 * i)
        ranges += [
            machines.range_(start, start + 5000, Case.DEVICE, i + 1),
            machines.range_(start + 5000, start + pages, Case.PARTIAL),
        ]
        pgmaps.append(machines.pgmap(i + 1, start, start + 5000, name=f"dax{i}.0"))
    return machines.report(ranges, pgmaps, facts=machines.kernel(512 * MIB, 65536))


def _64_tib() -> Report:
    end = 64 * TIB // 4096
    ranges = [
        machines.range_(0, end // 2, Case.ONLINE),
        machines.range_(end // 2, end // 2 + 2, Case.RESERVED, 1),
        machines.range_(end // 2 + 2, end, Case.DEVICE, 1),
    ]
    return machines.report(ranges, [machines.pgmap(1, end // 2, end)])


MACHINES: dict[str, Callable[[], Report]] = {
    "1 GiB": lambda: check(collision("6.1").program()),
    "64 TiB": _64_tib,
    "arm64": lambda: _arm64(3),
    "arm64, many": lambda: _arm64(500),
    "thousand": lambda: machines.many_pgmaps(1000),
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("width", [40, 80, 200])
def test_picture_fits_the_window(machine: str, width: int) -> None:
    screen = Screen(40, width)
    text = _text(MACHINES[machine](), width, screen)
    assert max(map(len, text.splitlines())) <= width
    assert height(text, screen) <= 40


def test_words_are_wrapped_where_there_is_room_and_left_out_where_there_is_none() -> None:
    report = machines.many_pgmaps(3)
    tall, low = _text(report, 60, Screen(60, 60)), _text(report, 60, Screen(27, 60))
    reserved = [f for f in report.findings if f.slug == "case5-reserved"]
    assert re.sub(r"\n +", " ", tall).count(reserved[0].message) == 3
    # Where it is, is said in any case.
    assert re.sub(r"\n +", " ", low).count(reserved[0].message) < 3
    for finding in reserved:
        assert f"case5-reserved [{finding.start_pfn:#x}, {finding.end_pfn:#x})" in low
    assert height(low, Screen(27, 60)) <= 27


@pytest.mark.parametrize("lines", [15, 23, 40])
@pytest.mark.parametrize("machine", MACHINES)
def test_no_window_is_too_narrow_for_pfns(machine: str, lines: int) -> None:
    text = _text(MACHINES[machine](), 40, Screen(lines, 40))
    whole = re.findall(r"\[0x[0-9a-f]+,\s+0x[0-9a-f]+\)", text)
    assert len(whole) == text.count("[0x")
    assert whole or " more pgmaps" in text


def test_finest_picture_of_arm64_has_a_cell_per_subsection() -> None:
    text = _text(_arm64(1))
    assert "a row is 128 MiB (1/4 of a section), a cell 2 MiB" in text.replace("\n    ", " ")
    # 5000 of 8192 pages of 64 KiB are 156 and a quarter of 256 subsections: two rows, and
    # 28 cells of the third.
    lines = text.splitlines()
    assert f"!0x11000 {'d' * 28}{'P' * 36} #1" in lines
    assert f"!0x11800 {'P' * 64}" in lines
    assert any(re.fullmatch(r" 0x10000 d+ 2 rows, 256 MiB device d+ #1", line) for line in lines)


def test_wide_window_has_room_for_two_sections_and_names() -> None:
    text = _text(check(collision("6.1").program()), 200)
    assert "a row is 256 MiB (2 sections), a cell 2 MiB (a subsection)" in text


def test_everything_is_shown_when_asked_for() -> None:
    report = machines.many_pgmaps(100)
    text = _text(report)
    assert "more" not in text
    assert all(f" dax{i}.0" in text for i in range(100))
    assert text.count("! warning: case5-reserved") == 100
    assert "a cell 2 MiB" in text


def test_what_there_is_no_room_for_is_counted() -> None:
    text = _text(machines.many_pgmaps(1000), 80, Screen(40, 80))
    shown = len(re.findall(r"^#\d+ dax", text, re.MULTILINE))
    assert f"... {1000 - shown} more pgmaps: {1000 - shown} GENERIC" in text
    # The pgmap in flight is the one to see.
    assert "#1000 dax999.0: GENERIC" in text
    assert "! error: device-page-uninitialized [0x1f380258, 0x1f380259)" in text


def test_without_findings_the_ranges_are_the_trouble() -> None:
    report = check(in_flight("6.1").program())
    text = terminal_text(_scene(report, findings=False), Terminal(120, colour=False), None)
    assert "! [0x24000, 0x24002) reserved (5), 2 pages, #1" in text
    assert "! [0x24400, 0x30000) initializing (4), 48,128 pages, #1" in text
    assert "warning" not in text


def test_error_is_seen_in_its_cell() -> None:
    kernel = collision("6.1")
    kernel.poke_page_word(0x28000 + 5 * 512 + 3, 1, 0xDEAD)
    assert f"!0x28000 dddddE{'d' * 58} #1" in _text(check(kernel.program()))


def test_colours_change_nothing_but_colour() -> None:
    scene = _scene(machines.many_pgmaps(20))
    screen = Screen(40, 100)
    coloured = terminal_text(scene, Terminal(100, colour=True), screen)
    plain = terminal_text(scene, Terminal(100, colour=False), screen)
    assert "\x1b" not in plain
    assert "\x1b[" in coloured
    stripped = [line.rstrip() for line in SGR.sub("", coloured).splitlines()]
    assert stripped == plain.splitlines()


def test_names_from_a_dump_cannot_draw() -> None:
    report = machines.many_pgmaps(1)
    device = PgmapDevice("\x1b[2Jevil\n\u202e", "dax", 1)
    pgmaps = (dataclasses.replace(report.pgmaps[0], device=device),)
    text = _text(dataclasses.replace(report, pgmaps=pgmaps), 200)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\x1b[2Jevil\\n\\u202e" in text


def test_machine_without_memory_is_drawn_too() -> None:
    assert "A cell shows" in _text(machines.report([]), 80, Screen(24, 80))


@pytest.mark.parametrize(
    ("isatty", "no_color", "term", "colour"),
    [
        (True, "", "xterm", True),
        (True, "1", "xterm", False),
        (True, "", "dumb", False),
        (False, "", "xterm", False),
    ],
)
def test_colour_is_for_terminals_that_want_it(
    monkeypatch: pytest.MonkeyPatch, isatty: bool, no_color: str, term: str, colour: bool
) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: isatty)
    for name, value in (("NO_COLOR", no_color), ("TERM", term), ("COLUMNS", "97")):
        monkeypatch.setenv(name, value)
    assert current_terminal() == Terminal(97, colour)
