# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The lab's whole matrix: every kernel in every scenario that it can do. What the
tool says must be what arithmetic on the scenario says, and, of every PFN, what
the kernel itself says; on healthy kernels there are no errors, and the guest
must show what the scenario is about.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from _pytest.mark.structures import ParameterSet
from support.guests import Booted, each_guest, on_kernels, require_free

from drgn_zonedev.lab import KERNELS, PLAIN_KERNELS, SCENARIOS
from drgn_zonedev.lab.scenarios.changing_memory import CHANGING_MEMORY
from drgn_zonedev.lab.scenarios.device_types import DEVICE_TYPES
from drgn_zonedev.lab.verdict.matrix import judge_guest

pytestmark = pytest.mark.qemu

# What is not about pmem, or about users of pages, and the kernels on which every run looks at it.
ALWAYS: dict[str, tuple[str, ...]] = {
    **{scenario.name: () for scenario in (*DEVICE_TYPES, *CHANGING_MEMORY)},
    "device-private": ("7.3",),
    "device-coherent": ("6.1",),
    "acpi-hole": ("6.1", "7.3"),
    "numa": ("6.12",),
    "ovmf": ("7.2",),
    "deferred": ("6.12",),
    "hvo": ("7.3",),
    "memmap-on-memory": ("6.12",),
    "virtio-mem": ("5.10",),
    "kernel-load": ("7.2",),
    "pinned": ("7.3",),
    "pinned-xfs": (),
    "registered": (),
    # A guest of 4 GiB.
    "hvo-freed": (),
    # Other tests ask about these guests, too.
    "fsdax-collision": tuple(KERNELS),
    "nvdimm-partial": tuple(KERNELS),
    "init-in-flight": ("6.1", "7.3"),
    "busy": ("6.12", "7.2"),
    "empty": ("5.10", "7.3"),
}


def in_every_run(number: int, scenario: str) -> tuple[str, ...]:
    """The newest kernel that can do it and, by turns, one of the others."""
    if scenario in ALWAYS:
        return ALWAYS[scenario]
    possible = [k for k in KERNELS if k not in SCENARIOS[scenario].impossible]
    newest, turn = possible[-1:], possible[number % len(KERNELS) :][:1]
    return (*(k for k in turn if k not in newest), *newest)


def guests() -> Iterator[tuple[str, str] | ParameterSet]:
    for number, scenario in enumerate(SCENARIOS):
        always = in_every_run(number, scenario)
        yield from on_kernels(scenario, always, (*KERNELS, *PLAIN_KERNELS))


@each_guest(guests())
def test_the_tool_agrees(booted: Booted) -> None:
    require_free(booted.guest)
    _, wrong = judge_guest(booted.guest)
    assert wrong == []
