# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Small ELF dumps of an imagined arm64 machine: page tables of any granule and size, as the manual
of the architecture (the VMSAv8-64 translation table format) and the kernel's
``arch/arm64/include/asm/pgtable-hwdef.h`` have them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ("IMAGE", "Arm64Machine")

VALID, TABLE_OR_PAGE = 1, 2
# AF, the inner shareable domain, UXN and PXN: none of them is part of an address.
ATTRIBUTES = 1 << 10 | 1 << 54 | 1 << 53
SHARED = 3 << 8

IMAGE = 0xFFFFFFC008000000
_IMAGE_FRAME = 0x4000
_TOP_FRAME = _IMAGE_FRAME + 3


@dataclass
class Arm64Machine:
    """
    Page tables that map what one likes.

    :param page_shift: 12, 14 or 16
    :param built: VA_BITS of the kernel
    :param running: the bits of addresses that it runs with, if VMCOREINFO says so
    """

    page_shift: int = 12
    built: int = 48
    running: int | None = 48
    frames: dict[int, bytearray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.page = 1 << self.page_shift
        self.frames[_TOP_FRAME] = bytearray(self.page)
        self._known: dict[tuple[int, int], int] = {}
        self._next = 0x9000

    @property
    def bits(self) -> int:
        """
        The bits of addresses that the tables translate: with pages of 64K, always those that the
        kernel was built for.
        """
        return self.built if self.page_shift == 16 else self.running or self.built

    @property
    def levels(self) -> int:
        return -(-(self.bits - self.page_shift) // (self.page_shift - 3))

    @property
    def base(self) -> int:
        """Number of the first page that the top maps."""
        return (1 << 64) - (1 << (self.running or self.built)) >> self.page_shift

    def entry(self, frame: int, level: int, *, block: bool = False) -> int:
        """The entry of a level (1 maps pages) that leads to a frame."""
        address = frame << self.page_shift
        low, high = address & (1 << 48) - 1, address >> 48
        if self.page_shift == 16:
            place = low | high << 12
        elif self.bits == 52:
            place = low | (high & 3) << 48 | (high >> 2) << 8
        else:
            assert not high
            place = low
        shared = 0 if self.bits == 52 and self.page_shift != 16 else SHARED
        kind = VALID if block and level > 1 else VALID | TABLE_OR_PAGE
        return place | kind | ATTRIBUTES | shared

    def map(self, page: int, frame: int, level: int = 1) -> None:
        """Map a page by an entry of a level; above 1, it is a block."""
        self.enter(page, level, self.entry(frame, level, block=True))

    def enter(self, page: int, level: int, entry: int) -> None:
        """Set the entry of a level that translates a page."""
        table = self.frames[self.table(page, level)]
        bits = self.page_shift - 3
        number = page & (1 << self.bits - self.page_shift) - 1
        index = number >> bits * (level - 1)
        if level < self.levels:
            index &= (1 << bits) - 1
        struct.pack_into("<Q", table, 8 * index, entry)

    def table(self, page: int, level: int) -> int:
        """Get the frame of the table of a level that translates a page."""
        if level == self.levels:
            return _TOP_FRAME
        number = page & (1 << self.bits - self.page_shift) - 1
        key = level, number >> (self.page_shift - 3) * level
        if key not in self._known:
            self._known[key], self._next = self._next, self._next + 1
            self.frames[self._known[key]] = bytearray(self.page)
            self.enter(page, level + 1, self.entry(self._known[key], level + 1))
        return self._known[key]

    def vmcoreinfo(self) -> str:
        top = IMAGE + (_TOP_FRAME - _IMAGE_FRAME) * self.page
        lines = [
            "OSRELEASE=6.12.0-imagined",
            f"PAGESIZE={self.page}",
            f"SYMBOL(swapper_pg_dir)={top:x}",
            f"SYMBOL(_stext)={IMAGE:x}",
            "NUMBER(SECTION_SIZE_BITS)=27",
            "NUMBER(MAX_PHYSMEM_BITS)=52",
            f"NUMBER(VA_BITS)={self.built}",
            f"NUMBER(kimage_voffset)=0x{IMAGE - _IMAGE_FRAME * self.page:x}",
            "NUMBER(PHYS_OFFSET)=0x40000000",
            "KERNELOFFSET=0",
        ]
        if self.running is not None:
            lines.append(f"NUMBER(TCR_EL1_T1SZ)=0x{64 - self.running:x}")
        return "\n".join(lines) + "\n"

    def write(self, path: Path) -> Path:
        """Write an ELF dump."""
        info = self.vmcoreinfo().encode()
        note = struct.pack("<III", 11, len(info), 0) + b"VMCOREINFO\0\0" + info
        note += bytes(-len(note) % 4)
        offset = 64 + 56 * (len(self.frames) + 1)
        data = offset + len(note) + -(offset + len(note)) % self.page
        headers = [struct.pack("<IIQQQQQQ", 4, 0, offset, 0, 0, len(note), len(note), 4)]
        contents = b""
        for number, frame in sorted(self.frames.items()):
            address = number * self.page
            place = data + len(contents)
            headers.append(
                struct.pack("<IIQQQQQQ", 1, 7, place, 0, address, self.page, self.page, self.page)
            )
            contents += frame
        ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
        header = struct.pack(
            "<HHIQQQIHHHHHH", 4, 183, 1, 0, 64, 0, 0, 64, 56, len(headers), 0, 0, 0
        )
        path.write_bytes((ident + header + b"".join(headers) + note).ljust(data, b"\0") + contents)
        return path
