# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Kernels that no distribution ships: their struct pages are poisoned, there is no NUMA, or a struct
page has 56 bytes. They take a while to build: ``zonedev lab build-kernel``.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from drgn import Program, sizeof
from support.guests import Booted, debug_live, each_guest, long_guest

from drgn_zonedev.lab.verdict.compare import judge
from drgn_zonedev.report import check

pytestmark = pytest.mark.qemu

LONG = "kernels that take long to build; their dumps are looked at in every run"
SCENARIOS = (
    *("empty", "deferred", "hotplug-offline", "orphan", "two-in-one", "nvdimm-partial"),
    *("fsdax-collision", "devdax-2m", "init-in-flight", "teardown", "ghost", "dirty-media"),
)
POISON = "struct pages: PAGE_POISON_PATTERN (all ones)"


def is_poisoned_without_numa(prog: Program) -> bool:
    return "contig_page_data" in prog and bool(prog["page_init_poisoning"].value_())


def has_small_struct_pages(prog: Program) -> bool:
    return sizeof(prog.type("struct page")) == 56


BUILT: dict[str, Callable[[Program], bool]] = {
    "7.3-debug": is_poisoned_without_numa,
    "6.1-slab": has_small_struct_pages,
}


@each_guest(long_guest(kernel, name, LONG) for kernel in BUILT for name in SCENARIOS)
def test_kernel_and_tool_agree_on_every_page(booted: Booted) -> None:
    prog = debug_live(booted.guest)
    assert BUILT[booted.kernel.name](prog)
    assert judge(booted.guest, prog, check(prog)) == []


# Where the struct pages are that no driver wrote.
@each_guest(
    long_guest("7.3-debug", name, LONG) for name in ("fsdax-collision", "ghost", "init-in-flight")
)
def test_poison_is_recognised(booted: Booted) -> None:
    found = {
        finding.slug: evidence.value
        for finding in check(booted.program()).findings
        for evidence in finding.evidence
        if evidence.what == POISON
    }
    assert (
        found
        == {
            "fsdax-collision": {"case5-reserved": 2},
            "ghost": {"ghost-pages": 0x4000},
            "init-in-flight": {"case4-initializing": 0xBC00, "case5-reserved": 2},
        }[booted.guest.scenario.name]
    )
