# SPDX-License-Identifier: LGPL-2.1-or-later

"""Program headers that contradict each other: what they are about is not read as zeros."""

from __future__ import annotations

import struct
from pathlib import Path

import drgn
import pytest
from support.dumpfiles import Machine, write_elf

from drgn_zonedev.export.store import default_directory, stored_dumps
from drgn_zonedev.opening.core import open_core
from drgn_zonedev.vmcore.contradictions import Contradictions, contradictions
from drgn_zonedev.vmcore.elf import read_program_headers

DIRECT = 0xFFFF888000000000
HEADERS = 0x1000

# Offset in the file, virtual and physical address, size in the file and in memory.
Segment = tuple[int, int, int, int, int]


def write(path: Path, *segments: Segment, contents: bytes | None = None) -> Path:
    """Write a dump of segments; page n of the file is filled with n."""
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head = struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, len(segments), 0, 0, 0)
    table = b"".join(
        struct.pack("<IIQQQQQQ", 1, 7, offset, virtual, physical, in_file, in_memory, 0)
        for offset, virtual, physical, in_file, in_memory in segments
    )
    pages = contents or b"".join(bytes([n]) * 0x1000 for n in range(1, 16))
    path.write_bytes((ident + head + table).ljust(HEADERS, b"\0") + pages)
    return path


def found(path: Path) -> Contradictions:
    headers = read_program_headers(path)
    assert headers
    return contradictions(headers, path)


def at(page: int, *, offset: int = 0) -> int:
    return DIRECT + page * 0x1000 + offset


def segment(offset: int, page: int, filled: int, size: int | None = None) -> Segment:
    """Pages of the direct map, from a page of the file on."""
    size = filled if size is None else size
    return offset << 12, at(page), page << 12, filled << 12, size << 12


def test_sound_headers(tmp_path: Path) -> None:
    # In no order, with a filtered end.
    assert not found(write(tmp_path / "a", segment(3, 8, 2), segment(1, 1, 2), segment(5, 3, 1, 4)))


def test_image_of_the_kernel_is_in_proc_vmcore_twice(tmp_path: Path) -> None:
    image = (1 << 12, 0xFFFFFFFF81000000, 2 << 12, 2 << 12, 2 << 12)
    pages = [bytes([n]) * 0x1000 for n in (7, 8, 6, 7, 8, 9)]
    same = write(tmp_path / "same", image, segment(3, 1, 4), contents=b"".join(pages))
    assert not found(same)
    pages[4] = bytes([1]) * 0x1000
    other = write(tmp_path / "other", image, segment(3, 1, 4), contents=b"".join(pages))
    assert found(other) == Contradictions(physical=((2 << 12, 4 << 12),))


def test_memory_that_is_mapped_twice_is_in_the_file_once(tmp_path: Path) -> None:
    # As by QEMU's dump-guest-memory with paging.
    first, second = segment(1, 1, 4), (2 << 12, at(64), 2 << 12, 1 << 12, 1 << 12)
    assert not found(write(tmp_path / "dump", first, second))


def test_one_address_from_two_places(tmp_path: Path) -> None:
    a, b = segment(1, 1, 4), (5 << 12, at(3), 0x100000, 4 << 12, 4 << 12)
    assert found(write(tmp_path / "dump", a, b)) == Contradictions(virtual=((at(3), at(5)),))


def test_one_place_for_two_addresses(tmp_path: Path) -> None:
    doubt = found(write(tmp_path / "dump", segment(1, 1, 2), segment(2, 8, 2)))
    assert doubt.physical == ((2 << 12, 3 << 12), (8 << 12, 9 << 12))
    assert doubt.virtual == ((at(2), at(3)), (at(8), at(9)))


def test_contents_where_the_headers_are(tmp_path: Path) -> None:
    doubt = found(write(tmp_path / "dump", (0, at(1), 1 << 12, 1 << 12, 1 << 12)))
    assert doubt.virtual[0][0] == at(1)


def test_segment_without_contents_over_one_with(tmp_path: Path) -> None:
    # drgn reads the later one, which has zeros there.
    covered = write(tmp_path / "covered", segment(3, 2, 1), segment(1, 1, 1, 4))
    assert found(covered).virtual == ((at(2), at(5)),)
    # The other way round, it reads the contents, and zeros around them.
    around = write(tmp_path / "around", segment(1, 1, 1, 4), segment(3, 2, 1))
    assert found(around).virtual == ((at(3), at(5)),)


def test_contents_that_end_within_a_page(tmp_path: Path) -> None:
    a = (1 << 12, at(1), 1 << 12, 0x1234, 0x3000)
    assert found(write(tmp_path / "dump", a)).virtual == ((at(1, offset=0x1234), at(4)),)


@pytest.mark.parametrize("lost", [1, 0x800, 0x1000, 0x1801])
def test_dump_that_is_cut_off_does_not_contradict_itself(tmp_path: Path, lost: int) -> None:
    dump = write(tmp_path / "dump", segment(1, 1, 2), segment(3, 8, 2))
    dump.write_bytes(dump.read_bytes()[: 5 * 0x1000 - lost])
    assert not found(dump)


def test_addresses_at_different_places_of_a_page(tmp_path: Path) -> None:
    a = (1 << 12, at(1, offset=8), 1 << 12, 0x100, 0x100)
    doubt = found(write(tmp_path / "dump", a))
    assert doubt.virtual == ((at(1, offset=8), at(1, offset=0x108)),)
    assert doubt.physical == ((0x1000, 0x1100),)


@pytest.mark.parametrize(
    "dump", [dump.name for dump in stored_dumps(default_directory() or Path())]
)
def test_stored_dumps_are_sound(dump: str) -> None:
    directory = default_directory()
    assert directory
    (stored,) = (d for d in stored_dumps(directory) if d.name == dump)
    with stored.files() as files:
        assert not found(files / "vmcore")


def test_drgn_itself_cannot_read_it(tmp_path: Path) -> None:
    machine = Machine()
    machine.frames[0x40] = bytearray(b"\x11" * 0x1000)
    machine.frames[0x41] = bytearray(b"\x22" * 0x1000)
    path = write_elf(machine, tmp_path / "dump")
    assert open_core(str(path)).read(DIRECT + 0x40000, 1) == b"\x11"
    raw = bytearray(path.read_bytes())
    (count,) = struct.unpack_from("<H", raw, 56)
    for i in range(count):
        struct.pack_into("<Q", raw, 64 + 56 * i + 40, 1 << 63)
    path.write_bytes(raw)
    prog = open_core(str(path))
    assert prog.read(DIRECT + 0x40000, 1) == b"\x11"
    for physical, address in ((False, DIRECT + 0x80000), (True, 0x80000)):
        with pytest.raises(drgn.FaultError, match="contradict"):
            prog.read(address, 8, physical)


def test_headers_that_were_made_to_cost_time(tmp_path: Path) -> None:
    rows = [segment(1 + n % 8, n % 64, 2, 1 << 20) for n in range(60_000)]
    assert found(write(tmp_path / "dump", *rows))
