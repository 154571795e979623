# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A synthetic machine with page tables: RAM, devices and a memory block that store their struct
pages in all the ways that a kernel knows; and single defects in those tables, each with what must
be found because of it.

What page tables hold is written here as the processor's manual has it. Which PFNs are concerned
is arithmetic: a page of vmemmap has the struct pages of 64 PFNs.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from drgn import FaultError, Program
from support.fakekernel import FakeKernel
from support.fakekernel.kernel import Altmap

PER_PAGE, SECTION = 64, 0x8000
# The top of the kernel's page tables, as VMCOREINFO of fake kernels has it.
TOP = 0xFFFFFFFF82A0C000
_PAGE, _PRESENT, _HUGE, _ACCESSED = 4096, 1, 1 << 7, 1 << 5

# (slug, first PFN, end)
Spot = tuple[str, int, int]


class PageTables:
    """
    Page tables of four levels for vmemmap, in page frames from ``first`` on. Levels count from 1,
    whose entries map pages.
    """

    def __init__(self, kernel: FakeKernel, first: int) -> None:
        self.kernel = kernel
        self.base = kernel.vmemmap >> 12
        self.frames: dict[int, bytearray] = {}
        self._known: dict[tuple[int, int], int] = {}
        self._next = first
        kernel.memory.arena(TOP).alloc(_PAGE)

    def page(self, pfn: int) -> int:
        """The page of vmemmap that has the struct page of a PFN."""
        return self.base + pfn // PER_PAGE

    def entry(self, page: int, level: int) -> int:
        table = self._table(page, level)
        return int(struct.unpack_from("<Q", table, 8 * (page >> 9 * (level - 1) & 511))[0])

    def enter(self, page: int, level: int, entry: int) -> None:
        index = page >> 9 * (level - 1) & 511
        if level == 4:
            self.kernel.poke(TOP + 8 * index, struct.pack("<Q", entry))
        else:
            struct.pack_into("<Q", self._table(page, level), 8 * index, entry)

    def _table(self, page: int, level: int) -> bytearray:
        if level == 4:
            return bytearray(self.kernel.memory.read(TOP, _PAGE))
        key = level, page >> 9 * level
        if key not in self._known:
            self._known[key], self._next = self._next, self._next + 1
            self.frames[self._known[key]] = bytearray(_PAGE)
            self.enter(page, level + 1, self._known[key] << 12 | _PRESENT)
        return self.frames[self._known[key]]

    def map(self, start_pfn: int, end_pfn: int, frame: int, *, huge: bool = False) -> None:
        """Store struct pages in page frames that follow each other."""
        first, end = self.page(start_pfn), self.page(end_pfn - 1) + 1
        if huge:
            for page in range(first, end, 512):
                self.enter(page, 2, frame + page - first << 12 | _PRESENT | _HUGE)
            return
        for page in range(first, end):
            self.enter(page, 1, frame + page - first << 12 | _PRESENT)

    def split(self, page: int) -> None:
        """Map the pages of a huge page one by one, as split_vmemmap_huge_pmd() does."""
        huge = self.entry(page, 2)
        if huge & _HUGE:
            first = page >> 9 << 9
            self.enter(page, 2, 0)
            for i in range(512):
                self.enter(first + i, 1, (huge >> 12) + i << 12 | _PRESENT)

    def program(self, *, is_live: bool = False) -> Program:
        prog = self.kernel.program(is_live=is_live)
        prog.add_memory_segment(0, 1 << 52, self._read, True)
        return prog

    def _read(self, address: int, count: int, offset: int, physical: bool) -> bytes:
        if HOLE <= address >> 12 < 2 * HOLE:
            raise FaultError("no memory", address)
        frame = self.frames.get(address >> 12, bytes(_PAGE))
        return bytes(frame[address & 4095 :][:count])


