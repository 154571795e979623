# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Small dumps of an imagined x86-64 machine, in ELF and in makedumpfile's format: page
tables that map vmemmap as one likes, and the page frames that one likes.

What drgn and libkdumpfile can read of them is theirs to say.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

PAGE = 4096
VMEMMAP = 0xFFFFEA0000000000
PRESENT, HUGE = 1, 1 << 7
_KERNEL = 0xFFFFFFFF80000000
_TOP = 0x2A0C

_VMCOREINFO = f"""OSRELEASE=6.1.0-imagined
PAGESIZE=4096
SYMBOL(swapper_pg_dir)={_KERNEL + _TOP * PAGE:x}
SYMBOL(_stext)={_KERNEL:x}
LENGTH(mem_section)=2048
SIZE(mem_section)=16
SIZE(page)=64
NUMBER(SECTION_SIZE_BITS)=27
NUMBER(MAX_PHYSMEM_BITS)=46
NUMBER(phys_base)=0
NUMBER(pgtable_l5_enabled)=0
NUMBER(KERNEL_IMAGE_SIZE)=1073741824
NUMBER(sme_mask)=0
KERNELOFFSET=0
"""


@dataclass
class Machine:
    """Page frames by their numbers; those of ``lost`` existed, but are not in the dump."""

    frames: dict[int, bytearray] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)
    next_table: int = 0x3000
    tables: dict[tuple[int, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.frames[_TOP] = bytearray(PAGE)
        self.tables[4, 0] = _TOP
        # The kernel's image, in which the top of the page tables is.
        self.map_huge(_KERNEL + (_TOP * PAGE & ~0x1FFFFF), _TOP & ~0x1FF)

    def map(self, address: int, frame: int) -> None:
        """Map a page."""
        self._enter(address, 1, frame * PAGE | PRESENT)

    def map_huge(self, address: int, frame: int) -> None:
        """Map a page of 2 MiB."""
        self._enter(address, 2, frame * PAGE | PRESENT | HUGE)

    def table(self, address: int, level: int) -> int:
        """Get the frame of the table of a level (1 maps pages) that translates an address."""
        shift = 12 + 9 * level
        key = level, (address & (1 << 48) - 1) >> shift
        if level == 4:
            key = 4, 0
        if key not in self.tables:
            frame, self.next_table = self.next_table, self.next_table + 1
            self.tables[key] = frame
            self.frames[frame] = bytearray(PAGE)
            self._enter(address, level + 1, frame * PAGE | PRESENT)
        return self.tables[key]

    def _enter(self, address: int, level: int, entry: int) -> None:
        table = self.frames[self.table(address, level)]
        struct.pack_into("<Q", table, (address >> 12 + 9 * (level - 1) & 511) * 8, entry)

    def lose(self, *frames: int) -> None:
        """Leave frames out of the dump."""
        self.lost.update(frames)

    def kept(self) -> list[int]:
        """The frames that are in the dump."""
        return sorted(self.frames.keys() - self.lost)


def _note(name: bytes, description: bytes) -> bytes:
    pad = -len(description) % 4
    head = struct.pack("<III", len(name) + 1, len(description), 0)
    return head + (name + b"\0").ljust(12, b"\0") + description + bytes(pad)


def write_elf(machine: Machine, path: Path, *, holes: bool = False) -> Path:
    """
    Write an ELF dump.

    :param holes: What is lost is in a segment without contents, as makedumpfile does it.
    """
    note = _note(b"VMCOREINFO", _VMCOREINFO.encode())
    promised = machine.lost if holes else set()
    numbers = np.array(sorted({*machine.kept(), *promised}))
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    parts = []
    for run in runs:
        there = np.isin(run, machine.kept())
        # Contents first, and what there is none of behind them.
        starts = np.flatnonzero(np.diff(there, prepend=False) & there)
        cuts = starts[starts > 0] if there[0] else starts
        parts += [part for part in np.split(run, cuts) if len(part)]
    offset = 64 + 56 * (len(parts) + 1)
    data = offset + len(note) + -(offset + len(note)) % PAGE
    headers = [struct.pack("<IIQQQQQQ", 4, 0, offset, 0, 0, len(note), len(note), 4)]
    contents = b""
    for part in parts:
        kept = [n for n in part.tolist() if n not in machine.lost]
        raw = b"".join(bytes(machine.frames[n]) for n in kept)
        address, size = int(part[0]) * PAGE, len(part) * PAGE
        place = data + len(contents)
        virtual = 0xFFFF888000000000 + address
        headers.append(
            struct.pack("<IIQQQQQQ", 1, 7, place, virtual, address, len(raw), size, PAGE)
        )
        contents += raw
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, len(headers), 0, 0, 0)
    head = (ident + header + b"".join(headers) + note).ljust(data, b"\0")
    path.write_bytes(head + contents)
    return path


def write_kdump(
    machine: Machine,
    path: Path,
    *,
    max_pfn: int = 1 << 20,
    bitmaps: int = 2,
    part: tuple[int, int] | None = None,
) -> Path:
    """
    Write a dump in makedumpfile's format, its pages as they are.

    :param part: The frames that are in this file, if it is one of a split dump.
    """
    note = _note(b"VMCOREINFO", _VMCOREINFO.encode())
    blocks = -(-max_pfn // (8 * PAGE))
    sub_size = 1 + -(-len(note) // PAGE)
    kept = [n for n in machine.kept() if n < max_pfn]
    if part:
        kept = [n for n in kept if part[0] <= n < part[1]]
    header = bytearray(PAGE)
    struct.pack_into("<8si", header, 0, b"KDUMP   ", 6)
    for i, text in enumerate((b"Linux", b"host", b"6.1.0-imagined", b"#1", b"x86_64", b"")):
        struct.pack_into("65s", header, 12 + 65 * i, text)
    struct.pack_into("<IiiII", header, 424, 0, PAGE, sub_size, bitmaps * blocks, max_pfn)
    sub = bytearray(sub_size * PAGE)
    start, end = part or (0, 0)
    struct.pack_into("<QiiQQ", sub, 0, 0, 0, bool(part), start, end)
    struct.pack_into("<QQQQQQ", sub, 32, 2 * PAGE + 24, len(_VMCOREINFO), 2 * PAGE, len(note), 0, 0)
    struct.pack_into("<QQQ", sub, 80, start, end, max_pfn)
    sub[PAGE : PAGE + len(note)] = note
    bits = np.zeros((bitmaps, blocks * PAGE * 8), np.uint8)
    bits[0, sorted(n for n in machine.frames if n < max_pfn)] = 1
    bits[-1] = 0
    bits[-1, [n for n in machine.kept() if n < max_pfn]] = 1
    bitmap = np.packbits(bits, axis=1, bitorder="little").tobytes()
    descriptors = PAGE * (1 + sub_size + bitmaps * blocks)
    data = descriptors + 24 * len(kept)
    table = b"".join(struct.pack("<QIIQ", data + i * PAGE, PAGE, 0, 0) for i in range(len(kept)))
    contents = b"".join(bytes(machine.frames[n]) for n in kept)
    path.write_bytes(bytes(header + sub) + bitmap + table + contents)
    return path
