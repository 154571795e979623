# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Devices that are larger than any test machine: a fake kernel whose struct pages and
page tables are made when they are read, and counted. RAM stores them.
"""

from __future__ import annotations

import random
import resource
import sys
from collections import Counter
from collections.abc import Iterator

import numpy as np
from drgn import FindObjectFlags, Object, Program, TypeMember
from support.fakekernel import SECTION_PAGES, FakeKernel, RamBuilder, fill_section

START = 0x1000000
_PGD = 0xFFFFFFFF82A0C000
# RAM that stores its own struct pages first, and then those of the device.
_RAM = 0x400000
_SECTION = 0x8000
_PRESENT = 1
_PAGES_PER_GIB = 1 << 18
_LARGEST_READ = 4 << 20
_PIECE = 256 << 10


class LargeDevice:
    """
    A device of some GiB, whose compound pages of *shift* share their vmemmap.

    Layout 7.2, where all compound pages of one order hold the same.
    """

    def __init__(self, gib: int, shift: int) -> None:
        self.pages, self.shift = gib * _PAGES_PER_GIB, shift
        self.memmap_bytes = self.table_bytes = 0
        # How often each page table of the device's vmemmap was read.
        self.leaf_reads = Counter[int]()
        self.kernel = kernel = FakeKernel("7.2")
        end = START + self.pages
        period = self._make_pages(end)
        self._first = kernel.page(START)
        # At least twice as long as a period and as any read, so that each read is a
        # slice of it.
        pattern = kernel.memory.read(self._first, 64 * period)
        self._period = len(pattern)
        self._pattern = memoryview(pattern * (1 + max(1, _LARGEST_READ // len(pattern))))
        for nr in range(START // _SECTION, end // _SECTION):
            kernel.memory.sections.pop(nr, None)
        self._add_ram()

    @property
    def _frames_needed(self) -> int:
        shared = self._per_compound >= 3
        return 2 * (self.pages >> self.shift) if shared else self.pages // 64

    @property
    def _per_compound(self) -> int:
        return max(1, (64 << self.shift) >> 12)

    def _add_ram(self) -> None:
        sections = -(-self._frames_needed * 66 // 64 // _SECTION) + 1
        self._ram_pages = sections * _SECTION
        kernel, end = self.kernel, _RAM + self._ram_pages
        kernel.sections(_RAM, end, online=True, early=True)
        kernel.ram_pages(_RAM, end)
        for nr in range(_RAM // _SECTION, end // _SECTION):
            kernel.memory_block(nr, zone="ZONE_NORMAL")
        kernel.set_variable("max_pfn", end)

    def _make_pages(self, end: int) -> int:
        # After so many, struct pages repeat.
        kernel, size = self.kernel, 1 << self.shift
        kernel.sections(START, end)
        pgmap = kernel.pgmap((START, end), type="MEMORY_DEVICE_GENERIC", vmemmap_shift=self.shift)
        kernel.device_pages(START, START + size, pgmap)
        return size

    def program(self) -> Program:
        """A program with this device's memmap and page tables."""
        prog = self.kernel.program()
        prog.add_memory_segment(self._first, self.nominal_bytes, self._read_memmap, False)
        prog.add_memory_segment(0, 1 << 52, self._read_table, True)
        prog.add_memory_segment(_PGD, 4096, self._read_top, False)
        prog.register_object_finder("mm", _find_mm, enable_index=0)
        return prog

    @property
    def nominal_bytes(self) -> int:
        """What the memmap would take if nothing of it were shared."""
        return 64 * self.pages

    def memory(self) -> Iterator[tuple[int, int]]:
        """Addresses and sizes of struct pages, so that each piece of memory is met once."""
        compound = 64 << self.shift
        unique = min(2 * 4096, compound)
        for address in range(self._first, self._first + self.nominal_bytes, compound):
            yield address, unique

    def _read_memmap(self, address: int, count: int, offset: int, physical: bool) -> memoryview:
        self.memmap_bytes += count
        skip = offset % self._period
        return self._pattern[skip : skip + count]

    # Page tables: the physical address of one is its level and what it maps.

    def _read_top(self, address: int, count: int, offset: int, physical: bool) -> bytes:
        return self._table(27, self.kernel.vmemmap >> 48 << 36)[offset : offset + count]

    def _read_table(self, address: int, count: int, offset: int, physical: bool) -> bytes:
        level, first = address >> 42, (address >> 12 & (1 << 30) - 1) << 9
        first += self.kernel.vmemmap >> 12 & ~((1 << 27) - 1)
        return self._table(9 * (level - 1), first)[address & 4095 :][:count]

    def _table(self, bits: int, first: int) -> bytes:
        self.table_bytes += 4096
        page = first + (np.arange(512, dtype=np.int64) << bits)
        device = self._first >> 12
        ram = (self.kernel.vmemmap >> 12) + _RAM // 64
        inside = np.zeros(512, bool)
        for start, pages in ((device, self.pages), (ram, self._ram_pages)):
            inside |= (page + (1 << bits) > start) & (page < start + pages // 64)
        if bits == 0:
            of_device = self._ram_pages // 64 + self._frames(page - device)
            frame = _RAM + np.where(page >= device, of_device, page - ram)
            self.leaf_reads[first] += first >= device
        else:
            base = self.kernel.vmemmap >> 12 & ~((1 << 27) - 1)
            frame = (bits // 9) << 30 | (page - base) >> 9
        entries: bytes = np.where(inside, frame << 12 | _PRESENT, 0).astype("<u8").tobytes()
        return entries

    def _frames(self, index: np.ndarray) -> np.ndarray:
        if self._per_compound < 3:
            return index
        compound, inner = np.divmod(index, self._per_compound)
        return 2 * compound + np.minimum(inner, 1)


class LargeRam(LargeDevice):
    """
    RAM of some GiB in use. What each section holds is what the first one does: links of compound
    pages do not depend on where those are.
    """

    def __init__(self, gib: int) -> None:
        super().__init__(gib, shift=0)

    def _make_pages(self, end: int) -> int:
        kernel = self.kernel
        kernel.sections(START, end, online=True, early=True)
        kernel.grow_zone("ZONE_NORMAL", START, end, present=self.pages)
        fill_section(RamBuilder(kernel, "ZONE_NORMAL", 0, random.Random(1)), START)
        return SECTION_PAGES

    def _add_ram(self) -> None:
        # Nothing looks at what stores its struct pages.
        self._ram_pages = 0
        self.kernel.set_variable("max_pfn", START + self.pages)

    def memory(self) -> Iterator[tuple[int, int]]:
        """Addresses and sizes of struct pages, 256 KiB at a time."""
        for address in range(self._first, self._first + self.nominal_bytes, _PIECE):
            yield address, _PIECE


def _find_mm(
    prog: Program, name: str, flags: FindObjectFlags, filename: str | None
) -> Object | None:
    if name != "init_mm":
        return None
    pointer = prog.pointer_type(prog.void_type())
    mm = prog.struct_type("mm_struct", 8, [TypeMember(pointer, "pgd")])
    return Object(prog, mm, {"pgd": _PGD})


def main() -> None:
    """Check a device of GIB and SHIFT; print how much memory that took, in KiB."""
    from drgn_zonedev.model import Case
    from drgn_zonedev.render import as_text
    from drgn_zonedev.report import check

    small = LargeDevice(1, int(sys.argv[2]))
    as_text.report_text(check(small.program()))
    prog = LargeDevice(int(sys.argv[1]), int(sys.argv[2])).program()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = check(prog)
    assert not report.findings
    assert not report.unjudged
    print(report.coverage.by_case[Case.DEVICE].verified)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


if __name__ == "__main__":
    main()
