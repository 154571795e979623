# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A kernel whose zone loop is mended has no struct page without a zone. It takes a while
to build: ``zonedev lab build-kernel``.
"""

from __future__ import annotations

import pytest
from support.guests import Booted, debug_live, each_guest, long_guest

from drgn_zonedev.lab.truth.frozen import read_frozen
from drgn_zonedev.lab.verdict.compare import judge
from drgn_zonedev.lab.verdict.proven_errors import pages_in_no_zone
from drgn_zonedev.report import check

pytestmark = pytest.mark.qemu

BUG = [(0x3FFDF, 0x3FFE3)]
IN_NO_ZONE = {"7.3-small": BUG, "7.3-mended": [], "6.12-mended": []}
LONG = "kernels that take long to build"


@each_guest(long_guest(kernel, "acpi-hole", LONG) for kernel in IN_NO_ZONE)
def test_reserved_page_that_no_zone_spans_keeps_its_neighbours_zone(booted: Booted) -> None:
    prog = debug_live(booted.guest)
    report = check(prog)
    assert judge(booted.guest, prog, report) == []
    frozen = read_frozen(prog, booted.guest.facts)
    assert frozen is not None
    expected = IN_NO_ZONE[booted.kernel.name]
    assert pages_in_no_zone(frozen) == expected
    errors = [f for f in report.findings if f.severity.value == "error"]
    assert [(f.start_pfn, f.end_pfn) for f in errors] == expected
    assert {bug for f in errors for bug in f.known_bugs} <= {"zone-of-reserved-hole"}
    assert all(f.known_bugs for f in errors)


@each_guest([long_guest("7.3-small", "numa-fake", LONG)])
def test_nodes_that_the_kernel_makes_are_agreed_on(booted: Booted) -> None:
    prog = debug_live(booted.guest)
    assert judge(booted.guest, prog, check(prog)) == []
