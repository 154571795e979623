# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Kernels that move: namespaces are bound, unbound and resized, and memory blocks set
online and offline, while the tool looks from outside and from inside.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest
from support.guests import Booted, each_guest, require_free, zonedev

from drgn_zonedev.lab import SCENARIOS, Guest, LabError, fetch_kernel
from drgn_zonedev.lab.targets.churn import run_churn
from drgn_zonedev.lab.targets.inside import boot_observed

longer = pytest.mark.long("five minutes of what is 20 s in every run")


@pytest.mark.qemu
@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("7.3", 20),
        pytest.param("6.1", 300, marks=longer),
        pytest.param("7.3", 300, marks=longer),
    ],
)
def test_kernel_that_moves_is_never_accused(name: str, seconds: int) -> None:
    found = run_churn(fetch_kernel(name), seconds)
    assert set(found.times) == {"flip", "rebind", "resize"}
    for tally in (found.outside, found.inside):
        assert_innocent(tally)
    # Both ends of what the guest does were seen: a device, and memory that was no RAM for a while.
    seen = found.outside["cases"].keys() | found.inside["cases"].keys()
    assert {"online", "device", "offline"} <= seen


_HOLE = "ram-hole-zone [0x3ffdf, 0x3ffe3)"


def assert_innocent(tally: dict[str, Any]) -> None:
    assert tally["checks"] > 0
    assert tally["crashes"] == {}
    # The kernel gave pages behind its RAM a zone that it does not have, which does not change.
    accused = {error for error in tally["errors"] if not error.startswith(_HOLE)}
    assert accused == set()


@pytest.mark.qemu
def test_observer_that_ends_too_early_is_told() -> None:
    observed = boot_observed(fetch_kernel("6.1"), SCENARIOS["empty"], ["-c", "raise SystemExit"])
    with pytest.raises(LabError, match="the observer ended"), observed:
        pytest.fail("nobody observes")


@pytest.mark.qemu
@each_guest([("6.1", "fsdax-collision")])
def test_guest_is_paused_while_it_is_checked_and_then_goes_on(booted: Booted) -> None:
    guest, command = booted.guest, (*booted.live.options, "--pause", "check", "--format", "json")
    done, seen = threading.Event(), set()

    def look() -> None:
        while not done.is_set():
            seen.add(is_running(guest))

    require_free(guest)
    # It was stopped when its kernel was asked about every struct page.
    guest.qmp("cont")
    looking = threading.Thread(target=look)
    looking.start()
    try:
        result = zonedev(*command)
    finally:
        done.set()
        looking.join()
    assert (result.status, result.stderr) == (1, "")
    assert {f["slug"] for f in result.document["findings"] if f["severity"] == "error"} == {
        "ram-hole-zone"
    }
    assert result.document["coverage"]["retries"] == 0
    assert seen == {True, False}
    assert is_running(guest)
    # One that was stopped before stays so, and the answer is the same.
    guest.qmp("stop")
    try:
        again = zonedev(*command)
        assert again.document["ranges"] == result.document["ranges"]
        assert not is_running(guest)
    finally:
        guest.qmp("cont")


def is_running(guest: Guest) -> bool:
    status = guest.qmp("query-status")
    assert isinstance(status, dict)
    return bool(status["running"])
