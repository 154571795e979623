# SPDX-License-Identifier: LGPL-2.1-or-later

"""What print() shows."""

from __future__ import annotations

import dataclasses

import pytest
from support.fakekernel import collision, in_flight

from drgn_zonedev import check, explain
from drgn_zonedev.model import PgmapDevice, RefState
from drgn_zonedev.render.as_text import report_text
from drgn_zonedev.render.explanation_text import explanation_text
from drgn_zonedev.util.rendering import text_of as result_text


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
