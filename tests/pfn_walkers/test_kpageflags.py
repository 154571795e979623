# SPDX-License-Identifier: LGPL-2.1-or-later

"""/proc/kpageflags and /proc/kpagecount, worked out from struct pages."""

from __future__ import annotations

import numpy as np
import pytest
from support.fakekernel import FakeKernel, collision, in_flight, partial
from support.kernels import each_layout

from drgn_zonedev.pfn_walkers.kpageflags import (
    KPF,
    kpage_end_pfn,
    kpage_prediction,
)

# Words of struct page.
FLAGS, LINK, COUNTS, PRIVATE, MAPPING = 0, 1, 6, 5, 3
FREE = 0xFFFFFFFF
RAM = 0x1234
RESERVED = 1 << KPF["RESERVED"]


def kpage_flag_names(word: int) -> tuple[str, ...]:
    """Get the names of the bits in a word of ``/proc/kpageflags``, without ``KPF_``."""
    return tuple(name for name, bit in KPF.items() if word >> bit & 1)


def nothing(layout: str) -> int:
    """What a PFN without a page reads."""
    return 0 if layout == "7.2" else 1 << KPF["NOPAGE"]


def ram(layout: str) -> FakeKernel:
    kernel = FakeKernel(layout)
    kernel.section(0, online=True, early=True)
    kernel.ram_pages(0, 0x8000)
    kernel.set_variable("max_pfn", 0x7FF0)
    return kernel


def flags_of(kernel: FakeKernel, pfn: int = RAM) -> int:
    found = kpage_prediction(kernel.program(), pfn, pfn + 1)
    assert found.decided.all()
    return int(found.flags[0])


def count_of(kernel: FakeKernel, pfn: int = RAM) -> int:
    found = kpage_prediction(kernel.program(), pfn, pfn + 1)
    assert found.decided.all()
    return int(found.count[0])


def runs(values: np.ndarray, start_pfn: int) -> list[tuple[int, int]]:
    """(first PFN, value) of each run."""
    first = np.flatnonzero(np.diff(values, prepend=values[:1] + np.uint64(1)))
    return [(start_pfn + int(i), int(values[i])) for i in first]


# Which pages are seen.


@each_layout
def test_5_10_reads_struct_pages_of_a_device_that_shares_a_section_with_ram(layout: str) -> None:
    found = kpage_prediction(collision(layout).program(), 0x23FFF, 0x30001)
    # Holes from boot, metadata and device pages all have PG_reserved.
    seen = RESERVED if layout == "5.10" else nothing(layout)
    expected = {0x23FFF: 0, 0x24000: seen, 0x28000: nothing(layout), 0x30000: 0}
    distinct = {pfn: v for pfn, v in expected.items() if v != expected.get(pfn - 1)}
    merged = [
        (pfn, value)
        for i, (pfn, value) in enumerate(distinct.items())
        if i == 0 or value != list(distinct.values())[i - 1]
    ]
    assert runs(found.flags, 0x23FFF) == merged
    assert not found.count.any()
    assert found.decided.all()


@each_layout
def test_while_the_device_is_initialised_5_10_reports_what_was_there_at_boot(layout: str) -> None:
    kernel = in_flight(layout)
    kernel.poke_page_word(0x25000, FLAGS, 0)
    found = kpage_prediction(kernel.program(), 0x24400, 0x28000)
    expected = np.full(0x3C00, RESERVED if layout == "5.10" else nothing(layout), np.uint64)
    if layout == "5.10":
        expected[0xC00] = 0
    assert (found.flags == expected).all()


@pytest.mark.parametrize("layout", ["7.3", "7.3-proposal"])
def test_a_kernel_that_asks_the_second_bit_shows_the_data_of_a_device(layout: str) -> None:
    found = kpage_prediction(collision(layout).program(), 0x23000, 0x31000)
    shown = [row for row, word in enumerate(found.flags.tolist()) if word >> KPF["RESERVED"] & 1]
    device = [row for row in shown if 0x24000 <= row + 0x23000 < 0x30000]
    data = range(0x24400 - 0x23000, 0x30000 - 0x23000)
    assert device == (list(data) if layout == "7.3-proposal" else [])
    assert found.decided[0x1000:0xD000].all()


def test_a_kernel_that_asks_the_second_bit_shows_nothing_that_is_being_initialised() -> None:
    found = kpage_prediction(in_flight("7.3-proposal").program(), 0x24000, 0x30000)
    assert not found.flags.any()


