# SPDX-License-Identifier: LGPL-2.1-or-later

"""The few structures of 64-bit ELF that an export is made of, in either byte order."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from drgn import Architecture, Platform, PlatformFlags

__all__ = (
    "EHDR_SIZE",
    "ET_CORE",
    "ET_EXEC",
    "PHDR_SIZE",
    "PN_XNUM",
    "PT_LOAD",
    "PT_NOTE",
    "SHDR_SIZE",
    "Encoding",
    "Segment",
)

ET_EXEC, ET_CORE = 2, 4
PT_LOAD, PT_NOTE = 1, 4
PN_XNUM = 0xFFFF
EHDR_SIZE, PHDR_SIZE, SHDR_SIZE = 64, 56, 64

# EM_* of include/uapi/linux/elf-em.h.
_MACHINES = {
    Architecture.X86_64: 62,
    Architecture.AARCH64: 183,
    Architecture.PPC64: 21,
    Architecture.RISCV64: 243,
    Architecture.S390X: 22,
}


@dataclass(frozen=True)
class Segment:
    """A program header."""

    type: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    align: int = 0


class Encoding:
    """How a platform writes ELF."""

    def __init__(self, platform: Platform) -> None:
        if not platform.flags & PlatformFlags.IS_64_BIT or platform.arch not in _MACHINES:
            raise ValueError(f"{platform.arch.name} kernels cannot be exported")
        self.machine = _MACHINES[platform.arch]
        self.little = bool(platform.flags & PlatformFlags.IS_LITTLE_ENDIAN)
        self.order = "<" if self.little else ">"

    def pack(self, layout: str, *values: int | bytes) -> bytes:
        """``struct.pack()`` in this byte order, without padding."""
        return struct.pack(self.order + layout, *values)

    def header(
        self, kind: int, phnum: int, shoff: int = 0, shnum: int = 0, shstrndx: int = 0
    ) -> bytes:
        """Return an ELF header, which program headers follow directly."""
        ident = b"\x7fELF" + bytes([2, 1 if self.little else 2, 1, 0]) + bytes(8)
        sizes = (EHDR_SIZE, PHDR_SIZE if phnum else 0, phnum, SHDR_SIZE, shnum, shstrndx)
        phoff = EHDR_SIZE if phnum else 0
        return ident + self.pack("HHIQQQI6H", kind, self.machine, 1, 0, phoff, shoff, 0, *sizes)

    def segment(self, s: Segment) -> bytes:
        """Return a program header. All segments are readable; other flags do not matter."""
        return self.pack(
            "IIQQQQQQ", s.type, 4, s.offset, s.vaddr, s.paddr, s.filesz, s.memsz, s.align
        )

    def section(self, *fields: int) -> bytes:
        """Return a section header: name, type, flags, addr, offset, size, link, info, ..."""
        return self.pack("IIQQQQIIQQ", *fields)

    def note(self, name: bytes, kind: int, desc: bytes) -> bytes:
        """Return a note."""
        name += b"\0"
        head = self.pack("III", len(name), len(desc), kind)
        return head + name + bytes(-len(name) % 4) + desc + bytes(-len(desc) % 4)
