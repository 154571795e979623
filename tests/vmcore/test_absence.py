# SPDX-License-Identifier: LGPL-2.1-or-later

"""
What a dump says that it does not hold, against what drgn and libkdumpfile can read of
it; and struct pages of which much is missing. No program here has symbols.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drgn import FaultError, Program
from support.dumpfiles import PAGE, VMEMMAP, Machine, write_elf, write_kdump
from support.fakekernel import FakeKernel

from drgn_zonedev.kernel.memmap import (
    PageLayout,
    Pages,
    UnreadablePages,
    page_layout,
    read_blocks,
    read_pages,
)
from drgn_zonedev.vmcore import absence, pagetables, raw
from drgn_zonedev.vmcore import reads as reading
from drgn_zonedev.vmcore.absence import absent_pages, next_present_page
from drgn_zonedev.vmcore.kdump import read_kdump_header
from drgn_zonedev.vmcore.left_out import (
    absent_frames,
    filtered_frames,
    frames_in_other_parts,
    leaves_something_out,
)
from drgn_zonedev.vmcore.pagetables import next_mapped
from drgn_zonedev.vmcore.reads import first_unreadable, read_memory

Write = Callable[[Machine, Path], Path]

PART = (0x2000, 0x5000)
FORMS: dict[str, Write] = {
    "elf": write_elf,
    "elf-holes": lambda machine, path: write_elf(machine, path, holes=True),
    "kdump": write_kdump,
    "kdump-one-bitmap": lambda machine, path: write_kdump(machine, path, bitmaps=1),
    "kdump-part": lambda machine, path: write_kdump(machine, path, part=PART),
}
each_form = pytest.mark.parametrize("form", FORMS)
without_part = pytest.mark.parametrize("form", [form for form in FORMS if form != "kdump-part"])


def open_dump(path: Path) -> Program:
    prog = Program()
    prog.set_core_dump(path)
    return prog


def layout_of(size: int = 64) -> PageLayout:
    kernel = FakeKernel("6.1")
    kernel.section(0)
    return dataclasses.replace(page_layout(kernel.program()), size=size, vmemmap=VMEMMAP)


def scattered(rng: random.Random) -> Machine:
    machine = Machine()
    for frame in rng.sample(range(0x1000, 0x2800), 2000):
        machine.frames[frame] = bytearray([rng.randrange(1, 256)]) * PAGE
    machine.lose(*rng.sample(range(0x1000, 0x2800), 3000))
    machine.lost &= machine.frames.keys()
    return machine


@each_form
def test_absent_frames_are_those_that_drgn_cannot_read(form: str, tmp_path: Path) -> None:
    machine = scattered(random.Random(form))
    prog = open_dump(FORMS[form](machine, tmp_path / "dump"))
    asked = np.array([*range(0xF00, 0x3100), (1 << 20) - 1, 1 << 20, 1 << 40])
    absent = absent_frames(prog, asked)
    assert 0 < absent.sum() < len(asked)
    for frame, is_absent in zip(asked.tolist(), absent.tolist()):
        try:
            raw = prog.read(frame * PAGE, PAGE, True)
        except FaultError:
            assert is_absent, hex(frame)
        else:
            hole = form == "elf-holes" and frame in machine.lost
            assert is_absent == hole, hex(frame)
            assert not hole or raw == bytes(PAGE)
    assert leaves_something_out(prog) == (form == "elf-holes")
    kept = np.isin(asked, machine.kept()) & ((asked < PART[0]) | (asked >= PART[1]))
    elsewhere = kept if form == "kdump-part" else np.zeros(len(asked), bool)
    assert frames_in_other_parts(prog, asked).tolist() == elsewhere.tolist()
    # An ELF dump without a segment does not say whether there was any memory.
    out = absent & (asked < 1 << 20) & ~elsewhere
    holes = out & np.isin(asked, sorted(machine.lost))
    filtered = {"elf": np.zeros(len(asked), bool), "elf-holes": holes}.get(form, out)
    assert filtered_frames(prog, asked).tolist() == filtered.tolist()
    # In any order, and more than once.
    order = np.random.default_rng(1).integers(0, len(asked), 5000)
    assert absent_frames(prog, asked[order]).tolist() == absent[order].tolist()
    assert absent_frames(prog, asked[:0]).tolist() == []


def test_bits_that_the_file_does_not_have_any_more_are_not_believed(tmp_path: Path) -> None:
    path = write_kdump(scattered(random.Random(1)), tmp_path / "dump")
    header = read_kdump_header(path)
    assert header is not None
    frames = np.arange(0x1000, 0x2000)
    told = header.absent_frames(frames, PAGE)
    assert told.any()
    with path.open("r+b") as file:
        file.truncate(header.offset + 0x1800 // 8)
    assert header.absent_frames(frames, PAGE)[:0x800].tolist() == told[:0x800].tolist()
    assert not header.absent_frames(frames, PAGE)[0x800:].any()
    path.unlink()
    assert not header.absent_frames(frames, PAGE).any()


@pytest.mark.parametrize(
    ("offset", "value"),
    [(428, b"\0\0\0\0"), (428, b"\xff\xff\xff\xff"), (428, b"\0\0\0\x7f"), (432, b"\xff" * 4)],
    ids=["no blocks", "negative blocks", "huge blocks", "negative header"],
)
def test_headers_that_make_no_sense_tell_nothing(tmp_path: Path, offset: int, value: bytes) -> None:
    path = write_kdump(scattered(random.Random(1)), tmp_path / "dump")
    raw = bytearray(path.read_bytes())
    raw[offset : offset + 4] = value
    path.write_bytes(raw)
    assert read_kdump_header(path) is None


@pytest.mark.parametrize("seed", range(40))
def test_headers_of_noise_do_no_harm(tmp_path: Path, seed: int) -> None:
    rng, path = random.Random(seed), tmp_path / "dump"
    raw = bytearray(write_kdump(scattered(rng), path).read_bytes())
    for _ in range(6):
        offset = rng.choice([*range(8, 12), *range(428, 448), *range(PAGE, PAGE + 104)])
        raw[offset] = rng.randrange(256)
    path.write_bytes(raw)
    header = read_kdump_header(path)
    if header is not None:
        frames = np.array([0, 1, 0x1000, 1 << 30, (1 << 52) - 1])
        assert len(header.absent_frames(frames, header.page_size)) == 5


def test_a_live_program_and_one_without_a_file_lack_nothing() -> None:
    prog = FakeKernel("6.1").program()
    assert not absent_frames(prog, np.arange(9)).any()
    assert not absent_pages(prog, VMEMMAP // PAGE, VMEMMAP // PAGE + 9).any()


def test_memory_behind_the_end_of_the_file_is_absent(tmp_path: Path) -> None:
    path = write_elf(scattered(random.Random(1)), tmp_path / "dump")
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - 5 * PAGE)
    prog = open_dump(path)
    frames = np.arange(0xF00, 0x3100)
    for frame, absent in zip(frames.tolist(), absent_frames(prog, frames).tolist()):
        try:
            read_memory(prog, frame * PAGE, PAGE, True)
        except FaultError:
            assert absent
        else:
            assert not absent


# Struct pages.

FIRST = 0x100000
"""The first PFN whose struct pages are looked at."""


@dataclasses.dataclass
class Memmap:
    """A machine with pages of vmemmap, and which of them can be read."""

    machine: Machine
    readable: np.ndarray
    contents: bytes


def some_memmap(rng: random.Random, pages: int, tables_are_lost: bool = True) -> Memmap:
    """Pages of vmemmap with words that are never all zero, in runs of all kinds."""
    machine = Machine(next_table=0x3000)
    start = VMEMMAP + FIRST * 64
    readable, contents = np.zeros(pages, bool), bytearray()
    kind = "kept"
    for i in range(pages):
        if rng.random() < 0.15:
            kind = rng.choice(["kept", "kept", "lost", "unmapped", "nowhere", "zeros"])
        frame = 0x4000 + i
        raw = bytes([0] if kind == "zeros" else [1 + i % 255]) * PAGE
        contents += raw
        if kind != "unmapped":
            machine.map(start + i * PAGE, 0x9000000 if kind == "nowhere" else frame)
        if kind in ("kept", "zeros", "lost"):
            machine.frames[frame] = bytearray(raw)
        if kind == "lost":
            machine.lose(frame)
        readable[i] = kind in ("kept", "zeros")
    if tables_are_lost and pages > 1024:
        table = machine.table(start + 512 * PAGE, 1)
        machine.lose(table)
        readable[512:1024] = False
    return Memmap(machine, readable, bytes(contents))


@without_part
@pytest.mark.parametrize("size", [64, 72])
@pytest.mark.parametrize("seed", range(3))
def test_struct_pages_that_are_there_are_read_and_no_others(
    form: str, size: int, seed: int, tmp_path: Path
) -> None:
    rng, layout = random.Random(f"{size} {seed}"), layout_of(size)
    # The struct page of the first PFN begins a page for either size.
    base = VMEMMAP + FIRST * 64
    layout = dataclasses.replace(layout, vmemmap=base - FIRST * size)
    memmap = some_memmap(rng, 1200)
    prog = open_dump(FORMS[form](memmap.machine, tmp_path / "dump"))
    number = 1200 * PAGE // size
    begin = np.arange(number) * size
    expected = memmap.readable[begin // PAGE] & memmap.readable[(begin + size - 1) // PAGE]
    seen: list[list[tuple[int, int, int, str]]] = []
    for chunk in (1 << 20, 16384, 4096, 100, 64, 63):
        found, gaps, at = np.zeros(number, bool), [], FIRST
        for part in read_pages(prog, FIRST, FIRST + number, chunk=chunk, layout=layout):
            assert part.start_pfn == at
            at = part.end_pfn
            if isinstance(part, UnreadablePages):
                gaps.append((part.start_pfn, part.end_pfn, part.address, part.reason))
                continue
            assert len(part.words) == part.end_pfn - part.start_pfn <= chunk
            first, end = part.start_pfn - FIRST, part.end_pfn - FIRST
            found[first:end] = True
            assert part.words.tobytes() == memmap.contents[first * size : end * size]
        assert at == FIRST + number
        assert found.tolist() == expected.tolist()
        seen.append(gaps)
    # Gaps are the same for every chunk size, and so are the words.
    assert all(gaps == seen[0] for gaps in seen)
    for start, end, address, _ in seen[0]:
        assert layout.page_address(start) <= address < layout.page_address(end)


@without_part
def test_words_of_gaps_tell_what_was_left_out(form: str, tmp_path: Path) -> None:
    machine = Machine()
    machine.map(VMEMMAP + FIRST * 64, 0x4000)
    machine.frames[0x4000] = bytearray(b"x") * PAGE
    machine.lose(0x4000)
    prog = open_dump(FORMS[form](machine, tmp_path / "dump"))
    (gap,) = read_pages(prog, FIRST, FIRST + 64, layout=layout_of())
    assert isinstance(gap, UnreadablePages)
    words = {"elf": "could not find", "elf-holes": "left out of the dump: 0x"}
    assert words.get(form, "Excluded page") in gap.reason


def huge(gib: int) -> Machine:
    """Device memory whose memmap is on the device, mapped by pages of 2 MiB."""
    machine = Machine(next_table=0x3000)
    for i in range(gib * 8):
        machine.map_huge(VMEMMAP + FIRST * 64 + i * (2 << 20), 0x4000000 + i * 512)
    # Something of it is there: in the middle, and in the dump.
    machine.frames[0x4000000 + gib * 4 * 512] = bytearray(b"x") * PAGE
    return machine


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Get a list that grows with each read, of page tables or of what they map."""
    reads: list[int] = []

    def counted(*args: object) -> bytes:
        reads.append(1)
        return read_raw(*args)  # type: ignore[arg-type]

    read_raw = raw.read_raw
    monkeypatch.setattr(reading, "read_raw", counted)
    monkeypatch.setattr(pagetables, "read_raw", counted)
    return reads