@each_layout
def test_the_files_end_with_the_section_of_max_pfn(layout: str) -> None:
    kernel = partial(layout)
    assert kpage_end_pfn(kernel.program()) == 0x10000
    found = kpage_prediction(kernel.program(), 0xFFFF, 0x110000)
    assert (found.start_pfn, found.end_pfn, len(found.flags)) == (0xFFFF, 0x10000, 1)
    assert len(kpage_prediction(kernel.program(), 0x100000, 0x110000).flags) == 0
    kernel.set_variable("max_pfn", 0x10001)
    assert kpage_end_pfn(kernel.program()) == 0x18000


# What is said of them.

COPIES = [
    ("PG_locked", "LOCKED"),
    ("PG_referenced", "REFERENCED"),
    ("PG_uptodate", "UPTODATE"),
    ("PG_dirty", "DIRTY"),
    ("PG_lru", "LRU"),
    ("PG_active", "ACTIVE"),
    ("PG_writeback", "WRITEBACK"),
    ("PG_reclaim", "RECLAIM"),
    ("PG_swapbacked", "SWAPBACKED"),
    ("PG_unevictable", "UNEVICTABLE"),
    ("PG_reserved", "RESERVED"),
    ("PG_mlocked", "MLOCKED"),
    ("PG_private", "PRIVATE"),
    ("PG_private_2", "PRIVATE_2"),
    ("PG_owner_priv_1", "OWNER_PRIVATE"),
    ("PG_arch_1", "ARCH"),
    ("PG_hwpoison", "HWPOISON"),
]


@each_layout
@pytest.mark.parametrize(("flag", "kpf"), COPIES)
def test_one_flag_is_one_bit(layout: str, flag: str, kpf: str) -> None:
    kernel = ram(layout)
    kernel.poke_page_word(RAM, FLAGS, 1 << kernel.layout.constant(flag))
    assert kpage_flag_names(flags_of(kernel)) == (kpf,)


@each_layout
def test_flags_that_came_and_went(layout: str) -> None:
    old = {"PG_error": "ERROR", "PG_uncached": "UNCACHED", "PG_slab": "SLAB"}
    new = {"PG_idle": "IDLE", "PG_arch_2": "ARCH_2"}
    kernel = ram(layout)
    here = old | {"PG_mappedtodisk": "MAPPEDTODISK"} if layout in ("5.10", "6.1") else new
    for flag, kpf in here.items():
        kernel.poke_page_word(RAM, FLAGS, 1 << kernel.layout.constant(flag))
        assert kpage_flag_names(flags_of(kernel)) == (kpf,)


@each_layout
def test_mapped_pages(layout: str) -> None:
    kernel = ram(layout)
    kernel.poke_page_word(RAM, COUNTS, 5 << 32 | 2)
    assert kpage_flag_names(flags_of(kernel)) == ("MMAP",)
    assert count_of(kernel) == 3


@each_layout
def test_a_struct_page_of_zeros_looks_mapped_once(layout: str) -> None:
    # _mapcount starts at -1.
    kernel = ram(layout)
    kernel.fill_pages(RAM, RAM + 1, 0)
    assert kpage_flag_names(flags_of(kernel)) == ("MMAP",)
    assert count_of(kernel) == 1


@each_layout
@pytest.mark.parametrize(("bits", "names"), [(1, {"ANON"}), (3, {"ANON", "KSM"}), (2, set())])
def test_anonymous_pages(layout: str, bits: int, names: set[str]) -> None:
    kernel = ram(layout)
    kernel.poke_page_word(RAM, MAPPING, 0xFFFF888000001000 | bits)
    found = kpage_prediction(kernel.program(), RAM, RAM + 2)
    assert set(kpage_flag_names(int(found.flags[0]))) == names
    # Some of the newer kernels take them all for KSM's, and nothing tells which.
    known = layout in ("5.10", "6.1") or names != {"ANON"}
    assert found.decided.tolist() == [known, True]


PAGE_TYPES = {
    "BUDDY": {"5.10": 0x80, "6.1": 0x80, "6.12": 0xF0, "7.2": 0xF0},
    "OFFLINE": {"5.10": 0x100, "6.1": 0x100, "6.12": 0xF1, "7.2": 0xF1},
    "PGTABLE": {"5.10": 0x400, "6.1": 0x200, "6.12": 0xF2, "7.2": 0xF2},
}


