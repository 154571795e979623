# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Kernels that move: namespaces are bound, unbound and resized, and memory blocks set
online and offline, while the tool looks from outside and from inside. Ten minutes
of that are for hands: python -m drgn_zonedev.lab.ways.churn 6.1 --seconds 600
"""

from __future__ import annotations

from typing import Any

import pytest

from drgn_zonedev.lab import fetch_kernel
from drgn_zonedev.lab.ways.churn import run_churn

SECONDS = 20


@pytest.mark.qemu
@pytest.mark.parametrize("name", ["6.1", "7.3"])
def test_kernel_that_moves_is_never_accused(name: str) -> None:
    found = run_churn(fetch_kernel(name), SECONDS)
    assert set(found.times) == {"flip", "rebind", "resize"}
    for tally in (found.outside, found.inside):
        assert_innocent(tally)
    # Both ends of what the guest does were seen: a device, and memory that was no RAM for a while.
    assert {"online", "device", "offline"} <= set(found.outside["cases"])


def assert_innocent(tally: dict[str, Any]) -> None:
    assert tally["checks"] > 0
    assert tally["crashes"] == {}
    assert tally["errors"] == {}