# What there is. Both devices have struct pages in RAM for their first section.
FSDAX, FSDAX_END = 0x24000, 0x30000
DEVDAX, DEVDAX_END = 0x100000, 0x110000
OTHER, OTHER_END = 0x120000, 0x128000
BLOCK, BLOCK_END = 0x180000, 0x188000
OFFLINE, OFFLINE_END = 0x1C0000, 0x1C8000
HOLE = 0x2400000
# Struct pages of RAM: 2 MiB for each section, from here on.
RAM_MEMMAP = 0x1000
DEVDAX_MEMMAP = 0x8000
OFFLINE_MEMMAP = 0x9000
FREE, FREE_ORDER = 0xC000, 8
TABLES = 0x14000
_FSDAX_ALTMAP = Altmap(FSDAX, FSDAX_END - 1, reserve=2, free=1022, align=510, alloc=512)
FSDAX_MEMMAP = FSDAX + 0x200
_OTHER_ALTMAP = Altmap(OTHER, OTHER_END - 1, reserve=2, free=1022, align=510, alloc=512)
OTHER_MEMMAP = OTHER + 0x200
# Tops of the page tables of tasks.
PGDS = (0x2000, 0x2008, 0x2010)


@dataclass(frozen=True)
class MemmapMachine:
    """A machine and its page tables."""

    kernel: FakeKernel
    tables: PageTables

    @property
    def has_block(self) -> bool:
        return self.kernel.stores_block_memmaps


def memmap_machine(layout: str) -> MemmapMachine:
    """
    1 GiB of RAM with huge pages of vmemmap, an fsdax device whose second section has its memmap on
    the device, devdax with its memmap in RAM, one with an altmap, a block with memmap_on_memory,
    and one that is offline.
    """
    kernel = FakeKernel(layout, dedup=False)
    for nr in range(8):
        if nr != 5:
            kernel.section(nr, online=True, early=True, taint=nr == 4)
            kernel.memory_block(nr)
    kernel.ram_pages(0, FSDAX)
    kernel.ram_pages(FSDAX_END, 8 * SECTION)
    kernel.hole_pages(FSDAX, 5 * SECTION, "ZONE_DMA32")
    kernel.section(5)
    _device(kernel, FSDAX, FSDAX_END, "MEMORY_DEVICE_FS_DAX", _FSDAX_ALTMAP)
    kernel.sections(DEVDAX, DEVDAX_END)
    _device(kernel, DEVDAX, DEVDAX_END, "MEMORY_DEVICE_GENERIC", None)
    kernel.sections(OTHER, OTHER_END)
    _device(kernel, OTHER, OTHER_END, "MEMORY_DEVICE_FS_DAX", _OTHER_ALTMAP)
    _blocks(kernel)
    kernel.set_variable("max_pfn", OFFLINE_END)
    tables = PageTables(kernel, TABLES)
    tables.map(0, 8 * SECTION, RAM_MEMMAP, huge=True)
    # The section of its own.
    tables.map(5 * SECTION, FSDAX_END, FSDAX_MEMMAP, huge=True)
    tables.map(DEVDAX, DEVDAX_END, DEVDAX_MEMMAP)
    tables.map(OTHER, OTHER_END, OTHER_MEMMAP)
    tables.map(BLOCK, BLOCK_END, BLOCK if kernel.stores_block_memmaps else OFFLINE_MEMMAP + 0x400)
    tables.map(OFFLINE, OFFLINE_END, OFFLINE_MEMMAP)
    kernel.free_block(FREE, FREE_ORDER)
    _tasks(kernel, tables)
    return MemmapMachine(kernel, tables)


def ram_memmap_machine(layout: str) -> MemmapMachine:
    """1 GiB of RAM with huge pages of vmemmap, and the two blocks; no devices."""
    kernel = FakeKernel(layout)
    for nr in range(8):
        kernel.section(nr, online=True, early=True)
        kernel.memory_block(nr)
    kernel.ram_pages(0, 8 * SECTION)
    _blocks(kernel)
    kernel.set_variable("max_pfn", OFFLINE_END)
    tables = PageTables(kernel, TABLES)
    tables.map(0, 8 * SECTION, RAM_MEMMAP, huge=True)
    tables.map(BLOCK, BLOCK_END, BLOCK if kernel.stores_block_memmaps else OFFLINE_MEMMAP + 0x400)
    tables.map(OFFLINE, OFFLINE_END, OFFLINE_MEMMAP)
    kernel.free_block(FREE, FREE_ORDER)
    _tasks(kernel, tables)
    return MemmapMachine(kernel, tables)


