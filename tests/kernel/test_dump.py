# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import struct
from pathlib import Path

from drgn_zonedev.kernel.dump import left_out_of_elf

LOAD, NOTE = 1, 4


def elf(path: Path, segments: list[tuple[int, int, int, int]], count: int | None = None) -> Path:
    """Write the headers of a dump; a segment is type, physical address, and both sizes."""
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    phnum = len(segments) if count is None else count
    # Section header 0, which holds the number of program headers if that is too large.
    section = struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, len(segments), 0, 0)
    header = struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 128, 64, 0, 64, 56, phnum, 64, 1, 0)
    table = b"".join(
        struct.pack("<IIQQQQQQ", kind, 0, 0, 0, address, in_file, in_memory, 0)
        for kind, address, in_file, in_memory in segments
    )
    path.write_bytes(ident + header + section + table)
    return path


def test_segments_that_are_longer_than_their_contents(tmp_path: Path) -> None:
    segments = [
        (LOAD, 0x9000, 0x1000, 0x3000),
        (LOAD, 0x1000, 0x2000, 0x2000),
        (NOTE, 0, 0x100, 0x200),
        (LOAD, 0x4000, 0, 0x1000),
    ]
    expected = ((0x4000, 0x5000), (0xA000, 0xC000))
    assert left_out_of_elf(elf(tmp_path / "dump", segments)) == expected
    assert left_out_of_elf(elf(tmp_path / "large", segments, count=0xFFFF)) == expected


def test_other_files_leave_nothing_out(tmp_path: Path) -> None:
    whole = elf(tmp_path / "whole", [(LOAD, 0, 0x1000, 0x1000)])
    assert left_out_of_elf(whole) == ()
    kdump = tmp_path / "kdump"
    kdump.write_bytes(b"KDUMP   ".ljust(4096, b"\0"))
    assert left_out_of_elf(kdump) == ()
    assert left_out_of_elf(tmp_path / "missing") == ()


def test_a_damaged_file_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    dump = elf(tmp_path / "dump", [(LOAD, 0, 0, 0x1000), (LOAD, 0x2000, 0, 0x1000)])
    dump.write_bytes(dump.read_bytes()[:-8])
    assert left_out_of_elf(dump) == ((0, 0x1000),)
    dump.write_bytes(dump.read_bytes()[:20])
    assert left_out_of_elf(dump) == ()
