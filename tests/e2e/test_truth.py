# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tool says of every PFN is what the kernel itself says."""

from __future__ import annotations

import pytest

from drgn_zonedev.lab import KERNELS, SCENARIOS, Guest, boot, fetch_kernel
from drgn_zonedev.lab.verdict.agreement import Agreement, compare
from drgn_zonedev.lab.verdict.matrix import debug_guest

pytestmark = pytest.mark.qemu

SECTION_PAGES = 0x8000


def compare_guest(guest: Guest) -> Agreement:
    return compare(debug_guest(guest), guest.facts)


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_pfn_of_a_collision(kernel: str) -> None:
    with boot(fetch_kernel(kernel), SCENARIOS["fsdax-collision"], truth=True) as guest:
        agreement = compare_guest(guest)
    assert agreement.disagreements == ()
    # 1 GiB.
    assert agreement.pages == 8 * SECTION_PAGES
    leaks = {(d.start_pfn, d.end_pfn) for d in agreement.leaks}
    # Only this kernel's pfn_to_online_page() takes the shared section's device pages for RAM.
    everything_shared = {(0x24000, 0x24002), (0x24002, 0x24400), (0x24400, 0x28000)}
    assert leaks == (everything_shared if kernel == "5.10" else set())


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_pfn_of_a_partial_section(kernel: str) -> None:
    with boot(fetch_kernel(kernel), SCENARIOS["nvdimm-partial"], truth=True) as guest:
        agreement = compare_guest(guest)
    assert agreement.disagreements == ()
    assert agreement.leaks == ()
    # 1 GiB of RAM and the three sections that 320 MiB need.
    assert agreement.pages == (8 + 3) * SECTION_PAGES
