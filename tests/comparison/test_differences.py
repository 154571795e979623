# SPDX-License-Identifier: LGPL-2.1-or-later

"""What came, went or changed is what was made to."""

from __future__ import annotations

import dataclasses

import pytest

from drgn_zonedev.comparison.differences import (
    Change,
    RangeChange,
    new_findings,
    report_differences,
)
from drgn_zonedev.comparison.known_report import (
    KnownFinding,
    KnownPgmap,
    KnownRange,
    KnownReport,
)


def ranges(*cases: tuple[int, int, str]) -> tuple[KnownRange, ...]:
    return tuple(KnownRange(start, end, case, "mapped") for start, end, case in cases)


def finding(start: int, end: int, **fields: object) -> KnownFinding:
    known = KnownFinding("device-flags", "error", start, end, end - start, "they are wrong")
    return dataclasses.replace(known, **fields)  # type: ignore[arg-type]


PGMAP = KnownPgmap(((0x1000, 0x2000),), "dax0.0", "MEMORY_DEVICE_GENERIC", "live", 9, None)
REPORT = KnownReport(
    "6.1",
    "x86_64",
    (None, None, None),
    (PGMAP,),
    ranges((0, 0x1000, "online"), (0x1000, 0x2000, "device")),
    (finding(0x1000, 0x1100),),
)


def changed(**fields: object) -> KnownReport:
    return dataclasses.replace(REPORT, **fields)  # type: ignore[arg-type]


def test_a_report_does_not_differ_from_itself() -> None:
    assert not report_differences(REPORT, REPORT)
    # What the same findings are called may differ from release to release.
    assert not report_differences(
        REPORT, changed(findings=(finding(0x1000, 0x1100, message="so"),))
    )


@pytest.mark.parametrize(
    ("new", "found"),
    [
        (
            ((0, 0x1000, "online"), (0x1000, 0x2000, "teardown")),
            [(0x1000, 0x2000, "device", "teardown")],
        ),
        (
            ((0, 0x1800, "online"), (0x1800, 0x2000, "device")),
            [(0x1000, 0x1800, "device", "online")],
        ),
        (((0, 0x1000, "online"),), [(0x1000, 0x2000, "device", None)]),
        (
            ((0, 0x1000, "online"), (0x1000, 0x2000, "device"), (0x3000, 0x4000, "offline")),
            [(0x3000, 0x4000, None, "offline")],
        ),
        # Other borders do not matter where the case is the same.
        (((0, 0x800, "online"), (0x800, 0x1000, "online"), (0x1000, 0x2000, "device")), []),
        (
            (
                (0, 0x400, "offline"),
                (0x400, 0x1000, "online"),
                (0x1000, 0x1800, "offline"),
                (0x1800, 0x2000, "device"),
            ),
            [(0, 0x400, "online", "offline"), (0x1000, 0x1800, "device", "offline")],
        ),
    ],
)
def test_pfns_of_another_case(
    new: tuple[tuple[int, int, str], ...], found: list[tuple[int, int, str | None, str | None]]
) -> None:
    def case(range_: KnownRange | None) -> str | None:
        return None if range_ is None else range_.case

    changes = report_differences(REPORT, changed(ranges=ranges(*new))).ranges
    assert [(c.start_pfn, c.end_pfn, case(c.old), case(c.new)) for c in changes] == found
    # The other way round, what came has gone.
    back = report_differences(changed(ranges=ranges(*new)), REPORT).ranges
    assert back == tuple(RangeChange(c.start_pfn, c.end_pfn, c.new, c.old) for c in changes)


def test_a_pgmap_comes_and_goes() -> None:
    assert report_differences(REPORT, changed(pgmaps=())).pgmaps == (Change(PGMAP, None),)
    assert report_differences(changed(pgmaps=()), REPORT).pgmaps == (Change(None, PGMAP),)


@pytest.mark.parametrize(
    "fields",
    [
        {"state": "dead"},
        {"device": "dax1.0"},
        {"vmemmap_shift": 0},
        {"altmap": (2, 510, 0)},
        {"type": "MEMORY_DEVICE_FS_DAX"},
        # The same device elsewhere.
        {"spans": ((0x1000, 0x3000),)},
    ],
)
def test_a_pgmap_changes(fields: dict[str, object]) -> None:
    other = dataclasses.replace(PGMAP, **fields)  # type: ignore[arg-type]
    assert report_differences(REPORT, changed(pgmaps=(other,))).pgmaps == (Change(PGMAP, other),)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ((), ((0, 1),), ["came"]),
        (((0, 1),), (), ["went"]),
        (((0, 9),), ((0, 5),), ["changed"]),
        (((0, 9),), ((20, 25),), ["came", "went"]),
        (((0, 9), (20, 29)), ((0, 9), (21, 28), (40, 41)), ["changed", "came"]),
    ],
)
def test_findings_come_go_and_change(
    old: tuple[tuple[int, int], ...], new: tuple[tuple[int, int], ...], words: list[str]
) -> None:
    before = changed(findings=tuple(finding(*span) for span in old))
    after = changed(findings=tuple(finding(*span) for span in new))
    found = report_differences(before, after).findings
    assert sorted(c.word for c in found) == sorted(words)


def test_another_kind_in_the_same_place_is_another_finding() -> None:
    other = finding(0x1000, 0x1100, slug="device-links")
    found = report_differences(REPORT, changed(findings=(other,))).findings
    assert sorted(change.word for change in found) == ["came", "went"]


@pytest.mark.parametrize("fields", [{"severity": "warning"}, {"count": 3}])
def test_a_finding_of_the_same_pages_changes(fields: dict[str, object]) -> None:
    other = finding(0x1000, 0x1100, **fields)
    (change,) = report_differences(REPORT, changed(findings=(other,))).findings
    assert (change.old, change.new) == (REPORT.findings[0], other)


@pytest.mark.parametrize(
    ("old", "new", "is_new"),
    [
        ([(0, 10)], (0, 10), False),
        ([(0, 10)], (2, 5), False),
        ([(0, 5), (5, 10)], (2, 8), False),
        ([(0, 5), (6, 10)], (2, 8), True),
        ([(0, 10)], (0, 11), True),
        ([(5, 10)], (4, 6), True),
        ([], (0, 1), True),
    ],
)
def test_what_the_baseline_covers_is_not_new(
    old: list[tuple[int, int]], new: tuple[int, int], is_new: bool
) -> None:
    baseline = changed(findings=tuple(finding(*span) for span in old))
    assert new_findings(baseline, changed(findings=(finding(*new),))) == [is_new]


def test_what_is_worse_than_in_the_baseline_is_new() -> None:
    mild = changed(findings=(finding(0, 9, severity="warning"),))
    few = changed(findings=(finding(0, 9, count=3),))
    worse = changed(findings=(finding(0, 9),))
    assert new_findings(mild, worse) == [True]
    assert new_findings(few, worse) == [True]
    assert new_findings(worse, mild) == new_findings(worse, few) == [False]


def test_findings_about_no_page_are_told_apart_by_what_they_say() -> None:
    one, other = finding(0, 0, count=1, message="zone 1"), finding(0, 0, count=1, message="zone 2")
    baseline = changed(findings=(one,))
    assert new_findings(baseline, changed(findings=(one, other))) == [False, True]
    assert report_differences(baseline, changed(findings=(one, other))).findings == (
        Change(None, other),
    )
    assert report_differences(baseline, changed(findings=(other,))).findings == (
        Change(one, other),
    )
