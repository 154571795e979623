# SPDX-License-Identifier: LGPL-2.1-or-later

"""Struct pages in bulk against drgn's helpers, one page at a time; and gaps."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from drgn import Program
from drgn.helpers.linux.mm import PageTail, compound_head, page_flags, page_to_pfn, pfn_to_page
from support.fakekernel import LAYOUTS, VMEMMAP, FakeKernel, collision, in_flight, partial
from support.kernels import each_layout

from drgn_zonedev.kernel.memmap import (
    Pages,
    UnreadablePages,
    head_pgmaps,
    page_layout,
    page_pgmap,
    read_pages,
)


def all_pages(prog: Program, start: int, end: int, chunk: int = 16384) -> Iterator[Pages]:
    for part in read_pages(prog, start, end, chunk=chunk):
        assert isinstance(part, Pages)
        yield part


def garbage(layout: str) -> FakeKernel:
    """Pages that nobody initialised, among compound ones."""
    kernel = partial(layout)
    for i, byte in enumerate((0xFF, 0x00, 0xA5, 0x12, 0xFD)):
        kernel.fill_pages(0x100600 + 7 * i, 0x100601 + 7 * i, byte)
    return kernel


def folios(layout: str) -> FakeKernel:
    """Tails whose heads hold something else, or lie before the range."""
    kernel = partial(layout)
    kernel.poke_page_word(0x100600, 1, 0xFFFF8880DEADBE00)
    kernel.poke_page_word(0x100A00, 1, kernel.compound_link(0x100800, 10))
    return kernel


SPOTS = [
    (collision, 0x23FF8, 0x24410),
    (in_flight, 0x27FF8, 0x28008),
    (partial, 0x1005F8, 0x100A10),
    (partial, 0x107FF8, 0x108010),
    (garbage, 0x1005F8, 0x100640),
    (folios, 0x100600, 0x100A08),
]
each_spot = pytest.mark.parametrize(("scene", "start", "end"), SPOTS)
Scene = Callable[[str], FakeKernel]


@each_layout
@each_spot
def test_fields_agree_with_drgn(layout: str, scene: Scene, start: int, end: int) -> None:
    prog = scene(layout).program()
    (pages,) = all_pages(prog, start, end)
    objects = [pfn_to_page(prog, pfn) for pfn in range(start, end)]
    flags = [page_flags(page).value_() for page in objects]
    assert pages.pfn.tolist() == [page_to_pfn(page).value_() for page in objects]
    assert pages.address.tolist() == [page.value_() for page in objects]
    assert pages.flags.tolist() == flags
    assert pages.zone.tolist() == [word >> 51 & 7 for word in flags]
    assert pages.node.tolist() == [word >> 54 for word in flags]
    assert pages.is_tail.tolist() == [bool(PageTail(page)) for page in objects]
    assert pages.head.tolist() == [compound_head(page).value_() for page in objects]
    assert pages.refcount.tolist() == [page._refcount.counter.value_() for page in objects]
    assert pages.mapcount.tolist() == [page._mapcount.counter.value_() for page in objects]
    assert pages.pgmap.tolist() == [prog.read_u64(page.value_() + 8) for page in objects]


@each_layout
@pytest.mark.parametrize("chunk", [16384, 100])
@pytest.mark.parametrize(
    ("scene", "start", "end"), [spot for spot in SPOTS if spot[0] is not garbage]
)
def test_pgmaps_of_heads_agree_with_page_pgmap(
    layout: str, chunk: int, scene: Scene, start: int, end: int
) -> None:
    prog = scene(layout).program()
    parts = all_pages(prog, start, end, chunk)
    found = np.concatenate([head_pgmaps(prog, pages) for pages in parts])
    expected = [page_pgmap(pfn_to_page(prog, pfn)).value_() for pfn in range(start, end)]
    assert found.tolist() == expected


@each_layout
def test_tail_that_leads_nowhere_has_no_pgmap(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    kernel.map_memmap(0x40000, 0x48000)
    for pfn, link in ((0x40001, 1), (0x40002, 0xA5A5A5A5A5A5A5A5), (0x40003, VMEMMAP | 9)):
        kernel.poke_page_word(pfn, 1, link)
    prog = kernel.program()
    (pages,) = all_pages(prog, 0x40000, 0x40004)
    assert pages.is_tail.tolist() == [False, True, True, True]
    assert head_pgmaps(prog, pages).tolist() == [0, 0, 0, 0]


def test_layout_of_struct_page() -> None:
    layouts = {name: page_layout(partial(name).program()) for name in LAYOUTS}
    for name, layout in layouts.items():
        old = name in ("5.10", "6.1")
        assert (layout.size, layout.vmemmap) == (64, VMEMMAP)
        assert (layout.flags_word, layout.pgmap_word, layout.compound_word) == (0, 1, 1)
        assert (layout.zones_shift, layout.nodes_shift, layout.zone_mask) == (3, 10, 7)
        assert layout.zone_device == 4
        assert layout.pg_reserved == 1 << (12 if old else 13)
        assert layout.pg_head == 1 << (16 if old else 6)
        assert layout.compound_mask == (name == "7.2")
        assert layout.pgmap_in_folio == (name == "7.2")
        assert layout.page_address(0x123) == VMEMMAP + 64 * 0x123


def test_kernel_without_numa_has_no_node_bits() -> None:
    kernel = partial("6.1")
    del kernel.variables["node_data"]
    kernel.variables["contig_page_data"] = ("struct pglist_data", kernel.node(0))
    prog = kernel.program()
    assert page_layout(prog).nodes_shift == 0
    (pages,) = all_pages(prog, 0x100600, 0x100601)
    assert pages.node.tolist() == [0]
    # The zone then is in the three top bits.
    assert pages.zone.tolist() == [int(pages.flags[0]) >> 61]


@each_layout
def test_pgmap_of_a_page(layout: str) -> None:
    kernel = partial(layout)
    pgmap = kernel.page_word(0x100600, 1)
    prog = kernel.program()
    for pfn in (0x100600, 0x100601, 0x1007FF, 0x113FFF):
        found = page_pgmap(pfn_to_page(prog, pfn))
        assert found.value_() == pgmap
        assert found.type_.type_name() == "struct dev_pagemap *"


# Gaps.

START, END = 0x40000 + 10, 0x40000 + 5000
LAST = END - 1 & ~63
# A page of memmap holds 64 struct pages.
GAPS: dict[str, list[tuple[int, int]]] = {
    "none": [],
    "start": [(0x40000, 0x40040)],
    "middle": [(0x40840, 0x40880)],
    "end": [(LAST, LAST + 64)],
    "several": [(0x40040, 0x40080), (0x400C0, 0x40100), (0x41000, 0x41100)],
    "everything": [(0x40000, 0x48000)],
}


def gappy(layout: str, gaps: list[tuple[int, int]]) -> Program:
    """Pages whose sixth word is their PFN, some of them unmapped."""
    kernel = FakeKernel(layout)
    kernel.section(8)
    pgmap = kernel.pgmap((0x40000, 0x48000), vmemmap_shift=0)
    kernel.device_pages(0x40000, 0x48000, pgmap)
    kernel.memory.sections[8].words[:, 5] = np.arange(0x40000, 0x48000, dtype=np.uint64)
    for gap in gaps:
        kernel.unmap_memmap(*gap)
    return kernel.program()


@pytest.mark.parametrize("layout", ["5.10", "7.2"])
@pytest.mark.parametrize("gaps", GAPS.values(), ids=GAPS)
@pytest.mark.parametrize("chunk", [1, 63, 64, 100, 4096, 16384])
def test_pages_and_gaps_are_a_partition(
    layout: str, gaps: list[tuple[int, int]], chunk: int
) -> None:
    parts = list(read_pages(gappy(layout, gaps), START, END, chunk=chunk))
    assert parts[0].start_pfn == START
    assert parts[-1].end_pfn == END
    assert all(a.end_pfn == b.start_pfn for a, b in zip(parts, parts[1:]))
    for part in parts:
        assert part.start_pfn < part.end_pfn
        if isinstance(part, Pages):
            assert part.end_pfn - part.start_pfn <= chunk
            assert part.words[:, 5].tolist() == list(range(part.start_pfn, part.end_pfn))
    found = [(p.start_pfn, p.end_pfn) for p in parts if isinstance(p, UnreadablePages)]
    clipped = [(max(start, START), min(end, END)) for start, end in gaps]
    assert found == clipped


@each_layout
def test_gap_names_the_address_that_faulted(layout: str) -> None:
    parts = list(read_pages(gappy(layout, GAPS["middle"]), START, END))
    (gap,) = (part for part in parts if isinstance(part, UnreadablePages))
    assert gap.address == VMEMMAP + 64 * 0x40840
    assert f"{gap.address:#x}" in gap.reason


def test_empty_range_gives_nothing() -> None:
    assert list(read_pages(gappy("6.1", []), START, START)) == []
