# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from drgn_zonedev.util.sets import sorted_set


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
