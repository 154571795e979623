# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Deviations
----------

Where struct pages break :mod:`.rules`: which pages, what they hold, and what they
should hold.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from drgn import Program

from drgn_zonedev.kernel.memmap import Pages, head_pgmaps
from drgn_zonedev.util.intervals import Span
from drgn_zonedev.verification.comparison import as_unsigned, keeps, part_of
from drgn_zonedev.verification.in_flight import is_in_flight
from drgn_zonedev.verification.promises import Place, Promise, RamPages, periodic_areas
from drgn_zonedev.verification.ram_window import RamPlace, RamWindow, window_around
from drgn_zonedev.verification.rule import Bits, Comparison, Role, Rule
from drgn_zonedev.verification.rules import NEVER_WRITTEN, rules_about

__all__ = ("Compared", "Deviation", "compare_page", "deviations", "ram_deviations")


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
    subject = _Subject(prog, pages, Place(pages.layout, promise, pages.pfn))
    broken = _broken(subject)
    if not broken:
        return []
    return _deviations(subject, broken, _any_of(broken, Role.ORIGIN) & _any_of(broken, Role.LINK))


def ram_deviations(prog: Program, window: RamWindow, in_flight: Iterable[Span]) -> list[Deviation]:
    """
    Like :func:`deviations()`, for pages of RAM.

    :param in_flight: From :func:`.compounds_in_flight()`.
    """
    subject = _Subject(prog, window.pages, window.place)
    settled = ~is_in_flight(window, in_flight)
    broken = [(r, w if r.role is Role.ORIGIN else w & settled) for r, w in _broken(subject)]
    found = _deviations(subject, broken, window.unwritten)
    asked = (dataclasses.replace(d, wrong=d.wrong & window.asked) for d in found)
    return [d for d in asked if d.wrong.any()]


def compare_page(prog: Program, pages: Pages, promise: Promise) -> Iterator[Compared]:
    """Compare a single struct page with every rule about it."""
    if isinstance(promise, RamPages):
        window = window_around(prog, pages, promise)
        page, row = _Subject(prog, window.pages, window.place), pages.start_pfn
        row -= window.pages.start_pfn
    else:
        page, row = _Subject(prog, pages, Place(pages.layout, promise, pages.pfn)), 0
    for rule in rules_about(pages.layout, promise):
        if page.in_areas(rule)[row]:
            bits = rule.word.bits(pages.layout, promise)
            yield Compared(rule, bits, page.promised(rule, row), bool(page.broken(rule)[row]))


_Broken = list[tuple[Rule, np.ndarray]]


def _broken(subject: _Subject) -> _Broken:
    # The rules that pages break, and which pages break them.
    every = ((rule, subject.broken(rule)) for rule in subject.rules)
    return [(rule, wrong) for rule, wrong in every if wrong.any()]


def _deviations(subject: _Subject, broken: _Broken, unwritten: np.ndarray) -> list[Deviation]:
    found, judged = dict[str, Deviation](), ~unwritten
    if unwritten.any():
        never_written = subject.never_written(unwritten)
        found[never_written.slug] = never_written
    for rule, wrong in broken:
        if (wrong & judged).any():
            d = subject.deviation(rule, wrong & judged)
            # Pages may break one and the same promise in several areas, or in several words.
            found[d.slug] = _union(found[d.slug], d) if d.slug in found else d
        if rule.role is not Role.CONTENT:
            judged = judged & ~wrong
    return [d for d in found.values() if d.wrong.any()]


