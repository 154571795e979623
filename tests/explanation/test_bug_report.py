# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import pytest
from drgn import Program
from support.fakekernel import collision, partial

from drgn_zonedev.explanation.bug_report import (
    REPRODUCED_BY,
    NothingToReportError,
    bug_report,
)
from drgn_zonedev.findings import KINDS
from drgn_zonedev.lab.scenarios.catalogue import SCENARIOS
from drgn_zonedev.report import check

ONES = (1 << 64) - 1


@pytest.fixture
def prog() -> Program:
    kernel = partial("6.1")
    kernel.poke_page_word(0x100801, 1, 0)
    return kernel.program()


def test_the_worst_finding_is_reported(prog: Program) -> None:
    assert bug_report(prog).finding == check(prog).findings[0]


def test_a_finding_is_reported_by_its_slug(prog: Program) -> None:
    slugs = {finding.slug for finding in check(prog).findings}
    assert len(slugs) > 1
    for slug in slugs:
        assert bug_report(prog, slug).finding.slug == slug


def test_a_page_is_reported_by_its_pfn(prog: Program) -> None:
    report = bug_report(prog, "0x100801")
    assert report.finding.start_pfn == 0x100801
    assert report.words is None or len(report.words) == 8


def test_nothing_to_report_is_said(prog: Program) -> None:
    with pytest.raises(NothingToReportError, match="no vmemmap-alias"):
        bug_report(prog, "vmemmap-alias")
    with pytest.raises(NothingToReportError, match="PFN 0x100802"):
        bug_report(prog, 0x100802)


def test_media_is_left_out() -> None:
    # What a device held before: neither zone nor node can be.
    kernel = collision("6.1")
    for word in range(8):
        kernel.poke_page_word(0x24000, word, 0x6867666564636261)
    report = bug_report(kernel.program(), 0x24000)
    assert report.words is None
    assert "6867666564636261" not in repr(report)


def test_scenarios_are_those_of_the_lab() -> None:
    assert set(REPRODUCED_BY) <= set(KINDS)
    assert set(REPRODUCED_BY.values()) <= set(SCENARIOS)
