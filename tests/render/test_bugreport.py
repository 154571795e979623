# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from drgn import Program
from support.fakekernel import LAYOUTS, FakeKernel, collision, in_flight, partial, teardown
from support.schema import validated

from drgn_zonedev.explanation.bug_report import bug_report
from drgn_zonedev.known_bugs.bugs import AS_OF
from drgn_zonedev.model import Finding
from drgn_zonedev.render.bugreport import bugreport_document, bugreport_text
from drgn_zonedev.report import check

SCENES = {"collision": collision, "in_flight": in_flight, "partial": partial, "teardown": teardown}


def broken(layout: str) -> FakeKernel:
    kernel = partial(layout)
    kernel.poke_page_word(0x100801, 1, 0)
    return kernel


def findings() -> Iterator[tuple[Program, Finding]]:
    for layout in LAYOUTS:
        for scene in (*SCENES.values(), broken):
            prog = scene(layout).program()
            yield from ((prog, finding) for finding in check(prog).findings)


def test_every_report_is_text_of_72_columns_and_valid_json() -> None:
    seen = set()
    for prog, finding in findings():
        report = bug_report(prog, finding.start_pfn)
        text = bugreport_text(report)
        for line in text.split("\n"):
            # A word is not broken, nor a row of two words of a struct page.
            assert len(line) <= 72 or " " not in line.strip(), line
        document = validated(bugreport_document(report))
        assert document["schema"] == "drgn-zonedev/bugreport/1"
        assert document["known_bugs_as_of"] == AS_OF
        seen.add(document["slug"])
    assert len(seen) > 4


def test_it_has_what_a_reader_needs() -> None:
    prog = broken("6.1").program()
    report = bug_report(prog)
    text = bugreport_text(report)
    assert report.finding.slug in text
    assert "0x100801" in text
    assert "expected" in text
    assert re.search(r"\+08: [0-9a-f]{16} [0-9a-f]{16}", text) or "left out" in text
    assert AS_OF in text
    for title in ("Kernel:", "Where:", "Evidence:", "Known bug:", "How to see it again:"):
        assert f"\n{title}\n" in text


@pytest.mark.parametrize("name", ["pmem", "dax", "nvdimm"])
def test_names_stay_at_home(name: str) -> None:
    for prog, finding in findings():
        report = bug_report(prog, finding.start_pfn)
        assert not any(fact.note for fact in report.evidence)
        facts = "\n".join(fact.what for fact in report.evidence)
        assert name not in facts
