# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A kernel bug that shipped: in an early section that RAM shares with devdax of 2 MiB
pages and its memmap in RAM, kernels before "mm/mm_init: fix uninitialized struct
pages for ZONE_DEVICE" wrote 128 struct pages of 512.
"""

from __future__ import annotations

import re

import pytest
from support.guests import Booted, debug_live, each_guest

from drgn_zonedev.model import Report, Severity
from drgn_zonedev.render.as_text import report_text
from drgn_zonedev.report import check

pytestmark = pytest.mark.qemu

FIRST_FIXED = (6, 1, 177)

# memmap=192M!0x24000000, of which the first 64 MiB are in a section of RAM.
START, BORDER = 0x24000, 0x28000
COMPOUND = 512
# Two pages of vmemmap, of 64 struct pages each.
WRITTEN = 128


unfixed = each_guest([("6.1-unfixed", "devdax-collision")])


@pytest.fixture(scope="session")
def report(booted: Booted) -> Report:
    version = booted.kernel.version
    if tuple(int(n) for n in re.findall(r"\d+", version)[:3]) >= FIRST_FIXED:
        pytest.skip(f"{version} has the fix")
    return check(debug_live(booted.guest))


@unfixed
def test_every_page_that_was_left_out_is_found_and_no_other(report: Report) -> None:
    # The info block and the alignment of the data take the first compound pages.
    (pgmap,) = report.pgmaps
    (device,) = pgmap.ranges
    assert START <= device.start_pfn < BORDER
    left_out = [
        (head + WRITTEN, head + COMPOUND) for head in range(device.start_pfn, BORDER, COMPOUND)
    ]
    found = [f for f in report.findings if f.severity is Severity.ERROR]
    assert {f.slug for f in found} <= {"device-page-uninitialized", "ram-hole-zone"}
    errors = [f for f in found if f.slug == "device-page-uninitialized"]
    assert [(f.start_pfn, f.end_pfn, f.count) for f in errors] == [
        (start, end, end - start) for start, end in left_out
    ]


@unfixed
def test_the_report_says_what_the_pages_hold_and_what_to_do(report: Report) -> None:
    text = report_text(report, verbose=True)
    assert "a reserved page from boot, linked to itself" in text
    assert "fix uninitialized struct pages for ZONE_DEVICE" in text
    assert "Update the kernel" in text
