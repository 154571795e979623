# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Words
-----

The words of both drawings. Names come from the dump, and are escaped here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

from drgn_zonedev.model import Pgmap, Range, Severity
from drgn_zonedev.render.as_text import size_text
from drgn_zonedev.render.cases import may_read, unusual_access
from drgn_zonedev.render.cells import device_text, span, state_text, type_text
from drgn_zonedev.render.finding_groups import FindingGroup, group_line
from drgn_zonedev.render.picture.glyphs import MARKS, mark_of_range
from drgn_zonedev.render.picture.layout import Grid
from drgn_zonedev.render.picture.scene import Picture
from drgn_zonedev.util.strings import printable

__all__ = (
    "Trouble",
    "brief_pgmap_words",
    "brief_trouble_words",
    "device_name",
    "legend_marks",
    "numbers_words",
    "pgmap_words",
    "range_words",
    "scale_words",
    "trouble_words",
    "troubles",
)


Trouble = Union[FindingGroup, Range]
"""Something that a walker must not read, or that is wrong."""

# No driver gives a device a longer name.
_MAX_NAME = 48


def device_name(pgmap: Pgmap) -> str:
    """Get the name of a pgmap's device, else that of its operations, else its address."""
    name = device_text(pgmap)
    if name is None:
        return printable(pgmap.ops or f"{pgmap.address:#x}")
    words = printable(name)
    return words if len(words) <= _MAX_NAME else f"{words[: _MAX_NAME - 3]}..."


def numbers_words(numbers: Sequence[int]) -> str:
    """Format the numbers of pgmaps, which count from 1 in a picture."""
    if not numbers:
        return ""
    low, high = numbers[0] + 1, numbers[-1] + 1
    return f"#{low}" if low == high else f"#{low}-{high}"


def pgmap_words(scene: Picture, number: int) -> str:
    """Get a line about a pgmap."""
    pgmap = scene.pgmaps[number]
    pages = sum(r.end_pfn - r.start_pfn for r in pgmap.ranges)
    return printable(
        f"#{number + 1} {device_name(pgmap)}: {type_text(pgmap)}, "
        f"{_spans(pgmap)}, {size_text(pages * scene.kernel.page_size)}, {state_text(pgmap)}"
    )


def brief_pgmap_words(scene: Picture, number: int) -> str:
    """Get a shorter line about a pgmap: its device and its PFNs."""
    pgmap = scene.pgmaps[number]
    return printable(f"#{number + 1} {device_name(pgmap)}: {_spans(pgmap)}")


def _spans(pgmap: Pgmap) -> str:
    spans = [span(r.start_pfn, r.end_pfn) for r in pgmap.ranges[:2]]
    if len(pgmap.ranges) > len(spans):
        spans.append(f"and {len(pgmap.ranges) - len(spans):,} more")
    return ", ".join(spans)


def range_words(scene: Picture, range_: Range) -> str:
    """Get a line about a range."""
    number = scene.numbers.get(-1 if range_.pgmap is None else range_.pgmap)
    pgmap = "" if number is None else f", #{number + 1} {device_name(scene.pgmaps[number])}"
    pages = f"{range_.pages:,} page{'' if range_.pages == 1 else 's'}"
    access = unusual_access(range_)
    return (
        f"{span(range_.start_pfn, range_.end_pfn)} {MARKS[mark_of_range(range_)].name}, "
        f"{pages}{pgmap}{f', {access}' if access else ''}"
    )


def troubles(scene: Picture) -> list[tuple[Trouble, str, int]]:
    """Get findings, or all ranges that a walker must not read, each with its kind and rank."""
    if scene.findings is not None:
        found = [group for group in scene.groups if group.severity is not Severity.INFO]
        return [(group, group.slug, group.severity.rank) for group in found]
    ranges = (r for r in scene.ranges if not may_read(r.case))
    return [(r, r.case.value, mark_of_range(r)) for r in ranges]


def trouble_words(scene: Picture, trouble: Trouble) -> str:
    """Get a line about findings or a range."""
    if isinstance(trouble, FindingGroup):
        return group_line(trouble)
    return range_words(scene, trouble)


def brief_trouble_words(trouble: Trouble) -> tuple[str, ...]:
    """Get shorter lines about findings or a range, without the message, the longer one first."""
    where = span(trouble.start_pfn, trouble.end_pfn)
    if isinstance(trouble, FindingGroup):
        what = f"{trouble.slug} {where}"
        return f"{trouble.severity.value}: {what}", what
    return (f"{where} {MARKS[mark_of_range(trouble)].name}",)


def scale_words(scene: Picture, grid: Grid) -> str:
    """Say how much memory a row and a cell are."""
    page_size, kernel = scene.kernel.page_size, scene.kernel
    cell, row = grid.cell_pages * page_size, grid.row_pages * page_size
    sections = row / kernel.section_size
    which = (
        "a section"
        if sections == 1
        else f"{sections:,.0f} sections"
        if sections > 1
        else f"1/{1 / sections:.0f} of a section"
    )
    subsections = cell // kernel.subsection_size
    what = "a subsection" if subsections == 1 else f"{subsections:,} subsections"
    return f"a row is {size_text(row)} ({which}), a cell {size_text(cell)} ({what})"


def legend_marks(grid: Grid, also: Sequence[int] = ()) -> list[int]:
    """Get the marks that occur, in the order of their importance."""
    return sorted({mark for row in grid.rows for mark in row.marks} | set(also))
