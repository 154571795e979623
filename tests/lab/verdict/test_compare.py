# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from support.fakekernel import FakeKernel

from drgn_zonedev.lab import SCENARIOS, Guest
from drgn_zonedev.lab.scenarios import Expected
from drgn_zonedev.lab.verdict.compare import as_arranged, compare_ranges
from drgn_zonedev.model import Case, Memmap, Range

WANTED = [Expected(0x100, 0x102, "reserved"), Expected(0x102, 0x200, "device")]


def ranges(*found: tuple[int, int, str]) -> list[Range]:
    return [Range(start, end, Case(case), Memmap.MAPPED, "") for start, end, case in found]


def test_what_is_as_expected_is_not_mentioned() -> None:
    assert compare_ranges(ranges(*WANTED), WANTED) == []


def test_how_a_run_is_divided_does_not_matter() -> None:
    found = ranges((0x100, 0x102, "reserved"), (0x102, 0x180, "device"), (0x180, 0x200, "device"))
    assert compare_ranges(found, WANTED) == []


def test_ram_and_holes_may_be_anywhere_else() -> None:
    found = ranges((0, 0x90, "online"), (0x90, 0x100, "partial"), *WANTED, (0x200, 0x300, "online"))
    assert compare_ranges(found, WANTED) == []


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([(0x100, 0x200, "device")], "PFNs 0x100-0x102: device instead of reserved"),
        ([(0x100, 0x102, "reserved")], "PFNs 0x102-0x200: nothing instead of device"),
        (
            [*WANTED, (0x200, 0x280, "ghost")],
            "PFNs 0x200-0x280: ghost, where only RAM is expected",
        ),
        (
            [(0x100, 0x103, "reserved"), (0x103, 0x200, "device")],
            "PFNs 0x102-0x103: reserved instead of device",
        ),
    ],
)
def test_every_difference_is_said_once(found: Sequence[tuple[int, int, str]], message: str) -> None:
    assert compare_ranges(ranges(*found), WANTED) == [message]


def test_neighbours_that_differ_alike_are_one_difference() -> None:
    wanted = [Expected(0, 8, "device"), Expected(8, 16, "device")]
    assert compare_ranges([], wanted) == ["PFNs 0x0-0x10: nothing instead of device"]


def guest(scenario: str) -> Guest:
    nothing = Path()
    kernel, facts = cast(Any, None), cast(Any, {})
    return Guest(kernel, SCENARIOS[scenario], "", nothing, facts, nothing, 0)


@pytest.mark.parametrize("poisons", [False, True])
def test_the_reserve_of_a_removed_device_shows_where_struct_pages_are_poisoned(
    poisons: bool,
) -> None:
    kernel = FakeKernel("7.3")
    if poisons:
        kernel.add_variable("page_init_poisoning", "bool", 1)
    (_, *found) = as_arranged(guest("ghost"), kernel.program()).scenario.expected
    reserve = [Expected(0x24000, 0x24002, "partial"), Expected(0x24002, 0x28000, "ghost")]
    assert found == ([Expected(0x24000, 0x28000, "ghost")] if poisons else reserve)
    plain = guest("nvdimm-partial")
    assert as_arranged(plain, kernel.program()) is plain
