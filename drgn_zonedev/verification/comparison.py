# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Comparison of a Word
--------------------

Which pages keep a rule, by its word alone.
"""

from __future__ import annotations

import numpy as np

from drgn_zonedev.kernel.memmap import PageLayout
from drgn_zonedev.verification.promises import Promise, RamPages
from drgn_zonedev.verification.rule import Comparison, ExpectedValue, Rule

__all__ = ("as_unsigned", "keeps", "part_of")

# Below it is a page type, not a count.
_PAGE_MAPCOUNT_RESERVE = -128


def part_of(layout: PageLayout, promise: Promise, rule: Rule, words: np.ndarray) -> np.ndarray:
    """What a rule is about, of each page of an array of words."""
    bits = rule.word.bits(layout, promise)
    column = bits.column(words)
    return (column & column.dtype.type(bits.mask)) >> column.dtype.type(bits.shift)


def as_unsigned(expected: ExpectedValue, dtype: np.dtype) -> np.ndarray:
    """The first of several values; a negative number as it is in memory."""
    if isinstance(expected, tuple):
        expected = expected[0] if expected else 0
    if isinstance(expected, int):
        expected &= (1 << 8 * dtype.itemsize) - 1
    return np.asarray(expected, dtype)


def _is_one_of(found: np.ndarray, values: np.ndarray) -> np.ndarray:
    # Many times faster than np.isin() for some thousand pages and the few values that there are.
    one = np.zeros(len(found), bool)
    for value in values.reshape(-1):
        one |= found == value
    return one


def keeps(promise: Promise, rule: Rule, found: np.ndarray, expected: ExpectedValue) -> np.ndarray:
    """
    Which pages keep a rule. One that says where a page leads to, or another way to keep it,
    may be kept by others as well.

    :param found: :func:`part_of()` them.
    """
    comparison, counted = rule.comparison, found.view(f"<i{found.itemsize}")
    if comparison is Comparison.ONE_OF:
        return _is_one_of(found, np.array(expected, found.dtype))
    if comparison is Comparison.AT_LEAST:
        return np.asarray(counted >= expected)
    if comparison is Comparison.COUNT_OR_TYPE:
        return np.asarray((counted >= expected) | (counted < _PAGE_MAPCOUNT_RESERVE))
    if comparison is Comparison.COUNT_OR_KNOWN_TYPE:
        assert isinstance(promise, RamPages)
        return np.asarray((counted >= expected) | promise.kinds.has_type(found))
    equal = found == as_unsigned(expected, found.dtype)
    if comparison is Comparison.OTHER:
        return ~equal
    if comparison is Comparison.EQUAL_OR_ZERO:
        return np.asarray(equal | (found == 0))
    return np.asarray(equal)
