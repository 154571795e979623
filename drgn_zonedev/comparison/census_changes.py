# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Changes of a Census
-------------------

How many pages of each sort there were, and how many there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from drgn_zonedev.comparison.known_census import KnownCensus, PagesLike

__all__ = ("CensusChanges", "PagesChange", "census_changes")


@dataclass(frozen=True)
class PagesChange:
    """Pages of which there were another number; none, if they came."""

    pages: PagesLike
    old: int
    new: int

    @property
    def word(self) -> str:
        """``came``, ``went`` or ``changed``."""
        return "came" if not self.old else "went" if not self.new else "changed"


@dataclass(frozen=True)
class CensusChanges:
    """
    All that changed, the most pages first: ``kinds``, and in ``groups`` also by node, zone and
    ``by``.
    """

    by: str | None
    kinds: tuple[PagesChange, ...]
    groups: tuple[PagesChange, ...]

    def __bool__(self) -> bool:
        return bool(self.groups)


def census_changes(old: KnownCensus, new: KnownCensus) -> CensusChanges:
    """Compare two censuses that group pages alike."""
    kinds = _changed(_by_kind(old), _by_kind(new))
    return CensusChanges(new.by, kinds, _changed(old.pages, new.pages))


def _by_kind(census: KnownCensus) -> Mapping[PagesLike, int]:
    pages: Counter[PagesLike] = Counter()
    for like, count in census.pages.items():
        pages[PagesLike(like.kind, None, None, None)] += count
    return pages


def _changed(old: Mapping[PagesLike, int], new: Mapping[PagesLike, int]) -> tuple[PagesChange, ...]:
    both = (PagesChange(p, old.get(p, 0), new.get(p, 0)) for p in {**old, **new})
    changes = (change for change in both if change.old != change.new)
    return tuple(sorted(changes, key=_most_first))


def _most_first(change: PagesChange) -> tuple[int, str, str]:
    like = change.pages
    return -abs(change.new - change.old), like.kind, f"{like.node} {like.zone} {like.label}"
