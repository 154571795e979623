# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The kernel's page tables on x86-64: what they map is what the test entered in them, as
the manual of the processor has it, and what drgn reads through them.
"""

from __future__ import annotations

import random
import struct
from pathlib import Path

import numpy as np
import pytest
from drgn import Architecture, FaultError, Platform, Program
from support.dumpfiles import PAGE, VMEMMAP, Machine, write_elf, write_kdump
from support.fakekernel import FakeKernel

from drgn_zonedev.vmcore.pagetables import (
    UNKNOWN,
    UNMAPPED,
    next_mapped,
    page_frames,
    page_mappings,
    top_level,
    walks_in_bulk,
)

PRESENT, HUGE, PAT, NX = 1, 1 << 7, 1 << 12, 1 << 63
TOP = 0xFFFFFFFF82A0C000
BASE = VMEMMAP // PAGE


class Tables:
    """Page tables in memory. Levels count from 1, whose entries map pages."""

    def __init__(self, levels: int = 4, mask: int = 0) -> None:
        self.levels, self.mask = levels, mask
        self.frames = {0: bytearray(PAGE)}
        self._known = {(levels, 0): 0}
        self._next = 0x3000

    def enter(self, page: int, level: int, entry: int) -> None:
        """Set the entry of that level that translates a page."""
        frame = self.table(page, level)
        index = page >> 9 * (level - 1) & 511
        struct.pack_into("<Q", self.frames[frame], 8 * index, entry)

    def map(self, page: int, frame: int, level: int = 1, flags: int = 0) -> None:
        huge = HUGE if level > 1 else 0
        self.enter(page, level, frame << 12 | self.mask | PRESENT | huge | flags)

    def table(self, page: int, level: int) -> int:
        """Get the frame of the table of that level that translates a page."""
        key = level, 0 if level == self.levels else page >> 9 * level
        if key not in self._known:
            self._known[key], self._next = self._next, self._next + 1
            self.frames[self._known[key]] = bytearray(PAGE)
            entry = self._known[key] << 12 | self.mask | PRESENT
            self.enter(page, level + 1, entry)
        return self._known[key]

    def program(self) -> Program:
        info = "OSRELEASE=6.1.0-imagined\nPAGESIZE=4096\n"
        info += f"SYMBOL(swapper_pg_dir)={TOP:x}\nNUMBER(pgtable_l5_enabled)={self.levels - 4}\n"
        info += f"NUMBER(sme_mask)={self.mask}\nKERNELOFFSET=0\n"
        prog = Program(Platform(Architecture.X86_64), vmcoreinfo=info)
        prog.set_linux_kernel_custom(info, False)
        prog.add_memory_segment(0, 1 << 52, self._read, True)
        prog.add_memory_segment(TOP, PAGE, self._read_top, False)
        return prog

    def _read(self, address: int, count: int, offset: int, physical: bool) -> bytes:
        frame = self.frames.get(address >> 12)
        if frame is None:
            raise FaultError("not in the machine", address)
        return bytes(frame[address & 4095 :][:count])

    def _read_top(self, address: int, count: int, offset: int, physical: bool) -> bytes:
        return self._read(address - TOP, count, offset, physical)


def frames(prog: Program, first: int, end: int) -> list[int]:
    found = page_frames(prog, first, end)
    assert found is not None
    return found.tolist()


@pytest.mark.parametrize("levels", [4, 5])
def test_pages_of_every_size(levels: int) -> None:
    tables = Tables(levels)
    tables.map(BASE + 1, 0x111)
    tables.map(BASE + 512, 0x4000, level=2)
    tables.map(BASE + (1 << 18), 0x100000, level=3)
    prog = tables.program()
    assert frames(prog, BASE, BASE + 3) == [UNMAPPED, 0x111, UNMAPPED]
    assert frames(prog, BASE + 511, BASE + 514) == [UNMAPPED, 0x4000, 0x4001]
    assert frames(prog, BASE + 1022, BASE + 1026) == [0x41FE, 0x41FF, UNMAPPED, UNMAPPED]
    end = BASE + (2 << 18)
    assert frames(prog, end - 2, end + 1) == [0x13FFFE, 0x13FFFF, UNMAPPED]
    # Across all of it, of which the test knows every page.
    expected = np.full(end - BASE, UNMAPPED)
    expected[1] = 0x111
    expected[512:1024] = np.arange(0x4000, 0x4200)
    expected[1 << 18 :] = np.arange(0x100000, 0x140000)
    assert frames(prog, BASE, end) == expected.tolist()


def test_size_of_the_page_that_maps_each() -> None:
    tables = Tables()
    tables.map(BASE + 1, 0x111)
    tables.map(BASE + 512, 0x4000, level=2)
    tables.map(BASE + (1 << 18), 0x100000, level=3)
    found = page_mappings(tables.program(), BASE, BASE + (1 << 18) + 2)
    assert found is not None
    assert found.order[:3].tolist() == [-1, 0, -1]
    assert found.order[511:514].tolist() == [-1, 9, 9]
    assert found.order[-3:].tolist() == [-1, 18, 18]


@pytest.mark.parametrize("levels", [4, 5])
def test_entries_at_the_top(levels: int) -> None:
    tables, bits = Tables(levels), 9 * (levels - 1)
    # With five levels, all of the upper half but its end is in front of the last entry.
    page = BASE if levels == 4 else 0xFFD4000000000
    tables.map(page, 0x111)
    prog = tables.program()
    first = page >> bits << bits
    end = first + (2 << bits)
    below = tables.table(page, levels - 1) << 12 | PRESENT
    found = top_level(prog, page, end)
    assert (found.page.tolist(), found.order) == ([first, first + (1 << bits)], bits)
    assert found.entry.tolist() == [below, 0]
    # With bits that the processor sets, and an address in an entry that is not present.
    tables.frames[5] = bytearray(PAGE)
    struct.pack_into("<QQ", tables.frames[5], 8 * (page >> bits & 511), below | 0x60, 0x1234000)
    assert top_level(prog, page, end, 5 << 12).entry.tolist() == [below, 0]
    with pytest.raises(FaultError):
        top_level(prog, page, page + 1, 0x999 << 12)


@pytest.mark.parametrize(("level", "pages"), [(2, 1 << 9), (3, 1 << 18)])
def test_flags_of_huge_pages_are_not_part_of_the_address(level: int, pages: int) -> None:
    tables = Tables()
    # Above bit 12, which is PAT here, the bits up to the size of the page are reserved.
    tables.map(BASE, 3 * pages, level, PAT | NX)
    assert frames(tables.program(), BASE, BASE + 2) == [3 * pages, 3 * pages + 1]


def test_flags_of_pages_are_not_part_of_the_address() -> None:
    tables = Tables()
    # Bit 7 is PAT in an entry of a page; bits 52 to 62 are software's.
    tables.map(BASE, 0x111, flags=NX | 0x7FF << 52 | HUGE | 0xFFE)
    assert frames(tables.program(), BASE, BASE + 1) == [0x111]


def test_huge_bit_is_reserved_above_1_gib() -> None:
    tables = Tables()
    tables.map(BASE, 0, level=4)
    assert frames(tables.program(), BASE, BASE + 2) == [UNMAPPED, UNMAPPED]


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_entry_that_is_not_present_maps_nothing(level: int) -> None:
    tables = Tables()
    tables.map(BASE, 0x111)
    tables.enter(BASE, level, 0x123 << 12)
    assert frames(tables.program(), BASE, BASE + 1) == [UNMAPPED]
    assert next_mapped(tables.program(), BASE, BASE + 9) == BASE + 9


def test_encrypted_memory_is_where_it_is_without_the_bit() -> None:
    tables = Tables(mask=1 << 47)
    tables.map(BASE, 0x111)
    tables.map(BASE + 512, 0x4000, level=2)
    assert frames(tables.program(), BASE, BASE + 1) == [0x111]
    assert frames(tables.program(), BASE + 512, BASE + 514) == [0x4000, 0x4001]


def test_last_pages_of_the_address_space_are_translated() -> None:
    tables = Tables()
    last = (1 << 52) - 1
    tables.map(last, 0x111)
    assert frames(tables.program(), last - 1, last + 1) == [UNMAPPED, 0x111]
    assert next_mapped(tables.program(), last - 9, last + 1) == last


def test_nothing_is_translated_of_no_pages() -> None:
    assert frames(Tables().program(), BASE, BASE) == []


@pytest.mark.parametrize(("level", "pages"), [(1, 1 << 9), (2, 1 << 18)])
def test_pages_whose_table_cannot_be_read_are_unknown(level: int, pages: int) -> None:
    tables = Tables()
    tables.map(BASE - 1, 0x110)
    tables.map(BASE, 0x111)
    tables.map(BASE + pages, 0x112)
    del tables.frames[tables.table(BASE, level)]
    prog = tables.program()
    found = page_frames(prog, BASE - 1, BASE + pages + 2)
    assert found is not None
    assert found[[0, -2, -1]].tolist() == [0x110, 0x112, UNMAPPED]
    assert set(found[1:-2].tolist()) == {UNKNOWN}
    # They may be mapped.
    assert next_mapped(prog, BASE, BASE + pages) == BASE


def test_table_that_leads_to_itself_ends() -> None:
    tables = Tables()
    tables.map(BASE, 0x111)
    table = tables.table(BASE, 2)
    tables.enter(BASE, 2, table << 12 | PRESENT)
    # Read as the last level, the table maps itself.
    assert frames(tables.program(), BASE, BASE + 1) == [table]


def test_next_mapped_is_the_first_of_any_size() -> None:
    tables = Tables()
    tables.map(BASE + 5, 0x111)
    tables.map(BASE + (3 << 18) + 512, 0x4000, level=2)
    prog = tables.program()
    far = BASE + (1 << 30)
    assert next_mapped(prog, BASE, far) == BASE + 5
    assert next_mapped(prog, BASE + 5, far) == BASE + 5
    assert next_mapped(prog, BASE + 6, far) == BASE + (3 << 18) + 512
    # In the middle of a huge page, and behind it.
    assert next_mapped(prog, BASE + (3 << 18) + 700, far) == BASE + (3 << 18) + 700
    assert next_mapped(prog, BASE + (3 << 18) + 1024, far) == far
    assert next_mapped(prog, BASE + 6, BASE + 7) == BASE + 7


def test_without_the_top_everything_is_unknown() -> None:
    # The kernel itself is mapped: a top without an entry was left out.
    tables = Tables()
    assert frames(tables.program(), BASE, BASE + 2) == [UNKNOWN, UNKNOWN]
    with pytest.raises(FaultError):
        next_mapped(tables.program(), BASE, BASE + 2)
    del tables.frames[0]
    assert frames(tables.program(), BASE, BASE + 2) == [UNKNOWN, UNKNOWN]


def test_bulk_is_for_x86_64_and_arm64() -> None:
    assert walks_in_bulk(FakeKernel("6.1").program())
    assert walks_in_bulk(Program(Platform(Architecture.AARCH64)))
    others = set(Architecture) - {Architecture.X86_64, Architecture.AARCH64, Architecture.UNKNOWN}
    assert not any(walks_in_bulk(Program(Platform(other))) for other in others)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("form", ["elf", "kdump"])
def test_drgn_reads_the_frame_that_was_found(form: str, seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    machine = Machine()
    for page in rng.sample(range(4 * 512), 60):
        frame = 0x10000 + page
        machine.frames[frame] = bytearray(struct.pack("<Q", frame).ljust(PAGE, b"\0"))
        machine.map(VMEMMAP + page * PAGE, frame)
    path = tmp_path / "vmcore"
    prog = Program()
    prog.set_core_dump(write_elf(machine, path) if form == "elf" else write_kdump(machine, path))
    found = frames(prog, BASE, BASE + 4 * 512)
    assert sum(frame != UNMAPPED for frame in found) == 60
    for page, frame in enumerate(found):
        if frame == UNMAPPED:
            with pytest.raises(FaultError):
                prog.read(VMEMMAP + page * PAGE, 8)
        else:
            assert prog.read_u64(VMEMMAP + page * PAGE) == frame
