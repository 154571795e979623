# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Checks
------

Some rules of the table, put together word by word, so that few comparisons of whole columns
tell whether pages keep them all.

Where a rule allows several values, checks demand the first one, so a page that fails may still keep
the rule. A page that breaks a rule never passes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from drgn_zonedev.kernel.memmap import PageLayout
from drgn_zonedev.verification.promises import Place, Promise
from drgn_zonedev.verification.rule import Bits, Comparison, ExpectedValue, Rule, Varies

__all__ = ("Checks", "checks_of")

_LEAST = (Comparison.AT_LEAST, Comparison.COUNT_OR_TYPE)


@dataclass(frozen=True)
class Checks:
    """
    What to compare: ``masked`` words, by index of the word; parts of words that must not be
    a value (``unlike``: word, mask, value); the ``least`` that halves of words, signed, may
    be, and ``counted``, which may also be page types; and ``placed``, words that depend on
    where the page is. No page passes if ``satisfiable`` is false.
    """

    masked: dict[int, tuple[int, int]]
    unlike: tuple[tuple[int, int, int], ...]
    least: tuple[tuple[int, int], ...]
    counted: tuple[tuple[int, int], ...]
    placed: tuple[tuple[int, Varies, Callable[[Place], ExpectedValue]], ...]
    satisfiable: bool = True

    @property
    def alike(self) -> bool:
        """Whether all pages must hold the same words."""
        return all(varies is not Varies.BY_PAGE for _, varies, _ in self.placed)

    @property
    def pass_zeros(self) -> bool:
        """Whether a page of zeros passes."""
        least = (*self.least, *self.counted)
        return not any(wanted for _, wanted in self.masked.values()) and all(
            value <= 0 for _, value in least
        )

    def without(self, index: int, mask: int) -> Checks:
        """Get these checks, and one that some bits of a word are clear."""
        known, wanted = self.masked.get(index, (0, 0))
        satisfiable = self.satisfiable and not wanted & mask
        masked = {**self.masked, index: (known | mask, wanted)}
        return dataclasses.replace(self, masked=masked, satisfiable=satisfiable)


def checks_of(layout: PageLayout, promise: Promise, rules: Iterable[Rule]) -> Checks:
    """Combine rules about the same pages."""
    words = _Words()
    least, counted, placed = [], [], []
    known = [(rule.word.bits(layout, promise), rule) for rule in rules]
    # Rules about a whole word come before rules about a part of it.
    for bits, rule in sorted(known, key=lambda each: -bin(each[0].mask).count("1")):
        if rule.varies is not Varies.BY_RANGE:
            placed.append((bits.offset // 8, rule.varies, rule.expected))
            continue
        expected = rule.expected(Place(layout, promise, np.empty(0, np.int64)))
        values = expected if isinstance(expected, tuple) else (int(expected),)
        if rule.comparison in _LEAST:
            least.append((bits.offset // 4, values[0]))
        elif rule.comparison is Comparison.COUNT_OR_KNOWN_TYPE:
            counted.append((bits.offset // 4, values[0]))
        else:
            words.demand(bits, values, rule.comparison is Comparison.OTHER)
    return Checks(
        words.masked,
        tuple(words.unlike),
        tuple(least),
        tuple(counted),
        tuple(placed),
        words.satisfiable,
    )


class _Words:
    """The demands on words so far."""

    def __init__(self) -> None:
        self.masked: dict[int, tuple[int, int]] = {}
        self.unlike: list[tuple[int, int, int]] = []
        self.satisfiable = True

    def demand(self, bits: Bits, values: tuple[int, ...], other: bool) -> None:
        """Demand that bits hold the first of some values, or, if ``other``, none of them."""
        index, mask = bits.offset // 8, bits.in_word(bits.mask)
        wanted = [*_in_place(bits, values)]
        known, before = self.masked.get(index, (0, 0))
        if mask & ~known == 0:
            # Earlier demands already determine these bits.
            self.satisfiable &= (before & mask in wanted) is not other
        elif other:
            self.unlike += [(index, mask, value) for value in wanted]
        elif not wanted or (before ^ wanted[0]) & known & mask:
            self.satisfiable = False
        else:
            self.masked[index] = known | mask, before | wanted[0]


def _in_place(bits: Bits, values: tuple[int, ...]) -> Iterator[int]:
    # Values at their place in the 64-bit word. The bits can never hold a value that does not fit.
    for value in values:
        unsigned = value & (1 << 8 * bits.size) - 1
        if unsigned << bits.shift & ~bits.mask == 0:
            yield bits.in_word(unsigned << bits.shift)
