# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest whose device comes and goes is arranged as its walkers need it."""

from __future__ import annotations

from pathlib import Path

from drgn_zonedev.lab import Kernel
from drgn_zonedev.lab.kernels.known import BUILT_KERNELS
from drgn_zonedev.lab.machine.qemu import machine_arguments, qemu_command
from drgn_zonedev.lab.targets.races import RACE_KERNELS, Race, race_scenario
from drgn_zonedev.lab.truth.guest_facts import parse_facts

NONE = Path("/none")
KERNEL = Kernel("7.3", "7.3.4", "1", NONE, NONE, NONE, (), NONE)

TOLD = """\
== begin rebound
17
== end rebound
== begin races
{"where": "threads", "times": 1, "lookup": "reference", "touched": 9, "poisoned": 2, \
"unmapped": 1, "example": 147456}
== end races
"""


def test_what_a_guest_met_is_parsed() -> None:
    facts = parse_facts(TOLD)
    assert facts["rebound"] == 17
    assert [Race(**row) for row in facts["races"]] == [
        Race("threads", 1, "reference", 9, 2, 1, 147456)
    ]


def test_two_processors_are_executed_in_one_thread() -> None:
    alone, both = race_scenario(60, 1, 200), race_scenario(60, 2, 200)
    assert both.steps[-1] == ("races", "60", "nd_pmem", "pfn0.0", "24000", "30000", "200")
    assert [machine_arguments(KERNEL, s, 1024)["-smp"] for s in (alone, both)] == ["1", "2"]
    command = qemu_command(KERNEL, both, NONE, memory_mib=1024, accel="tcg,thread=multi")
    assert command[command.index("-accel") + 1] == "tcg,thread=single"
    command = qemu_command(KERNEL, alone, NONE, memory_mib=1024, accel="tcg,thread=multi")
    assert command[command.index("-accel") + 1] == "tcg,thread=multi"


def test_struct_pages_are_poisoned_in_kernels_that_are_raced() -> None:
    assert all(BUILT_KERNELS[name].edits[-1] == "poison.edit" for name in RACE_KERNELS)
