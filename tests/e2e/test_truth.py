# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tool says of every PFN is what the kernel itself says."""

from __future__ import annotations

import pytest
from support.guests import Booted, debug_live, each_guest, long_guest

from drgn_zonedev.lab import KERNELS
from drgn_zonedev.lab.truth.frozen import Is, read_frozen
from drgn_zonedev.lab.verdict.agreement import Agreement, compare
from drgn_zonedev.lab.verdict.proven_errors import pages_in_no_zone

pytestmark = pytest.mark.qemu

SECTION_PAGES = 0x8000


def compare_guest(booted: Booted) -> Agreement:
    return compare(debug_live(booted.guest), booted.guest.facts)


@each_guest((kernel, "fsdax-collision") for kernel in KERNELS)
def test_every_pfn_of_a_collision(booted: Booted) -> None:
    agreement = compare_guest(booted)
    assert agreement.disagreements == ()
    # 1 GiB.
    assert agreement.pages == 8 * SECTION_PAGES
    leaks = {(d.start_pfn, d.end_pfn) for d in agreement.leaks}
    # Only this kernel's pfn_to_online_page() takes the shared section's device pages for RAM.
    everything_shared = {(0x24000, 0x24002), (0x24002, 0x24400), (0x24400, 0x28000)}
    assert leaks == (everything_shared if booted.kernel.name == "5.10" else set())


@each_guest((kernel, "nvdimm-partial") for kernel in KERNELS)
def test_every_pfn_of_a_partial_section(booted: Booted) -> None:
    agreement = compare_guest(booted)
    assert agreement.disagreements == ()
    assert agreement.leaks == ()
    # 1 GiB of RAM and the three sections that 320 MiB need.
    assert agreement.pages == (8 + 3) * SECTION_PAGES


# In the matrix, these guests are in every run.
HOLES = [
    (kernel, "acpi-hole")
    if kernel in ("6.1", "7.3")
    else long_guest(kernel, "acpi-hole", "6.1 and 7.3 have the same bug, and are in every run")
    for kernel in KERNELS
]


@each_guest(HOLES)
def test_kernel_says_itself_that_a_zone_does_not_exist(booted: Booted) -> None:
    frozen = read_frozen(debug_live(booted.guest), booted.guest.facts)
    assert frozen is not None
    # ACPI tables of four pages, behind the last RAM of 1 GiB.
    assert pages_in_no_zone(frozen) == [(0x3FFDF, 0x3FFE3)]
    rows = (frozen.pfn >= 0x3FFDF) & (frozen.pfn < 0x3FFE3)
    assert set(frozen.column("zone")[rows].tolist()) == {len(frozen.zones)}
    assert (frozen.yes(Is.ONLINE) & frozen.yes(Is.RESERVED))[rows].all()
    # All of 1 GiB was asked, the holes behind and below included.
    assert len(frozen.pfn) == 8 * SECTION_PAGES


@each_guest([("6.12", "numa")])
def test_holes_behind_the_last_node_belong_to_it(booted: Booted) -> None:
    frozen = read_frozen(debug_live(booted.guest), booted.guest.facts)
    assert frozen is not None
    assert pages_in_no_zone(frozen) == [(0x3FFDF, 0x3FFE3)]
    half = 4 * SECTION_PAGES
    nodes = dict(zip(frozen.pfn.tolist(), frozen.column("nid").tolist()))
    assert (nodes[half - 1], nodes[half], nodes[0x3FFDE], nodes[0x3FFE3]) == (0, 1, 1, 1)
