# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Page tables of arm64, of every granule and size: what they map is what the test entered in them, and
what drgn reads through them.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from drgn import Architecture, FaultError, Platform, Program
from support.arm64tables import Arm64Machine

from drgn_zonedev.vmcore.entry_format import entry_format, has_entry_format
from drgn_zonedev.vmcore.pagetables import UNKNOWN, UNMAPPED, next_mapped, page_frames

# The sizes of arch/arm64/Kconfig, and those that a kernel falls back to without the hardware.
SIZES = [
    (12, 39, 39),
    (12, 48, 48),
    (12, 52, 52),
    (12, 52, 48),
    (14, 36, 36),
    (14, 47, 47),
    (14, 48, 48),
    (14, 52, 52),
    (14, 52, 47),
    (16, 42, 42),
    (16, 48, 48),
    (16, 52, 52),
]
each_size = pytest.mark.parametrize(("page_shift", "built", "running"), SIZES)


def opened(machine: Arm64Machine, path: Path) -> Program:
    prog = Program()
    prog.set_core_dump(machine.write(path / "vmcore"))
    return prog


def frames(prog: Program, first: int, end: int) -> list[int]:
    found = page_frames(prog, first, end)
    assert found is not None
    return found.tolist()


def mark(machine: Arm64Machine, frame: int) -> None:
    machine.frames[frame] = bytearray(struct.pack("<Q", frame).ljust(machine.page, b"\0"))


@each_size
def test_drgn_reads_the_frames_that_were_found(
    page_shift: int, built: int, running: int, tmp_path: Path
) -> None:
    machine = Arm64Machine(page_shift, built, running)
    per_table = machine.page // 8
    first = machine.base + 5 * per_table
    entered = {first + i: 0x20000 + 7 * i for i in (0, 1, 3, per_table - 1, per_table, 900)}
    for page, frame in entered.items():
        machine.map(page, frame)
        mark(machine, frame)
    prog = opened(machine, tmp_path)
    end = first + 2 * per_table
    expected = [entered.get(page, UNMAPPED) for page in range(first, end)]
    assert frames(prog, first, end) == expected
    assert next_mapped(prog, first + 4, end) == sorted(entered)[3]
    for page, frame in entered.items():
        assert prog.read_u64(page * machine.page) == frame
    with pytest.raises(FaultError):
        prog.read_u64((first + 2) * machine.page)


@each_size
def test_blocks_map_all_of_their_pages(
    page_shift: int, built: int, running: int, tmp_path: Path
) -> None:
    machine = Arm64Machine(page_shift, built, running)
    block = machine.page // 8
    first = machine.base + 4 * block
    machine.map(first, 16 * block, level=2)
    mark(machine, 16 * block + 3)
    prog = opened(machine, tmp_path)
    assert frames(prog, first - 1, first + 2) == [UNMAPPED, 16 * block, 16 * block + 1]
    assert frames(prog, first + block - 1, first + block + 1) == [17 * block - 1, UNMAPPED]
    assert next_mapped(prog, first - 9, first + 9) == first
    assert prog.read_u64((first + 3) * machine.page) == 16 * block + 3


@pytest.mark.parametrize(("page_shift", "built"), [(12, 52), (14, 52), (16, 48), (16, 52)])
def test_addresses_of_52_bits(page_shift: int, built: int, tmp_path: Path) -> None:
    machine = Arm64Machine(page_shift, built, built)
    # All four bits above 47 differ from each other's place.
    for i, high in enumerate((0b0001, 0b0010, 0b0100, 0b1000, 0b1111)):
        frame = (high << 48 | 0x123 << page_shift) >> page_shift
        machine.map(machine.base + i, frame)
        mark(machine, frame)
    prog = opened(machine, tmp_path)
    found = frames(prog, machine.base, machine.base + 5)
    assert [frame >> 48 - page_shift for frame in found] == [1, 2, 4, 8, 15]
    for i, frame in enumerate(found):
        assert prog.read_u64((machine.base + i) * machine.page) == frame


def test_attributes_at_bits_8_and_9_are_no_address_without_lpa2(tmp_path: Path) -> None:
    machine = Arm64Machine(12, 52, 48)
    machine.map(machine.base, 0x123)
    assert frames(opened(machine, tmp_path), machine.base, machine.base + 1) == [0x123]


def test_a_64k_kernel_for_52_bits_keeps_its_top_where_it_runs_with_48(tmp_path: Path) -> None:
    machine = Arm64Machine(16, 52, 48)
    machine.map(machine.base, 0x123)
    # The entry is in the last sixteenth of the top, as offset_ttbr1 has it.
    top = machine.frames[machine.table(machine.base, machine.levels)]
    assert any(top[960 * 8 : 1024 * 8])
    assert not any(top[: 960 * 8])
    assert frames(opened(machine, tmp_path), machine.base, machine.base + 1) == [0x123]


@pytest.mark.parametrize("entry", [0, 0x123001 & ~1, 0x123002])
def test_invalid_entries_map_nothing(entry: int, tmp_path: Path) -> None:
    machine = Arm64Machine()
    machine.map(machine.base + 1, 0x123)
    for level in range(1, 5):
        machine.enter(machine.base + 1, level, entry)
        machine.map(machine.base + (1 << 27), 0x124)
        prog = opened(machine, tmp_path)
        assert frames(prog, machine.base + 1, machine.base + 2) == [UNMAPPED]
        assert next_mapped(prog, machine.base, machine.base + 9) == machine.base + 9


def test_the_reserved_entry_of_the_lowest_level_maps_nothing(tmp_path: Path) -> None:
    machine = Arm64Machine()
    machine.enter(machine.base, 1, 0x123 << 12 | 1)
    assert frames(opened(machine, tmp_path), machine.base, machine.base + 1) == [UNMAPPED]


def test_pages_whose_table_is_not_in_the_dump_are_unknown(tmp_path: Path) -> None:
    machine = Arm64Machine(14, 52, 52)
    machine.map(machine.base, 0x123)
    machine.map(machine.base + 2048, 0x124)
    del machine.frames[machine.table(machine.base, 1)]
    prog = opened(machine, tmp_path)
    found = frames(prog, machine.base, machine.base + 2050)
    assert set(found[:2048]) == {UNKNOWN}
    assert found[2048:] == [0x124, UNMAPPED]


def test_kernels_before_5_11_say_only_what_they_were_built_for(tmp_path: Path) -> None:
    machine = Arm64Machine(12, 48, None)
    machine.map(machine.base, 0x123)
    assert frames(opened(machine, tmp_path), machine.base, machine.base + 1) == [0x123]


@pytest.mark.parametrize("bits", [12, 20, 53, 63])
def test_impossible_sizes_are_refused(bits: int) -> None:
    machine = Arm64Machine(12, bits, None)
    prog = Program(Platform(Architecture.AARCH64), vmcoreinfo=machine.vmcoreinfo())
    prog.set_linux_kernel_custom(machine.vmcoreinfo(), False)
    with pytest.raises(ValueError, match="impossible size"):
        entry_format(prog)
    assert page_frames(prog, 0, 1) is None


def test_which_formats_are_known() -> None:
    known = {
        a
        for a in set(Architecture) - {Architecture.UNKNOWN}
        if has_entry_format(Program(Platform(a)))
    }
    assert known == {Architecture.X86_64, Architecture.AARCH64}
