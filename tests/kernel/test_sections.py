# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from drgn import Program
from drgn.helpers.linux.mm import for_each_valid_page_range
from drgn.helpers.linux.mmzone import for_each_present_section, nr_to_section
from support.fakekernel import (
    FakeKernel,
    collision,
    far,
    in_flight,
    partial,
    without_usage,
)
from support.kernels import each_layout

from drgn_zonedev.kernel import sections as module
from drgn_zonedev.kernel.mmzone import Geometry, section_flags
from drgn_zonedev.kernel.sections import Sections, sections
from drgn_zonedev.model import Case
from drgn_zonedev.report import check

each_scene = pytest.mark.parametrize("scene", [collision, in_flight, partial, far])
Scene = Callable[[str], FakeKernel]

ALL_ONES = (1 << 64) - 1


def as_ranges(prog: Program, found: Sections) -> list[tuple[int, int]]:
    """Valid PFNs by the bulk reading, subsection by subsection."""
    flags = section_flags(prog)
    ranges: list[tuple[int, int]] = []
    for nr, word, bitmap in zip(
        found.nr.tolist(), found.word.tolist(), found.subsection_map.tolist()
    ):
        for i in range(64):
            valid = word & flags.early or bitmap[0] >> i & 1
            if not word & flags.has_mem_map or not valid:
                continue
            start = nr * 32768 + i * 512
            if ranges and ranges[-1][1] == start:
                start = ranges.pop()[0]
            ranges.append((start, nr * 32768 + (i + 1) * 512))
    return ranges


@each_layout
@each_scene
def test_bulk_reading_agrees_with_drgn(layout: str, scene: Scene) -> None:
    prog = scene(layout).program()
    found = sections(prog)
    present = list(for_each_present_section(prog))
    assert found.nr.tolist() == [nr for nr, _ in present]
    assert found.address.tolist() == [s.value_() for _, s in present]
    assert found.word.tolist() == [s.section_mem_map.value_() for _, s in present]
    assert found.usage.tolist() == [s.usage.value_() for _, s in present]
    maps = [s.usage.subsection_map[0].value_() if s.usage else 0 for _, s in present]
    assert found.subsection_map.tolist() == [[bits] for bits in maps]
    assert found.usage_readable.all()
    assert found.unreadable == ()
    assert len(found) == len(present)


@each_layout
@each_scene
def test_bulk_reading_gives_drgns_valid_ranges(layout: str, scene: Scene) -> None:
    prog = scene(layout).program()
    expected = [(start, end) for start, end, _ in for_each_valid_page_range(prog)]
    assert as_ranges(prog, sections(prog)) == expected


@each_layout
def test_machine_without_sections(layout: str) -> None:
    found = sections(FakeKernel(layout).program())
    assert len(found) == 0
    assert found.unreadable == ()


@each_layout
def test_unreadable_root_is_reported_and_others_are_read(layout: str) -> None:
    kernel = far(layout)
    address = nr_to_section(kernel.program(), 257).value_()
    kernel.hide(address, 8)
    found = sections(kernel.program())
    assert found.unreadable == ((256, 512, address),)
    assert found.nr.tolist() == [0, 5, 255, 300000]


@each_layout
def test_roots_that_need_the_same_page_are_one_span(layout: str) -> None:
    kernel = far(layout)
    roots = kernel.program()["mem_section"].value_()
    for root in (2, 3, 600):
        kernel.hide(roots + 8 * root, 8)
    # Only the first page that is incomplete is looked at pointer by pointer.
    behind = next(r for r in range(4, 601) if (roots + 8 * r) % 4096 == 0)
    last = next(
        r for r in range(601, 2049) if r == 300000 // 256 + 1 or (roots + 8 * r) % 4096 == 0
    )
    assert sections(kernel.program()).unreadable == (
        (2 * 256, 4 * 256, roots + 8 * 2),
        (behind * 256, last * 256, roots + 8 * behind),
    )


def test_more_roots_than_any_machine_has_are_one_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_UNREADABLE", 2)
    kernel = far("7.3")
    roots = kernel.program()["mem_section"].value_()
    for root in (2, 3, 4):
        kernel.poke(roots + 8 * root, (0x1000_0000 * root).to_bytes(8, "little"))
    assert [span[:2] for span in sections(kernel.program()).unreadable] == [(2 * 256, 5 * 256)]


@each_layout
def test_section_without_usage_has_no_subsections(layout: str) -> None:
    found = sections(without_usage(layout).program())
    row = found.nr.tolist().index(257)
    assert (found.usage[row], found.usage_readable[row]) == (0, True)
    assert found.subsection_map[row].tolist() == [0]


@each_layout
def test_unreadable_usages_are_marked_and_others_are_read(layout: str) -> None:
    # All usages lie together, as those of boot sections do.
    kernel = FakeKernel(layout)
    made = [kernel.section(nr, subsections=[nr]) for nr in range(9)]
    for nr in (0, 4, 8):
        kernel.hide(kernel.member("mem_section", made[nr], "usage") + 16, 8)
    found = sections(kernel.program())
    readable = [nr not in (0, 4, 8) for nr in range(9)]
    assert found.usage_readable.tolist() == readable
    bits = [row[0] for row in found.subsection_map.tolist()]
    assert [b for b, ok in zip(bits, readable) if ok] == [1 << nr for nr in (1, 2, 3, 5, 6, 7)]
    assert found.unreadable == ()


