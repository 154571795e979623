# SPDX-License-Identifier: LGPL-2.1-or-later

"""A program that sees what another one sees, and tells what was read of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from drgn import FaultError, Program

_END, _KERNEL_HALF = (1 << 64) - 1, 1 << 63


@dataclass(frozen=True)
class Read:
    """What drgn asked a memory segment for."""

    address: int
    size: int
    physical: bool

    def follows(self, other: Read) -> bool:
        """Return whether this is the next byte of a string, which drgn reads one by one."""
        return self.size == 1 and other.address + other.size == self.address


class CountedReads:
    """Wraps the memory of a program; ``prog`` has *vmlinux* for its symbols."""

    def __init__(self, source: Program, vmlinux: Path) -> None:
        self._source = source
        self.reads: list[Read] = []
        self.prog = Program(source.platform)
        self.prog.set_linux_kernel_custom(source["VMCOREINFO"].string_(), False)
        self.prog.add_memory_segment(0, _END, self._read, physical=True)
        self.prog.add_memory_segment(_KERNEL_HALF, _END - _KERNEL_HALF, self._read)
        self.prog.load_debug_info([vmlinux])
        self.reads.clear()

    def _read(self, address: int, count: int, offset: int, physical: bool) -> bytes:
        self.reads.append(Read(address, count, physical))
        try:
            return self._source.read(address, count, physical)
        except OSError as e:
            raise FaultError(str(e), address) from e

    def of(self, start: int, end: int) -> list[Read]:
        """Reads of virtual memory that touch a range of addresses."""
        return [
            r
            for r in self.reads
            if not r.physical and r.address < end and start < r.address + r.size
        ]

    def strings_once(self) -> list[Read]:
        """All reads; those of one string are one."""
        return [
            read
            for i, read in enumerate(self.reads)
            if not i or not read.follows(self.reads[i - 1])
        ]
