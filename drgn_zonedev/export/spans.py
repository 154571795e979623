# SPDX-License-Identifier: LGPL-2.1-or-later

"""Half-open spans of addresses."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

__all__ = ("Span", "intersection", "pages", "union")

Span = tuple[int, int]


def union(spans: Iterable[Span]) -> list[Span]:
    """Merge what overlaps or touches; the result is sorted."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            start, end = merged[-1][0], max(end, merged.pop()[1])
        if start < end:
            merged.append((start, end))
    return merged


def intersection(span: Span, others: Sequence[Span]) -> Iterator[Span]:
    """Cut a span down to what others, which are sorted and disjoint, have of it."""
    index = max(bisect_right(others, (span[0], 1 << 65)) - 1, 0)
    for start, end in others[index:]:
        if start >= span[1]:
            return
        if end > span[0]:
            yield max(start, span[0]), min(end, span[1])


def pages(span: Span, page_size: int) -> Iterator[Span]:
    """Cut a span at the borders of pages."""
    start, end = span
    while start < end:
        border = min((start // page_size + 1) * page_size, end)
        yield start, border
        start = border
