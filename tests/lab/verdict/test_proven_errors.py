# SPDX-License-Identifier: LGPL-2.1-or-later

"""Where the kernel itself says that a zone cannot be right."""

from __future__ import annotations

import numpy as np
import pytest
from support.fakekernel import FakeKernel

from drgn_zonedev.findings import make_finding
from drgn_zonedev.lab.truth.frozen import _NODE, _RUN, _ZONE, Frozen, Is
from drgn_zonedev.lab.truth.guest_facts import IomemEntry
from drgn_zonedev.lab.verdict.proven_errors import (
    ProvenErrors,
    error_differences,
    pages_in_no_zone,
    proven_errors,
)
from drgn_zonedev.model import Case, Finding

BUG = (0x3FFDF, 0x3FFE3)
DMA, DMA32, MAX_NR_ZONES = 0, 1, 5
RAM, HOLE = Is.ONLINE, Is.ONLINE | Is.RESERVED
# Node, zone, start, end: two nodes of 512 MiB.
ZONES = [(0, DMA, 1, 0x1000), (0, DMA32, 0x1000, 0x20000), (1, DMA32, 0x20000, 0x3FFDF)]


def frozen(*runs: tuple[int, int, int, int, Is]) -> Frozen:
    """Answers of runs: start, end, node, zone, and what is true of them."""
    rows = [(start, end, zone, nid, 0, -1, is_, 0) for start, end, nid, zone, is_ in runs]
    spans = [(nid, zone, start, end - start, 0, 0, [0] * 16) for nid, zone, start, end in ZONES]
    spans.append((1, 2, 0, 0, 0, 0, [0] * 16))
    return Frozen(np.array(rows, _RUN), np.array(spans, _ZONE), np.empty(0, _NODE))


def test_ram_in_its_zone_and_holes_in_their_neighbours_are_right() -> None:
    assert not pages_in_no_zone(
        frozen(
            (0, 1, 0, DMA, HOLE),
            (1, 0x1000, 0, DMA, RAM),
            (0x1000, 0x20000, 0, DMA32, RAM),
            (0x20000, 0x3FFDF, 1, DMA32, RAM),
            (0x3FFDF, 0x40000, 1, DMA32, HOLE),
        )
    )


@pytest.mark.parametrize(
    ("nid", "zone"), [(0, MAX_NR_ZONES), (1, MAX_NR_ZONES), (0, DMA32), (1, DMA), (1, 2)]
)
def test_hole_with_any_other_zone_is_wrong(nid: int, zone: int) -> None:
    found = pages_in_no_zone(
        frozen(
            (0x20000, 0x3FFDF, 1, DMA32, RAM),
            (0x3FFDF, 0x3FFE3, nid, zone, HOLE),
            (0x3FFE3, 0x40000, 1, DMA32, HOLE),
        )
    )
    assert found == [(0x3FFDF, 0x3FFE3)]


def test_ram_that_is_not_reserved_has_to_be_in_a_zone_that_spans_it() -> None:
    assert pages_in_no_zone(frozen((0x3FFDF, 0x3FFE0, 1, DMA32, RAM))) == [(0x3FFDF, 0x3FFE0)]


def test_device_pages_are_no_matter_of_this_bug() -> None:
    assert pages_in_no_zone(frozen((0x100000, 0x108000, 0, 4, Is.RESERVED))) == []


def test_without_answers_firmware_memory_may_have_the_bug() -> None:
    iomem = (
        IomemEntry(0, 0x3FFDF000, 0x40000000, "Reserved"),
        IomemEntry(1, 0x3FFDF800, 0x3FFE0000, "ACPI Tables"),
        IomemEntry(0, 0x1000, 0x9FC00, "System RAM"),
    )
    prog = FakeKernel("6.12").program()
    proven = proven_errors(prog, {"iomem": iomem})
    assert (tuple(proven.spans), proven.exact) == (((0x3FFDF, 0x40000),), False)


LOG = b"""
[    0.000000] BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable
[    0.000000] BIOS-e820: [mem 0x000000000009fc00-0x000000000009ffff] reserved
[    0.000000] BIOS-e820: [mem 0x000000003ffdf000-0x000000003fffffff] reserved
[    0.000000] BIOS-e820: [mem 0x0000000040000000-0x0000000040000fff] ACPI data
"""
LOG_OF_7_3 = b"""
[    0.000000] BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff]  System RAM
[    0.000000] BIOS-e820: [mem 0x000000000009fc00-0x000000000009ffff]  device reserved
[    0.000000] BIOS-e820: [gap 0x00000000000a0000-0x00000000000effff]
[    0.000000] BIOS-e820: [mem 0x000000003ffdf000-0x0000000040000fff]  device reserved
"""


@pytest.mark.parametrize("log", [LOG, LOG_OF_7_3])
def test_before_user_space_the_log_says_what_firmware_keeps(
    monkeypatch: pytest.MonkeyPatch, log: bytes
) -> None:
    monkeypatch.setattr("drgn_zonedev.lab.verdict.proven_errors.get_dmesg", lambda prog: log)
    proven = proven_errors(FakeKernel("6.12").program(), {})
    assert (tuple(proven.spans), proven.exact) == (((0x9F, 0xA0), (0x3FFDF, 0x40001)), False)


def errors(*spans: tuple[int, int]) -> list[Finding]:
    return [make_finding("device-page-zone", Case.ONLINE, *span) for span in spans]


@pytest.mark.parametrize(
    ("spans", "said"),
    [
        ([BUG], []),
        ([(0x3FFDF, 0x3FFE1), (0x3FFE1, 0x3FFE3)], []),
        ([], ["0x3ffdf-0x3ffe3: the kernel is wrong"]),
        ([(0x3FFDF, 0x3FFE2)], ["0x3ffe2-0x3ffe3: the kernel is wrong"]),
        ([(0x3FFDF, 0x3FFE4)], ["0x3ffdf-0x3ffe4: SLUG on a healthy kernel"]),
        ([BUG, (0, 1)], ["0x0-0x1: SLUG on a healthy kernel"]),
    ],
)
def test_errors_are_where_the_kernel_is_wrong_and_nowhere_else(
    spans: list[tuple[int, int]], said: list[str]
) -> None:
    found = list(error_differences(errors(*spans), ProvenErrors([BUG], exact=True)))
    assert len(found) == len(said)
    for line, wanted in zip(found, said):
        assert wanted.replace("SLUG", errors(BUG)[0].slug) in line


def test_where_the_kernel_only_may_be_wrong_an_error_may_be_and_need_not() -> None:
    may = ProvenErrors([(0x3FFDF, 0x40000)], exact=False)
    assert list(error_differences(errors(BUG), may)) == []
    assert list(error_differences([], may)) == []
    assert len(list(error_differences(errors((0x3FFDE, 0x3FFE0)), may))) == 1
