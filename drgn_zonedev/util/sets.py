# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Sets
----

Arrays as sets of numbers, or of intervals.
"""

from __future__ import annotations

import numpy as np

__all__ = ("containing", "sorted_set")


def sorted_set(values: np.ndarray) -> np.ndarray:
    """
    Get each value once, in ascending order.

    Like ``np.unique()``. But numpy 2.3 and newer use hashing, which takes ten times as
    long for partly sorted values, and import ``numpy.ma`` for it, which makes commands
    start noticeably later.
    """
    values = np.sort(values, kind="stable")
    return values[np.append(True, values[1:] != values[:-1])] if len(values) else values


def containing(values: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """
    Get the index of the span that contains each value, or -1.

    :param start: Starts of the spans, which are sorted and disjoint.
    :param end: Ends of the spans.
    """
    if not len(start):
        return np.full(len(values), -1)
    index = np.searchsorted(start, values, side="right") - 1
    return np.where((index >= 0) & (values < end[index]), index, -1)
