# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Strips
------

The memory of a pgmap in detail: reserve, metadata, device pages, uninitialised and wrong
struct pages, and the rest of its first and last section. The width of each part is
logarithmic, because two pages of reserve can be next to a terabyte of device memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from drgn_zonedev.model import Case, PgmapRange
from drgn_zonedev.render.picture.glyphs import BAD, mark_of, mark_of_range
from drgn_zonedev.render.picture.scene import Picture, errors_between, ranges_between
from drgn_zonedev.render.screen import chosen

__all__ = ("Part", "Strip", "edges", "strip")


@dataclass(frozen=True)
class Part:
    """
    PFNs with one mark. ``stands_for`` parts may be folded; ``mark`` is that of the worst. If
    they repeat, ``unit`` has the marks and pages of those that do.
    """

    start_pfn: int
    end_pfn: int
    mark: int
    stands_for: int = 1
    unit: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Strip:
    """
    One pgmap, in ascending parts.

    ``frontier`` is the first PFN that ``memmap_init_zone_device()`` may not have initialised
    yet, if it is running.
    """

    pgmap: int
    parts: tuple[Part, ...]
    frontier: int | None


def strip(scene: Picture, number: int, max_parts: int) -> Strip:
    """Lay out a pgmap in at most *max_parts* parts."""
    pgmap = scene.pgmaps[number]
    parts = sorted(
        {part for range_ in pgmap.ranges for part in _parts(scene, range_)},
        key=lambda p: (p.start_pfn, p.end_pfn),
    )
    initializing = mark_of(Case.INITIALIZING)
    waiting = [part.start_pfn for part in parts if part.mark == initializing]
    frontier = min(waiting) if pgmap.in_progress and waiting else None
    if len(parts) > max_parts:
        parts = list(_repetitions(parts))
    return Strip(number, tuple(_fold(parts, max_parts)), frontier)


def _parts(scene: Picture, range_: PgmapRange) -> Iterator[Part]:
    start, end = _with_leftovers(scene, range_)
    for r in ranges_between(scene, start, end):
        low, high = max(r.start_pfn, start), min(r.end_pfn, end)
        yield from _split(scene, low, high, mark_of_range(r))


def _with_leftovers(scene: Picture, range_: PgmapRange) -> tuple[int, int]:
    """Extend a range by the unused rest of its first and last section."""
    start, end = range_.start_pfn, range_.end_pfn
    for r in ranges_between(scene, max(start - 1, 0), end + 1):
        if r.case is Case.PARTIAL and r.end_pfn == start:
            start = r.start_pfn
        elif r.case is Case.PARTIAL and r.start_pfn == end:
            end = r.end_pfn
    return start, end


def _split(scene: Picture, start: int, end: int, mark: int) -> Iterator[Part]:
    for low, high in errors_between(scene, start, end):
        if start < low:
            yield Part(start, low, mark)
        yield Part(low, high, BAD)
        start = high
    if start < end:
        yield Part(start, end, mark)


# What repeats is a few parts long, and is worth a word from three times on.
_LONGEST_UNIT, _FEWEST_TIMES = 4, 3


def _repetitions(parts: Sequence[Part]) -> Iterator[Part]:
    """Yield parts, those that repeat as one."""
    i = 0
    while i < len(parts):
        length, period = max((_repeated(parts, i, p), -p) for p in range(1, _LONGEST_UNIT + 1))
        yield _as_one(parts[i : i + length], -period) if length else parts[i]
        i += length or 1


def _repeated(parts: Sequence[Part], start: int, period: int) -> int:
    """Count the parts from one on that repeat as a whole, one period after the other."""
    end = start + period
    while end < len(parts) and _is_like(parts, end, end - period):
        end += 1
    times = (end - start) // period
    return times * period if times >= _FEWEST_TIMES else 0


def _is_like(parts: Sequence[Part], i: int, earlier: int) -> bool:
    # Pgmaps of several ranges have gaps.
    return _shape(parts[i]) == _shape(parts[earlier]) and parts[i - 1].end_pfn == parts[i].start_pfn


def _shape(part: Part) -> tuple[int, int]:
    return part.mark, part.end_pfn - part.start_pfn


def _as_one(parts: Sequence[Part], period: int) -> Part:
    unit = tuple(map(_shape, parts[:period]))
    worst = min(mark for mark, _ in unit)
    return Part(parts[0].start_pfn, parts[-1].end_pfn, worst, len(parts), unit)


def _fold(parts: Sequence[Part], max_parts: int) -> Iterable[Part]:
    if len(parts) <= max_parts:
        return parts
    marks = [part.mark for part in parts]
    # In the worst case, there are other parts on both sides of each.
    shown = set(chosen(marks, marks, (max_parts - 1) // 2))
    folded: list[Part] = []
    for i, part in enumerate(parts):
        if i in shown or not folded or i - 1 in shown:
            folded.append(part)
        else:
            last = folded[-1]
            mark = min(last.mark, part.mark)
            count = last.stands_for + part.stands_for
            folded[-1] = Part(last.start_pfn, part.end_pfn, mark, count)
    return folded


def edges(parts: Sequence[Part], width: float, least: float) -> list[float]:
    """
    Divide a width among parts: each gets *least*, and a share by the logarithm of its pages.

    :return: where each part begins, and where the last one ends
    """
    weights = [math.log2(part.end_pfn - part.start_pfn) + 1 for part in parts]
    spare = max(width - least * len(parts), 0.0)
    positions = [0.0]
    for weight in weights:
        positions.append(positions[-1] + least + spare * weight / sum(weights))
    return positions
