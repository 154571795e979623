# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A stored dump as the fuzzer sees it: a file, its segments, and the words that the
analysis reads.
"""

from __future__ import annotations

import contextlib
import logging
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from drgn import FaultError, Program

from drgn_zonedev.explain import explain
from drgn_zonedev.report import check
from drgn_zonedev.sections import section_rows
from drgn_zonedev.snapshot import take_snapshot

__all__ = ("Image", "Span")

_PHDR = struct.Struct("<IIQQQQQQ")
_PT_LOAD, _PT_NOTE = 1, 4
_KERNEL_HALF = 1 << 63
_END = (1 << 64) - 1


@dataclass(frozen=True)
class Span:
    """Bytes of the file, and their address in memory."""

    offset: int
    address: int
    size: int


@dataclass(frozen=True)
class Image:
    """An unpacked stored dump."""

    name: str
    directory: Path

    @property
    def vmcore(self) -> Path:
        return self.directory / "vmcore"

    @property
    def vmlinux(self) -> Path:
        return self.directory / "vmlinux"

    def contents(self) -> bytes:
        """The whole file. It is not kept: there are many dumps."""
        return self.vmcore.read_bytes()

    @cached_property
    def size(self) -> int:
        return self.vmcore.stat().st_size

    @cached_property
    def headers(self) -> Span:
        """The ELF header and the program headers."""
        return Span(0, 0, 64 + self._phnum * _PHDR.size)

    @property
    def _phnum(self) -> int:
        with self.vmcore.open("rb") as f:
            return int(struct.unpack_from("<H", f.read(64), 56)[0])

    @cached_property
    def note(self) -> Span:
        """VMCOREINFO, with the head of its note."""
        offset, size = next((o, n) for kind, o, _, n in self._program_headers() if kind == _PT_NOTE)
        return Span(offset, 0, size)

    @cached_property
    def segments(self) -> tuple[Span, ...]:
        """In ascending order of addresses."""
        return tuple(
            sorted(
                (Span(o, v, n) for kind, o, v, n in self._program_headers() if kind == _PT_LOAD),
                key=lambda s: s.address,
            )
        )

    def _program_headers(self) -> Iterator[tuple[int, int, int, int]]:
        with self.vmcore.open("rb") as f:
            table = f.read(self.headers.size)[64:]
        for kind, _, offset, vaddr, _, filesz, _, _ in _PHDR.iter_unpack(table):
            yield kind, offset, vaddr, filesz

    def find(self, address: int, size: int) -> Span | None:
        """Where memory is in the file."""
        for segment in self.segments:
            if segment.address <= address and address + size <= segment.address + segment.size:
                return Span(segment.offset + address - segment.address, address, size)
        return None

    @contextlib.contextmanager
    def _traced(self) -> Iterator[tuple[Program, set[tuple[int, int]]]]:
        # A second program that sees the memory of the first one.
        source = Program()
        source.set_core_dump(self.vmcore)
        source.load_debug_info([self.vmlinux])
        seen: set[tuple[int, int]] = set()

        def read(address: int, count: int, offset: int, physical: bool) -> bytes:
            data = source.read(address, count, physical)
            if not physical:
                seen.add((address, count))
            return data

        prog = Program(source.platform)
        prog.set_linux_kernel_custom(source["VMCOREINFO"].string_(), False)
        prog.add_memory_segment(0, _END, read, physical=True)
        prog.add_memory_segment(_KERNEL_HALF, _END - _KERNEL_HALF, read)
        prog.load_debug_info([self.vmlinux])
        yield prog, seen

    @cached_property
    def reads(self) -> tuple[Span, ...]:
        """What the analysis reads of the dump as it is, each once."""
        logging.getLogger("drgn").setLevel(logging.CRITICAL)
        with self._traced() as (prog, seen):
            report = check(prog)
            list(section_rows(prog))
            for range_ in report.ranges:
                with contextlib.suppress(FaultError):
                    explain(prog, range_.start_pfn)
        found = (self.find(*span) for span in sorted(seen))
        return tuple(span for span in found if span)

    @cached_property
    def small_reads(self) -> tuple[Span, ...]:
        """Single members of structures, pointers, flags."""
        return tuple(span for span in self.reads if span.size <= 64)

    @cached_property
    def large_reads(self) -> tuple[Span, ...]:
        """Whole structures, tables and arrays, struct pages."""
        return tuple(span for span in self.reads if span.size > 64)

    @cached_property
    def pfns(self) -> tuple[int, ...]:
        """PFNs worth asking about: on both sides of every border between ranges."""
        prog = Program()
        prog.set_core_dump(self.vmcore)
        prog.load_debug_info([self.vmlinux])
        snapshot = take_snapshot(prog)
        edges = {r.start_pfn for p in snapshot.pgmaps for r in p.ranges}
        edges |= {r.end_pfn for p in snapshot.pgmaps for r in p.ranges}
        edges |= {int(nr) * snapshot.geometry.pages_per_section for nr in snapshot.sections.nr}
        return tuple(sorted({max(e + d, 0) for e in edges for d in (-1, 0)}))