def _device(kernel: FakeKernel, start: int, end: int, type_: str, altmap: Altmap | None) -> None:
    pgmap = kernel.pgmap((start, end), type=type_, altmap=altmap)
    first = start
    if altmap:
        first += altmap.offset
        kernel.map_memmap(start, first)
        kernel.metadata_pages(start + altmap.reserve, first)
    kernel.device_pages(first, end, pgmap)


def _blocks(kernel: FakeKernel) -> None:
    kernel.section(BLOCK // SECTION, online=True)
    stored = 512 if kernel.stores_block_memmaps else 0
    kernel.ram_pages(BLOCK, BLOCK_END, "ZONE_NORMAL")
    kernel.memory_block(BLOCK // SECTION, zone="ZONE_NORMAL", memmap_pages=stored)
    kernel.section(OFFLINE // SECTION)
    kernel.map_memmap(OFFLINE, OFFLINE_END)
    kernel.system_ram(OFFLINE, OFFLINE_END)
    kernel.memory_block(OFFLINE // SECTION, "MEM_OFFLINE")


def _tasks(kernel: FakeKernel, tables: PageTables) -> None:
    # pgd_list, through page->lru.
    head = kernel.add_list("pgd_list")
    nodes = [head, *(kernel.page(pfn) + 8 for pfn in PGDS)]
    for node, following in zip(nodes, [*nodes[1:], head]):
        kernel.poke(node, struct.pack("<Q", following))
    for pfn in PGDS:
        # Processors set this bit in one table, and not in the others.
        table = bytearray(kernel.memory.read(TOP, _PAGE))
        index = tables.base >> 27 & 511
        entry = struct.unpack_from("<Q", table, 8 * index)[0]
        struct.pack_into("<Q", table, 8 * index, entry | _ACCESSED)
        tables.frames[pfn] = table


# Defects.


@dataclass(frozen=True)
class TableDefect:
    """
    A way to damage page tables of a machine, or the pages behind them, and back again; and what
    must be found meanwhile.
    """

    what: str
    page: int
    level: int
    entry: int
    expected: frozenset[Spot]


# Struct pages that page tables have one by one or in huge pages, by the first PFN of each page.
_AREAS = (
    (0, FSDAX),
    (FSDAX, 5 * SECTION),
    (5 * SECTION, FSDAX_END),
    (FSDAX_END, 8 * SECTION),
    (DEVDAX, DEVDAX_END),
    (OTHER + 0x400, OTHER_END),
    (BLOCK + 0x200, BLOCK_END),
    (OFFLINE, OFFLINE_END),
)
_DEVICES = ((5 * SECTION, FSDAX_END), (DEVDAX, DEVDAX_END), (OTHER + 0x400, OTHER_END))


def _spot(area: tuple[int, int], rng: random.Random) -> int:
    return rng.randrange(area[0] // PER_PAGE, area[1] // PER_PAGE) * PER_PAGE


def _in_ranges(pfn: int) -> list[tuple[int, int]]:
    """
    The PFNs whose struct pages a page of vmemmap has, by the ranges they are in: a finding has
    the case of one range. The reserve of a device and its metadata share a page.
    """
    start, end = pfn, pfn + PER_PAGE
    edges = [edge for edge in (FSDAX + 2, OTHER + 2) if start < edge < end]
    return list(zip([start, *edges], [*edges, end]))


def _places(rng: random.Random) -> dict[str, Callable[[], int]]:
    """Page frames that cannot store struct pages."""
    return {
        "data of fsdax": lambda: rng.randrange(FSDAX + 0x400, FSDAX_END),
        "data of devdax": lambda: rng.randrange(DEVDAX, DEVDAX_END),
        "a reserve": lambda: FSDAX + rng.randrange(2),
        "offline RAM": lambda: rng.randrange(OFFLINE, OFFLINE_END),
        "nothing": lambda: rng.randrange(HOLE, 2 * HOLE),
    }


def table_defects(machine: MemmapMachine, rng: random.Random, count: int) -> Iterator[TableDefect]:
    """Make so many defects of each kind."""
    tables = machine.tables

    def one(slug: str, what: str, pfn: int, entry: int) -> TableDefect:
        expected = frozenset((slug, *span) for span in _in_ranges(pfn))
        return TableDefect(f"{what} of {pfn:#x}", tables.page(pfn), 1, entry, expected)

    for _ in range(count):
        for area in _AREAS:
            pfn = _spot(area, rng)
            # Software may use the other bits of an entry that is not present.
            entry = rng.getrandbits(62) << 1
            yield one("vmemmap-unmapped", "no page", pfn, entry)
        for what, frame in _places(rng).items():
            pfn = _spot(rng.choice(_AREAS), rng)
            yield one("vmemmap-astray", what, pfn, frame() << 12 | _PRESENT)
        pfn = _spot(rng.choice(_AREAS), rng)
        free = FREE + rng.randrange(1 << FREE_ORDER)
        yield one("vmemmap-free", "a free page", pfn, free << 12 | _PRESENT)
        pfn = _spot(rng.choice(_DEVICES), rng)
        # The struct pages of RAM below fsdax, and behind it.
        taken = RAM_MEMMAP + rng.choice([*range(FSDAX // PER_PAGE), *range(6 * 512, 8 * 512)])
        yield one("vmemmap-alias", "a page of RAM's memmap", pfn, taken << 12 | _PRESENT)
        yield from _on_others(machine, rng, one)
        yield _whole_table(machine, rng)
        yield _table_nowhere(machine, rng)
        yield _of_task(machine, rng)


_One = Callable[[str, str, int, int], TableDefect]


def _on_others(machine: MemmapMachine, rng: random.Random, one: _One) -> Iterator[TableDefect]:
    altmaps = ((5 * SECTION, FSDAX_END, OTHER), (OTHER + 0x400, OTHER_END, FSDAX))
    start, end, other = rng.choice(altmaps)
    frame = rng.randrange(other + 2, other + 0x400)
    pfn = _spot((start, end), rng)
    yield one("vmemmap-on-other-device", "an altmap", pfn, frame << 12 | _PRESENT)
    if machine.has_block:
        # That page has struct pages of the block.
        frame = rng.randrange(BLOCK + 512 // PER_PAGE, BLOCK + 512)
        pfn = _spot(rng.choice(_DEVICES), rng)
        span = pfn, pfn + PER_PAGE
        expected = frozenset({("vmemmap-on-other-device", *span), ("vmemmap-alias", *span)})
        page = machine.tables.page(pfn)
        yield TableDefect(f"a block for {pfn:#x}", page, 1, frame << 12 | _PRESENT, expected)


def _whole_table(machine: MemmapMachine, rng: random.Random) -> TableDefect:
    # The struct pages of a section.
    start = rng.choice([DEVDAX, DEVDAX + SECTION, OFFLINE])
    expected = frozenset({("vmemmap-unmapped", start, start + SECTION)})
    return TableDefect(f"no table of {start:#x}", machine.tables.page(start), 2, 0, expected)


def _table_nowhere(machine: MemmapMachine, rng: random.Random) -> TableDefect:
    # That of the struct pages of a section.
    start = rng.choice([DEVDAX, DEVDAX + SECTION, OFFLINE])
    expected = frozenset({("vmemmap-astray", start, start + SECTION)})
    entry = rng.randrange(HOLE, 2 * HOLE) << 12 | _PRESENT
    return TableDefect(
        f"table of {start:#x} where no memory is", machine.tables.page(start), 2, entry, expected
    )


def _of_task(machine: MemmapMachine, rng: random.Random) -> TableDefect:
    # In the table of a task; what is at the other end does not matter.
    frame = rng.choice(PGDS)
    entry = rng.choice([0, rng.randrange(1 << 20) << 12 | _PRESENT])
    expected = frozenset({("vmemmap-top-entry", 0, OFFLINE_END)})
    return TableDefect(f"table of a task at {frame:#x}", frame, 0, entry, expected)


def inject(machine: MemmapMachine, defect: TableDefect) -> Callable[[], None]:
    """Damage the tables; the result mends them."""
    tables = machine.tables
    if defect.level == 0:
        table, index = tables.frames[defect.page], 8 * (tables.base >> 27 & 511)
        before = bytes(table[index : index + 8])
        table[index : index + 8] = struct.pack("<Q", defect.entry)

        def mend() -> None:
            table[index : index + 8] = before

        return mend
    if defect.level == 1:
        tables.split(defect.page)
    old = tables.entry(defect.page, defect.level)
    tables.enter(defect.page, defect.level, defect.entry)
    return lambda: tables.enter(defect.page, defect.level, old)
