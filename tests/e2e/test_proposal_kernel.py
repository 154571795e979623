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
from drgn_zonedev.lab import SCENARIOS, Kernel, LabError, fetch_kernel
from drgn_zonedev.lab.host.errors import NotPossible
from drgn_zonedev.lab.targets.executed import CONTROLS, count_costs
from drgn_zonedev.lab.targets.races import Raced, run_races
from drgn_zonedev.lab.verdict.agreement import Truth, compare
from drgn_zonedev.lab.verdict.bits import kernel_bits
from drgn_zonedev.lab.verdict.compare import judge
from drgn_zonedev.lab.verdict.matrix import CellVerdict, MatrixOptions, run_cell
from drgn_zonedev.lab.verdict.trials import Trial, run_trial
from drgn_zonedev.pfn_proposal import proposal
from drgn_zonedev.report import check

pytestmark = pytest.mark.qemu


KERNEL = "6.12-proposal"


ALWAYS = ("fsdax-collision", "init-in-flight", "init-halfway", "teardown")


def guests() -> Iterator[tuple[str, str] | ParameterSet]:
    for scenario in SCENARIOS:
        if scenario in ALWAYS:
            yield KERNEL, scenario
        else:
            yield long_guest(KERNEL, scenario, f"{', '.join(ALWAYS)} are in every run")


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


# --- 7.3, with walkers that ask it ---

EACH = [name for name in SCENARIOS if name != "acpi-hole"]
LONG = "a kernel that takes long to build, and fifty guests"


def _built(name: str) -> Kernel:
    try:
        return fetch_kernel(name)
    except LabError as error:
        pytest.skip(str(error))


def _walked(kernel: str, scenario: str) -> Trial:
    trial = run_trial(_built(kernel), scenario)
    if trial.impossible:
        pytest.skip(trial.impossible)
    return trial


@pytest.mark.long(LONG)
@pytest.mark.parametrize("scenario", EACH)
def test_walkers_that_ask_it_show_devices_and_nothing_that_is_not_initialised(
    scenario: str,
) -> None:
    trial = _walked("7.3-proposal", scenario)
    assert (trial.panic, trial.disagreements) == ("", ())
    devices = [e for e in SCENARIOS[scenario].expected if e.case == "device"]
    assert trial.marked is not None
    assert trial.marked.zone_device == sum(e.end_pfn - e.start_pfn for e in devices)
    # Whether an anonymous page is KSM's cannot be said: a process maps private memory.
    undecided = {"device-private": 16}.get(scenario, 0)
    if not SCENARIOS[scenario].breakpoint:
        for kpage in trial.kpage:
            assert kpage.undecided <= undecided
            assert kpage.compared + kpage.undecided >= trial.marked.zone_device


@pytest.mark.long("three kernels that take long to build, and three guests")
@pytest.mark.parametrize(
    ("kernel", "scenario", "shown", "start_pfn", "end_pfn"),
    [
        # The data of the device, while it is being initialised.
        ("7.3-too-early", "init-in-flight", True, 0x24400, 0x30000),
        # What a removed device left in the section that it shared with RAM.
        ("7.3-kept", "ghost", True, 0x24400, 0x28000),
        ("7.3-forgotten", "fsdax-collision", False, 0x2FE00, 0x30000),
    ],
)
def test_a_bit_that_is_wrong_is_found(
    kernel: str, scenario: str, shown: bool, start_pfn: int, end_pfn: int
) -> None:
    trial = _walked(kernel, scenario)
    by_bit = [d for d in trial.disagreements if d.about == "pfn_zone_device() by its bitmap"]
    assert [(d.start_pfn, d.end_pfn, d.theirs) for d in by_bit] == [
        (start_pfn, end_pfn, "yes" if shown else "no")
    ]
    # So do the files, of all pages.
    by_word = [d for d in trial.disagreements if d.about == "/proc/kpageflags"]
    words = [] if SCENARIOS[scenario].breakpoint else [(start_pfn, end_pfn)]
    assert [(d.start_pfn, d.end_pfn) for d in by_word] == words


# --- the other variants ---


@pytest.mark.long("three kernels that take long to build, and fifty guests of each")
@pytest.mark.parametrize("kernel", ["7.3-series", "7.3-section-flag", "7.3-taint"])
@pytest.mark.parametrize("scenario", EACH)
def test_a_variant_answers_as_its_model_does(kernel: str, scenario: str) -> None:
    cell = run_cell(_built(kernel), SCENARIOS[scenario], MatrixOptions(truth=True))
    if cell.verdict is CellVerdict.NOT_POSSIBLE:
        pytest.skip(cell.details[0])
    assert (cell.verdict, cell.details) == (CellVerdict.AGREES, ())


# --- what it costs ---


@pytest.mark.long("a kernel that takes long to build, and a guest that counts for half a minute")
def test_what_a_lookup_executes_is_counted_right() -> None:
    costs = {(c.lookup, c.range): c for c in count_costs(_built("7.3-proposal"))}
    for name, known in CONTROLS.items():
        control = costs[name, "ram"]
        found = (control.instructions, control.loads, control.stores, control.lines)
        assert found == tuple((n, n) for n in known)
    answers = {where: c.yes / c.pfns for (name, where), c in costs.items() if name == ASKED}
    assert answers == {where: float(where in ("device", "shared-device")) for where in answers}
    # Nothing about the PFN matters but whether there is a section.
    there = {c.instructions for (name, where), c in costs.items() if name == ASKED} - {
        costs[ASKED, "absent"].instructions
    }
    assert len(there) == 1


ASKED = "pfn_zone_device"


# --- races ---

RACE_SECONDS = 180


def bad_touches(raced: Raced) -> dict[str, int]:
    found: dict[str, int] = {}
    for race in raced.races:
        found[race.lookup] = found.get(race.lookup, 0) + race.poisoned + race.unmapped
    return found


@pytest.mark.long("kernels that take long to build, and minutes of binding and unbinding each")
@pytest.mark.parametrize("processors", [1, 2])
def test_what_two_bits_let_pass_is_initialised_whatever_happens_meanwhile(processors: int) -> None:
    raced = run_races(_built("7.3-raced"), RACE_SECONDS, processors=processors)
    bad = bad_touches(raced)
    assert raced.rebound > 1
    threads = {race.lookup: race.touched for race in raced.races if race.where == "threads"}
    # No PFN of the device is ever taken for RAM.
    assert [lookup for lookup, touched in threads.items() if not touched] == ["pfn_to_online_page"]
    assert bad["pfn_zone_device"] == bad["pfn_to_online_page"] == bad["reference"] == 0
    # That it can be seen: what is known to be wrong.
    assert bad["pfn_valid"] > 0
    assert bad["pfn_zone_device_claimed"] > 0
    assert bad["stale pfn_zone_device"] > 0


@pytest.mark.long("kernels that take long to build, and minutes of binding and unbinding each")
@pytest.mark.parametrize("processors", [1, 2])
def test_what_7_3_lets_pass_is_not_always_initialised(processors: int) -> None:
    bad = bad_touches(run_races(_built("7.3-raced-taint"), RACE_SECONDS, processors=processors))
    assert bad["reference"] == 0
    assert bad["pfn_to_online_page"] > 0
    assert bad["pfn_zone_device"] > 0
