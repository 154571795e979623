# SPDX-License-Identifier: LGPL-2.1-or-later

"""
What an altmap may have provided, by the rules of the architecture. The numbers follow from sizes:
64 bytes of struct page for each page.
"""

from __future__ import annotations

import pytest
from support.fakekernel import Altmap, FakeKernel
from support.kernels import Device, put_device

from drgn_zonedev.report import check

MIB = 1 << 20
START = 8 << 30


def said(layout: str, size: int, alloc: int, *, start: int = START, page: int = 64) -> list[str]:
    """The slugs about the altmap of a device of that size."""
    kernel = FakeKernel(layout, sizeof_page=page)
    shift = kernel.macros.page_shift
    first, end = start >> shift, (start + size) >> shift
    kernel.sections(first, end, taint=True)
    reserve = kernel.altmap_reserve
    altmap = Altmap(first, end - 1, reserve=reserve, free=end - first - 512 - reserve, alloc=alloc)
    put_device(kernel, Device(first, end, altmap=altmap))
    found = check(kernel.program(), only="devices").findings
    return [f.slug for f in found if f.slug.startswith("altmap")]


# Whole sections: of x86-64 and arm64 with 4K, 512 pages each; with 16K, 32.
WHOLE = [("6.1", 512), ("arm64-5.16", 512), ("arm64-16k", 32)]


@pytest.mark.parametrize(("layout", "pages"), WHOLE)
def test_whole_sections(layout: str, pages: int) -> None:
    assert said(layout, 256 * MIB, 2 * pages) == []
    for alloc in (0, pages, 2 * pages - 1, 2 * pages + 1):
        assert said(layout, 256 * MIB, alloc) == ["altmap-unaccounted"]


def test_x86_64_takes_nothing_for_parts_of_sections() -> None:
    assert said("6.1", 128 * MIB + 64 * MIB, 512) == []
    assert said("6.1", 64 * MIB, 256) == ["altmap-unaccounted"]


@pytest.mark.parametrize(
    ("first", "sections", "pages"),
    # 1.75 MiB of struct pages for a section, in pages of 2 MiB, and those of section 64 begin one.
    [
        (64, 2, [512, 1024]),
        (65, 1, [0, 512, 1024]),
        (64, 8, [7 * 512]),
        (65, 8, [3072, 3584, 4096]),
    ],
)
def test_larger_pages_that_sections_share_may_have_been_there(
    first: int, sections: int, pages: list[int]
) -> None:
    start, size = first * 128 * MIB, sections * 128 * MIB
    tried = range(0, 4609, 256)
    assert [n for n in tried if not said("6.1", size, n, start=start, page=56)] == pages


def test_arm64_takes_pages_for_parts_of_sections() -> None:
    # 64 MiB in pages of 4 KiB need 1 MiB of struct pages; 66 MiB of 16 KiB, 16 pages and a half, of
    # which the last may have been there for a neighbour.
    assert said("arm64-5.16", 64 * MIB, 256) == []
    assert said("arm64-5.16", 64 * MIB, 255) == ["altmap-unaccounted"]
    assert [alloc for alloc in range(20) if not said("arm64-16k", 66 * MIB, alloc)] == [16, 17]
    assert [alloc for alloc in range(40, 60) if not said("arm64-16k", 192 * MIB, alloc)] == [48]
    middle = START + 2 * MIB
    found = [n for n in range(20) if not said("arm64-16k", 64 * MIB, n, start=middle)]
    assert found == [15, 16, 17]


def test_up_to_v6_14_arm64_took_a_page_of_2_mib_or_found_one() -> None:
    for alloc in (0, 512):
        assert said("arm64-5.16", 64 * MIB, alloc) == []


def test_of_other_architectures_nothing_is_said() -> None:
    for layout in ("ppc64-5.14-kabi",):
        assert said(layout, 1024 * MIB, 3) == []
