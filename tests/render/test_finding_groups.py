# SPDX-License-Identifier: LGPL-2.1-or-later

"""Equal findings are one thing to read: in text, pictures and JUnit, but not in JSON."""

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree

import pytest
from support import machines

from drgn_zonedev.findings import KINDS
from drgn_zonedev.model import Case, Finding, Report
from drgn_zonedev.render.as_json import report_document
from drgn_zonedev.render.as_junit import report_junit
from drgn_zonedev.render.as_text import report_text
from drgn_zonedev.render.finding_groups import FindingGroup, group_findings, where_text
from drgn_zonedev.render.picture.scene import make_scene
from drgn_zonedev.render.picture.svg import svg_text
from drgn_zonedev.render.picture.terminal import Terminal, terminal_text

PGMAP = 0xFFFF888000001000
# What Linux 6.1.176 leaves of a devdax namespace that shares a section: 32 pages of 2 MiB.
FIRST, RUNS, SIZE, LEFT = 0x24200, 32, 512, 384


def _slug() -> str:
    return next(slug for slug, kind in KINDS.items() if kind.severity.value == "error")


def wrong(start_pfn: int, end_pfn: int, pgmap: int | None = PGMAP) -> Finding:
    return machines.finding(_slug(), Case.DEVICE, start_pfn, end_pfn, pgmap)


def tails() -> list[Finding]:
    starts = [FIRST + i * SIZE + SIZE - LEFT for i in range(RUNS)]
    return [wrong(start, start + LEFT) for start in starts]


@pytest.fixture
def report() -> Report:
    end = FIRST + RUNS * SIZE
    return machines.report(
        [machines.range_(FIRST, end, Case.DEVICE, PGMAP)],
        [machines.pgmap(PGMAP, FIRST, end)],
        tails(),
    )


SAID = "32 runs, the last 384 of each 512, 12,288 pages"


def test_text_has_one_line_for_all_and_one_each_if_asked_for(report: Report) -> None:
    text = report_text(report)
    assert text.count(f"error: {_slug()} ") == 1
    assert f"error: {_slug()} [0x24280, 0x28200): {SAID}: " in text
    assert "32 errors, 0 warnings" in text
    for words in (report_text(report, each=True), report_text(report, verbose=True)):
        assert words.count(f"error: {_slug()} ") == RUNS
        assert "runs" not in words


def test_pictures_have_one_line_for_all(report: Report) -> None:
    scene = make_scene(report.kernel, report.ranges, report.pgmaps, report.findings)
    drawn = terminal_text(scene, Terminal(200, colour=False), None)
    assert drawn.count(f"! error: {_slug()}") == 1
    assert SAID in drawn
    assert SAID in svg_text(scene)


def test_junit_says_why_and_what_to_do_once(report: Report) -> None:
    root = ElementTree.fromstring(report_junit(report, lambda finding: True))
    (failure,) = root.iter("failure")
    text = failure.text or ""
    assert SAID in text
    assert (text.count("why: "), text.count("cure: ")) == (1, 1)
    assert str(failure.get("message")).startswith("32 findings: ")


def test_json_has_all_of_them(report: Report) -> None:
    found = report_document(report)["findings"]
    assert [f["start_pfn"] for f in found] == [f.start_pfn for f in tails()]


@pytest.mark.parametrize(
    ("spans", "words"),
    [
        ([(0x1000, 0x1080)], "[0x1000, 0x1080)"),
        (
            [(0x1000, 0x1080), (0x1200, 0x1280), (0x1400, 0x1480)],
            "[0x1000, 0x1480): 3 runs, the first 128 of each 512, 384 pages",
        ),
        (
            [(0x1001, 0x1002), (0x1201, 0x1202), (0x1401, 0x1402)],
            "[0x1001, 0x1402): 3 runs, 1 of each 512, 3 pages",
        ),
        (
            [(0x1000, 0x1001), (0x2000, 0x2002)],
            "[0x1000, 0x2002): 2 runs, [0x1000, 0x1001), [0x2000, 0x2002), 3 pages",
        ),
        (
            [(0x1000, 0x1001), (0x1200, 0x1201), (0x1500, 0x1501), (0x1600, 0x1601)],
            "[0x1000, 0x1601): 4 runs, [0x1000, 0x1001), [0x1200, 0x1201), [0x1500, 0x1501), "
            "1 more, 4 pages",
        ),
    ],
)
def test_how_runs_repeat_is_said_if_they_do(spans: list[tuple[int, int]], words: str) -> None:
    (group,) = group_findings(wrong(*span) for span in reversed(spans))
    assert where_text(group) == words


def test_what_differs_in_more_than_its_pages_stays_apart() -> None:
    one = wrong(1, 2)
    others = [
        wrong(3, 4, PGMAP + 0x1000),
        dataclasses.replace(wrong(3, 4), case=Case.METADATA),
        dataclasses.replace(wrong(3, 4), message="something else"),
        dataclasses.replace(wrong(3, 4), known_bugs=("a-bug",)),
    ]
    assert group_findings([one, *others]) == [FindingGroup((f,)) for f in [one, *others]]


def test_findings_about_no_page_are_about_different_things() -> None:
    first, second = wrong(0, 0), wrong(0, 0)
    assert len(group_findings([first, second])) == 2


def test_pages_that_are_concerned_are_counted_and_no_others() -> None:
    some = dataclasses.replace(wrong(0x1000, 0x1100), count=3)
    other = dataclasses.replace(wrong(0x2000, 0x2100), count=4)
    (group,) = group_findings([some, other])
    assert group.pages == 7
