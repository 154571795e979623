# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A kernel that has pfn_zone_device() says of every PFN in every scenario what our
helpers say. It takes a while to build: ``zonedev lab build-kernel``.
"""

from __future__ import annotations

import numpy as np
import pytest

from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.lab import SCENARIOS, Kernel, LabError, Scenario, boot, fetch_kernel
from drgn_zonedev.lab.host.errors import NotPossible
from drgn_zonedev.lab.verdict.agreement import Truth, compare
from drgn_zonedev.lab.verdict.bits import kernel_bits
from drgn_zonedev.lab.verdict.compare import judge
from drgn_zonedev.lab.verdict.matrix import debug_guest
from drgn_zonedev.pfn_proposal import proposal
from drgn_zonedev.report import check

pytestmark = pytest.mark.qemu


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    try:
        return fetch_kernel("6.12-proposal")
    except LabError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=list(SCENARIOS))
def test_the_kernel_and_we_agree(kernel: Kernel, scenario: Scenario) -> None:
    try:
        with boot(kernel, scenario, truth=not scenario.breakpoint) as guest:
            prog = debug_guest(guest)
            wrong = judge(guest, prog, check(prog))
            carried = proposal(prog).carried
    except NotPossible as error:
        pytest.skip(str(error))
    assert wrong == []
    assert {bitmap.name: bitmap.different for bitmap in carried} == {
        "subsection_dev_map": 0,
        "subsection_init_map": 0,
    }


def test_the_kernel_was_really_asked(kernel: Kernel) -> None:
    with boot(kernel, SCENARIOS["fsdax-collision"], truth=True) as guest:
        prog = debug_guest(guest)
        agreement = compare(prog, guest.facts)
        bits = kernel_bits(prog, take_snapshot(prog))
    truth = Truth(guest.facts["truth"])
    assert agreement.disagreements == ()
    assert truth.has_zone_device
    data = list(range(0x24400, 0x30000))
    assert truth.pfn[truth.yes("zone_device")].tolist() == data
    assert truth.pfn[truth.yes("claimed")].tolist() == list(range(0x24000, 0x30000))
    assert truth.pfn[truth.yes("reserved")].tolist() == [0x24000, 0x24001]
    assert bits is not None
    assert bits.pfn[np.flatnonzero(bits.zone_device)].tolist() == data


@pytest.mark.parametrize("scenario", ["init-in-flight", "init-halfway", "teardown"])
def test_a_frozen_kernel_claims_its_device_and_lets_nobody_touch_it(
    kernel: Kernel, scenario: str
) -> None:
    with boot(kernel, SCENARIOS[scenario]) as guest:
        prog = debug_guest(guest)
        bits = kernel_bits(prog, take_snapshot(prog))
    assert bits is not None
    assert not bits.zone_device.any()
    assert bits.pfn[bits.claimed].tolist() == list(range(0x24000, 0x30000))
