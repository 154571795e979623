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

    That is ``np.unique()``, but numpy 2.3 and newer hash, which is ten times as
    slow for what is sorted in pieces, and import ``numpy.ma`` for it, which shows
    in the time that a command takes to start.
    """
    values = np.sort(values, kind="stable")
    return values[np.append(True, values[1:] != values[:-1])] if len(values) else values
