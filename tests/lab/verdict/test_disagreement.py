# SPDX-License-Identifier: LGPL-2.1-or-later

"""Differences between two columns, and how they are said."""

from __future__ import annotations

import numpy as np

from drgn_zonedev.lab.verdict.disagreement import Disagreement, differences, runs


def test_runs_end_where_pfns_jump_or_a_column_changes() -> None:
    pfn = np.array([1, 2, 3, 7, 8])
    column = np.array([0, 0, 1, 1, 1])
    assert list(runs(pfn, column)) == [(0, 2), (2, 3), (3, 5)]
    assert list(runs(pfn[:0], column[:0])) == []


def test_a_difference_says_what_both_sides_say() -> None:
    pfn = np.array([5, 6, 7])
    found = differences("x", pfn, np.array([1, 2, 2]), np.array([1, 3, 3]))
    assert list(found) == [Disagreement("x", "0x2", "0x3", 6, 8)]
    yes = differences("x", pfn, np.array([True] * 3), np.array([True, True, False]))
    assert str(next(yes)) == "PFNs 0x7-0x8: x: we say yes, the kernel says no"


def test_columns_that_agree_do_not_differ() -> None:
    pfn = np.array([5, 6])
    assert list(differences("x", pfn, np.array([1, 2]), np.array([1, 2]))) == []


def test_known_leak_is_said() -> None:
    assert str(Disagreement("x", "0x1", "0x2", leak="freed late")) == (
        "x: we say 0x1, the kernel says 0x2 (known: freed late)"
    )
