# SPDX-License-Identifier: LGPL-2.1-or-later
"""Kernel memory of the fake: arenas for structures, one array per section's memmap."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from drgn import FaultError

SIZEOF_PAGE = 64

Words = npt.NDArray[np.uint64]


class Arena:
    """Memory from a start address upwards; what was never allocated faults."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.data = bytearray()

    def alloc(self, size: int, align: int = 64) -> int:
        """Zeroed memory, separated from its neighbour to catch overruns."""
        gap = -len(self.data) % align
        self.data.extend(bytes(gap + size))
        return self.start + len(self.data) - size

    def contains(self, address: int) -> bool:
        """Whether an address has been allocated here."""
        return self.start <= address < self.start + len(self.data)


class SectionMap:
    """The struct pages of one section, and which of them are mapped."""

    def __init__(self, pages: int, words_per_page: int) -> None:
        # Zero pages are not touched until written: an unused section is free.
        self.words: Words = np.zeros((pages, words_per_page), np.uint64)
        self.mapped: npt.NDArray[np.bool_] = np.zeros(pages, np.bool_)


class Memory:
    """
    Virtual memory of the fake kernel.

    :param per_section: PAGES_PER_SECTION
    :param per_vmemmap_page: struct pages in one page of vmemmap, the granule of deduplication
    """

    def __init__(
        self, vmemmap: int, sizeof_page: int, per_section: int, per_vmemmap_page: int
    ) -> None:
        self.vmemmap = vmemmap
        self.sizeof_page = sizeof_page
        self.per_section = per_section
        self.per_vmemmap_page = per_vmemmap_page
        self.arenas: list[Arena] = []
        self.sections: dict[int, SectionMap] = {}
        self.hidden: list[tuple[int, int]] = []
        self.aliases: list[tuple[int, int]] = []

    def arena(self, start: int) -> Arena:
        """Add an arena."""
        arena = Arena(start)
        self.arenas.append(arena)
        return arena

    def _section_slices(self, start: int, end: int) -> Iterator[tuple[int, slice, slice]]:
        """Cut [start, end) at sections: (section, slice there, slice of the whole)."""
        first = start
        while first < end:
            nr, offset = divmod(first, self.per_section)
            count = min(end - first, self.per_section - offset)
            yield nr, slice(offset, offset + count), slice(first - start, first - start + count)
            first += count

    def map(self, start_pfn: int, end_pfn: int) -> None:
        """Make struct pages readable; their content stays, zeros at first."""
        self._set_mapped(start_pfn, end_pfn, True)

    def unmap(self, start_pfn: int, end_pfn: int) -> None:
        """Make struct pages fault."""
        self._set_mapped(start_pfn, end_pfn, False)

    def _set_mapped(self, start_pfn: int, end_pfn: int, value: bool) -> None:
        for nr, part, _ in self._section_slices(start_pfn, end_pfn):
            if nr not in self.sections:
                self.sections[nr] = SectionMap(self.per_section, self.sizeof_page // 8)
            self.sections[nr].mapped[part] = value

    def put_pages(self, start_pfn: int, words: Words) -> None:
        """Write struct pages and map them."""
        end_pfn = start_pfn + len(words)
        self.map(start_pfn, end_pfn)
        for nr, part, source in self._section_slices(start_pfn, end_pfn):
            self.sections[nr].words[part] = words[source]

    def fill_pages(self, start_pfn: int, end_pfn: int, byte: int) -> None:
        """memset() struct pages and map them."""
        self.map(start_pfn, end_pfn)
        for nr, part, _ in self._section_slices(start_pfn, end_pfn):
            self.sections[nr].words[part] = np.uint64(byte * 0x0101010101010101)

    def hide(self, address: int, size: int) -> None:
        """Make memory unreadable, as if a dump lacked it."""
        self.hidden.append((address, address + size))

    def read(self, address: int, count: int) -> bytes:
        """Read, or raise FaultError for the first byte that is not mapped."""
        for start, end in self.hidden:
            if start < address + count and address < end:
                raise FaultError("not in the fake kernel", max(start, address))
        for arena in self.arenas:
            if arena.contains(address):
                return self._read_arena(arena, address, count)
        if self._in_memmap(address):
            return b"".join(self._read_memmap(address, count))
        raise FaultError("not mapped in the fake kernel", address)

    def _in_memmap(self, address: int) -> bool:
        pfn = (address - self.vmemmap) // self.sizeof_page
        return pfn // self.per_section in self.sections

    @staticmethod
    def _read_arena(arena: Arena, address: int, count: int) -> bytes:
        offset = address - arena.start
        if offset + count > len(arena.data):
            raise FaultError("not mapped in the fake kernel", arena.start + len(arena.data))
        return bytes(arena.data[offset : offset + count])

    def _read_memmap(self, address: int, count: int) -> Iterator[bytes]:
        skip = (address - self.vmemmap) % self.sizeof_page
        start = (address - self.vmemmap) // self.sizeof_page
        end = start + -(-(skip + count) // self.sizeof_page)
        left = count
        for nr, part, _ in self._section_slices(start, end):
            self._check_mapped(nr, part)
            raw = self.sections[nr].words[part].tobytes()[skip : skip + left]
            yield raw
            left, skip = left - len(raw), 0

    def _check_mapped(self, nr: int, part: slice) -> None:
        section = self.sections.get(nr)
        missing = 0 if section is None else int(np.argmin(section.mapped[part]))
        if section is None or not section.mapped[part][missing]:
            pfn = nr * self.per_section + int(part.start) + missing
            address = self.vmemmap + pfn * self.sizeof_page
            raise FaultError("struct page not mapped in the fake kernel", address)

    def write(self, address: int, data: bytes) -> None:
        """Overwrite mapped memory."""
        for arena in self.arenas:
            if arena.contains(address):
                offset = address - arena.start
                assert offset + len(data) <= len(arena.data), "write beyond allocated memory"
                arena.data[offset : offset + len(data)] = data
                return
        self._write_memmap(address, data)

    def _write_memmap(self, address: int, data: bytes) -> None:
        pfn, offset = divmod(address - self.vmemmap, self.sizeof_page)
        assert offset + len(data) <= self.sizeof_page, "pokes stay within one struct page"
        self.read(address, len(data))
        for alias in self._alias_pfns(pfn):
            nr, index = divmod(alias, self.per_section)
            self.sections[nr].words[index].view(np.uint8)[offset : offset + len(data)] = (
                np.frombuffer(data, np.uint8)
            )

    def _alias_pfns(self, pfn: int) -> list[int]:
        """All struct pages that share memory with this one, itself included."""
        for head, count in self.aliases:
            index = pfn - head
            per_page = self.per_vmemmap_page
            if per_page <= index < count:
                first = per_page + index % per_page
                return list(range(head + first, head + count, per_page))
        return [pfn]
