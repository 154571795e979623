# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Which struct pages are mapped in a section that was hot-added in part. A page of vmemmap holds
page size / 64 struct pages, a subsection has 2 MiB / page size of them.
"""

from __future__ import annotations

import numpy as np
import pytest
from drgn import Program
from support.fakekernel import FakeKernel

from drgn_zonedev.classification import mapped
from drgn_zonedev.classification.classify import classify
from drgn_zonedev.vmcore.pagetables import UNKNOWN, UNMAPPED

NR = 40


def ranges(prog: Program) -> list[tuple[int, int, str]]:
    """Runs of PFNs by whether they are mapped, from the beginning of the section."""
    found: list[tuple[int, int, str]] = []
    for range_ in classify(prog):
        start, state = range_.start_pfn, range_.memmap.value
        if found and found[-1][1:] == (start, state):
            start, state = found.pop()[0], state
        found.append((start, range_.end_pfn, state))
    first = found[0][0]
    return [(start - first, end - first, state) for start, end, state in found]


def of_subsections(layout: str, *populated: int) -> FakeKernel:
    kernel = FakeKernel(layout)
    kernel.section(NR, subsections=populated)
    return kernel


def test_a_page_of_16k_holds_two_subsections() -> None:
    kernel = of_subsections("arm64-16k", 3, 8, 9)
    assert ranges(kernel.program()) == [
        (0, 256, "unmapped"),
        (256, 512, "mapped"),
        (512, 1024, "unmapped"),
        (1024, 1280, "mapped"),
        (1280, 8192, "unmapped"),
    ]


def test_a_page_of_64k_holds_32_subsections() -> None:
    kernel = of_subsections("arm64-64k", 37)
    assert ranges(kernel.program()) == [
        (0, 1024, "unmapped"),
        (1024, 2048, "mapped"),
        (2048, 8192, "unmapped"),
    ]


def test_with_pages_of_4k_a_larger_entry_may_map_the_rest() -> None:
    # Up to v6.14, it did.
    kernel = of_subsections("arm64-5.16", 1)
    assert ranges(kernel.program()) == [
        (0, 512, "unknown"),
        (512, 1024, "mapped"),
        (1024, 32768, "unknown"),
    ]


def test_on_x86_64_each_subsection_has_pages_of_its_own() -> None:
    assert ranges(of_subsections("6.1", 1).program()) == [
        (0, 512, "unmapped"),
        (512, 1024, "mapped"),
        (1024, 32768, "unmapped"),
    ]


@pytest.mark.parametrize("layout", ["arm64-16k", "arm64-64k", "ppc64-6.14", "loongarch64-6.14"])
def test_the_memmap_of_an_early_section_is_whole(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(NR, early=True, online=True, subsections=[0, 1])
    pages = kernel.macros.pages_per_section
    assert ranges(kernel.program()) == [(0, pages, "mapped")]


def test_a_page_of_vmemmap_can_hold_sections_on_powerpc() -> None:
    # A section of 256 pages has 16 KiB of struct pages, a quarter of a page of vmemmap.
    kernel = FakeKernel("ppc64-6.14")
    kernel.section(NR, subsections=[0])
    kernel.section(NR + 5, subsections=[0])
    kernel.section(NR + 8, subsections=[])
    assert ranges(kernel.program()) == [
        (0, 256, "mapped"),
        (5 * 256, 6 * 256, "mapped"),
        (8 * 256, 9 * 256, "unmapped"),
    ]


def given_frames(monkeypatch: pytest.MonkeyPatch, *frames: int) -> None:
    """Have page tables map the first pages of the section's vmemmap, and none of the others."""

    def page_frames(prog: Program, first: int, end: int) -> np.ndarray:
        found = np.full(end - first, UNMAPPED)
        found[: len(frames)] = frames
        return found

    monkeypatch.setattr(mapped, "page_frames", page_frames)


def test_page_tables_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = of_subsections("arm64-16k", 3, 8)
    given_frames(monkeypatch, 0x76, 0x77, UNMAPPED, 0x78, UNKNOWN)
    assert ranges(kernel.program()) == [
        (0, 512, "mapped"),
        (512, 768, "unmapped"),
        (768, 1280, "mapped"),
        (1280, 8192, "unmapped"),
    ]


def test_what_is_populated_is_promised_to_be_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    # A neighbour in subsection 2 was removed, and took the struct pages of 3 along: an error.
    kernel = of_subsections("arm64-16k", 3, 4, 5)
    given_frames(monkeypatch, 0x77, UNMAPPED, 0x78)
    assert ranges(kernel.program()) == [
        (0, 256, "mapped"),
        (256, 384, "unmapped"),
        (384, 768, "mapped"),
        (768, 8192, "unmapped"),
    ]


def test_a_struct_page_across_two_pages_needs_both(monkeypatch: pytest.MonkeyPatch) -> None:
    # 16384 / 56 is 292 and four sevenths.
    kernel = FakeKernel("arm64-16k", sizeof_page=56)
    kernel.section(NR, subsections=[40])
    given_frames(monkeypatch, 0x77, UNMAPPED, 0x78)
    assert ranges(kernel.program())[:4] == [
        (0, 292, "mapped"),
        (292, 586, "unmapped"),
        (586, 877, "mapped"),
        (877, 40 * 128, "unmapped"),
    ]
