# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tool says of every PFN is what the kernel itself says."""

from __future__ import annotations

import pytest
from support.guests import Booted, debug_live, each_guest

from drgn_zonedev.lab import KERNELS
from drgn_zonedev.lab.verdict.agreement import Agreement, compare

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
