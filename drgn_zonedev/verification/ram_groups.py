# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Groups of Pages of RAM
----------------------

Groups pages, as the fast path needs them, by the rules of :mod:`.ram_rules` that are about
them, and finds those that break one.

Rules about compound links and orders are not among these: :mod:`.ram_fastpath` decides which
group a page is in.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from dataclasses import dataclass

import numpy as np

from drgn_zonedev.kernel.memmap import PageLayout
from drgn_zonedev.verification import rules
from drgn_zonedev.verification.checks import Checks, checks_of
from drgn_zonedev.verification.columns import Columns, Rows, rows_of
from drgn_zonedev.verification.comparison import keeps, part_of
from drgn_zonedev.verification.page_words import ORDER, TAIL_LINK
from drgn_zonedev.verification.promises import Area, Place, RamPages
from drgn_zonedev.verification.ram_rules import BUDDY_ORDER
from drgn_zonedev.verification.rule import Rule, Varies

__all__ = ("Group", "Groups", "Kept", "groups_of")


class Group(enum.Enum):
    """Areas that the pages of a group are in. Each page is in one of the first two, too."""

    UNRESERVED = (Area.RAM, Area.RAM_UNRESERVED)
    RESERVED = (Area.RAM, Area.RAM_RESERVED, Area.RAM_KEPT, Area.RAM_SINGLE)
    SINGLE = (Area.RAM_SINGLE,)
    TYPED = (Area.RAM_TYPED,)
    HEAD = (Area.RAM_HEAD,)
    FIRST_TAIL = (Area.RAM_TAIL, Area.RAM_OWN_TAIL, Area.RAM_FIRST_TAIL)
    OTHER_TAIL = (Area.RAM_TAIL, Area.RAM_OWN_TAIL, Area.RAM_OTHER_TAIL)
    IDLE_TAIL = (Area.RAM_IDLE_TAIL,)
    FREE_HEAD = (Area.FREE_HEAD,)
    FREE_INSIDE = (Area.FREE_INSIDE,)

    # Enum.__hash__ is a function in Python, which is slow.
    __hash__ = object.__hash__


# Words that depend on where a page is, and that the fast path knows about.
_PLACED = (TAIL_LINK, ORDER, BUDDY_ORDER)


class Groups:
    """The promises about each group of pages, which are combined when they are needed."""

    def __init__(self, layout: PageLayout, promise: RamPages, about: tuple[Rule, ...]) -> None:
        self._layout, self._promise = layout, promise
        self._rules = [r for r in about if not any(r.word is word for word in _PLACED)]
        self._known: dict[Group, Kept] = {}

    def __getitem__(self, group: Group) -> Kept:
        kept = self._known.get(group)
        if kept is None:
            about = [r for r in self._rules if any(area in r.areas for area in group.value)]
            checks = checks_of(self._layout, self._promise, about)
            kept = self._known[group] = Kept(self._layout, self._promise, about, checks)
        return kept

    @functools.cached_property
    def usual(self) -> Kept:
        """Finds single pages that keep the rules, and are not slab pages of older kernels."""
        others = self._layout.pg_head | self._promise.kinds.slab_flag
        return self[Group.SINGLE].without(self._layout.flags_word, others)


def groups_of(layout: PageLayout, promise: RamPages) -> Groups:
    """Get the groups of pages of RAM, which are the same for promises that differ only in place."""
    anywhere = dataclasses.replace(promise, start_pfn=0, end_pfn=0, around=(0, 0), zone_end=0)
    return _groups(layout, anywhere, rules.RULES)


@functools.lru_cache(maxsize=16)
def _groups(layout: PageLayout, promise: RamPages, table: tuple[Rule, ...]) -> Groups:
    return Groups(layout, promise, rules.rules_among(table, layout, promise))


@dataclass(frozen=True)
class Kept:
    """Finds the pages that keep all of some rules."""

    layout: PageLayout
    promise: RamPages
    rules: list[Rule]
    checks: Checks

    def passes(self, table: Columns | Rows) -> np.ndarray:
        """Which pages pass the checks. All that do keep the rules."""
        checks = self.checks
        if not checks.satisfiable or checks.placed:
            return np.zeros(len(table), bool)
        found = np.ones(len(table), bool)
        for index, (mask, wanted) in checks.masked.items():
            common = table.common(index, mask)
            if common is None:
                found &= table.equal(index, mask, wanted)
            elif common != wanted:
                return np.zeros(len(table), bool)
        for index, mask, value in checks.unlike:
            common = table.common(index, mask)
            if common is None:
                found &= ~table.equal(index, mask, value)
            elif common == value:
                return np.zeros(len(table), bool)
        for index, value in checks.least:
            found &= table.at_least(index, value)
        for index, value in checks.counted:
            rows = table.below(index, value)
            if len(rows):
                found[rows[~self.promise.kinds.has_type(table.half(index)[rows])]] = False
        return found

    def without(self, index: int, mask: int) -> Kept:
        """Finds the pages that keep the rules, and have none of some bits of a word."""
        return dataclasses.replace(self, checks=self.checks.without(index, mask))

    def broken(self, table: Columns | Rows) -> np.ndarray:
        """Rows of the pages that break a rule."""
        others = rows_of(~self.passes(table))
        if not len(others):
            return others
        words = table.at(others).words
        return others[np.any([~self._keeps(rule, words) for rule in self.rules], axis=0)]

    def _keeps(self, rule: Rule, words: np.ndarray) -> np.ndarray:
        if rule.varies is not Varies.BY_RANGE:
            # Other checks decide about this rule.
            return np.zeros(len(words), bool)
        found = part_of(self.layout, self.promise, rule, words)
        place = Place(self.layout, self.promise, np.empty(0, np.int64))
        return keeps(self.promise, rule, found, rule.expected(place))