@pytest.mark.parametrize("pointer", [8, 0xDEADBEEF, ALL_ONES, ALL_ONES - 7, 1 << 63])
def test_damaged_usage_pointer_does_not_disturb_others(pointer: int) -> None:
    kernel = FakeKernel()
    damaged = kernel.section(3)
    kernel.section(4, subsections=[9])
    kernel.poke_member("mem_section", damaged, "usage", pointer)
    found = sections(kernel.program())
    assert found.usage_readable.tolist() == [False, True]
    assert found.subsection_map[1].tolist() == [1 << 9]


# What is worked out from them.


def made(section_size_bits: int, maps: dict[int, int]) -> Sections:
    """Sections of a machine with pages of 4 KiB, by number, each with its subsection_map."""
    geometry = Geometry(12, section_size_bits, 46)
    words = -(-geometry.subsections_per_section // 64)
    nothing = np.zeros(len(maps), np.uint64)
    return Sections(
        geometry=geometry,
        nr=np.array(list(maps), np.int64),
        address=nothing,
        word=nothing,
        usage=nothing,
        usage_readable=np.ones(len(maps), bool),
        subsection_map=np.array(
            [[bits >> 64 * i & ALL_ONES for i in range(words)] for bits in maps.values()],
            np.uint64,
        ).reshape(-1, words),
        unreadable=(),
        crowded=np.zeros(len(maps), bool),
    )


# 64 subsections on x86-64, 128 and 512 where sections are larger.
each_size = pytest.mark.parametrize("bits", [27, 28, 30])


@each_size
def test_sections_are_found_by_number_and_by_pfn(bits: int) -> None:
    found = made(bits, {3: 0, 4: 1, 9: 0})
    pages = found.geometry.pages_per_section
    assert [found.find(nr) for nr in (0, 3, 4, 5, 9, 10)] == [None, 0, 1, None, 2, None]
    pfn = np.array([0, 3 * pages, 5 * pages - 1, 5 * pages, 9 * pages + 1, 10 * pages])
    assert found.row_of(pfn).tolist() == [-1, 0, 1, -1, 2, -1]
    assert found.rows(0, 3 * pages).tolist() == []
    assert found.rows(0, 3 * pages + 1).tolist() == [0]
    assert found.rows(5 * pages - 1, 9 * pages + 1).tolist() == [1, 2]
    assert made(bits, {}).row_of(pfn).tolist() == [-1] * 6


@each_size
def test_bits_are_those_of_the_subsections(bits: int) -> None:
    geometry = Geometry(12, bits, 46)
    count = geometry.subsections_per_section
    populated = {0, 5, count // 2, count - 1}
    found = made(bits, {7: sum(1 << bit for bit in populated)})
    pfn = 7 * geometry.pages_per_section + np.arange(count) * geometry.pages_per_subsection + 3
    wanted = [i in populated for i in range(count)]
    assert found.test_bit(found.subsection_map, found.row_of(pfn), pfn).tolist() == wanted
    assert found.unpacked(found.subsection_map).tolist() == [wanted]
    absent = np.array([0])
    assert found.test_bit(found.subsection_map, found.row_of(absent), absent).tolist() == [False]
    assert found.unpacked(found.subsection_map[:0]).shape == (0, count)


@each_size
def test_sections_that_are_populated_in_part_are_mixed(bits: int) -> None:
    count = 1 << bits - 21
    full, half = (1 << count) - 1, (1 << count // 2) - 1
    found = made(bits, {0: 0, 1: full, 2: half, 3: full ^ half, 4: full - 1, 5: 1 << count - 1})
    assert found.mixed.tolist() == [False, False, True, True, True, True]


# Maps that no machine has.


def checkerboard(kernel: FakeKernel, numbers: range) -> None:
    for nr in numbers:
        kernel.section(nr, online=True, early=True, subsections=range(0, 64, 2))


def test_maps_that_change_too_often_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_CHANGES", 2 + 63)
    kernel = FakeKernel("6.1")
    kernel.section(2, subsections=range(8, 16))
    checkerboard(kernel, range(3, 6))
    kernel.section(6)
    found = sections(kernel.program())
    # As many as there may be changes, those with the fewest first.
    assert found.crowded.tolist() == [False, False, True, True, False]
    assert found.usage_readable.tolist() == [True, True, False, False, True]
    assert found.subsection_map[:2].any(axis=1).all()
    assert not found.subsection_map[2:4].any()


def test_checkerboards_are_one_range_and_a_remark(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without a bound: a range for each of 64 pieces of each section, and 64 TiB have half a million
    # sections.
    monkeypatch.setattr(module, "_MAX_CHANGES", 1 << 10)
    kernel = FakeKernel("6.1")
    kernel.section(0, online=True, early=True)
    checkerboard(kernel, range(1, 65))
    report = check(kernel.program())
    assert len(report.ranges) < 2 * module._MAX_CHANGES
    (gap,) = (u for u in report.unjudged if "more often than on any machine" in u.reason)
    assert (gap.start_pfn % 0x8000, gap.end_pfn) == (0, 65 << 15)
    last = report.ranges[-1]
    assert (last.start_pfn, last.end_pfn, last.case) == (gap.start_pfn, gap.end_pfn, Case.UNKNOWN)
    assert report.ranges[0].case is Case.ONLINE
