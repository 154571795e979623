# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np

from drgn_zonedev.vmcore.elf import read_elf_dump
from drgn_zonedev.vmcore.kdump import lacks_its_bitmaps

LOAD, NOTE = 1, 4
PAGE, PAGES = 0x1000, 16


def end_of(path: Path) -> tuple[int, int] | None:
    found = read_elf_dump(path)
    return found.ends if found else None


def elf(path: Path, segments: list[tuple[int, int, int, int]], count: int | None = None) -> Path:
    """Write the headers of a dump; a segment is its type, its address, and both sizes."""
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    phnum = len(segments) if count is None else count
    # Section header 0, which holds the number of program headers if that is too large.
    section = struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, len(segments), 0, 0)
    header = struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 128, 64, 0, 64, 56, phnum, 64, 1, 0)
    table = b"".join(
        struct.pack("<IIQQQQQQ", kind, 0, 0, address, address, in_file, in_memory, 0)
        for kind, address, in_file, in_memory in segments
    )
    path.write_bytes(ident + header + section + table)
    return path


def left_out(path: Path) -> list[int]:
    """Get the pages that a dump has segments for, but not the contents."""
    dump = read_elf_dump(path)
    assert dump
    frames = np.arange(PAGES)
    start = frames.astype(np.uint64) * np.uint64(PAGE)
    promised = dump.promised.touch(start, start + np.uint64(PAGE))
    filled = dump.virtual.touch(start, start + np.uint64(PAGE))
    # Virtual and physical addresses are the same here.
    assert (dump.absent_frames(frames, PAGE) == ~filled).all()
    assert dump.reads_zeros == (promised & ~filled).any()
    return frames[promised & ~filled].tolist()


def test_segments_that_are_longer_than_their_contents(tmp_path: Path) -> None:
    segments = [
        (LOAD, 0x9000, 0x1000, 0x3000),
        (LOAD, 0x1000, 0x2000, 0x2000),
        (NOTE, 0, 0x100, 0x200),
        (LOAD, 0x4000, 0, 0x1000),
    ]
    for dump in (
        elf(tmp_path / "dump", segments),
        elf(tmp_path / "large", segments, count=0xFFFF),
    ):
        # All contents begin at offset 0 of this file.
        os.truncate(dump, 0x2000)
        assert left_out(dump) == [4, 10, 11]


def test_other_files_leave_nothing_out(tmp_path: Path) -> None:
    whole = elf(tmp_path / "whole", [(LOAD, 0x1000, 0x1000, 0x1000)])
    assert left_out(whole) == []
    kdump = tmp_path / "kdump"
    kdump.write_bytes(b"KDUMP   ".ljust(4096, b"\0"))
    assert read_elf_dump(kdump) is None
    assert read_elf_dump(tmp_path / "missing") is None


def test_a_damaged_file_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    dump = elf(tmp_path / "dump", [(LOAD, 0x1000, 0x1000, 0x2000), (LOAD, 0x4000, 0, 0x1000)])
    assert left_out(dump) == [2, 4]
    # In the second of the program headers, which begin at 128.
    dump.write_bytes(dump.read_bytes()[: 128 + 56 + 48])
    assert left_out(dump) == [2]
    dump.write_bytes(dump.read_bytes()[:20])
    assert read_elf_dump(dump) is None


def test_end_of_a_dump_is_compared_with_its_headers(tmp_path: Path) -> None:
    # All contents begin at offset 0 of this file.
    dump = elf(tmp_path / "dump", [(LOAD, 0, 0x2000, 0x9000), (LOAD, 0x9000, 0x1000, 0x1000)])
    headers = dump.stat().st_size
    assert end_of(dump) == (headers, 0x2000)
    os.truncate(dump, 0x2000)
    assert end_of(dump) == (0x2000, 0x2000)
    assert end_of(elf(tmp_path / "empty", [(LOAD, 0, 0, 0x1000)])) is None
    assert end_of(tmp_path / "missing") is None
    huge = elf(tmp_path / "huge", [(LOAD, 0, 2**64 - 1, 2**64 - 1)])
    assert end_of(huge) == (huge.stat().st_size, 2**64 - 1)


def test_flattened_dumps_leave_out_what_their_last_headers_say(tmp_path: Path) -> None:
    segments = [(LOAD, 0x9000, 0x1000, 0x3000), (LOAD, 0x1000, 0x2000, 0x2000)]
    dump = elf(tmp_path / "dump", segments).read_bytes()
    flattened = tmp_path / "flattened"

    def write(*pieces: tuple[int, bytes]) -> None:
        head = b"makedumpfile".ljust(16, b"\0") + struct.pack(">qq", 1, 1)
        body = (struct.pack(">qq", offset, len(data)) + data for offset, data in pieces)
        flattened.write_bytes(head.ljust(4096, b"\0") + b"".join(body) + struct.pack(">qq", -1, -1))

    # The program headers begin at 128; makedumpfile leaves room for them first.
    write((64, bytes(len(dump) - 64)), (0, dump[:64]), (4096, b"memory"), (64, dump[64:]))
    assert left_out(flattened) == [10, 11]
    write((100, dump[100:150]), (0, dump[:100]), (150, dump[150:]))
    assert left_out(flattened) == [10, 11]
    write((0, b"KDUMP   ".ljust(4096, b"\0")))
    assert read_elf_dump(flattened) is None
    assert end_of(flattened) is None
    write((0, dump[:64]))
    assert read_elf_dump(flattened) is None


def test_a_kdump_that_ends_in_its_bitmaps_is_told_before_anybody_maps_them(tmp_path: Path) -> None:
    # One block of header, two of the second header, three of bitmaps.
    header = b"KDUMP   ".ljust(428, b"\0") + struct.pack("<iiI", 4096, 2, 3)
    dump = tmp_path / "dump"
    for size, lacks in ((6 * 4096, False), (6 * 4096 - 1, True), (440, True), (100, True)):
        dump.write_bytes(header.ljust(size, b"\0")[:size])
        assert lacks_its_bitmaps(dump) is lacks
    assert not lacks_its_bitmaps(tmp_path / "missing")
