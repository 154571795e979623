# SPDX-License-Identifier: LGPL-2.1-or-later

"""Where a run ends, and why: the scenes say which structure changes at which PFN."""

from __future__ import annotations

from support.fakekernel import FakeKernel, collision, partial
from support.kernels import each_layout

from drgn_zonedev.explanation.explain import explain
from drgn_zonedev.explanation.neighbours import Border, Neighbours
from drgn_zonedev.model import Case


def _around(kernel: FakeKernel, pfn: int) -> Neighbours:
    return explain(kernel.program(), pfn).neighbours


def _has(border: Border | None, *words: str) -> bool:
    return border is not None and any(all(w in why for w in words) for why in border.why)


@each_layout
def test_altmap_cuts_the_range_of_its_pgmap(layout: str) -> None:
    kernel = collision(layout)
    around = _around(kernel, 0x24001)
    assert around.below
    assert around.above
    assert (around.below.pfn, around.above.pfn) == (0x24000, 0x24002)
    assert _has(around.below, "range 0 of pgmap", "starts")
    assert _has(around.above, "altmap.reserve", "ends")
    assert around.above.beyond
    assert around.above.beyond.case is Case.METADATA
    assert _has(_around(kernel, 0x24002).above, "altmap.free", "pfn_first()")


@each_layout
def test_pgmap_ends_where_a_section_of_ram_starts(layout: str) -> None:
    above = _around(collision(layout), 0x2FFFF).above
    assert above
    assert above.pfn == 0x30000
    assert _has(above, "range 0 of pgmap", "ends")
    assert _has(above, "section 6 starts", "IS_ONLINE", "IS_EARLY")
    assert _has(above, "memory block 6 starts")


def test_subsections_end_within_a_section() -> None:
    around = _around(partial("6.1"), 0x114000)
    assert around.below
    assert around.below.pfn == 0x114000
    assert _has(around.below, "subsection 32 of section 34 starts: not populated")
    assert _has(around.below, "range 0 of pgmap", "ends")


def test_memory_ends_where_the_next_section_is_not_present() -> None:
    above = _around(collision("6.1"), 0x30000).above
    assert above == Border(0x40000, ("section 8 is not present",), None)


def test_pfn_without_memory_lies_between_two_ranges() -> None:
    around = _around(partial("6.1"), 0x50000)
    assert around.below
    assert around.above
    assert (around.below.pfn, around.above.pfn) == (0x10000, 0x100000)
    assert around.below.beyond
    assert around.below.beyond.case is Case.ONLINE
    assert around.above.beyond
    assert around.above.beyond.case is Case.RESERVED


def test_nothing_is_below_pfn_0_or_above_the_last_one() -> None:
    assert _around(collision("6.1"), 0).below is None
    assert _around(collision("6.1"), 1 << 30).above is None
