# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Struct pages of RAM in use, written as the page allocator and its users write them.

Values are those of include/linux/page-flags.h and mm/page_alloc.c of each version.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from .kernel import FakeKernel
from .memory import Words

__all__ = ("PLACES", "SECTION_PAGES", "RamBuilder", "busy_ram", "fill_section")

FLAGS, LINK, PREV, MAPPING, INDEX, PRIVATE, COUNTS, MEMCG = range(8)
UNMAPPED = 0xFFFFFFFF
SECTION_PAGES = 0x8000
TAIL_MAPPING = 0xDEAD000000000400
LIST_POISON1, LIST_POISON2 = 0xDEAD000000000100, 0xDEAD000000000122
COMPOUND_PAGE_DTOR, HUGETLB_PAGE_DTOR = 1, 2
_HEAP = 0xFFFF888000000000

# Bits that are clear in page_type, and upper bytes of it since 6.12.
_BITS = {
    "5.10": {"buddy": 0x80, "offline": 0x100, "table": 0x400},
    "6.1": {"buddy": 0x80, "offline": 0x100, "table": 0x200},
}
_BYTES = {"buddy": 0xF0, "offline": 0xF1, "table": 0xF2, "hugetlb": 0xF4, "slab": 0xF5}


# Layouts whose struct pages say what they are as another kernel's do.
_LIKE = {"7.3": "7.2", "x86-64-6.19-no-zone-device": "7.2", "6.1-no-zone-device": "6.1"}


def family(layout: str) -> str:
    """The kernel whose struct pages of RAM a layout has: ``5.10``, ``6.1``, ``6.12``, ``7.2``."""
    return _LIKE.get(layout, layout)


def page_type(layout: str, name: str) -> int:
    """What page_type holds in a page of a type; that of a page without one otherwise."""
    if layout in _BITS:
        return UNMAPPED & ~_BITS[layout].get(name, 0)
    return _BYTES[name] << 24


