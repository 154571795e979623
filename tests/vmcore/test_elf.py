# SPDX-License-Identifier: LGPL-2.1-or-later

"""What the program headers of an ELF dump say that it has: as the ELF specification has it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.dumpfiles import Machine, write_kdump

from drgn_zonedev.vmcore.elf import ElfDump, read_elf_dump

PAGE = 4096
PT_NULL, PT_LOAD, PT_NOTE = 0, 1, 4
PN_XNUM = 0xFFFF
NO_ADDRESS = (1 << 64) - 1
# e_ident to EI_DATA: 64 bits, least significant byte first.
ELF64_LSB, ELF64_MSB, ELF32_LSB = b"\x7fELF\x02\x01", b"\x7fELF\x02\x02", b"\x7fELF\x01\x01"

# p_type, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz
Segment = tuple[int, int, int, int, int, int]


def end_of(path: Path) -> tuple[int, int] | None:
    found = read_elf_dump(path)
    return found.ends if found else None


def load(
    vaddr: int, paddr: int, filesz: int, memsz: int | None = None, *, offset: int = PAGE
) -> Segment:
    return PT_LOAD, offset, vaddr, paddr, filesz, filesz if memsz is None else memsz


def elf(
    path: Path,
    segments: Sequence[Segment],
    *,
    ident: bytes = ELF64_LSB,
    phentsize: int = 56,
    extended: bool = False,
    size: int = 1 << 20,
) -> Path:
    """
    Write a file of that size that has these program headers, and nothing in its segments.

    :param extended: Their number is in the first section header, as for more than 65534.
    """
    shoff = 64 + 56 * len(segments)
    phnum = PN_XNUM if extended else len(segments)
    header = ident.ljust(16, b"\0")
    header += struct.pack(
        "<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, shoff, 0, 64, phentsize, phnum, 64, 1, 0
    )
    table = b"".join(struct.pack("<IIQQQQQQ", kind, 7, *rest, PAGE) for kind, *rest in segments)
    section = struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, len(segments), 0, 0)
    path.write_bytes((header + table + section).ljust(size, b"\0"))
    return path


def dump(path: Path, segments: Sequence[Segment], **options: int) -> ElfDump:
    found = read_elf_dump(elf(path, segments, **options))  # type: ignore[arg-type]
    assert found is not None
    return found


def touched(found: ElfDump, *pages: int) -> list[bool]:
    start = np.array(pages, np.uint64) * np.uint64(PAGE)
    return found.virtual.touch(start, start + np.uint64(PAGE)).tolist()


def absent(found: ElfDump, *frames: int) -> list[bool]:
    return found.absent_frames(np.array(frames, np.int64), PAGE).tolist()


def filtered(found: ElfDump, *frames: int) -> list[bool]:
    return found.filtered_frames(np.array(frames, np.int64), PAGE).tolist()


def test_frames_of_segments_are_there_and_no_others(tmp_path: Path) -> None:
    found = dump(
        tmp_path / "vmcore",
        [
            (PT_NOTE, PAGE, 0x50 * PAGE, 0x50 * PAGE, PAGE, PAGE),
            load(0x900 * PAGE, 0x20 * PAGE, 2 * PAGE),
            load(0x100 * PAGE, 0x10 * PAGE, PAGE),
        ],
    )
    # Also those that are there in part only.
    assert absent(found, 0xF, 0x10, 0x11, 0x1F, 0x20, 0x21, 0x22, 0x50) == [
        *(True, False, True),
        *(True, False, False, True),
        True,
    ]
    assert touched(found, 0xFF, 0x100, 0x101, 0x8FF, 0x900, 0x901, 0x902) == [
        *(False, True, False),
        *(False, True, True, False),
    ]
    assert not found.reads_zeros


def test_memory_without_contents_is_absent_and_reads_as_zeros(tmp_path: Path) -> None:
    found = dump(tmp_path / "vmcore", [load(0x100 * PAGE, 0x10 * PAGE, PAGE + 1, 4 * PAGE)])
    assert found.reads_zeros
    assert absent(found, 0x10, 0x11, 0x12, 0x13) == [False, False, True, True]
    start = np.array([0x100, 0x103, 0x104], np.uint64) * np.uint64(PAGE)
    promised = found.promised.touch(start, start + np.uint64(PAGE))
    assert promised.tolist() == [True, True, False]


def test_overlapping_segments_are_one(tmp_path: Path) -> None:
    # The short one begins later and ends earlier.
    found = dump(tmp_path / "vmcore", [load(0, PAGE, 8 * PAGE), load(0, 2 * PAGE, PAGE)])
    assert absent(found, 0, 1, 4, 8, 9) == [True, False, False, False, True]


def test_physical_addresses_of_zero_everywhere_say_nothing(tmp_path: Path) -> None:
    # As /proc/kcore had it before Linux kernel commit 464920104bf7 ("/proc/kcore: update
    # physical address for kcore ram and text") (in v4.11), which drgn sees the same way.
    found = dump(tmp_path / "vmcore", [load(0x100 * PAGE, 0, PAGE), load(0x900 * PAGE, 0, PAGE)])
    assert absent(found, 0, 1, 0x100) == [False] * 3
    assert touched(found, 0x100, 0x101) == [True, False]


def test_segment_without_physical_address_has_no_frame(tmp_path: Path) -> None:
    segments = [load(0x100 * PAGE, NO_ADDRESS, PAGE), load(0x900 * PAGE, 0x10 * PAGE, PAGE)]
    found = dump(tmp_path / "vmcore", segments)
    assert absent(found, 0x10, 0x11, NO_ADDRESS // PAGE) == [False, True, True]
    assert touched(found, 0x100) == [True]


def test_segments_end_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "vmcore"
    segments = [
        load(0, 0x10 * PAGE, 8 * PAGE, offset=PAGE),
        load(0, 0x20 * PAGE, PAGE, offset=9 * PAGE),
    ]
    found = dump(path, segments, size=5 * PAGE)
    assert absent(found, 0x13, 0x14, 0x20) == [False, True, True]
    assert end_of(path) == (5 * PAGE, 10 * PAGE)


def test_file_that_is_whole_is_as_long_as_it_claims(tmp_path: Path) -> None:
    path = elf(
        tmp_path / "vmcore", [load(0, PAGE, PAGE), load(0, 2 * PAGE, 0, PAGE, offset=1 << 40)]
    )
    # What has no contents may begin anywhere.
    assert end_of(path) == (1 << 20, 2 * PAGE)


def test_file_without_contents_has_no_end(tmp_path: Path) -> None:
    assert end_of(elf(tmp_path / "vmcore", [load(0, PAGE, 0, PAGE)])) is None


def test_end_beyond_all_files_is_the_last_address(tmp_path: Path) -> None:
    path = elf(tmp_path / "vmcore", [load(0, PAGE, NO_ADDRESS, offset=PAGE)])
    assert end_of(path) == (1 << 20, NO_ADDRESS)


def test_segment_that_ends_beyond_the_address_space_is_cut_there(tmp_path: Path) -> None:
    last = (1 << 64) // PAGE - 1
    found = dump(tmp_path / "vmcore", [load(last * PAGE, PAGE, PAGE, 1 << 63)])
    assert found.virtual.first(0) == last * PAGE
    assert found.promised.first(0) == last * PAGE


def test_more_segments_than_fit_into_the_header(tmp_path: Path) -> None:
    segments = [load(0, (i + 1) * 2 * PAGE, PAGE) for i in range(70000)]
    path = elf(tmp_path / "vmcore", segments, extended=True, size=1 << 23)
    found = read_elf_dump(path)
    assert found is not None
    assert absent(found, 2, 3, 140000, 140001) == [False, True, False, True]


@pytest.mark.parametrize("ident", [ELF64_MSB, ELF32_LSB, b"\x7fELG\x02\x01"])
def test_other_machines_are_none(ident: bytes, tmp_path: Path) -> None:
    path = elf(tmp_path / "vmcore", [load(0, PAGE, PAGE)], ident=ident)
    assert read_elf_dump(path) is None


def test_program_headers_of_another_size_are_none(tmp_path: Path) -> None:
    assert read_elf_dump(elf(tmp_path / "vmcore", [load(0, PAGE, PAGE)], phentsize=64)) is None


def test_file_without_segments_is_none(tmp_path: Path) -> None:
    assert read_elf_dump(elf(tmp_path / "vmcore", [(PT_NULL, 0, 0, 0, PAGE, PAGE)])) is None


def test_other_files_are_none(tmp_path: Path) -> None:
    kdump = write_kdump(Machine(), tmp_path / "kdump")
    for path in (kdump, tmp_path, tmp_path / "missing"):
        assert read_elf_dump(path) is None


@pytest.mark.parametrize("size", [0, 5, 63, 64, 119])
def test_file_that_ends_before_its_first_program_header_is_none(size: int, tmp_path: Path) -> None:
    path = elf(tmp_path / "vmcore", [load(0, PAGE, PAGE)])
    path.write_bytes(path.read_bytes()[:size])
    assert read_elf_dump(path) is None


def flattened(path: Path, pieces: Sequence[tuple[int, bytes]]) -> Path:
    """As ``makedumpfile -F`` writes: a header of a page, and pieces behind offset and size."""
    raw = b"makedumpfile\0\0\0\0".ljust(PAGE, b"\0")
    for offset, data in pieces:
        raw += struct.pack(">qq", offset, len(data)) + data
    path.write_bytes(raw + struct.pack(">qq", -1, -1))
    return path


def test_later_piece_of_a_flattened_dump_counts(tmp_path: Path) -> None:
    before = elf(tmp_path / "a", [load(0, 0x10 * PAGE, 4 * PAGE)]).read_bytes()[:PAGE]
    after = elf(tmp_path / "b", [load(0, 0x10 * PAGE, PAGE, 4 * PAGE)]).read_bytes()[64:120]
    path = flattened(tmp_path / "flat", [(0, before), (PAGE, bytes(PAGE)), (64, after)])
    found = read_elf_dump(path)
    assert found is not None
    assert found.reads_zeros
    assert absent(found, 0x10, 0x11) == [False, True]
    # The size of the file is not that of the dump.
    assert end_of(path) is None


def test_flattened_dump_that_is_cut_off_is_read_up_to_there(tmp_path: Path) -> None:
    raw = elf(tmp_path / "a", [load(0, 0x10 * PAGE, PAGE), load(0, 0x20 * PAGE, PAGE)]).read_bytes()
    path = flattened(tmp_path / "flat", [(0, raw[:64]), (64, raw[64:176])])
    path.write_bytes(path.read_bytes()[: PAGE + 16 + 64 + 16 + 60])
    found = read_elf_dump(path)
    assert found is not None
    assert absent(found, 0x10, 0x20) == [False, True]


_SPANS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 12)).map(lambda s: (s[0], s[0] + s[1])), max_size=8
)


@given(_SPANS, st.integers(0, 60), st.integers(1, 20))
def test_addresses_are_those_of_any_segment(
    tmp_path_factory: pytest.TempPathFactory, spans: list[tuple[int, int]], start: int, size: int
) -> None:
    covered = sorted({address for a, b in spans for address in range(a, b)})
    path = tmp_path_factory.mktemp("elf") / "vmcore"
    found = dump(path, [load(a, NO_ADDRESS, b - a) for a, b in (*spans, (60, 61))])
    covered.append(60)
    asked = np.array([start], np.uint64), np.array([start + size], np.uint64)
    assert found.virtual.touch(*asked).tolist() == [any(start <= n < start + size for n in covered)]
    assert found.virtual.first(start) == next((n for n in covered if n >= start), None)


def test_frames_that_headers_leave_empty_are_filtered_and_cut_ones_are_not(tmp_path: Path) -> None:
    segments = [
        load(0, 0x10 * PAGE, PAGE, 3 * PAGE),
        # Another segment has one of them.
        load(0, 0x12 * PAGE, PAGE),
        load(0, 0x20 * PAGE, 8 * PAGE, offset=PAGE),
        load(0, NO_ADDRESS, 0, PAGE),
        load(0, NO_ADDRESS - PAGE, 2 * PAGE, 3 * PAGE),
    ]
    found = dump(tmp_path / "vmcore", segments, size=4 * PAGE)
    assert filtered(found, 0x10, 0x11, 0x12, 0x13) == [False, True, False, False]
    # The file ends in the third segment.
    assert absent(found, 0x22, 0x23, 0x27, 0x28) == [False, True, True, True]
    assert filtered(found, 0x22, 0x23, 0x27, 0x28, 0, 1) == [False] * 6