@each_layout
@pytest.mark.parametrize("kpf", PAGE_TYPES)
def test_page_types(layout: str, kpf: str) -> None:
    value = PAGE_TYPES[kpf][layout]
    page_type = value << 24 if value >= 0xF0 and layout in ("6.12", "7.2") else 0xFFFFFFFF & ~value
    kernel = ram(layout)
    kernel.poke_page_word(RAM, COUNTS, 1 << 32 | page_type)
    assert kpage_flag_names(flags_of(kernel)) == (kpf,)
    assert count_of(kernel) == 0


@each_layout
def test_pages_inside_of_a_free_block_are_free(layout: str) -> None:
    kernel = ram(layout)
    head = 0x1200
    buddy = 0xF0 << 24 if layout in ("6.12", "7.2") else 0xFFFFFFFF & ~0x80
    kernel.poke_page_word(head, COUNTS, buddy)
    kernel.poke_page_word(head, PRIVATE, 3)
    for pfn in range(head + 1, head + 9):
        kernel.poke_page_word(pfn, COUNTS, FREE)
    found = kpage_prediction(kernel.program(), head - 1, head + 9)
    # The block is of order 3.
    assert (found.flags == [0] + [1 << KPF["BUDDY"]] * 8 + [0]).all()


@each_layout
def test_counts_that_underflowed_are_sign_extended(layout: str) -> None:
    kernel = ram(layout)
    kernel.poke_page_word(RAM, COUNTS, 1 << 32 | 0xFFFFFFF0)
    assert count_of(kernel) == (1 << 64) - 15


# What cannot be told.


@each_layout
def test_what_cannot_be_read_is_not_decided(layout: str) -> None:
    kernel = ram(layout)
    kernel.unmap_memmap(0x1240, 0x1280)
    found = kpage_prediction(kernel.program(), 0x1200, 0x1300)
    assert np.flatnonzero(~found.decided).tolist() == list(range(0x40, 0x80))


@each_layout
def test_a_tail_of_nothing_is_not_decided(layout: str) -> None:
    # The kernel would follow the link to wherever it leads.
    kernel = ram(layout)
    kernel.poke_page_word(RAM, LINK, 0xA5A5A5A5A5A5A5A5)
    found = kpage_prediction(kernel.program(), RAM - 1, RAM + 2)
    assert found.decided.tolist() == [True, False, True]


@pytest.mark.parametrize("layout", ["6.12", "7.2"])
def test_folios_decide_for_their_tails(layout: str) -> None:
    kernel = ram(layout)
    head, order = 0x1200, 2
    kernel.poke_page_word(head, FLAGS, sum(1 << kernel.layout.constant(f) for f in _FOLIO))
    for pfn in range(head + 1, head + 4):
        kernel.poke_page_word(pfn, LINK, kernel.compound_link(head, order))
    # folio_order(), where snapshot_page() asks it.
    kernel.poke_page_word(head + 1, FLAGS, order)
    # _large_mapcount and _entire_mapcount: not mapped.
    for word in (2, 3):
        kernel.poke_page_word(head + 1, word, 0xFFFFFFFFFFFFFFFF)
    found = kpage_prediction(kernel.program(), head, head + 4)
    assert found.decided.all()
    names = [kpage_flag_names(int(word)) for word in found.flags]
    assert names == [("DIRTY", "COMPOUND_HEAD")] + [("DIRTY", "COMPOUND_TAIL")] * 3
    assert found.count.tolist() == [0, 0, 0, 0]


_FOLIO = ("PG_head", "PG_dirty")


def test_a_tail_that_its_folio_does_not_reach_is_a_page_by_itself() -> None:
    # snapshot_page() takes the first one behind a folio for a tail.
    kernel = ram("7.2")
    head = 0x1200
    for pfn in range(head + 1, head + 4):
        kernel.poke_page_word(pfn, LINK, kernel.compound_link(head, 2))
        kernel.poke_page_word(pfn, FLAGS, 1 << kernel.layout.constant("PG_dirty"))
    found = kpage_prediction(kernel.program(), head, head + 4)
    tails = ["COMPOUND_TAIL" in kpage_flag_names(int(word)) for word in found.flags]
    dirty = ["DIRTY" in kpage_flag_names(int(word)) for word in found.flags]
    assert tails == [False, True, False, False]
    assert dirty == [False, False, True, True]
    assert found.decided.all()


def test_a_head_may_be_a_copy_where_hugetlb_shares_vmemmap() -> None:
    kernel = ram("6.12")
    kernel.add_variable("hugetlb_optimize_vmemmap_key", "int")
    kernel.poke_page_word(0x1200, FLAGS, 1 << kernel.layout.constant("PG_head"))
    found = kpage_prediction(kernel.program(), 0x11FF, 0x1202)
    assert found.decided.tolist() == [True, False, True]