@dataclass(frozen=True)
class RamBuilder:
    """Puts pages of one zone and node into a fake kernel."""

    kernel: FakeKernel
    zone: str
    nid: int
    rng: random.Random

    @property
    def family(self) -> str:
        return family(self.kernel.layout.name)

    def flag(self, *names: str) -> int:
        return sum(1 << self.kernel.layout.constant(f"PG_{name}") for name in names)

    def pages(self, start: int, count: int, references: int = 1) -> Words:
        """As they come from __init_single_page(), with as many references."""
        words: Words = np.zeros((count, self.kernel.sizeof_page // 8), np.uint64)
        words[:, FLAGS] = self.kernel.page_links(self.zone, self.nid)
        address = np.uint64(self.kernel.page(start) + 8)
        lru = address + np.arange(count, dtype=np.uint64) * np.uint64(self.kernel.sizeof_page)
        words[:, LINK] = words[:, PREV] = lru
        words[:, COUNTS] = references << 32 | UNMAPPED
        return words

    def put(self, start: int, words: Words) -> None:
        self.kernel.memory.put_pages(start, words)

    def pointer(self) -> int:
        return _HEAP + self.rng.randrange(1 << 30) * 8

    def free(self, start: int, order: int) -> None:
        """A free block: the lists of other pages are what they were when it was merged."""
        words = self.pages(start, 1 << order, 0)
        words[:, LINK], words[:, PREV] = LIST_POISON1, LIST_POISON2
        words[0, LINK], words[0, PREV] = self.pointer(), self.pointer()
        words[0, PRIVATE] = order
        words[0, COUNTS] = page_type(self.family, "buddy")
        if order:
            words[1:, PRIVATE] = self.rng.randrange(1 << 20)
        self.put(start, words)

    def lru(self, start: int, count: int) -> None:
        """Pages of files and processes, mapped or not."""
        words = self.pages(start, count)
        words[:, FLAGS] |= np.uint64(self.flag("lru", "swapbacked", "uptodate", "dirty"))
        rng = np.random.default_rng(self.rng.getrandbits(64))
        pointers = np.uint64(_HEAP) + rng.integers(1 << 30, size=(3, count), dtype=np.uint64) * 8
        words[:, LINK], words[:, PREV] = pointers[0], pointers[1]
        words[:, MAPPING] = pointers[2] | np.uint64(1)
        words[:, INDEX] = np.arange(count)
        mappings = rng.integers(-1, 3, count)
        words[:, COUNTS] = mappings + 2 << 32 | mappings % (1 << 32)
        self.put(start, words)

    def per_cpu(self, start: int, count: int) -> None:
        """Free pages on a CPU's own list, which are in no block."""
        self.put(start, self.pages(start, count, 0))

    def typed(self, start: int, name: str) -> None:
        """A page of a type: a page table, or one that a hypervisor took."""
        words = self.pages(start, 1)
        words[:, COUNTS] = 1 << 32 | page_type(self.family, name)
        self.put(start, words)

    def slab(self, start: int, order: int) -> None:
        """A slab, compound from order 1 on; its first words are those of struct slab."""
        words = self.pages(start, 1 << order, 0)
        frozen = self.family == "7.2"
        words[0, COUNTS] = (0 if frozen else 1) << 32 | UNMAPPED
        if order:
            self._compound(words, start, order)
        if self.kernel.layout.has_constant("PG_slab"):
            words[0, FLAGS] |= np.uint64(self.flag("slab"))
        else:
            count = int(words[0, COUNTS]) >> 32 << 32
            words[0, COUNTS] = count | page_type(self.family, "slab")
        for word in (LINK, PREV, MAPPING, INDEX):
            words[0, word] = self.pointer()
        self.put(start, words)

    def folio(self, start: int, order: int, *, mapped: bool = False) -> None:
        """A large folio on the LRU lists."""
        words = self.pages(start, 1 << order, 0)
        words[0, COUNTS] = 2 << 32 | UNMAPPED
        words[0, FLAGS] |= np.uint64(self.flag("lru", "swapbacked", "uptodate"))
        self._compound(words, start, order)
        words[0, LINK], words[0, PREV] = self.pointer(), self.pointer()
        words[0, MAPPING] = self.pointer() | 1
        if mapped:
            # Each page is mapped once, tails without references.
            words[0, COUNTS] = 2 << 32
            words[1:, COUNTS] = 0
        self.put(start, words)

    def hugetlb(self, start: int, order: int, *, optimized: bool = False) -> None:
        """A free hugetlb page, whose vmemmap may be shared."""
        words = self.pages(start, 1 << order, 0)
        self._compound(words, start, order)
        if self.family in _BITS:
            words[1, PREV] += np.uint64(HUGETLB_PAGE_DTOR - COMPOUND_PAGE_DTOR)
        else:
            words[0, COUNTS] = page_type(self.family, "hugetlb")
        if optimized:
            words[0, PRIVATE] = 1 << self.kernel.layout.constant("HPG_vmemmap_optimized")
        self.put(start, words)

    def reserved(self, start: int, count: int, references: int = 1) -> None:
        """The kernel's image, holes, and what boot allocated."""
        words = self.pages(start, count, references)
        words[:, FLAGS] |= np.uint64(self.flag("reserved"))
        self.put(start, words)

    def _compound(self, words: Words, start: int, order: int) -> None:
        # prep_compound_page()
        kernel = self.kernel
        words[0, FLAGS] |= np.uint64(self.flag("head"))
        words[1:, LINK] = kernel.compound_link(start, order)
        words[1:, PREV] = LIST_POISON2
        words[1:, MAPPING] = TAIL_MAPPING
        words[1:, COUNTS] = UNMAPPED
        if self.family == "5.10":
            words[1, PREV] = UNMAPPED << 32 | order << 8 | COMPOUND_PAGE_DTOR
            words[1, MAPPING] = TAIL_MAPPING >> 32 << 32 | 1 << order
        elif self.family == "6.1":
            words[1, PREV] = UNMAPPED << 32 | order << 8 | COMPOUND_PAGE_DTOR
            words[1, MAPPING] = 1 << order << 32
        else:
            words[1, FLAGS] |= np.uint64(order)
            words[1, PREV], words[1, MAPPING] = (1 << 64) - 1, UNMAPPED
            words[1, INDEX] = 1 << order
        for tail in (2, 3):
            # Deferred list, or cgroups of hugetlb: from 6.12 on in the third tail.
            if tail < len(words) and (tail == 2 or self.family in ("6.12", "7.2")):
                words[tail, MAPPING] = self.pointer()


def busy_ram(layout: str) -> FakeKernel:
    """
    Two nodes with all kinds of RAM: see PLACES for what is where.

    Section 8 (0x40000-0x48000) is ZONE_DMA32 of node 0, but for a hole at its end; section
    0x20 (0x100000-0x108000) is ZONE_NORMAL of node 1, or of node 0 in a kernel without NUMA.
    """
    kernel = FakeKernel(layout)
    other = int(kernel.layout.has_member("zone", "node"))
    for nr, nid in ((8, 0), (0x20, other)):
        kernel.section(nr, online=True, early=True)
        kernel.memory_block(nr, nid=nid)
    kernel.grow_zone("ZONE_DMA32", 0x40000, 0x47FE0, present=0x7FE0)
    kernel.grow_zone("ZONE_NORMAL", 0x100000, 0x108000, present=0x8000, nid=other)
    kernel.set_variable("max_pfn", 0x108000)
    kernel.set_variable("highest_memmap_pfn", 0x107FFF)
    for start, zone, nid in ((0x40000, "ZONE_DMA32", 0), (0x100000, "ZONE_NORMAL", other)):
        fill_section(RamBuilder(kernel, zone, nid, random.Random(layout)), start)
    # A hole has the zone of the memory in front of it, which does not span it.
    ram = RamBuilder(kernel, "ZONE_DMA32", 0, random.Random(layout))
    ram.reserved(0x47FE0, 0x20)
    return kernel


def fill_section(ram: RamBuilder, start: int) -> None:
    """Fill a section with all kinds of pages."""
    # The rest of the section first.
    ram.lru(start, SECTION_PAGES)
    ram.reserved(start, 0x400)
    ram.free(start + 0x400, 10)
    ram.folio(start + 0x800, 9)
    ram.folio(start + 0xA00, 9, mapped=True)
    ram.hugetlb(start + 0xC00, 9)
    at = start + 0xE00
    for order in range(8, -1, -1):
        ram.free(at, order)
        at += 1 << order
    ram.per_cpu(at, 1)
    at = start + 0x1000
    for order in (3, 2, 1, 0):
        for _ in range(4):
            ram.slab(at, order)
            at += 1 << order
    at = start + 0x1100
    for i in range(16):
        ram.typed(at + i, "table")
        ram.typed(at + 16 + i, "offline")
    ram.per_cpu(at + 32, 31)
    ram.folio(start + 0x1200, 4)
    ram.folio(start + 0x1210, 2)
    ram.reserved(start + 0x1240, 8, references=3)
    ram.free(start + 0x1800, 10)


PLACES = {
    "reserved": 0x10,
    "free": 0x400,
    "folio": 0x800,
    "mapped": 0xA00,
    "hugetlb": 0xC00,
    "small free": 0xF00,
    "slab": 0x1000,
    "table": 0x1100,
    "offline": 0x1110,
    "per-CPU": 0x1128,
    "lru": 0x2000,
}
"""Offsets of pages of each kind in either section."""
