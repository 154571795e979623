# SPDX-License-Identifier: LGPL-2.1-or-later

"""What print() shows."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import pydoc
import re
from typing import Any

import pytest
from drgn.commands import run_command
from support.fakekernel import collision, in_flight, partial

from drgn_zonedev import (
    check,
    classify,
    classify_pfn,
    explain,
    for_each_finding,
    page_census,
    plugin,
    proposal,
    read_pages,
    sections,
    to_json,
    verify,
    walkers,
)
from drgn_zonedev.explanation.bug_report import bug_report
from drgn_zonedev.model import Case, PgmapDevice, RefState
from drgn_zonedev.render.as_text import report_text
from drgn_zonedev.render.explanation_text import explanation_text
from drgn_zonedev.util.rendering import text_of as result_text
from drgn_zonedev.verification.kernel_knowledge import kernel_knowledge


def test_report_prints_as_the_command_does() -> None:
    report = check(collision("6.1").program())
    assert str(report) == report_text(report)


def test_explanation_prints_as_the_command_does() -> None:
    explanation = explain(collision("6.1").program(), 0x24400)
    assert str(explanation) == explanation_text(explanation)


def test_finding_prints_its_evidence_and_what_to_do() -> None:
    kernel = collision("6.1")
    kernel.poke_page_word(0x25000, 1, 0)
    (finding,) = (f for f in check(kernel.program()).findings if f.slug == "device-page-pgmap")
    head, *rest = str(finding).splitlines()
    assert head.startswith("error: device-page-pgmap [0x25000, 0x25001), 1 page, 1 concerned, ")
    assert any(f"@ {kernel.page(0x25000) + 8:#x} = 0x0, expected " in line for line in rest)
    assert rest[-1].startswith("    cure: ")


def test_range_prints_what_decided_it() -> None:
    report = check(in_flight("6.1").program())
    text = str(next(r for r in report.ranges if r.case.number == 4))
    assert text.startswith("[0x24400, 0x30000), 48128 pages: initializing (4): claimed ")
    assert "pgmap->nr_range @ " in text


def test_pgmap_prints_ranges_altmap_and_reference() -> None:
    (pgmap,) = check(in_flight("6.1").program()).pgmaps
    lines = str(pgmap).splitlines()
    assert lines[0] == f"struct dev_pagemap @ {pgmap.address:#x}: MEMORY_DEVICE_FS_DAX"
    assert "    ranges[0]: [0x24000, 0x30000), 49152 pages, in progress" in lines
    assert "    altmap: reserve 2, free 1022, align 510, alloc 512" in lines


def test_nothing_of_a_dump_reaches_the_terminal_unescaped() -> None:
    (pgmap,) = check(collision("6.1").program()).pgmaps
    evil = dataclasses.replace(
        pgmap,
        owner="\x1b[2J",
        owner_address=1,
        device=PgmapDevice("pfn0.0\x1b[31m", "nd", 0, "pmem0\r"),
        ref=RefState("live", None, None),
    )
    text = str(evil)
    assert "\x1b" not in text
    assert "\r" not in text
    assert "no mode, ? references" in text


def test_other_things_have_no_text() -> None:
    with pytest.raises(TypeError, match=r"use repr\(\)"):
        result_text(1)


def test_json_of_results_is_that_of_the_commands() -> None:
    prog = partial("6.1").program()
    report, explanation = check(prog), explain(prog, 0x100000)
    assert json.loads(to_json(report))["schema"] == "drgn-zonedev/report/2"
    assert json.loads(to_json(explanation))["pfn"] == 0x100000


@pytest.mark.parametrize("helper", [proposal, walkers, page_census, bug_report, kernel_knowledge])
def test_other_reports_are_shown_as_the_commands_show_them(helper: Any) -> None:
    kernel = partial("6.1")
    kernel.poke_page_word(0x100801, 1, 0)
    prog = kernel.program()
    plugin.drgn_prog_set(prog)
    name = {page_census: "pages", bug_report: "bugreport"}.get(helper)
    line = f"zonedev {name or helper.__name__.rpartition('_')[0] or helper.__name__}"
    result = helper(prog)
    for suffix, said in ((" --all", str(result)), (" --format json", to_json(result))):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert run_command(prog, line + suffix) == result
        assert said == out.getvalue().rstrip("\n")
    assert re.fullmatch(r"<\w+ .{1,120}>", repr(result))


@pytest.mark.parametrize("other", [5, "report", None, classify_pfn])
def test_other_things_have_no_json(other: object) -> None:
    with pytest.raises(TypeError, match=r"expected one of BugReport, Census, .*, got \w+$"):
        to_json(other)


def test_bulk_results_are_shown_as_a_line() -> None:
    prog = partial("6.1").program()
    pages = next(iter(read_pages(prog, 0x100000, 0x100400)))
    assert repr(pages) == "<Pages [0x100000, 0x100400): 1024 struct pages>"
    assert re.fullmatch(r"<Sections: \d+ present, 0 to \d+>", repr(sections(prog)))


def test_a_case_equals_its_string() -> None:
    assert Case.DEVICE == "device"
    assert Case.DEVICE != "online"
    assert Case.DEVICE != Case.ONLINE
    assert {Case.DEVICE: 1}["device"] == 1  # type: ignore[index]
    assert len({*Case, *(case.value for case in Case)}) == len(Case)


def test_findings_and_ranges_one_by_one() -> None:
    prog = partial("6.1").program()
    found = check(prog).findings
    assert tuple(for_each_finding(prog)) == found
    assert [f.slug for f in for_each_finding(prog, "case5-reserved")] == ["case5-reserved"]
    here = classify_pfn(prog, 0x100801)
    assert here is not None
    assert here.case == "device"
    assert classify_pfn(prog, 0x999999) is None


def test_a_pgmap_is_explained_by_its_first_page() -> None:
    prog = partial("6.1").program()
    (pgmap,) = check(prog).pgmaps
    assert explain(prog, pgmap).pfn == pgmap.ranges[0].start_pfn


@pytest.mark.parametrize("helper", [check, explain, classify, verify, walkers, proposal])
def test_help_shows_no_lambda(helper: Any) -> None:
    assert "lambda" not in pydoc.render_doc(helper)
