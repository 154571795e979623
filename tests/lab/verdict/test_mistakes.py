# SPDX-License-Identifier: LGPL-2.1-or-later
"""The arithmetic that variants and walkers are judged by, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from drgn_zonedev.lab import SCENARIOS
from drgn_zonedev.lab.verdict.mistakes import (
    Arranged,
    false_yes,
    taken_for_online,
    taken_for_ram,
    valid,
)

# A section is 0x8000 pages. The collision: 0x4000 pages of RAM, 2 of reserve, 0x3fe of metadata,
# and data up to the end of the next section.
HEAD = {"reserved": 2, "metadata": 0x3FE}
DYING = 0xC000


def mistakes(name: str) -> dict[str, dict[str, int]]:
    scenario = SCENARIOS[name]
    found = false_yes(scenario.expected, scenario.was)
    return {variant: dict(pages) for variant, pages in found.items() if pages}


def test_a_device_beside_ram() -> None:
    assert mistakes("la57") == {
        "section-flag": {"online": 0x4000, **HEAD},
        "section-flag+pgmap": HEAD,
        "taint+pgmap": HEAD,
        "early-bit": HEAD,
        "late-bit": HEAD,
        "late-bit+reserve": {"metadata": 0x3FE},
    }


@pytest.mark.parametrize("name", ["init-in-flight", "init-halfway"])
def test_what_is_set_late_is_not_set_yet(name: str) -> None:
    claimed = {**HEAD, "initializing": DYING - 0x400}
    assert mistakes(name) == {
        "section-flag": {"online": 0x4000, **claimed},
        "section-flag+pgmap": claimed,
        "taint+pgmap": claimed,
        "early-bit": claimed,
    }


def test_a_dying_device_keeps_the_bits_that_it_had() -> None:
    assert mistakes("teardown") == {
        "section-flag": {"online": 0x4000, "teardown": DYING},
        "early-bit": {"teardown": DYING},
        "late-bit": {"teardown": DYING},
        "late-bit-data": {"teardown": DYING - 0x400},
    }


def test_what_no_device_has_finished_or_left_has_no_late_bit() -> None:
    assert mistakes("orphan") == {
        "section-flag": {"orphan": 0x10000},
        "early-bit": {"orphan": 0x10000},
    }
    assert mistakes("ghost") == {"section-flag": {"online": 0x4000, "partial": 2, "ghost": 0x3FFE}}


def as_ram(name: str) -> dict[str, dict[str, int]]:
    scenario = SCENARIOS[name]
    found = taken_for_ram(scenario.expected, scenario.was)
    return {variant: dict(pages) for variant, pages in found.items() if pages}


def test_what_a_late_bit_takes_for_ram() -> None:
    assert as_ram("fsdax-collision") == {
        "late-bit+reserve": {"reserved": 2},
        "late-bit-data": HEAD,
        "pgmap+range": HEAD,
    }
    # Half of the first section, of which 0x400 pages are the head.
    unset = {**HEAD, "initializing": 0x4000 - 0x400}
    late = ("late-bit", "late-bit+reserve", "late-bit-data", "pgmap+range")
    assert as_ram("init-in-flight") == dict.fromkeys(late, unset)
    # Without RAM beside it, there is nothing to take for it.
    assert as_ram("nvdimm-partial") == as_ram("orphan") == as_ram("ghost") == {}


def test_what_a_killed_reference_has_taken_for_ram() -> None:
    asks = ("section-flag+pgmap", "taint+pgmap", "late-bit+reserve", "pgmap+range")
    assert as_ram("teardown") == {
        **{variant: {"teardown": 0x4000} for variant in asks},
        "late-bit-data": {"teardown": 0x400},
    }


@pytest.mark.parametrize("name", SCENARIOS)
def test_taint_and_pgmap_are_what_the_kernel_does(name: str) -> None:
    # Which the lab asks of the kernel itself, PFN by PFN.
    scenario = SCENARIOS[name]
    kernel = taken_for_online(scenario.expected, taint=True)
    assert taken_for_ram(scenario.expected, scenario.was)["taint+pgmap"] == kernel


@pytest.mark.parametrize("name", ["empty", "kmem", "offlined", "hotplug-offline"])
def test_without_devices_there_are_no_mistakes(name: str) -> None:
    assert mistakes(name) == {}


@pytest.mark.parametrize("name", ["fsdax-mem", "devdax-collision"])
def test_without_an_altmap_only_ram_is_mistaken(name: str) -> None:
    assert mistakes(name) == {"section-flag": {"online": 0x4000}}


@pytest.mark.parametrize("name", ["devdax-2m", "devdax-1g", "cxl"])
def test_whole_sections_of_data_have_no_mistakes(name: str) -> None:
    assert mistakes(name) == {}


def test_every_scenario_that_is_torn_down_says_what_was_there() -> None:
    for scenario in SCENARIOS.values():
        dying = [e[:2] for e in scenario.expected if e.case == "teardown"]
        assert bool(dying) == bool(scenario.was), scenario.name
        for start, end in dying:
            assert min(e.start_pfn for e in scenario.was) == start
            assert max(e.end_pfn for e in scenario.was) == end


@pytest.mark.parametrize(
    ("name", "by_section", "by_taint"),
    [
        ("fsdax-collision", HEAD, {}),
        ("teardown", {"teardown": 0x4000}, {"teardown": 0x4000}),
        ("ghost", {"partial": 2, "ghost": 0x3FFE}, {}),
        ("nvdimm-partial", {}, {}),
        ("kmem", {}, {}),
    ],
)
def test_what_is_taken_for_online(
    name: str, by_section: dict[str, int], by_taint: dict[str, int]
) -> None:
    arranged = SCENARIOS[name].expected
    assert taken_for_online(arranged, taint=False) == by_section
    assert taken_for_online(arranged, taint=True) == by_taint


@pytest.mark.parametrize(
    ("arranged", "pages"),
    [
        ([(0x100000, 0x110000, "orphan")], {"orphan": 0x10000}),
        ([(0x30000, 0x38000, "offline")], {"offline": 0x8000}),
        # A hole has struct pages in a section from boot, and none in one of a device's.
        ([(0x20000, 0x24000, "online"), (0x24000, 0x28000, "partial")], {"partial": 0x4000}),
        ([(0x20000, 0x24000, "device"), (0x24000, 0x28000, "partial")], {}),
    ],
)
def test_what_is_valid_though_nobody_promises_it(
    arranged: list[Arranged], pages: dict[str, int]
) -> None:
    assert valid(arranged) == pages
