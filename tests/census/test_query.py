# SPDX-License-Identifier: LGPL-2.1-or-later

"""Tests of counts, as users write them."""

from __future__ import annotations

import numpy as np
import pytest

from drgn_zonedev.census.query import parse_count_test

COUNTS = np.array([-1, 0, 1, 2, 3])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1", [1]),
        ("=1", [1]),
        ("==0x1", [1]),
        (">1", [2, 3]),
        (">= 1", [1, 2, 3]),
        ("<0", [-1]),
        ("<=-1", [-1]),
        ("!=1", [-1, 0, 2, 3]),
    ],
)
def test_comparisons_are_those_of_c(text: str, wanted: list[int]) -> None:
    assert COUNTS[parse_count_test(text).holds(COUNTS)].tolist() == wanted


@pytest.mark.parametrize("text", ["", ">", "one", "1..2", ">>1", "=>1", "010", ">-01"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="such as"):
        parse_count_test(text)
