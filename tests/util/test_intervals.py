# SPDX-License-Identifier: LGPL-2.1-or-later

"""Spans, against sets of single addresses."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from drgn_zonedev.util.intervals import Span, difference, intersection, pages, union

SPAN = st.tuples(st.integers(0, 60), st.integers(0, 60))


def addresses(spans: Iterable[Span]) -> set[int]:
    return {address for start, end in spans for address in range(start, end)}


@given(st.lists(SPAN))
def test_union_covers_the_same_and_is_sorted_and_disjoint(spans: list[Span]) -> None:
    found = union(spans)
    assert addresses(found) == addresses(spans)
    assert all(a[1] < b[0] for a, b in zip(found, found[1:]))
    assert all(start < end for start, end in found)


@given(SPAN, st.lists(SPAN))
def test_intersection_is_that_of_the_sets(span: Span, others: list[Span]) -> None:
    found = list(intersection(span, union(others)))
    assert addresses(found) == addresses([span]) & addresses(others)


@given(SPAN, st.lists(SPAN))
def test_difference_is_that_of_the_sets(span: Span, others: list[Span]) -> None:
    found = list(difference(span, union(others)))
    assert addresses(found) == addresses([span]) - addresses(others)
    assert all(start < end for start, end in found)


@given(SPAN)
def test_pages_cut_at_every_border(span: Span) -> None:
    found = list(pages(span, 8))
    assert addresses(found) == addresses([span])
    assert all(start // 8 == (end - 1) // 8 for start, end in found)
