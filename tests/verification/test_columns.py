# SPDX-License-Identifier: LGPL-2.1-or-later
"""Words of many struct pages as columns."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from drgn_zonedev.verification.columns import Buffers, Columns

_WORDS = np.array([[0x12, 0xFF00], [0x13, 0x0100], [0x10, 0]], np.uint64)


@pytest.mark.parametrize(
    ("mask", "value", "found"),
    [
        (0x1, 0x1, [False, True, False]),
        (0x3, 0x2, [True, False, False]),
        (0x1, 0x3, [False, False, False]),
        (0xFF, 0x10, [False, False, True]),
        (0x1F0, 0x10, [True, True, True]),
    ],
)
def test_bits_of_a_word_are_compared_alike_before_and_after_it_is_copied(
    mask: int, value: int, found: list[bool]
) -> None:
    strided, copied = (Columns(_WORDS, Buffers()) for _ in range(2))
    copied.word(0)
    assert strided.equal(0, mask, value).tolist() == found
    assert copied.equal(0, mask, value).tolist() == found


def test_highest_bits_are_compared_as_numbers() -> None:
    words = np.array([[0, (1 << 63) | 5], [1 << 31, 1 << 32], [1 << 32, (1 << 32) - 1]], np.uint64)
    columns = Columns(words, Buffers())
    assert columns.equal(0, (1 << 64) - (1 << 32), 0).tolist() == [True, True, False]
    assert columns.equal(0, (1 << 64) - 1, 0).tolist() == [True, False, False]
    assert columns.equal(1, 1 << 63, 0).tolist() == [False, True, True]


@pytest.mark.parametrize("least", [-1, 0])
def test_halves_of_words_are_signed_numbers(least: int) -> None:
    halves = [[-1, 0], [-128, 1], [0, -1], [7, -(2**31)]]
    words = np.array(halves, np.int32).view(np.uint64).reshape(-1, 1)
    columns = Columns(words, Buffers())
    for index in (0, 1):
        wanted = [both[index] >= least for both in halves]
        assert columns.at_least(index, least).tolist() == wanted
        assert columns.below(index, least).tolist() == [i for i, ok in enumerate(wanted) if not ok]


def test_bits_of_a_higher_byte_are_compared_where_they_are() -> None:
    columns = Columns(_WORDS, Buffers())
    assert columns.equal(1, 0x0100, 0x0100).tolist() == [True, True, False]
    assert columns.equal(1, 0xFE00, 0).tolist() == [False, True, True]


# Several arrays at once are more than glibc keeps by itself when they are freed.
_FAULTS = """
import resource
from drgn import Program
from drgn_zonedev.verification.columns import buffers_of

def use_memory():
    return [b"1" * (4 << 20) for _ in range(3)]

buffers_of(Program())
for _ in range(3):
    use_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use_memory()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_memory_of_one_chunk_is_the_next_ones() -> None:
    run = subprocess.run(
        [sys.executable, "-c", _FAULTS], check=True, capture_output=True, text=True
    )
    pages = 3 * (4 << 20) // 4096
    assert int(run.stdout) < pages // 8
