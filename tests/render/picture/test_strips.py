# SPDX-License-Identifier: LGPL-2.1-or-later

"""A pgmap's strip, by arithmetic."""

from __future__ import annotations

import pytest
from support import machines

from drgn_zonedev.model import Case, Finding
from drgn_zonedev.render.picture.glyphs import BAD, mark_of
from drgn_zonedev.render.picture.scene import Picture, make_scene
from drgn_zonedev.render.picture.strips import Part, edges, strip

RESERVED, METADATA, DEVICE, INITIALIZING, PARTIAL = map(
    mark_of,
    (Case.RESERVED, Case.METADATA, Case.DEVICE, Case.INITIALIZING, Case.PARTIAL),
)
START, END = 0x100000, 0x114000


def _scene(*findings: Finding, in_progress: bool = False) -> Picture:
    case = Case.INITIALIZING if in_progress else Case.DEVICE
    ranges = [
        machines.range_(0, 0x10000, Case.ONLINE),
        machines.range_(START, START + 2, Case.RESERVED, 1),
        machines.range_(START + 2, START + 512, Case.METADATA, 1),
        machines.range_(START + 512, END, case, 1),
        machines.range_(END, 0x118000, Case.PARTIAL),
    ]
    pgmaps = [machines.pgmap(1, START, END, in_progress=in_progress)]
    return make_scene(machines.kernel(), ranges, pgmaps, findings)


def _bad(start_pfn: int, pages: int = 1) -> Finding:
    return machines.finding(
        "device-page-uninitialized", Case.DEVICE, start_pfn, start_pfn + pages, 1
    )


def test_strip_shows_every_part_and_what_is_left_of_the_section() -> None:
    s = strip(_scene(), 0, 9)
    assert s.parts == (
        Part(START, START + 2, RESERVED),
        Part(START + 2, START + 512, METADATA),
        Part(START + 512, END, DEVICE),
        Part(END, 0x118000, PARTIAL),
    )
    assert s.frontier is None


def test_single_bad_page_is_a_part_of_its_own() -> None:
    s = strip(_scene(_bad(0x105432)), 0, 9)
    assert Part(0x105432, 0x105433, BAD) in s.parts
    assert Part(START + 512, 0x105432, DEVICE) in s.parts
    assert Part(0x105433, END, DEVICE) in s.parts


def test_frontier_is_the_first_page_that_is_not_initialised() -> None:
    assert strip(_scene(in_progress=True), 0, 9).frontier == START + 512


@pytest.mark.parametrize("count", [3, 10, 1000])
def test_many_bad_pages_are_folded_without_a_gap(count: int) -> None:
    s = strip(_scene(*(_bad(0x105000 + 2 * i) for i in range(count))), 0, 9)
    assert len(s.parts) <= 9
    assert [p.start_pfn for p in s.parts[1:]] == [p.end_pfn for p in s.parts[:-1]]
    assert (s.parts[0].start_pfn, s.parts[-1].end_pfn) == (START, 0x118000)
    # Reserve, metadata, what is left of the section, and devices around each bad page.
    assert sum(p.stands_for for p in s.parts) == 3 + 2 * count + 1
    assert any(p.mark == BAD for p in s.parts)
    # The first of every kind is still alone.
    for mark in (RESERVED, METADATA):
        assert [p.stands_for for p in s.parts if p.mark == mark] == [1]


def test_what_repeats_is_one_part_that_says_how() -> None:
    first = START + 512
    s = strip(_scene(*(_bad(first + 512 * i + 128, 384) for i in range(32))), 0, 9)
    device, error = (DEVICE, 128), (BAD, 384)
    assert s.parts == (
        Part(START, START + 2, RESERVED),
        Part(START + 2, first, METADATA),
        Part(first, first + 32 * 512, BAD, 64, (device, error)),
        Part(first + 32 * 512, END, DEVICE),
        Part(END, 0x118000, PARTIAL),
    )


@pytest.mark.parametrize("gap", [1, 511])
def test_what_does_not_repeat_is_not_said_to(gap: int) -> None:
    # Each run is longer than the one before, or there is a gap between two.
    starts = [START + 512 + i * 512 + gap * i * i for i in range(16)]
    parts = strip(_scene(*map(_bad, starts)), 0, 9).parts
    assert any(part.stands_for > 1 for part in parts)
    assert not any(part.unit for part in parts)


def test_every_part_has_room_for_its_number() -> None:
    parts = [Part(0, 2, RESERVED), Part(2, 512, METADATA), Part(512, 1 << 34, DEVICE)]
    positions = edges(parts, 1000, 80)
    widths = [b - a for a, b in zip(positions, positions[1:])]
    # log2(2) + 1, log2(510) + 1 and log2(2 ** 34 - 512) + 1 shares of what is left.
    assert widths == pytest.approx([80 + 760 * n / 46.9943 for n in (2, 9.9943, 35)], rel=1e-4)
    assert positions[-1] == pytest.approx(1000)
