# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The lab's whole matrix: every kernel in every scenario that it can do. What the
tool says must be what arithmetic on the scenario says, and, of every PFN, what
the kernel itself says; on healthy kernels there are no errors, and the guest
must show what the scenario is about.
"""

from __future__ import annotations

import pytest
from support.guests import Booted, each_guest, require_free

from drgn_zonedev.lab import KERNELS, SCENARIOS
from drgn_zonedev.lab.verdict.matrix import judge_guest

pytestmark = pytest.mark.qemu

POSSIBLE = [
    (kernel, scenario)
    for kernel in KERNELS
    for scenario in SCENARIOS
    if kernel not in SCENARIOS[scenario].impossible
]


@each_guest(POSSIBLE)
def test_the_tool_agrees(booted: Booted) -> None:
    require_free(booted.guest)
    _, wrong = judge_guest(booted.guest)
    assert wrong == []
