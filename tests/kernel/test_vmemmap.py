# SPDX-License-Identifier: LGPL-2.1-or-later

"""Page tables of x86-64, made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from drgn import FaultError, FindObjectFlags, Object, Program, TypeMember
from support.fakekernel import FakeKernel

from drgn_zonedev.kernel.vmemmap import vmemmap_page_frames, vmemmap_pages
from drgn_zonedev.vmcore import entry_format
from drgn_zonedev.vmcore.pagetables import UNKNOWN, UNMAPPED, page_frames

PRESENT, HUGE, NX = 1, 1 << 7, 1 << 63
PGD = 0xFFFFFFFF82A0C000
# The top level lies in the kernel's image, the others in physical memory.
PUD, PMD, PTE = 0x1000, 0x2000, 0x3000
BASE = 0xFFFFEA0000000000


class Machine:
    """A fake kernel whose page tables map some pages of vmemmap."""

    def __init__(self, *, with_mm: bool = True) -> None:
        self.tables = {at: np.zeros(512, np.uint64) for at in (PGD, PUD, PMD, PTE)}
        self.tables[PGD][BASE >> 39 & 511] = PUD | PRESENT
        self.tables[PUD][BASE >> 30 & 511] = PMD | PRESENT
        self.tables[PMD][BASE >> 21 & 511] = PTE | PRESENT
        kernel = FakeKernel()
        kernel.section(0)
        self.prog = kernel.program()
        self.prog.add_memory_segment(0, 1 << 40, self._read_physical, True)
        self.prog.add_memory_segment(PGD, 4096, self._read_pgd, False)
        if with_mm:
            self.prog.register_object_finder("mm", self._find, enable_index=0)

    def _find(
        self, prog: Program, name: str, flags: FindObjectFlags, filename: str | None
    ) -> Object | None:
        if name != "init_mm":
            return None
        pointer = prog.pointer_type(prog.void_type())
        mm = prog.struct_type("mm_struct", 8, [TypeMember(pointer, "pgd")])
        return Object(prog, mm, {"pgd": PGD})

    def _read_pgd(self, address: int, count: int, offset: int, physical: bool) -> bytes:
        return self.tables[PGD].tobytes()[offset : offset + count]

    def _read_physical(self, address: int, count: int, offset: int, physical: bool) -> bytes:
        table, skip = address & ~4095, address & 4095
        if table not in self.tables:
            raise FaultError("no table there", address)
        return self.tables[table].tobytes()[skip : skip + count]

    def frames(self, first: int, end: int) -> list[int] | None:
        found = vmemmap_page_frames(self.prog, (BASE >> 12) + first, (BASE >> 12) + end)
        return None if found is None else found.tolist()


def test_pages_of_vmemmap() -> None:
    prog = Machine().prog
    # 64 struct pages in a page.
    base = BASE >> 12
    assert vmemmap_pages(prog, 0, 64) == (base, base + 1)
    assert vmemmap_pages(prog, 63, 65) == (base, base + 2)
    assert vmemmap_pages(prog, 0x40000, 0x48000) == (base + 0x1000, base + 0x1200)


def test_base_pages() -> None:
    machine = Machine()
    machine.tables[PTE][:4] = [0x5000 | PRESENT, 0x6000 | PRESENT | NX, 0x7000, 0x5000 | PRESENT]
    assert machine.frames(0, 5) == [5, 6, UNMAPPED, 5, UNMAPPED]
    assert machine.frames(1, 2) == [6]


def test_huge_pages() -> None:
    machine = Machine()
    # Bit 12 of a huge entry is a flag.
    machine.tables[PMD][1] = 0x40000000 | PRESENT | HUGE | 1 << 12
    frames = machine.frames(510, 1025)
    assert frames == [UNMAPPED] * 2 + list(range(0x40000, 0x40200)) + [UNMAPPED]
    machine.tables[PUD][1] = 0x80000000 | PRESENT | HUGE
    assert machine.frames(1 << 18, (1 << 18) + 3) == [0x80000, 0x80001, 0x80002]


def test_what_no_table_maps() -> None:
    machine = Machine()
    assert machine.frames(1 << 27, (1 << 27) + 2) == [UNMAPPED] * 2


def test_tables_that_are_not_in_the_dump() -> None:
    machine = Machine()
    machine.tables[PMD][0] = 0x9000 | PRESENT
    assert machine.frames(0, 2) is None
    frames = page_frames(machine.prog, BASE >> 12, (BASE >> 12) + 2)
    assert frames is not None
    assert frames.tolist() == [UNKNOWN] * 2


def test_symbols_are_not_needed() -> None:
    machine = Machine(with_mm=False)
    machine.tables[PTE][0] = 0x5000 | PRESENT
    assert machine.frames(0, 2) == [5, UNMAPPED]


def test_symbols_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry_format, "_vmcoreinfo", lambda prog, pattern: None)
    machine = Machine()
    machine.tables[PTE][0] = 0x5000 | PRESENT
    assert machine.frames(0, 2) == [5, UNMAPPED]
    assert Machine(with_mm=False).frames(0, 2) is None


def test_a_top_of_zeros_is_none() -> None:
    machine = Machine()
    machine.tables[PGD][:] = 0
    assert machine.frames(0, 2) is None


def test_five_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    # One more level in front of the four.
    top, p4d = machine.tables[PGD], 0x4000
    machine.tables[p4d], machine.tables[PGD] = top, np.zeros(512, np.uint64)
    machine.tables[PGD][BASE >> 48 & 511] = p4d | PRESENT
    machine.tables[PTE][7] = 0x5000 | PRESENT
    monkeypatch.setattr(
        entry_format, "_vmcoreinfo", lambda prog, pattern: "1" if "l5" in pattern else None
    )
    assert machine.frames(7, 8) == [5]


def test_encrypted_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    machine.tables[PTE][0] = 0x5000 | PRESENT | 1 << 47
    monkeypatch.setattr(entry_format, "_encryption_mask", lambda prog: 1 << 47)
    assert machine.frames(0, 1) == [5]
