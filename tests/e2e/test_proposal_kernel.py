# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A kernel that has pfn_zone_device() says of every PFN in every scenario what our
helpers say. It takes a while to build: ``zonedev lab build-kernel``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from _pytest.mark.structures import ParameterSet
from support.guests import Booted, debug_live, each_guest, long_guest

from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.lab import SCENARIOS
from drgn_zonedev.lab.host.errors import NotPossible
from drgn_zonedev.lab.scenarios.changing_memory import CHANGING_MEMORY
from drgn_zonedev.lab.scenarios.device_types import DEVICE_TYPES
from drgn_zonedev.lab.verdict.agreement import Truth, compare
from drgn_zonedev.lab.verdict.bits import kernel_bits
from drgn_zonedev.lab.verdict.compare import judge
from drgn_zonedev.pfn_proposal import proposal
from drgn_zonedev.report import check

pytestmark = pytest.mark.qemu


KERNEL = "6.12-proposal"


def guests() -> Iterator[tuple[str, str] | ParameterSet]:
    others = {scenario.name for scenario in (*DEVICE_TYPES, *CHANGING_MEMORY)}
    for scenario in SCENARIOS:
        if scenario in others:
            yield long_guest(KERNEL, scenario, "fsdax and devdax set the same bits in every run")
        else:
            yield KERNEL, scenario


@each_guest(guests())
def test_the_kernel_and_we_agree(booted: Booted) -> None:
    prog = debug_live(booted.guest)
    try:
        wrong = judge(booted.guest, prog, check(prog))
    except NotPossible as error:
        pytest.skip(str(error))
    assert wrong == []
    assert {bitmap.name: bitmap.different for bitmap in proposal(prog).carried} == {
        "subsection_dev_map": 0,
        "subsection_init_map": 0,
    }


@each_guest([(KERNEL, "fsdax-collision")])
def test_the_kernel_was_really_asked(booted: Booted) -> None:
    prog = debug_live(booted.guest)
    agreement = compare(prog, booted.guest.facts)
    bits = kernel_bits(prog, take_snapshot(prog))
    truth = Truth(booted.guest.facts["truth"])
    assert agreement.disagreements == ()
    assert truth.has_zone_device
    data = list(range(0x24400, 0x30000))
    assert truth.pfn[truth.yes("zone_device")].tolist() == data
    assert truth.pfn[truth.yes("claimed")].tolist() == list(range(0x24000, 0x30000))
    assert truth.pfn[truth.yes("reserved")].tolist() == [0x24000, 0x24001]
    assert bits is not None
    assert bits.pfn[np.flatnonzero(bits.zone_device)].tolist() == data


@each_guest((KERNEL, scenario) for scenario in ("init-in-flight", "init-halfway", "teardown"))
def test_a_frozen_kernel_claims_its_device_and_lets_nobody_touch_it(booted: Booted) -> None:
    prog = debug_live(booted.guest)
    bits = kernel_bits(prog, take_snapshot(prog))
    assert bits is not None
    assert not bits.zone_device.any()
    assert bits.pfn[bits.claimed].tolist() == list(range(0x24000, 0x30000))
