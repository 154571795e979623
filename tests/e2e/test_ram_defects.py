# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Single defects in the struct pages of RAM of real kernels: each is found with its slug and
its PFN, and nothing else besides. Without one, the only error is the kernel's own.
"""

from __future__ import annotations

import dataclasses
import random
from collections import Counter

import pytest
from drgn import Program
from support.defects import Overlay, Spot
from support.guests import SECTION_PAGES, Booted, each_guest, long_guest, on_kernels
from support.ramdefects import KINDS, RamDefects

from drgn_zonedev.classification.classify import classify_snapshot
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.model import Case, Range, Severity
from drgn_zonedev.report import check
from drgn_zonedev.verification.verify import verify_snapshot

pytestmark = pytest.mark.qemu

# ACPI tables that firmware put behind the last RAM page of 1 GiB.
NO_ZONE = ("ram-hole-zone", 0x3FFDF, 0x3FFE3)
# Of each kind of page, in each of two sections.
EACH = 8

each_kernel = each_guest(on_kernels("empty", ["5.10", "7.3"]))


def errors(prog: Program) -> set[Spot]:
    found = check(prog).findings
    return {(f.slug, f.start_pfn, f.end_pfn) for f in found if f.severity is Severity.ERROR}


def spots(prog: Program, snapshot: Snapshot, range_: Range) -> set[Spot]:
    found = verify_snapshot(prog, snapshot, [range_]).findings
    return {(f.slug, f.start_pfn, f.end_pfn) for f in found} - {NO_ZONE}


def section(ranges: list[Range], start_pfn: int) -> Range:
    """A section of RAM, as a range."""
    whole = next(r for r in ranges if r.start_pfn <= start_pfn < r.end_pfn)
    assert whole.case is Case.ONLINE
    end_pfn = min(start_pfn + SECTION_PAGES, whole.end_pfn)
    return dataclasses.replace(whole, start_pfn=start_pfn, end_pfn=end_pfn)


@each_kernel
def test_only_the_kernel_bug_is_an_error(booted: Booted) -> None:
    assert errors(booted.program()) == {NO_ZONE}


# Half a minute to a minute each.
@each_guest(
    [
        *on_kernels("empty", ["7.3"]),
        *(long_guest(name, "empty", "7.3 is in every run") for name in ("7.3-debug", "6.1-slab")),
    ]
)
def test_each_defect_is_found_where_it_is(booted: Booted) -> None:
    prog, rng = booted.program(), random.Random(booted.kernel.name)
    make, overlay = RamDefects(prog, booted.kernel.name.partition("-")[0]), Overlay(prog)
    snapshot = take_snapshot(prog)
    ranges = classify_snapshot(prog, snapshot)
    injected: Counter[str] = Counter()
    for start in range(0, 0x40000, SECTION_PAGES):
        range_ = section(ranges, start)
        # The first MiB and the end of RAM have holes, whose zone is that of their neighbours.
        first, end = max(start, 0x1000), min(range_.end_pfn, 0x3FFDF)
        for kind, pages in make.spots(first, end, rng, EACH).kinds.items():
            for pfn, order in pages:
                if injected[kind] > 200:
                    break
                for defect in make.of(kind, pfn, order, rng):
                    with overlay.injected(defect):
                        found = spots(prog, snapshot, range_)
                    assert found == defect.expected, f"{kind}: {defect.what}"
                    injected[kind] += 1
    assert set(injected) == set(KINDS)
    assert injected.total() >= 800
    assert errors(prog) == {NO_ZONE}
