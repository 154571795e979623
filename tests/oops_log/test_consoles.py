# SPDX-License-Identifier: LGPL-2.1-or-later

"""Consoles of the lab's guests, whose walkers touched a page that is known."""

from __future__ import annotations

from pathlib import Path

from drgn_zonedev.known_bugs.in_logs import known_bugs_of_log
from drgn_zonedev.oops_log.answer import read_log
from drgn_zonedev.oops_log.events import EventKind

CONSOLES = Path(__file__).parent / "consoles"

# What the guest wrote to soft_offline_page: no zone spans it.
TOUCHED = 0x3FFDF


def test_a_page_that_no_zone_spans() -> None:
    log = read_log((CONSOLES / "7.3-offline-reserved-hole.log").read_bytes())
    (boot,) = log.boots
    (event,) = boot.events
    assert event.kind is EventKind.FAULT
    assert event.function == "__zone_set_pageset_high_and_batch"
    assert "soft_offline_page" in event.trace
    assert known_bugs_of_log(log) == ("zone-of-reserved-hole",)
    # The PFN is in no register: only the boot log has it, among three others.
    ((start, end),) = boot.reserved_holes
    assert start <= TOUCHED < end <= start + 4
    assert log.pfns == ()


def test_a_hugepage_that_boot_made_is_lost() -> None:
    log = read_log((CONSOLES / "7.3-hvo-freed.log").read_bytes())
    assert known_bugs_of_log(log) == ("hugetlb-references-restored",)
    # The first pages that are refused: those of the second page of vmemmap.
    assert log.pfns == (0x100040, 0x100041)
    (boot,) = log.boots
    assert {event.kind for event in boot.events} == {EventKind.BAD_PAGE}
    assert [page.refcount for page in boot.pages] == [1, 1]
