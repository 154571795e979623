# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Layout
------

Physical memory as rows of cells. A cell is a subsection, and a row has as many cells as
fit. Equal rows are folded into one; if there are still too many rows, a cell is two
subsections, four, and so on. A cell shows the most important mark that it contains, so
important marks are never lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drgn_zonedev.render.picture.glyphs import BAD, HOLE, mark_of_range
from drgn_zonedev.render.picture.scene import (
    Array,
    Picture,
    errors_between,
    pgmaps_between,
    ranges_between,
)
from drgn_zonedev.util.sets import sorted_set

__all__ = ("Grid", "Row", "grid")

# Folding rarely removes more rows than this: do not try a grid with more.
_MOST_FOLDED = 16

RowMarks = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Row:
    """
    ``repeats`` equal rows, together of ``[start_pfn, end_pfn)``.

    ``marks`` has the index of a mark per cell, and ``pgmaps`` are indices of pgmaps.
    """

    start_pfn: int
    end_pfn: int
    marks: bytes
    repeats: int
    pgmaps: tuple[int, ...]


@dataclass(frozen=True)
class Grid:
    """Rows from PFN 0 to the last section, of ``columns`` cells of ``cell_pages`` pages."""

    columns: int
    cell_pages: int
    rows: tuple[Row, ...]

    @property
    def row_pages(self) -> int:
        """Number of pages in a row."""
        return self.columns * self.cell_pages


def grid(scene: Picture, columns: int, max_rows: int | None) -> Grid:
    """
    Lay out a scene.

    :param max_rows: zoom out until there are no more rows; if ``None``, a cell is a subsection
    """
    cell_pages = scene.kernel.subsection_size // scene.kernel.page_size
    spans = scene.spans.T
    last_pfn = int(spans[1].max(initial=0))
    while True:
        row_pages = columns * cell_pages
        touched = _touched(spans, row_pages)
        if max_rows is None or len(touched) <= _MOST_FOLDED * max_rows or row_pages >= last_pfn:
            rows = _rows(scene, row_pages, touched, _paint(spans, columns, cell_pages, touched))
            if max_rows is None or len(rows) <= max_rows or row_pages >= last_pfn:
                return Grid(columns, cell_pages, rows)
        cell_pages *= 2


def _touched(spans: Array, row_pages: int) -> Array:
    """Get the numbers of the rows in which a span begins or ends."""
    start, end, _ = spans
    return sorted_set(np.concatenate((start // row_pages, (end - 1) // row_pages)))


def _rows(scene: Picture, row_pages: int, touched: Array, painted: RowMarks) -> tuple[Row, ...]:
    merged: list[Row] = []
    for row in _all_rows(scene, row_pages, touched, painted):
        last = merged[-1] if merged else None
        if last and (last.marks, last.pgmaps) == (row.marks, row.pgmaps):
            repeats = last.repeats + row.repeats
            merged[-1] = Row(last.start_pfn, row.end_pfn, row.marks, repeats, row.pgmaps)
        else:
            merged.append(row)
    return tuple(merged)


def _paint(spans: Array, columns: int, cell_pages: int, touched: Array) -> RowMarks:
    """
    Get the marks of the rows in which a span begins or ends.

    Other rows are not painted: a span that covers them also covers the cells before and after
    them, which are neighbours here. So each span is one run of cells.
    """
    start, end, mark = spans
    row_pages = columns * cell_pages

    def cell(pfn: Array) -> Array:
        row = pfn // row_pages
        return np.searchsorted(touched, row) * columns + pfn % row_pages // cell_pages

    first, behind = cell(start), cell(end - 1) + 1
    cells = np.full(len(touched) * columns, HOLE, np.uint8)
    for value in sorted(set(mark.tolist()), reverse=True):
        edges = np.zeros(len(cells) + 1, np.int64)
        np.add.at(edges, first[mark == value], 1)
        np.add.at(edges, behind[mark == value], -1)
        cells[np.cumsum(edges[:-1]) > 0] = value
    return cells.reshape(-1, columns)


def _all_rows(scene: Picture, row_pages: int, touched: Array, painted: RowMarks) -> Iterator[Row]:
    """Yield painted rows, and between them rows that one span covers, or none."""
    next_row = 0
    for number, marks in zip(touched.tolist(), painted):
        start, end = number * row_pages, (number + 1) * row_pages
        if number > next_row:
            yield _plain_row(scene, next_row * row_pages, start, row_pages, len(marks))
        yield Row(start, end, marks.tobytes(), 1, pgmaps_between(scene, start, end))
        next_row = number + 1


def _plain_row(scene: Picture, start_pfn: int, end_pfn: int, row_pages: int, columns: int) -> Row:
    ranges = ranges_between(scene, start_pfn, end_pfn)
    mark = mark_of_range(ranges[0]) if ranges else HOLE
    if errors_between(scene, start_pfn, end_pfn):
        mark = BAD
    repeats = (end_pfn - start_pfn) // row_pages
    pgmaps = pgmaps_between(scene, start_pfn, end_pfn)
    return Row(start_pfn, end_pfn, bytes([mark]) * columns, repeats, pgmaps)