def _any_of(broken: _Broken, role: Role) -> np.ndarray:
    nothing = np.zeros_like(broken[0][1])
    return np.any([nothing, *(wrong for rule, wrong in broken if rule.role is role)], axis=0)


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

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """All that are about pages like these."""
        return rules_about(self.place.layout, self.place.promise)

    def in_areas(self, rule: Rule) -> np.ndarray:
        """Which pages a rule is about."""
        if isinstance(self.place, RamPlace):
            window = self.place.window
            return functools.reduce(np.logical_or, [window.area(area) for area in rule.areas])
        _, areas = periodic_areas(self.place.layout, self.place.promise)
        index = self.place.index
        spans = (areas[area] for area in rule.areas if area in areas)
        return np.any([(index >= s.start) & (index < s.stop) for s in spans], axis=0)

    def broken(self, rule: Rule) -> np.ndarray:
        """Which pages break a rule."""
        wrong = self.in_areas(rule)
        if wrong.any():
            wrong = wrong & ~self._kept(rule)
        if rule.comparison is Comparison.EQUAL_OR_FOLIO and wrong.any():
            wrong &= ~self._in_good_folio
        return wrong

    def _kept(self, rule: Rule) -> np.ndarray:
        if rule.comparison is Comparison.LEADS_TO and isinstance(self.place, RamPlace):
            return self.place.window.leads_to_head
        return keeps(self.place.promise, rule, self._part(rule), rule.expected(self.place))

    def _part(self, rule: Rule) -> np.ndarray:
        return part_of(self.place.layout, self.place.promise, rule, self.pages.words)

    @cached_property
    def _in_good_folio(self) -> np.ndarray:
        # Tails of a folio whose head lies in the same range and holds the pgmap.
        pages, device, layout = self.pages, self.place.device, self.place.layout
        head_pfn = (pages.head - np.uint64(layout.vmemmap)) // np.uint64(layout.size)
        inside = (head_pfn >= np.uint64(device.first_pfn)) & (head_pfn < np.uint64(device.end_pfn))
        return pages.is_tail & inside & (head_pgmaps(self.prog, pages) == np.uint64(device.pgmap))

    def deviation(self, rule: Rule, wrong: np.ndarray) -> Deviation:
        """What the pages that break a rule hold, and should hold."""
        bits = rule.word.bits(self.place.layout, self.place.promise)
        column = bits.column(self.pages.words)
        expected = self._one_expected(rule, column.dtype)
        found = column if rule.word.flag else self._part(rule)
        if rule.word.flag:
            expected = _replaced(column, bits, expected)
        expected = np.broadcast_to(expected, wrong.shape)
        return Deviation(rule.finding, wrong, rule.word.name, bits.offset, found, expected)

    def _one_expected(self, rule: Rule, dtype: np.dtype) -> np.ndarray:
        return as_unsigned(rule.expected(self.place), dtype)

    def never_written(self, wrong: np.ndarray) -> Deviation:
        """Pages whose flags should say where they belong, as ``set_page_links()`` does."""
        layout = self.place.layout
        expected = self.pages.flags
        for rule in self.rules:
            if rule.role is Role.ORIGIN and rule.comparison is not Comparison.OTHER:
                value = self._one_expected(rule, expected.dtype)
                right = _replaced(expected, rule.word.bits(layout, self.place.promise), value)
                expected = np.where(self.in_areas(rule), right, expected)
        slug, offset = NEVER_WRITTEN[type(self.place.promise)], layout.flags_word * 8
        return Deviation(slug, wrong, "page->flags", offset, self.pages.flags, expected)

    def promised(self, rule: Rule, row: int = 0) -> str:
        """What a rule promises for a page, in words."""
        expected = rule.expected(self.place)
        head = int(self.place.pfn[row] - self.place.index[row])
        if isinstance(expected, np.ndarray):
            expected = int(expected[row])
        values = expected if isinstance(expected, tuple) else (expected,)
        texts = [
            rule.promised.format(value=value, head=head, **self._zone(value)) for value in values
        ]
        if len(texts) > _MOST_SHOWN:
            texts[_MOST_SHOWN - 1 :] = [f"one of {len(texts) - _MOST_SHOWN + 1} more"]
        return " or ".join(texts) or "nothing"

    def _zone(self, value: int) -> dict[str, int]:
        # If it is a zone_id().
        nid, zone = divmod(value, 1 << self.place.layout.zones_shift)
        return {"zone": zone, "nid": nid}


# Values that are as good as each other.
_MOST_SHOWN = 4


def _replaced(column: np.ndarray, bits: Bits, value: np.ndarray) -> np.ndarray:
    type_ = column.dtype.type
    mask = (1 << 8 * bits.size) - 1
    return column & type_(~bits.mask & mask) | value << type_(bits.shift)