@without_part
def test_missing_memmap_is_not_probed_page_by_page(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gib = 64
    write = FORMS[form]
    if form.startswith("kdump"):
        number = 1 if form.endswith("bitmap") else 2

        def write(machine: Machine, path: Path) -> Path:
            return write_kdump(machine, path, max_pfn=0x4000000 + (1 << 20), bitmaps=number)

    prog = open_dump(write(huge(gib), tmp_path / "dump"))
    reads = count_reads(monkeypatch)
    pages = gib << 18
    parts = list(read_pages(prog, FIRST, FIRST + pages, layout=layout_of()))
    # Of the 262144 pages of memmap, one is there.
    middle = FIRST + pages // 2
    spans = [(p.start_pfn, p.end_pfn, isinstance(p, Pages)) for p in parts]
    assert spans == [
        (FIRST, middle, False),
        (middle, middle + 64, True),
        (middle + 64, FIRST + pages, False),
    ]
    # Page tables, most of all: four for each 128 MiB of it.
    assert len(reads) < 8 * pages * 64 / (128 << 20) + 100


@without_part
@pytest.mark.parametrize("seed", range(3))
def test_next_present_page_is_the_first_that_is_not_absent(
    form: str, seed: int, tmp_path: Path
) -> None:
    memmap = some_memmap(random.Random(seed), 1200)
    prog = open_dump(FORMS[form](memmap.machine, tmp_path / "dump"))
    first = (VMEMMAP + FIRST * 64) // PAGE - 5
    end = first + 1210
    present = [first + i for i, absent in enumerate(absent_pages(prog, first, end)) if not absent]
    assert 100 < len(present) < 1100
    for page in range(first, end + 1):
        expected = next((p for p in present if p >= page), end)
        assert next_present_page(prog, page, end) == expected


def test_next_present_page_of_a_dump_by_virtual_addresses(tmp_path: Path) -> None:
    # Like an export: no page tables.
    first, machine = 0xFFFF888000000000 // PAGE, Machine()
    machine.lose(*machine.frames)
    machine.frames.update((i, bytearray(PAGE)) for i in (3, 4, 1 << 20))
    prog = open_dump(write_elf(machine, tmp_path / "dump"))
    for page, expected in ((0, 3), (3, 3), (4, 4), (5, 1 << 20), ((1 << 20) + 1, 1 << 24)):
        assert next_present_page(prog, first + page, first + (1 << 24)) == first + expected
    assert next_present_page(prog, first + 5, first + 9) == first + 9
    # The last page of all, and what no address is.
    assert next_present_page(prog, (1 << 52) - 1, 1 << 52) == 1 << 52
    assert next_present_page(prog, 1 << 52, (1 << 52) + 5) == (1 << 52) + 5


@without_part
@pytest.mark.parametrize("tells", [True, False])
def test_gap_as_large_as_memory_can_be_takes_no_time(
    form: str, tells: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(next_table=0x3000)
    last = (1 << 34) - 64
    for pfn in (FIRST, last):
        machine.map(VMEMMAP + pfn * 64, 0x4000)
    machine.frames[0x4000] = bytearray(b"x") * PAGE
    prog = open_dump(FORMS[form](machine, tmp_path / "dump"))
    reads = count_reads(monkeypatch)
    if not tells:
        # As of a guest, or of a flattened dump.
        monkeypatch.setattr(absence, "tells_what_is_absent", lambda prog: False)
    parts = list(read_pages(prog, FIRST, 1 << 34, layout=layout_of()))
    spans = [(p.start_pfn, p.end_pfn, isinstance(p, Pages)) for p in parts]
    assert spans == [
        (FIRST, FIRST + 64, True),
        (FIRST + 64, last, False),
        (last, 1 << 34, True),
    ]
    # Who is not told looks for the borders page by page, within a MiB.
    assert len(reads) < (100 if tells else 1200)


@without_part
@pytest.mark.parametrize("tells", [True, False])
def test_page_whose_table_is_lost_may_be_mapped(
    form: str, tells: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, machine = VMEMMAP // PAGE, Machine(next_table=0x3000)
    for i in (5, 600):
        machine.map((first + i) * PAGE, 0x4000)
    machine.lose(machine.table((first + 512) * PAGE, 1))
    prog = open_dump(FORMS[form](machine, tmp_path / "dump"))
    assert next_mapped(prog, first, first + 2048) == first + 5
    assert next_mapped(prog, first + 6, first + 2048) == first + 512
    assert next_mapped(prog, first + 1024, first + 2048) == first + 2048
    # Of a dump, it is not to be had: drgn needs the same table.
    monkeypatch.setattr(absence, "tells_what_is_absent", lambda prog: tells)
    assert next_present_page(prog, first + 6, first + 2048) == first + (2048 if tells else 512)
    with pytest.raises(FaultError):
        prog.read((first + 600) * PAGE, 8)


@pytest.mark.parametrize("tells", [True, False])
def test_without_page_tables_only_a_dump_lacks_everything(
    tells: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine()
    machine.lose(*machine.frames)
    machine.frames[0x4000] = bytearray(PAGE)
    prog = open_dump(write_elf(machine, tmp_path / "dump"))
    first = VMEMMAP // PAGE
    with pytest.raises(FaultError):
        next_mapped(prog, first, first + 9)
    monkeypatch.setattr(absence, "tells_what_is_absent", lambda prog: tells)
    assert next_present_page(prog, first, first + 9) == first + (9 if tells else 0)


# What an ELF dump leaves out reads as zeros.


def holey(tmp_path: Path) -> tuple[Machine, Program]:
    machine = Machine()
    for i, byte in enumerate(b"a\0b\0\0c"):
        machine.frames[0x4000 + i] = bytearray([byte]) * PAGE
        machine.map(VMEMMAP + i * PAGE, 0x4000 + i)
    machine.lose(0x4001, 0x4003)
    return machine, open_dump(write_elf(machine, tmp_path / "dump", holes=True))


@pytest.mark.parametrize(
    ("address", "size", "bad"),
    [
        (0, 16, None),
        (PAGE - 8, 8, None),
        (PAGE - 8, 9, PAGE),
        (PAGE, 16, PAGE),
        (PAGE + 8, 16, PAGE + 8),
        (PAGE + 8, PAGE, PAGE + 8),
        (2 * PAGE - 1, 2, 2 * PAGE - 1),
        (2 * PAGE, PAGE, None),
        (2 * PAGE, 2 * PAGE, 3 * PAGE),
        (4 * PAGE, PAGE, None),
        (4 * PAGE + 1, 2 * PAGE - 1, None),
        (0, 6 * PAGE, PAGE),
        (8, 6 * PAGE - 16, PAGE),
        (2 * PAGE + 5, 4 * PAGE - 9, 3 * PAGE),
        (PAGE, 0, None),
    ],
)
def test_what_was_left_out_faults(address: int, size: int, bad: int | None, tmp_path: Path) -> None:
    _, prog = holey(tmp_path)
    for base, physical in ((VMEMMAP, False), (0x4000 * PAGE, True)):
        if bad is None:
            assert read_memory(prog, base + address, size, physical) == prog.read(
                base + address, size, physical
            )
            continue
        with pytest.raises(FaultError, match="left out of the dump") as e:
            read_memory(prog, base + address, size, physical)
        assert e.value.address == base + bad
    unreadable = first_unreadable(prog, VMEMMAP + address, size)
    assert unreadable == (None if bad is None else VMEMMAP + bad)


def test_blocks_that_were_left_out_fault(tmp_path: Path) -> None:
    _, prog = holey(tmp_path)
    layout = layout_of()
    assert len(read_blocks(prog, layout, [0, 128, 256], 64)) == 3 * PAGE
    with pytest.raises(FaultError, match="left out of the dump"):
        read_blocks(prog, layout, [0, 64], 64)
