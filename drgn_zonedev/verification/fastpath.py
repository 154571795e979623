# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Fast Path
---------

Finds out, as fast as memory can be read, whether struct pages keep all :mod:`.rules`.

It may answer no for pages that do: :mod:`.deviations` then compares them page by page, and alone
decides what is wrong. It never answers yes for a page that breaks a rule.

Idle device pages hold the same bytes. If the first one keeps the rules, and each equals the one
before it, the others keep them as well, unless a rule demands another value of each page. Pages
that differ, because they are in use, are compared by columns, with masks that leave out what users
may change.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from drgn_zonedev.kernel.memmap import PageLayout
from drgn_zonedev.verification.checks import Checks, checks_of
from drgn_zonedev.verification.promises import (
    Area,
    DevicePages,
    Place,
    Promise,
    RamPages,
    periodic_areas,
)
from drgn_zonedev.verification.rule import ExpectedValue, Rule, Varies
from drgn_zonedev.verification.rules import rules_about

__all__ = ("FastPath", "cached_fast_path", "make_fast_path")

FastPath = Callable[[np.ndarray, int, bytes], bool]
"""
Takes the start PFNs of blocks of struct pages that were read, the number of pages
in a block, and the memory of all of them; returns whether they are as promised. Compound pages must
not begin inside a block, unless one begins at its start and the block consists of whole compound
pages.
"""


def make_fast_path(layout: PageLayout, promise: Promise) -> FastPath:
    """Make a fast path for the pages of one promise. RAM has its own, elsewhere."""
    if isinstance(promise, RamPages):
        return _look_at_all
    period, areas = periodic_areas(layout, promise)
    rules = rules_about(layout, promise)
    checks = [_checks(layout, promise, area, span, rules) for area, span in areas.items()]
    columns = _Columns(layout, promise)
    if isinstance(promise, DevicePages) and period > 1:
        return _Compound(columns, checks, promise.first_pfn, period)
    return _Uniform(columns, checks[0].checks)


def _look_at_all(starts: np.ndarray, count: int, raw: bytes) -> bool:
    return False


def cached_fast_path() -> Callable[[PageLayout, Promise], FastPath]:
    """
    Like :func:`make_fast_path()`, for pages that come piece by piece: as long as the
    promise is the same, what was verified in one piece is known in the next.
    """
    return functools.lru_cache(maxsize=1)(make_fast_path)


@dataclass(frozen=True)
class _AreaChecks:
    """The comparisons for the pages at the indices of ``span``."""

    span: range
    checks: Checks


def _checks(
    layout: PageLayout, promise: Promise, area: Area, span: range, rules: Iterable[Rule]
) -> _AreaChecks:
    about = [rule for rule in rules if area in rule.areas]
    return _AreaChecks(span, checks_of(layout, promise, about))


class _Columns:
    """Compares columns, in buffers that are reused."""

    def __init__(self, layout: PageLayout, promise: Promise) -> None:
        self.layout = layout
        self._promise = promise
        self._words = np.empty(0, np.uint64)
        self._truth = np.empty(0, bool)

    def keep(self, checks: Checks, words: np.ndarray, starts: np.ndarray, first: int) -> bool:
        """
        Whether pages keep the rules.

        :param words: The words of some pages of each block.
        :param starts: PFNs of the blocks.
        :param first: Index of the first of these pages in a block.
        """
        if not (
            checks.satisfiable
            and not checks.unlike
            and all(self._masked(words[..., i], *each) for i, each in checks.masked.items())
            and all(words.view("<i4")[..., i].min() >= n for i, n in checks.least + checks.counted)
        ):
            return False
        places = {
            varies: self._place(words, starts, first, varies)
            for varies in {varies for _, varies, _ in checks.placed}
        }
        return all(
            self._equal(words[..., i], value(places[varies])) for i, varies, value in checks.placed
        )

    def _place(self, words: np.ndarray, starts: np.ndarray, first: int, varies: Varies) -> Place:
        # A value that varies by compound page is the same for a whole block.
        pages = words.shape[1] if varies is Varies.BY_PAGE else 1
        pfn = starts[:, None] + np.arange(first, first + pages)
        return Place(self.layout, self._promise, pfn)

    def _masked(self, column: np.ndarray, mask: int, wanted: int) -> bool:
        if mask == (1 << 64) - 1:
            return self._equal(column, np.uint64(wanted))
        if len(self._words) < column.size:
            self._words = np.empty(column.size, np.uint64)
        out = self._words[: column.size].reshape(column.shape)
        np.bitwise_and(column, np.uint64(mask), out=out)
        return self._equal(out, np.uint64(wanted))

    def _equal(self, column: np.ndarray, wanted: ExpectedValue | np.uint64) -> bool:
        if len(self._truth) < column.size:
            self._truth = np.empty(column.size, bool)
        truth = self._truth[: column.size].reshape(column.shape)
        np.equal(column, wanted, out=truth)
        return bool(truth.all())


def _repeats(raw: bytes, size: int, start: int, end: int) -> bool:
    # Compares the bytes with those one struct page further on, without copying any.
    return raw.startswith(memoryview(raw)[start : end - size], start + size)


def _words(layout: PageLayout, starts: np.ndarray, raw: bytes) -> np.ndarray:
    return np.frombuffer(raw, "<u8").reshape(len(starts), -1, layout.size // 8)


class _Uniform:
    """Pages that all have the same rules."""

    def __init__(self, columns: _Columns, checks: Checks) -> None:
        self._columns, self._checks = columns, checks
        self._verified = b""

    def __call__(self, starts: np.ndarray, count: int, raw: bytes) -> bool:
        layout = self._columns.layout
        repeats = self._checks.alike and _repeats(raw, layout.size, 0, len(raw))
        if repeats and self._verified and raw.startswith(self._verified):
            return True
        kept = self._columns.keep(self._checks, _words(layout, starts, raw), starts, 0)
        if kept and repeats:
            self._verified = raw[: layout.size]
        return kept


class _Compound:
    """Compound pages of ``size`` pages, beginning at ``first_pfn``: rules depend on the index."""

    def __init__(
        self, columns: _Columns, areas: list[_AreaChecks], first_pfn: int, size: int
    ) -> None:
        self._columns, self._areas = columns, areas
        self._first_pfn, self._size = first_pfn, size

    def __call__(self, starts: np.ndarray, count: int, raw: bytes) -> bool:
        size = self._size
        if count > size and count % size == 0:
            whole = np.arange(0, count, size)
            starts, count = (starts[:, None] + whole).ravel(), size
        index = (starts - self._first_pfn) % size
        if (index != index[0]).any() or index[0] + count > size:
            return False
        first = int(index[0])
        words = _words(self._columns.layout, starts, raw)
        others = max(self._areas[-1].span.start - first, 0)
        if self._others_repeat(raw, len(starts), count, others):
            words = words[:, : others + 1]
        return all(self._keep(area, words, starts, first) for area in self._areas)

    def _others_repeat(self, raw: bytes, blocks: int, count: int, others: int) -> bool:
        # If the pages of the last area repeat, it is enough to compare one in each block.
        size = self._columns.layout.size
        return self._areas[-1].checks.alike and all(
            _repeats(raw, size, (block + others) * size, (block + count) * size)
            for block in range(0, blocks * count, count)
            if others < count
        )

    def _keep(self, area: _AreaChecks, words: np.ndarray, starts: np.ndarray, first: int) -> bool:
        begin, end = max(area.span.start - first, 0), max(area.span.stop - first, 0)
        pages = words[:, begin:end]
        return not pages.size or self._columns.keep(area.checks, pages, starts, begin)
