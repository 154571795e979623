# SPDX-License-Identifier: LGPL-2.1-or-later
"""Real PFN walkers meet real bad pages, and do what we say they do."""

from __future__ import annotations

import pytest

from drgn_zonedev.lab import fetch_kernel
from drgn_zonedev.lab.verdict.trials import run_trial

pytestmark = pytest.mark.qemu

DEVICE_PAGES = 0xC000


@pytest.mark.parametrize("kernel", ["5.10", "6.1", "7.3"])
def test_walkers_do_as_predicted_at_a_collision(kernel: str) -> None:
    trial = run_trial(fetch_kernel(kernel), "fsdax-collision")
    assert (trial.impossible, trial.panic) == ("", "")
    assert trial.disagreements == ()
    assert [(k.file, k.compared, k.undecided) for k in trial.kpage] == [
        ("kpageflags", DEVICE_PAGES, 0),
        ("kpagecount", DEVICE_PAGES, 0),
    ]
    said = {(visit.walker, visit.pfn): visit.said for visit in trial.visits}
    assert said["compaction", None] == "ok"
    if kernel == "7.3":
        # Only this one has CONFIG_MEMORY_FAILURE. It reaches the data, and nothing in front of it.
        assert said["memory_failure", 0x24000] == "No such device or address"
        assert said["memory_failure", 0x24002] == "No such device or address"
        assert said["memory_failure", 0x24400] == "Device or resource busy"
