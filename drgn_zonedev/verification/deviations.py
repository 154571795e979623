# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Deviations
----------

Where struct pages break :mod:`.rules`: which pages, what they hold, and what they
should hold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from drgn import Program

from drgn_zonedev.kernel.memmap import Pages, head_pgmaps
from drgn_zonedev.verification.promises import Place, Promise, periodic_areas
from drgn_zonedev.verification.rule import Bits, Comparison, Role, Rule
from drgn_zonedev.verification.rules import NEVER_WRITTEN, rules_about

__all__ = ("Compared", "Deviation", "compare_page", "deviations")


@dataclass(frozen=True)
class Deviation:
    """
    Pages that are not as promised.

    ``wrong`` selects rows of the pages that were looked at; ``found`` and
    ``expected`` are columns or scalars, ``offset`` is that of the word in
    ``struct page``.
    """

    slug: str
    wrong: np.ndarray
    what: str
    offset: int | np.ndarray
    found: np.ndarray
    expected: np.ndarray


@dataclass(frozen=True)
class Compared:
    """One struct page next to a rule: ``promised`` is what must be in ``bits``, in words."""

    rule: Rule
    bits: Bits
    promised: str
    broken: bool


def deviations(prog: Program, pages: Pages, promise: Promise) -> list[Deviation]:
    """Compare struct pages with what is promised for them: a deviation for each finding."""
    all_pages = _Subject(prog, pages, Place(pages.layout, promise, pages.pfn))
    rules = rules_about(pages.layout, promise)
    broken = [(rule, all_pages.broken(rule)) for rule in rules]
    unwritten = _any_of(broken, Role.ORIGIN) & _any_of(broken, Role.LINK)
    never_written = all_pages.never_written(unwritten, rules)
    found, judged = {never_written.slug: never_written}, ~unwritten
    for rule, wrong in broken:
        d = all_pages.deviation(rule, wrong & judged)
        # Pages may break one and the same promise in several areas, or in several words.
        found[d.slug] = _union(found[d.slug], d) if d.slug in found else d
        if rule.role is not Role.CONTENT:
            judged = judged & ~wrong
    return [d for d in found.values() if d.wrong.any()]


def compare_page(prog: Program, pages: Pages, promise: Promise) -> Iterator[Compared]:
    """Compare a single struct page with every rule about it."""
    page = _Subject(prog, pages, Place(pages.layout, promise, pages.pfn))
    for rule in rules_about(pages.layout, promise):
        if page.in_areas(rule)[0]:
            bits = rule.word.bits(pages.layout)
            yield Compared(rule, bits, page.promised(rule), bool(page.broken(rule)[0]))


def _any_of(broken: list[tuple[Rule, np.ndarray]], role: Role) -> np.ndarray:
    return np.any([wrong for rule, wrong in broken if rule.role is role], axis=0)


def _union(a: Deviation, b: Deviation) -> Deviation:
    return dataclasses.replace(
        a,
        wrong=a.wrong | b.wrong,
        offset=np.where(a.wrong, a.offset, b.offset),
        found=np.where(a.wrong, a.found, b.found),
        expected=np.where(a.wrong, a.expected, b.expected),
    )


@dataclass(frozen=True)
class _Subject:
    """Struct pages, and where they are."""

    prog: Program
    pages: Pages
    place: Place

    def in_areas(self, rule: Rule) -> np.ndarray:
        """Which pages a rule is about."""
        _, areas = periodic_areas(self.place.layout, self.place.promise)
        index = self.place.index
        spans = (areas[area] for area in rule.areas if area in areas)
        return np.any([(index >= s.start) & (index < s.stop) for s in spans], axis=0)

    def broken(self, rule: Rule) -> np.ndarray:
        """Which pages break a rule."""
        found, expected = self._part(rule), rule.expected(self.place)
        if rule.comparison is Comparison.ONE_OF:
            holds = np.isin(found, np.array(expected, found.dtype))
        elif rule.comparison is Comparison.AT_LEAST:
            holds = found.view(np.int32) >= expected
        elif rule.comparison is Comparison.COUNT_OR_TYPE:
            count = found.view(np.int32)
            holds = (count >= expected) | (count < _PAGE_MAPCOUNT_RESERVE)
        else:
            holds = found == np.asarray(expected, found.dtype)
        wrong = self.in_areas(rule) & ~holds
        if rule.comparison is Comparison.EQUAL_OR_FOLIO and wrong.any():
            wrong &= ~self._in_good_folio
        return wrong

    def _part(self, rule: Rule) -> np.ndarray:
        bits = rule.word.bits(self.place.layout)
        column = bits.column(self.pages.words)
        return (column & column.dtype.type(bits.mask)) >> column.dtype.type(bits.shift)

    @cached_property
    def _in_good_folio(self) -> np.ndarray:
        # Tails of a folio whose head lies in the same range and holds the pgmap.
        pages, device, layout = self.pages, self.place.device, self.place.layout
        head_pfn = (pages.head - np.uint64(layout.vmemmap)) // np.uint64(layout.size)
        inside = (head_pfn >= np.uint64(device.first_pfn)) & (head_pfn < np.uint64(device.end_pfn))
        return pages.is_tail & inside & (head_pgmaps(self.prog, pages) == np.uint64(device.pgmap))

    def deviation(self, rule: Rule, wrong: np.ndarray) -> Deviation:
        """What the pages that break a rule hold, and should hold."""
        bits = rule.word.bits(self.place.layout)
        column = bits.column(self.pages.words)
        expected = self._one_expected(rule, column.dtype)
        found = column if rule.word.flag else self._part(rule)
        if rule.word.flag:
            expected = _replaced(column, bits, expected)
        expected = np.broadcast_to(expected, wrong.shape)
        return Deviation(rule.finding, wrong, rule.word.name, bits.offset, found, expected)

    def _one_expected(self, rule: Rule, dtype: np.dtype) -> np.ndarray:
        # The first of several; a negative number as it is in memory.
        expected = rule.expected(self.place)
        if isinstance(expected, tuple):
            expected = expected[0]
        if isinstance(expected, int):
            expected &= (1 << 8 * dtype.itemsize) - 1
        return np.asarray(expected, dtype)

    def never_written(self, wrong: np.ndarray, rules: tuple[Rule, ...]) -> Deviation:
        """Pages whose flags should say where they belong, as ``set_page_links()`` does."""
        layout = self.place.layout
        expected = self.pages.flags
        for rule in rules:
            if rule.role is Role.ORIGIN:
                value = self._one_expected(rule, expected.dtype)
                expected = _replaced(expected, rule.word.bits(layout), value)
        slug, offset = NEVER_WRITTEN[type(self.place.promise)], layout.flags_word * 8
        return Deviation(slug, wrong, "page->flags", offset, self.pages.flags, expected)

    def promised(self, rule: Rule) -> str:
        """What a rule promises for the first page, in words."""
        expected, head = rule.expected(self.place), int(self.place.pfn[0] - self.place.index[0])
        values = expected if isinstance(expected, tuple) else (int(np.ravel(expected)[0]),)
        return " or ".join(rule.promised.format(value=value, head=head) for value in values)


# Below it is no count, but a page type.
_PAGE_MAPCOUNT_RESERVE = -128


def _replaced(column: np.ndarray, bits: Bits, value: np.ndarray) -> np.ndarray:
    type_ = column.dtype.type
    mask = (1 << 8 * bits.size) - 1
    return column & type_(~bits.mask & mask) | value << type_(bits.shift)
