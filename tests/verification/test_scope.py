# SPDX-License-Identifier: LGPL-2.1-or-later

"""Parts of memory, by kind and by PFN."""

from __future__ import annotations

import pytest

from drgn_zonedev.model import (
    EVERYTHING,
    Case,
    Finding,
    FreeBlocks,
    Memmap,
    MemoryKind,
    Range,
    Scope,
    Severity,
    Unjudged,
)
from drgn_zonedev.verification.scope import findings_in, ranges_in, unjudged_in, with_unread

PGMAP = 0xFFFF888000001000


def _range(start: int, end: int, case: Case, pgmap: int | None = None) -> Range:
    return Range(start, end, case, Memmap.MAPPED, "", pgmap)


RANGES = [
    _range(0, 100, Case.ONLINE),
    _range(100, 200, Case.DEVICE, PGMAP),
    _range(200, 300, Case.OFFLINE),
    _range(300, 310, Case.METADATA, PGMAP),
    _range(310, 320, Case.METADATA),
    _range(320, 330, Case.INITIALIZING, PGMAP),
    _range(330, 340, Case.INITIALIZING),
    _range(340, 350, Case.UNKNOWN),
]
RAM = [0, 200, 310, 330, 340]
DEVICES = [100, 300, 320, 340]


def _starts(ranges: list[Range]) -> list[int]:
    return [r.start_pfn for r in ranges]


@pytest.mark.parametrize(("kind", "starts"), [(MemoryKind.RAM, RAM), (MemoryKind.DEVICES, DEVICES)])
def test_kind_is_that_of_the_case_or_whether_there_is_a_pgmap(
    kind: MemoryKind, starts: list[int]
) -> None:
    found = ranges_in(Scope(kind), RANGES, lambda pfn: None)
    assert _starts(found.ranges) == starts
    assert sorted(_starts(found.ranges + found.others)) == _starts(RANGES)


def test_everything_is_whole() -> None:
    assert EVERYTHING.is_whole
    assert ranges_in(EVERYTHING, RANGES, lambda pfn: None).ranges == RANGES
    assert not Scope(MemoryKind.RAM).is_whole
    assert not Scope(start_pfn=0, end_pfn=1).is_whole


def test_ranges_are_cut_at_both_ends() -> None:
    found = ranges_in(Scope(start_pfn=50, end_pfn=201), RANGES, lambda pfn: None).ranges
    assert [(r.start_pfn, r.end_pfn) for r in found] == [(50, 100), (100, 200), (200, 201)]


def test_findings_and_gaps_are_kept_if_they_touch_it_or_are_about_no_pfn() -> None:
    spans = [(0, 50), (49, 51), (50, 60), (59, 90), (60, 70), (7, 7)]
    scope = Scope(start_pfn=50, end_pfn=60)
    findings = [
        Finding("x", Severity.ERROR, Case.ONLINE, start, end, 1, "") for start, end in spans
    ]
    gaps = [Unjudged(start, end, "") for start, end in spans]
    kept = [(49, 51), (50, 60), (59, 90), (7, 7)]
    assert [(f.start_pfn, f.end_pfn) for f in findings_in(scope, findings)] == kept
    assert [(u.start_pfn, u.end_pfn) for u in unjudged_in(scope, gaps)] == kept


def test_what_is_free_in_ram_that_was_not_looked_at_is_not_known() -> None:
    blocks = FreeBlocks({(0, 1, 2): 3}, unread=((10, 20),))
    assert with_unread(blocks, EVERYTHING, RANGES) == blocks
    assert with_unread(blocks, Scope(MemoryKind.RAM), RANGES) == blocks
    assert with_unread(blocks, Scope(MemoryKind.DEVICES), RANGES).unread == ((0, 100),)
    part = Scope(start_pfn=40, end_pfn=60)
    assert with_unread(blocks, part, RANGES).unread == ((0, 40), (60, 100))
