# SPDX-License-Identifier: LGPL-2.1-or-later

"""Rows and cells, by arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import machines
from support.machines import GIB, MIB, TIB

from drgn_zonedev.model import Case, Range
from drgn_zonedev.render.picture.glyphs import BAD, HOLE, MARKS, Mark, mark_of
from drgn_zonedev.render.picture.layout import grid
from drgn_zonedev.render.picture.scene import Picture, make_scene

SECTION = 128 * MIB // 4096
ONLINE, DEVICE, PARTIAL, RESERVED, METADATA = map(
    mark_of, (Case.ONLINE, Case.DEVICE, Case.PARTIAL, Case.RESERVED, Case.METADATA)
)


def _scene(*ranges: Range, section_size: int = 128 * MIB, page_size: int = 4096) -> Picture:
    return make_scene(machines.kernel(section_size, page_size), ranges, ())


def test_section_of_x86_is_a_row_of_64_subsections() -> None:
    # 0.5 sections of RAM, a device with 2 pages of reserve, 5 subsections that it leaves.
    half, end = SECTION // 2, SECTION - 5 * 512
    scene = _scene(
        machines.range_(0, half, Case.ONLINE),
        machines.range_(half, half + 2, Case.RESERVED, 1),
        machines.range_(half + 2, half + 1024, Case.METADATA, 1),
        machines.range_(half + 1024, end, Case.DEVICE, 1),
        machines.range_(end, SECTION, Case.PARTIAL),
    )
    drawn = grid(scene, 64, None)
    assert drawn.cell_pages == 512
    (row,) = drawn.rows
    assert (row.start_pfn, row.end_pfn, row.repeats) == (0, SECTION, 1)
    cells = [ONLINE] * 32 + [RESERVED, METADATA] + [DEVICE] * 25 + [PARTIAL] * 5
    assert list(row.marks) == cells


@pytest.mark.parametrize(
    ("section_size", "page_size"), [(512 * MIB, 65536), (128 * MIB, 4096), (128 * MIB, 16384)]
)
def test_every_section_size_has_a_cell_per_subsection(section_size: int, page_size: int) -> None:
    pages, subsection = section_size // page_size, 2 * MIB // page_size
    scene = _scene(
        machines.range_(0, pages, Case.ONLINE),
        machines.range_(pages, 2 * pages - subsection, Case.DEVICE, 1),
        machines.range_(2 * pages - subsection, 2 * pages, Case.PARTIAL),
        section_size=section_size,
        page_size=page_size,
    )
    drawn = grid(scene, 64, None)
    cells = b"".join(row.marks * row.repeats for row in drawn.rows)
    per_section = section_size // (2 * MIB)
    assert list(cells) == [ONLINE] * per_section + [DEVICE] * (per_section - 1) + [PARTIAL]


def test_rows_alike_are_folded_and_holes_are_shown() -> None:
    scene = _scene(
        machines.range_(0, 10 * SECTION, Case.ONLINE),
        machines.range_(32 * SECTION, 33 * SECTION, Case.DEVICE, 1),
    )
    rows = grid(scene, 64, None).rows
    assert [(row.start_pfn // SECTION, row.repeats, set(row.marks)) for row in rows] == [
        (0, 10, {ONLINE}),
        (10, 22, {HOLE}),
        (32, 1, {DEVICE}),
    ]


def test_memory_that_begins_late_begins_with_a_hole() -> None:
    scene = _scene(machines.range_(8 * SECTION, 9 * SECTION, Case.ONLINE))
    assert [(row.repeats, row.marks[0]) for row in grid(scene, 64, None).rows] == [
        (8, HOLE),
        (1, ONLINE),
    ]


def test_devices_side_by_side_are_not_folded_into_one() -> None:
    pgmaps = [machines.pgmap(i, i * SECTION, (i + 1) * SECTION) for i in range(3)]
    ranges = [machines.range_(i * SECTION, (i + 1) * SECTION, Case.DEVICE, i) for i in range(3)]
    rows = grid(make_scene(machines.kernel(), ranges, pgmaps), 64, None).rows
    assert [row.pgmaps for row in rows] == [(0,), (1,), (2,)]


def test_64_tib_are_a_few_rows_without_losing_a_page() -> None:
    end, bad = 64 * TIB // 4096, 48 * TIB // 4096 + 12345
    scene = _scene(
        machines.range_(0, bad, Case.ONLINE),
        machines.range_(bad, bad + 1, Case.UNKNOWN),
        machines.range_(bad + 1, end, Case.ONLINE),
    )
    drawn = grid(scene, 64, 20)
    assert [row.repeats for row in drawn.rows].count(1) == 1
    (row,) = (row for row in drawn.rows if row.repeats == 1)
    cell = (bad - row.start_pfn) // drawn.cell_pages
    assert [i for i, mark in enumerate(row.marks) if mark == mark_of(Case.UNKNOWN)] == [cell]
    # Folding alone was enough: a cell is still a subsection.
    assert drawn.cell_pages == 512


@pytest.mark.parametrize("max_rows", [1, 7, 40])
def test_thousand_devices_fit_into_any_number_of_rows(max_rows: int) -> None:
    report = machines.many_pgmaps(1000)
    scene = make_scene(report.kernel, report.ranges, report.pgmaps, report.findings)
    drawn = grid(scene, 64, max_rows)
    assert len(drawn.rows) <= max_rows
    # Twice as fine would have been too much: each device has a row of its own in the second
    # half, as soon as a row is no more than a GiB.
    assert drawn.row_pages >= 2000 * (GIB // 4096) // max_rows / 4
    assert any(BAD in row.marks for row in drawn.rows)
    assert sorted({i for row in drawn.rows for i in row.pgmaps}) == list(range(1000))


def test_error_that_spans_rows_is_seen_in_all_of_them() -> None:
    start, end = SECTION + 7, 9 * SECTION + 1
    found = machines.finding("device-page-uninitialized", Case.DEVICE, start, end, 1)
    ranges = [machines.range_(0, 12 * SECTION, Case.DEVICE, 1)]
    rows = grid(make_scene(machines.kernel(), ranges, (), [found]), 64, None).rows
    cells = b"".join(row.marks * row.repeats for row in rows)
    assert [i for i, mark in enumerate(cells) if mark == BAD] == list(range(64, 9 * 64 + 1))


def test_nothing_at_all_is_no_rows() -> None:
    assert grid(_scene(), 64, 10).rows == ()


_CASES = [None, *Case]


@settings(deadline=None, max_examples=150)
@given(
    lengths=st.lists(
        st.tuples(st.sampled_from([1, 5, 64, 100, 700, 5000]), st.sampled_from(_CASES)),
        min_size=1,
        max_size=40,
    ),
    errors=st.lists(st.tuples(st.integers(0, 20000), st.integers(1, 3000)), max_size=5),
    max_rows=st.sampled_from([None, 1, 3, 10]),
)
def test_every_cell_shows_what_matters_most_in_it(
    lengths: list[tuple[int, Case | None]],
    errors: list[tuple[int, int]],
    max_rows: int | None,
) -> None:
    pages: list[int] = []
    ranges = []
    for length, case in lengths:
        if case is not None:
            ranges.append(machines.range_(len(pages), len(pages) + length, case))
        pages += [HOLE if case is None else mark_of(case)] * length
    found = [
        machines.finding("device-page-uninitialized", Case.DEVICE, start, start + n, None)
        for start, n in errors
        if start + n <= len(pages)
    ]
    for f in found:
        pages[f.start_pfn : f.end_pfn] = [BAD] * f.count
    # Subsections of 8 pages, eight of them in a row.
    facts = machines.kernel(section_size=8 * 2 * MIB, page_size=256 * 1024)
    drawn = grid(make_scene(facts, ranges, (), found), 8, max_rows)
    if max_rows is not None:
        assert len(drawn.rows) <= max_rows
    cells = np.frombuffer(b"".join(row.marks * row.repeats for row in drawn.rows), np.uint8)
    padded = np.full(len(cells) * drawn.cell_pages, HOLE, np.uint8)
    end = max([r.end_pfn for r in ranges] + [f.end_pfn for f in found], default=0)
    padded[:end] = pages[:end]
    assert (padded.reshape(-1, drawn.cell_pages).min(axis=1) == cells).all()
    starts = [row.start_pfn for row in drawn.rows]
    assert starts == [0, *(row.end_pfn for row in drawn.rows)][: len(starts)]


def test_marks_do_not_differ_by_colour_alone() -> None:
    assert len({mark.letter for mark in MARKS}) == len(MARKS)
    assert len({(mark.fill, mark.hatch) for mark in MARKS}) == len(MARKS)


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("mark", MARKS, ids=lambda mark: mark.name)
def test_letters_stand_out_as_far_as_wcag_asks(mark: Mark) -> None:
    light, dark = sorted((_luminance(mark.fill), _luminance(mark.ink)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5
