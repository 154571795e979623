# SPDX-License-Identifier: LGPL-2.1-or-later

"""Tails that the kernel did not write are one finding, whatever they hold."""

from __future__ import annotations

import numpy as np
import pytest
from support.fakekernel import FakeKernel

from drgn_zonedev.model import Finding, Severity
from drgn_zonedev.report import check

# Devices in an early section of which RAM has the rest: nothing is shared there.
START, END = 0x24000, 0x28000
SIZE, WRITTEN = 512, 128


def machine(stale: str, layout: str = "6.1") -> FakeKernel:
    kernel = FakeKernel(layout, dedup=False)
    for nr in range(8):
        kernel.section(nr, online=True, early=True, taint=nr == 4)
        kernel.memory_block(nr)
    kernel.ram_pages(0, START)
    kernel.ram_pages(END, 0x40000)
    if stale == "boot":
        kernel.hole_pages(START, END, "ZONE_DMA32")
    else:
        # What a device that was bound before has left.
        kernel.device_pages(START, END, kernel.pgmap((START, END), stored=False))
    raw = kernel.memory.read(kernel.page(START), 64 * (END - START))
    kept = np.frombuffer(raw, "<u8").reshape(-1, 8)
    pgmap = kernel.pgmap((START, END), type="MEMORY_DEVICE_GENERIC", vmemmap_shift=9)
    kernel.device_pages(START, END, pgmap)
    for head in range(START, END, SIZE):
        for pfn in range(head + WRITTEN, head + SIZE):
            for word in range(8):
                kernel.poke_page_word(pfn, word, int(kept[pfn - START, word]))
    return kernel


def errors(kernel: FakeKernel) -> list[Finding]:
    return [f for f in check(kernel.program()).findings if f.severity is Severity.ERROR]


@pytest.mark.parametrize("stale", ["boot", "device"])
def test_they_are_one_finding(stale: str) -> None:
    (finding,) = errors(machine(stale))
    assert finding.slug == "device-page-uninitialized"
    assert (finding.start_pfn, finding.end_pfn) == (START + WRITTEN, END)
    assert finding.count == (END - START) // SIZE * (SIZE - WRITTEN)
    assert "32 runs, the last 384 of each 512" in finding.message


def test_another_pattern_is_reported_run_by_run() -> None:
    kernel = machine("device")
    # One more tail is wrong than the kernel skips.
    for word in range(8):
        kernel.poke_page_word(START + WRITTEN - 1, word, (1 << 64) - 1)
    found = errors(kernel)
    assert len(found) > 1
