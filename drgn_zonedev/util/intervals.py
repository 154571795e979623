# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Intervals
---------

Half-open spans of numbers: PFNs, addresses, indices.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

__all__ = ("Span", "difference", "intersection", "pages", "union")

Span = tuple[int, int]


def union(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Merge spans that overlap or touch; the result is sorted."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            start, end = merged[-1][0], max(end, merged.pop()[1])
        if start < end:
            merged.append((start, end))
    return tuple(merged)


def intersection(span: Span, others: Sequence[Span]) -> Iterator[Span]:
    """Yield the parts of a span that are in others, which are sorted and disjoint."""
    index = max(bisect_right(others, (span[0], 1 << 65)) - 1, 0)
    for start, end in others[index:]:
        if start >= span[1]:
            return
        if end > span[0]:
            yield max(start, span[0]), min(end, span[1])


def difference(span: Span, others: Sequence[Span]) -> Iterator[Span]:
    """Yield the parts of a span that are not in others, which are sorted and disjoint."""
    start, end = span
    for inside_start, inside_end in intersection(span, others):
        if start < inside_start:
            yield start, inside_start
        start = inside_end
    if start < end:
        yield start, end


def pages(span: Span, page_size: int) -> Iterator[Span]:
    """Split a span at page boundaries."""
    start, end = span
    while start < end:
        border = min((start // page_size + 1) * page_size, end)
        yield start, border
        start = border
