# SPDX-License-Identifier: LGPL-2.1-or-later

"""What struct pages hold, told apart by what the test put there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.fakekernel import VMEMMAP, FakeKernel
from support.kernels import each_layout, since_compounds

from drgn_zonedev.kernel.memmap import Pages, read_pages
from drgn_zonedev.verification.patterns import Contents, page_contents, self_link

START = 0x40000
DANGLING = 0xFFFF8880DEADBE00


class Bench:
    """A section of struct pages, claimed by one of two pgmaps."""

    def __init__(self, layout: str, shift: int = 0) -> None:
        self.kernel = FakeKernel(layout)
        self.kernel.section(8)
        self.kernel.map_memmap(START, 0x48000)
        self.mine = self.kernel.pgmap((START, 0x48000), vmemmap_shift=shift)
        self.other = self.kernel.pgmap((0x80000, 0x88000), vmemmap_shift=shift)

    def pages(self, start: int, end: int) -> Pages:
        (pages,) = read_pages(self.kernel.program(), start, end)
        assert isinstance(pages, Pages)
        return pages

    def contents(self, start: int, end: int, *, pgmap: int | None) -> list[Contents]:
        pages = self.pages(start, end)
        live = frozenset({self.mine, self.other})
        codes = page_contents(self.kernel.program(), pages, pgmap, live)
        return [list(Contents)[code] for code in codes.tolist()]


Put = Callable[[Bench, int, int], None]
KINDS: list[tuple[Contents, Put]] = [
    (Contents.ZERO, lambda bench, a, b: bench.kernel.fill_pages(a, b, 0)),
    (Contents.POISON, lambda bench, a, b: bench.kernel.fill_pages(a, b, 0xFF)),
    (Contents.UNUSED, lambda bench, a, b: bench.kernel.fill_pages(a, b, 0xFD)),
    (Contents.INITIALIZED, lambda bench, a, b: bench.kernel.device_pages(a, b, bench.mine)),
    (Contents.OTHER_PGMAP, lambda bench, a, b: bench.kernel.device_pages(a, b, bench.other)),
    (Contents.DANGLING_PGMAP, lambda bench, a, b: bench.kernel.device_pages(a, b, DANGLING)),
    (Contents.METADATA, lambda bench, a, b: bench.kernel.metadata_pages(a, b)),
    (Contents.BOOT_PAGE, lambda bench, a, b: bench.kernel.hole_pages(a, b)),
    (Contents.OTHER, lambda bench, a, b: bench.kernel.ram_pages(a, b)),
    (Contents.MEDIA, lambda bench, a, b: bench.kernel.fill_pages(a, b, 0xA5)),
]


@each_layout
@pytest.mark.parametrize(("kind", "put"), KINDS)
def test_each_kind_is_recognised(layout: str, kind: Contents, put: Put) -> None:
    bench = Bench(layout)
    put(bench, START, START + 3)
    assert bench.contents(START, START + 3, pgmap=bench.mine) == [kind] * 3


@each_layout
def test_kinds_side_by_side(layout: str) -> None:
    bench = Bench(layout)
    for i, (_, put) in enumerate(KINDS):
        put(bench, START + i, START + i + 1)
    found = bench.contents(START, START + len(KINDS), pgmap=bench.mine)
    assert found == [kind for kind, _ in KINDS]


ZONE_SHIFT, NODE_SHIFT = 51, 54
LIST_POISON = 0xDEAD000000000100, 0xDEAD000000000122


def _misplace(bench: Bench, pfn: int, *, zone: int | None = None, node: int = 0) -> None:
    flags = bench.kernel.page_word(pfn, 0)
    if zone is not None:
        flags = flags & ~(7 << ZONE_SHIFT) | zone << ZONE_SHIFT
    bench.kernel.poke_page_word(pfn, 0, flags | node << NODE_SHIFT)


@each_layout
@pytest.mark.parametrize("place", [{"zone": 5}, {"zone": 7}, {"node": 3}, {"zone": 6, "node": 1}])
def test_initialised_page_of_a_zone_or_node_that_does_not_exist_is_that(
    layout: str, place: dict[str, int]
) -> None:
    bench = Bench(layout)
    # Of boot, in use by a list, taken off one, a tail, and of a device.
    bench.kernel.hole_pages(START, START + 1)
    bench.kernel.ram_pages(START + 1, START + 4)
    bench.kernel.poke_page_word(START + 1, 1, bench.kernel.page(START + 2) + 8)
    for i, poison in enumerate(LIST_POISON, 1):
        bench.kernel.poke_page_word(START + 2, i, poison)
    bench.kernel.poke_page_word(START + 3, 1, bench.kernel.compound_link(START + 2, 1))
    for pfn in range(START, START + 4):
        _misplace(bench, pfn, **place)
    found = bench.contents(START, START + 4, pgmap=None)
    assert found == [Contents.MISPLACED] * 4


@each_layout
@pytest.mark.parametrize(
    ("word", "value"),
    [
        (1, 0x6873616265696D70),  # text
        (2, 0),  # not initialised after it was zeroed
        (1, 0xFFFF888000001234),  # misaligned
        (6, 0x00000001_FFFFFFF9),  # a count that is none, and no type
        (6, 0xFFFFFFF9_FFFFFFFF),  # negative references
        (1, 0x0000000000001001),  # a tail of what is no kernel address
    ],
)
def test_content_with_one_word_that_no_struct_page_has_is_no_struct_page(
    layout: str, word: int, value: int
) -> None:
    bench = Bench(layout)
    bench.kernel.hole_pages(START, START + 1)
    _misplace(bench, START, zone=5)
    assert bench.contents(START, START + 1, pgmap=None) == [Contents.MISPLACED]
    bench.kernel.poke_page_word(START, word, value)
    assert bench.contents(START, START + 1, pgmap=None) == [Contents.MEDIA]


@each_layout
def test_without_a_claim_nothing_is_initialised_for_it(layout: str) -> None:
    bench = Bench(layout)
    bench.kernel.device_pages(START, START + 2, bench.mine)
    bench.kernel.poke_page_word(START + 1, 1, 0)
    found = bench.contents(START, START + 2, pgmap=None)
    assert found == [Contents.OTHER_PGMAP, Contents.OTHER]


@since_compounds
@pytest.mark.parametrize(("start", "end"), [(0, 512), (1, 512), (100, 101), (0, 1)])
def test_tails_are_what_their_head_is(layout: str, start: int, end: int) -> None:
    # The head need not be among the pages that are looked at.
    bench = Bench(layout, shift=9)
    gone = bench.kernel.pgmap((0x90000, 0x98000), vmemmap_shift=9, stored=False)
    count = end - start
    for pgmap, kind in (
        (bench.mine, Contents.INITIALIZED),
        (bench.other, Contents.OTHER_PGMAP),
        (gone, Contents.DANGLING_PGMAP),
    ):
        bench.kernel.device_pages(START, START + 512, pgmap)
        found = bench.contents(START + start, START + end, pgmap=bench.mine)
        assert found == [kind] * count


@each_layout
def test_self_link_is_the_address_of_lru(layout: str) -> None:
    pages = Bench(layout).pages(START, START + 2)
    assert self_link(pages).tolist() == [VMEMMAP + 64 * START + 8, VMEMMAP + 64 * START + 72]
