# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Hugepages of 1 GiB that boot makes with a deduplicated vmemmap: their struct pages are judged, and
giving one back is a bug of the kernel, which the log shows, or else free pages.
"""

from __future__ import annotations

import dataclasses

import pytest
from support.guests import Booted, debug_live, each_guest, long_guest

from drgn_zonedev.kernel.mmzone import section_flags
from drgn_zonedev.kernel.sections import sections
from drgn_zonedev.known_bugs.in_logs import known_bugs_of_log
from drgn_zonedev.lab import SCENARIOS, boot, fetch_kernel
from drgn_zonedev.lab.verdict.matrix import debug_guest
from drgn_zonedev.oops_log.answer import read_log
from drgn_zonedev.oops_log.events import EventKind
from drgn_zonedev.report import check

pytestmark = pytest.mark.qemu

BUG = "hugetlb-references-restored"
FREED = SCENARIOS["hvo-freed"]
# Struct pages of 1 GiB, and of one page of vmemmap.
GIGANTIC, PER_PAGE = 1 << 18, 64
SECONDS = 400

longer = pytest.mark.long("two guests of 4 GiB a kernel; the log's signature is in every run")


@each_guest([("7.3", "hvo"), long_guest("7.2", "hvo", "7.3 is in every run")])
def test_struct_pages_that_share_memory_since_boot_are_judged_once(booted: Booted) -> None:
    prog = debug_live(booted.guest)
    report = check(prog)
    # The kernel's other bug, behind the last RAM.
    assert {f.slug for f in report.findings if f.severity.value == "error"} <= {"ram-hole-zone"}
    assert any(word & section_flags(prog).preinit for word in sections(prog).word.tolist())
    # All but the first page of vmemmap, and the one that all others are.
    assert report.coverage.aliases_skipped >= GIGANTIC - 2 * PER_PAGE


@longer
@pytest.mark.parametrize("kernel", ["7.2", "7.3"])
def test_log_says_why_a_hugepage_is_lost(kernel: str) -> None:
    with boot(fetch_kernel(kernel), FREED, timeout=SECONDS) as guest:
        log = read_log(guest.log.read_bytes())
    events = [event for each in log.boots for event in each.events]
    assert {event.kind for event in events} == {EventKind.BAD_PAGE}
    assert known_bugs_of_log(log) == (BUG,)
    # The pages are of one hugepage, which is aligned to its size.
    assert len({pfn // GIGANTIC for pfn in log.pfns}) == 1


@longer
@pytest.mark.parametrize("kernel", ["7.2", "7.3"])
def test_pages_that_are_not_looked_at_get_into_free_blocks(kernel: str) -> None:
    args = (*FREED.kernel_args, "init_on_alloc=0")
    unchecked = dataclasses.replace(FREED, kernel_args=args)
    with boot(fetch_kernel(kernel), unchecked, timeout=SECONDS) as guest:
        report = check(debug_guest(guest))
        log = read_log(guest.log.read_bytes())
    assert known_bugs_of_log(log) == ()
    errors = {f.slug: f for f in report.findings if f.severity.value == "error"}
    # The first page of vmemmap was never shared, so the first block has 64 sound pages. All
    # others begin with a page that has a reference, but for those that are in use again.
    assert set(errors) == {"ram-free-order", "ram-free-refcount"}
    assert errors["ram-free-refcount"].known_bugs == (BUG,)
    assert GIGANTIC // 1024 * 9 // 10 < errors["ram-free-refcount"].count < GIGANTIC // 1024
