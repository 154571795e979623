# SPDX-License-Identifier: LGPL-2.1-or-later

"""Changes of a census, by arithmetic."""

from __future__ import annotations

from drgn_zonedev.comparison.census_changes import PagesChange, census_changes
from drgn_zonedev.comparison.known_census import KnownCensus, PagesLike


def like(kind: str, node: int | None = None, label: str | None = None) -> PagesLike:
    return PagesLike(kind, node, None, label)


def test_the_most_pages_come_first_and_kinds_are_sums() -> None:
    old = KnownCensus(None, {like("free", 0): 100, like("free", 1): 50, like("slab", 0): 7})
    new = KnownCensus(None, {like("free", 0): 40, like("free", 1): 110, like("anon", 0): 9})
    found = census_changes(old, new)
    assert found.groups == (
        PagesChange(like("free", 0), 100, 40),
        PagesChange(like("free", 1), 50, 110),
        PagesChange(like("anon", 0), 0, 9),
        PagesChange(like("slab", 0), 7, 0),
    )
    assert [change.word for change in found.groups] == ["changed", "changed", "came", "went"]
    # As many free pages as before, on other nodes.
    assert [change.pages.kind for change in found.kinds] == ["anon", "slab"]


def test_the_same_is_nothing() -> None:
    census = KnownCensus("flags", {like("free", 0, "PG_buddy"): 3, like("slab"): 0})
    assert not census_changes(census, KnownCensus("flags", {like("free", 0, "PG_buddy"): 3}))
