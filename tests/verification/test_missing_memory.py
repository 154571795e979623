# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Which memory would have to be in the dump. Where it is, page tables say, which the
fake kernel has none of: the ends are in test_lab_ways_e2e.py, with real dumps.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from drgn import Program
from support.fakekernel import FakeKernel, partial
from support.kernels import each_layout

from drgn_zonedev.kernel.vmemmap import UNMAPPED
from drgn_zonedev.model import Missing
from drgn_zonedev.render import as_text
from drgn_zonedev.report import check
from drgn_zonedev.verification import missing_memory as missing


@each_layout
def test_memory_whose_place_is_not_known_is_told_as_such(layout: str) -> None:
    kernel = partial(layout)
    kernel.hide(kernel.page(0x110000), 0x1000)
    report = check(kernel.program())
    (lost,) = report.missing
    assert (lost.start, lost.end) == (0, 0)
    assert lost.holds == "struct pages of [0x110000, 0x110040)"
    assert "not known" in as_text.report_text(report)


@each_layout
def test_nothing_is_missing_where_all_is_readable(layout: str) -> None:
    report = check(partial(layout).program())
    assert report.missing == ()
    assert "MISSING" not in as_text.report_text(report)


def mapped(monkeypatch: pytest.MonkeyPatch, *frames: int) -> None:
    def translate(prog: Program, first: int, end: int) -> np.ndarray:
        return np.array(frames, np.int64)

    monkeypatch.setattr(missing, "vmemmap_page_frames", translate)


def test_memory_on_the_device_is_told_from_memory_that_was_filtered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The device of this scene has PFNs 0x100000 to 0x114000.
    mapped(monkeypatch, 0x100002, 0x100003, UNMAPPED, 0xFFFFE, 0xFFFFF, 0x100000, 0x200)
    kernel = partial("6.1")
    kernel.hide(kernel.page(0x110000), 0x7000)
    found = check(kernel.program()).missing
    assert [(m.start, m.end) for m in found] == [
        (0x200000, 0x201000),
        (0xFFFFE000, 0x100000000),
        (0x100000000, 0x100001000),
        (0x100002000, 0x100004000),
    ]
    assert ["map=dev" in m.hint for m in found] == [False, False, True, True]


def test_structure_that_cannot_be_read_is_told_by_its_address() -> None:
    kernel = FakeKernel()
    kernel.section(8)
    pgmap = kernel.pgmap((0x40000, 0x48000))
    kernel.hide(pgmap, kernel.layout.structs["dev_pagemap"].size)
    report = check(kernel.program())
    assert {u.address for u in report.unjudged} == {pgmap}
    assert [m.holds for m in report.missing] == [f"a structure at {pgmap:#x}"]


def test_what_nobody_adds_by_hand_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each gap has a hundred runs of page frames.
    calls = iter(range(1, 1000))

    def translate(prog: Program, first: int, end: int) -> np.ndarray:
        return next(calls) * 1000 + np.arange(0, 200, 2)

    monkeypatch.setattr(missing, "vmemmap_page_frames", translate)
    kernel = partial("6.1")
    for pfn in range(0x110000, 0x110000 + 6 * 128, 128):
        kernel.hide(kernel.page(pfn), 0x1000)
    report = check(kernel.program())
    assert len([u for u in report.unjudged if u.address]) == 6
    assert len(report.missing) == 256
    assert next(calls) == 4


def test_structure_that_makes_no_sense_is_not_missing() -> None:
    kernel = FakeKernel()
    kernel.section(8)
    kernel.pgmap((0x40000, 0x48000), nr_range=-1)
    report = check(kernel.program())
    assert report.unjudged
    assert report.missing == ()


def test_what_is_missing_is_told_with_its_size() -> None:
    report = check(partial("6.1").program())
    lost = Missing(0x24200000, 0x24400000, "struct pages of [0x1, 0x2)", "a \x1b[2J hint")
    text = as_text.report_text(dataclasses.replace(report, missing=(lost,)))
    assert "[0x24200000, 0x24400000)" in text
    assert "2.0 MiB" in text or "2 MiB" in text
    assert "\x1b" not in text
