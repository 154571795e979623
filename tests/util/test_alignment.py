# SPDX-License-Identifier: LGPL-2.1-or-later

"""Rounding as the kernel's ALIGN() and ALIGN_DOWN() do it."""

from __future__ import annotations

import pytest

from drgn_zonedev.util.alignment import align_down, align_up


@pytest.mark.parametrize(
    ("value", "down", "up"),
    [(0, 0, 0), (1, 0, 512), (511, 0, 512), (512, 512, 512), (513, 512, 1024)],
)
def test_borders(value: int, down: int, up: int) -> None:
    assert (align_down(value, 512), align_up(value, 512)) == (down, up)


def test_addresses_beyond_a_double_are_exact() -> None:
    last = (1 << 64) - 1
    assert align_down(last, 4096) == last - 4095
    assert align_up(last, 4096) == 1 << 64
