# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Sets
----

Arrays as sets of numbers.
"""

from __future__ import annotations

import numpy as np

__all__ = ("sorted_set",)


def sorted_set(values: np.ndarray) -> np.ndarray:
    """
    Get each value once, in ascending order.

    Like ``np.unique()``. But numpy 2.3 and newer use hashing, which takes ten times as
    long for partly sorted values, and import ``numpy.ma`` for it, which makes commands
    start noticeably later.
    """
    values = np.sort(values, kind="stable")
    return values[np.append(True, values[1:] != values[:-1])] if len(values) else values
