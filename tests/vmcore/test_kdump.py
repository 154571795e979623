# SPDX-License-Identifier: LGPL-2.1-or-later

"""Where a dump in kdump format has the bits of its page frames, and what they say."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from support.dumpfiles import PAGE, Machine, write_elf, write_kdump

from drgn_zonedev.vmcore.kdump import KdumpFile, lacks_its_bitmaps, read_kdump_header

# A bitmap of 32 blocks: 32 * 4096 * 8 frames.
MAX_PFN, BITMAP_BLOCKS = 1 << 20, 32
# Behind a header of one block and a sub-header of two, which has VMCOREINFO as well.
FIRST_BITMAP = 3
KEPT, LOST = (0x3F, 0x40, 0x1234, 0x8000, MAX_PFN - 1), (0x41, 0x1233, 0x8001)
# Offsets in struct disk_dump_header and, in the next block, struct kdump_sub_header.
VERSION, BLOCK_SIZE, SUB_BLOCKS, BITMAPS = 8, 428, 432, 436
SPLIT, WIDE = PAGE + 12, PAGE + 80


def some_machine() -> Machine:
    machine = Machine()
    for frame in (*KEPT, *LOST):
        machine.frames[frame] = bytearray(PAGE)
    machine.lose(*LOST)
    return machine


def frames(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def header(path: Path) -> KdumpFile:
    found = read_kdump_header(path)
    assert found is not None
    return found


def patch(path: Path, offset: int, format_: str, *values: int) -> Path:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(struct.pack(format_, *values))
    return path


def cut(path: Path, size: int) -> Path:
    os.truncate(path, size)
    return path


@pytest.mark.parametrize("bitmaps", [1, 2])
def test_bits_say_which_frames_were_kept(bitmaps: int, tmp_path: Path) -> None:
    machine = some_machine()
    found = header(write_kdump(machine, tmp_path / "vmcore", max_pfn=MAX_PFN, bitmaps=bitmaps))
    assert (found.page_size, found.max_pfn, found.is_part) == (PAGE, MAX_PFN, False)
    assert (found.start_pfn, found.end_pfn) == (0, MAX_PFN)
    # In any order, and more than once.
    asked = frames(*LOST, *KEPT, KEPT[0], MAX_PFN, 1 << 40)
    expected = [n not in machine.kept() for n in asked.tolist()]
    assert found.absent_frames(asked, PAGE).tolist() == expected


def test_second_bitmap_is_the_one_that_counts(tmp_path: Path) -> None:
    # The first one has the frames that there were, the second one those that were kept.
    path = write_kdump(some_machine(), tmp_path / "vmcore", max_pfn=MAX_PFN)
    found = header(path)
    first = PAGE * FIRST_BITMAP
    assert found.offset == first + PAGE * BITMAP_BLOCKS
    with path.open("rb") as file:
        for start, expected in ((first, True), (found.offset, False)):
            file.seek(start + LOST[0] // 8)
            assert bool(file.read(1)[0] >> LOST[0] % 8 & 1) is expected


def test_part_of_a_split_dump_has_no_frame_of_another(tmp_path: Path) -> None:
    part = (0x40, 0x8000)
    found = header(write_kdump(some_machine(), tmp_path / "vmcore", part=part))
    assert (found.start_pfn, found.end_pfn, found.is_part) == (*part, True)
    asked = frames(0x3F, 0x40, 0x41, 0x1234, 0x8000, 0x8001, MAX_PFN - 1, MAX_PFN)
    absent = [True, False, True, False, True, True, True, True]
    assert found.absent_frames(asked, PAGE).tolist() == absent
    # What was kept, but elsewhere. Of what is beyond all memory, there is no bit.
    elsewhere = [True, False, False, False, True, False, True, False]
    assert found.frames_in_other_parts(asked).tolist() == elsewhere


def test_whole_dump_has_no_other_parts(tmp_path: Path) -> None:
    found = header(write_kdump(some_machine(), tmp_path / "vmcore"))
    assert not found.frames_in_other_parts(frames(*KEPT, *LOST, MAX_PFN)).any()


def test_frames_of_another_size_are_not_known(tmp_path: Path) -> None:
    found = header(write_kdump(some_machine(), tmp_path / "vmcore"))
    assert not found.absent_frames(frames(*LOST), 2 * PAGE).any()


def test_bits_behind_the_end_of_the_file_count_as_set(tmp_path: Path) -> None:
    # Then reading the page tells.
    path = write_kdump(some_machine(), tmp_path / "vmcore")
    found = header(path)
    cut(path, found.offset + LOST[1] // 8)
    asked = frames(LOST[0], LOST[1], LOST[2])
    assert found.absent_frames(asked, PAGE).tolist() == [True, False, False]
    path.unlink()
    assert not found.absent_frames(asked, PAGE).any()


@pytest.mark.parametrize(
    ("version", "start_pfn", "end_pfn", "is_part"),
    [
        # No split dumps yet; fields of unsigned long; fields of 64 bits on all machines.
        (1, 0, MAX_PFN, False),
        (2, 0x100, 0x200, True),
        (5, 0x100, 0x200, True),
        (6, 0x300, 0x400, True),
    ],
)
def test_version_says_which_fields_there_are(
    version: int, start_pfn: int, end_pfn: int, is_part: bool, tmp_path: Path
) -> None:
    path = write_kdump(some_machine(), tmp_path / "vmcore", max_pfn=MAX_PFN)
    patch(path, VERSION, "<i", version)
    patch(path, SPLIT, "<iQQ", 1, 0x100, 0x200)
    patch(path, WIDE, "<QQQ", 0x300, 0x400, MAX_PFN)
    found = header(path)
    assert (found.start_pfn, found.end_pfn, found.is_part) == (start_pfn, end_pfn, is_part)


def test_no_frame_is_expected_beyond_the_bitmaps(tmp_path: Path) -> None:
    path = write_kdump(some_machine(), tmp_path / "vmcore", max_pfn=MAX_PFN)
    patch(path, WIDE, "<QQQ", 0, 0, 1 << 63)
    # One bitmap then, as half of the blocks would be too few.
    assert header(path).max_pfn == 2 * MAX_PFN


@pytest.mark.parametrize(
    ("offset", "format_", "value"),
    [
        (0, "<8s", b"KDUMQ   "),
        (BLOCK_SIZE, "<i", PAGE - 1),
        (BLOCK_SIZE, "<i", (1 << 18) + 1),
        (BLOCK_SIZE, "<i", -PAGE),
        (SUB_BLOCKS, "<i", -1),
    ],
)
def test_header_that_makes_no_sense_is_none(
    offset: int, format_: str, value: int, tmp_path: Path
) -> None:
    path = write_kdump(some_machine(), tmp_path / "vmcore")
    assert read_kdump_header(patch(path, offset, format_, value)) is None


def test_other_files_have_no_header(tmp_path: Path) -> None:
    elf = write_elf(some_machine(), tmp_path / "elf")
    assert read_kdump_header(elf) is None
    assert not lacks_its_bitmaps(elf)
    for path in (tmp_path, tmp_path / "missing"):
        assert read_kdump_header(path) is None
        assert not lacks_its_bitmaps(path)


def test_file_that_ends_in_its_headers_has_none(tmp_path: Path) -> None:
    path = write_kdump(some_machine(), tmp_path / "vmcore")
    for size in (PAGE + 80, PAGE, BLOCK_SIZE + 15, 8, 0):
        assert read_kdump_header(cut(path, size)) is None


def test_bitmaps_end_with_their_last_block(tmp_path: Path) -> None:
    # libkdumpfile maps them, and a byte less is SIGBUS.
    path = write_kdump(some_machine(), tmp_path / "vmcore", max_pfn=MAX_PFN)
    end = PAGE * (FIRST_BITMAP + 2 * BITMAP_BLOCKS)
    assert path.stat().st_size > end
    assert not lacks_its_bitmaps(path)
    assert not lacks_its_bitmaps(cut(path, end))
    assert lacks_its_bitmaps(cut(path, end - 1))
    assert lacks_its_bitmaps(cut(path, 8))
    assert not lacks_its_bitmaps(cut(path, 7))


def test_number_of_bitmap_blocks_is_believed_however_large(tmp_path: Path) -> None:
    path = write_kdump(some_machine(), tmp_path / "vmcore")
    assert lacks_its_bitmaps(patch(path, BITMAPS, "<I", (1 << 32) - 1))
