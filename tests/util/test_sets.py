# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from drgn_zonedev.util.intervals import Span, union
from drgn_zonedev.util.sets import containing, sorted_set

SPAN = st.tuples(st.integers(0, 60), st.integers(0, 60))


@given(st.lists(st.integers(0, (1 << 64) - 1)))
def test_each_value_comes_once_in_order(values: list[int]) -> None:
    array = np.array(values, np.uint64)
    assert sorted_set(array).tolist() == sorted(set(values))
    assert array.tolist() == values


def test_masked_arrays_are_not_imported_for_it() -> None:
    code = (
        "import sys, numpy as np; from drgn_zonedev.util.sets import sorted_set; "
        "sorted_set(np.arange(3)); print('numpy.ma' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@given(st.lists(SPAN), st.lists(st.integers(-5, 65)))
def test_a_value_is_in_the_one_span_that_contains_it(spans: list[Span], values: list[int]) -> None:
    disjoint = union(spans)
    start, end = np.array(disjoint, np.int64).reshape(-1, 2).T
    wanted = [
        next((i for i, (a, b) in enumerate(disjoint) if a <= value < b), -1) for value in values
    ]
    assert containing(np.array(values, np.int64), start, end).tolist() == wanted
