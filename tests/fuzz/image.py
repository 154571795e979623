# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A stored dump as the fuzzer sees it: a file, its segments, and the words that the
analysis reads.
"""

from __future__ import annotations

import contextlib
import logging
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from drgn import FaultError, Object, Program, sizeof

from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.classification.section_rows import section_rows
from drgn_zonedev.explanation.explain import explain
from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.kernel.xarray import xa_is_node
from drgn_zonedev.kernel.zones import zones
from drgn_zonedev.opening.core import open_dump
from drgn_zonedev.report import check

__all__ = ("Image", "Span")

_PHDR = struct.Struct("<IIQQQQQQ")
_PT_LOAD, _PT_NOTE = 1, 4
_KERNEL_HALF = 1 << 63
_END = (1 << 64) - 1
# What leads to everything else, and how many bytes of it.
_VARIABLES = {
    "pgmap_array": 16,
    "memory_blocks": 16,
    "mem_section": 8,
    "node_data": 8,
    "__highest_present_section_nr": 8,
    "sections_per_block": 4,
}
# Not the names of modules' sections, which are most strings.
_NAME = re.compile(
    rb"(?<=\x00)(?!\.)"
    rb"(?=[ -~]*(?:Mem|RAM|ROM|Kernel|PCI|DMA|Normal|Dev|Mov|name|pfn|dax|pmem|kmal))"
    rb"[ -~]{3,64}(?=\x00)"
)


@dataclass(frozen=True)
class Span:
    """Bytes of the file, and their address in memory."""

    offset: int
    address: int
    size: int


def _nodes(prog: Program, entry: int) -> Iterator[int]:
    # Of a sound xarray.
    if xa_is_node(entry):
        yield entry - 2
        for slot in Object(prog, "struct xa_node *", entry - 2).slots.value_():
            yield from _nodes(prog, slot)


def _size(prog: Program, name: str) -> int:
    return sizeof(prog.type(name))


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
        source = open_dump(self.vmcore, self.vmlinux)
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
    def structures(self) -> tuple[tuple[Span, ...], ...]:
        """
        What decides: section words, usages, pgmaps, nodes of xarrays, memory blocks,
        zones, struct pages, and the variables that lead there. Each kind is a tuple.
        """
        prog = open_dump(self.vmcore, self.vmlinux)
        snapshot = take_snapshot(prog)
        sections, layout = snapshot.sections, page_layout(prog)
        kinds: list[list[tuple[int, int]]] = [
            [(int(a), _size(prog, "struct mem_section")) for a in sections.address],
            [(int(a), _size(prog, "struct mem_section_usage")) for a in sections.usage],
            [(p.address, _size(prog, "struct dev_pagemap")) for p in snapshot.pgmaps],
            [(int(a), _size(prog, "struct memory_block")) for a in snapshot.memory_blocks.address],
            [
                (node, _size(prog, "struct xa_node"))
                for name in ("pgmap_array", "memory_blocks")
                if name in prog
                for node in _nodes(prog, prog[name].xa_head.value_())
            ],
            [
                *((zone.address, 256) for zone in zones(prog).found[-1:]),
                # There is no pgmap_array without CONFIG_ZONE_DEVICE, no node_data without NUMA.
                *((prog[n].address_, size) for n, size in _VARIABLES.items() if n in prog),
                (prog["mem_section"].value_(), 64),
                (prog["init_mm"].pgd.value_() + 4096 - 512 * 8 // 2, 2048),
            ],
            [
                (layout.page_address(pfn), layout.size)
                for p in snapshot.pgmaps
                for r in p.ranges
                for pfn in (r.start_pfn, r.start_pfn + 1, r.start_pfn + 1024, r.end_pfn - 1)
            ],
        ]
        found = (tuple(s for s in (self._part(*span) for span in kind) if s) for kind in kinds)
        return tuple(kind for kind in found if kind)

    @cached_property
    def names(self) -> tuple[Span, ...]:
        """Strings that are shown: names of devices, resources, zones, symbols, caches."""
        contents = self.contents()
        return tuple(
            Span(match.start(), segment.address + match.start() - segment.offset, len(match[0]))
            for segment in self.segments
            for match in _NAME.finditer(contents, segment.offset, segment.offset + segment.size)
        )

    def _part(self, address: int, size: int) -> Span | None:
        # As much of a structure as the dump has.
        sizes = (size >> i & ~7 for i in range(size.bit_length()))
        spans = (self.find(address, part) for part in sizes if part)
        return self.find(address, size) or next((s for s in spans if s), None)

    @cached_property
    def vmemmap(self) -> int:
        """Where the struct page of PFN 0 would be."""
        return page_layout(open_dump(self.vmcore, self.vmlinux)).vmemmap

    @cached_property
    def pfns(self) -> tuple[int, ...]:
        """PFNs worth asking about: on both sides of every border between ranges."""
        snapshot = take_snapshot(open_dump(self.vmcore, self.vmlinux))
        edges = {r.start_pfn for p in snapshot.pgmaps for r in p.ranges}
        edges |= {r.end_pfn for p in snapshot.pgmaps for r in p.ranges}
        edges |= {int(nr) * snapshot.geometry.pages_per_section for nr in snapshot.sections.nr}
        return tuple(sorted({max(e + d, 0) for e in edges for d in (-1, 0)}))
