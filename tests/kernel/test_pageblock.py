# SPDX-License-Identifier: LGPL-2.1-or-later

"""Migratetypes, four or eight bits to a pageblock."""

from __future__ import annotations

import pytest
from support.fakekernel import FakeKernel
from support.kernels import each_layout

from drgn_zonedev.kernel.pageblock import PageblockLayout, pageblock_layout, section_migratetypes


def usage(kernel: FakeKernel) -> int:
    section = kernel.section(8)
    return kernel.member("mem_section", section, "usage")


@pytest.mark.parametrize(
    ("bits", "word", "first"),
    [(4, 0x9A10, [0, 1, 2, 1]), (8, 0x090A1110, [0, 1, 2, 1])],
)
def test_migratetype_is_in_the_low_bits(bits: int, word: int, first: list[int]) -> None:
    # The bits above it say whether to skip the pageblock, or to isolate it.
    kernel = FakeKernel("7.2" if bits == 8 else "6.1")
    address = usage(kernel)
    offset = kernel.layout.structs["mem_section_usage"].members["pageblock_flags"].offset
    kernel.poke(address + offset, word.to_bytes(8 * bits, "little"))
    layout = PageblockLayout(bits, 512, 1)
    types = section_migratetypes(kernel.program(), address, layout)
    assert types is not None
    assert types.tolist() == first + [0] * 60


@each_layout
def test_unreadable(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    assert (
        section_migratetypes(kernel.program(), 0xFFFFC00000000000, PageblockLayout(4, 512, 1))
        is None
    )


@each_layout
def test_debug_info_without_migratetypes(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    assert pageblock_layout(kernel.program()) is not None
    assert pageblock_layout(kernel.program(hidden=frozenset(["MIGRATE_MOVABLE"]))) is None
