# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Compute the expected ranges of a scenario, by the kernel's rules.

Addresses and sizes are in bytes; PFNs are named as such.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from drgn_zonedev.util.alignment import align_down, align_up

__all__ = (
    "GIB",
    "KIB",
    "MIB",
    "PAGE",
    "SECTION",
    "STRUCT_PAGE",
    "SUBSECTION",
    "VMEMMAP",
    "Expected",
    "MemoryArea",
    "block_number",
    "blocks",
    "data_offset",
    "expect",
    "namespace_end",
    "namespace_ranges",
    "section_head",
    "section_size",
    "section_tail",
    "stored_memmap",
    "struct_page",
)

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
PAGE = 4 * KIB
SUBSECTION = 2 * MIB
SECTION = 128 * MIB
"""Also the size of a memory block: x86 makes them larger only from 64 GiB of RAM on."""
STRUCT_PAGE = 64

VMEMMAP = 0xFFFFEA0000000000
"""Where struct pages begin with four-level page tables and ``nokaslr``."""


class Expected(NamedTuple):
    """A run of PFNs, half-open, and the name of the case that it must be."""

    start_pfn: int
    end_pfn: int
    case: str


@dataclass(frozen=True)
class MemoryArea:
    """Physical memory of a device."""

    start: int
    size: int

    @property
    def end(self) -> int:
        """Exclusive."""
        return self.start + self.size


def expect(start: int, end: int, case: str, *, page: int = PAGE) -> tuple[Expected, ...]:
    """Expect one case between two addresses; nothing if they are the same."""
    return (Expected(start // page, end // page, case),) if start < end else ()


def struct_page(pfn: int) -> int:
    """Return the virtual address of a struct page (see VMEMMAP)."""
    return VMEMMAP + pfn * STRUCT_PAGE


def data_offset(memory: MemoryArea, memmap: str, align: int, *, page: int = PAGE) -> int:
    """
    Return the size that a namespace of the nd bus reserves before its data (``nd_pfn_init()``).

    That is 8 KiB for the information block, and with the memmap on the device a struct page for
    every page after that; the data is aligned.
    """
    overhead = 8 * KIB
    if memmap == "dev":
        overhead += STRUCT_PAGE * ((memory.size - 8 * KIB) // page)
    # memremap_compat_align()
    return align_up(memory.start + overhead, max(align, SUBSECTION)) - memory.start


def namespace_end(memory: MemoryArea, align: int) -> int:
    """Return where a namespace's pgmap ends: an unaligned rest is cut off (``nd_pfn_init()``)."""
    return align_down(memory.end, align)


def namespace_ranges(
    memory: MemoryArea,
    memmap: str = "dev",
    align: int = 2 * MIB,
    data: str = "device",
    *,
    page: int = PAGE,
) -> tuple[Expected, ...]:
    """
    Return what the PFNs of a namespace are (``__nvdimm_setup_pfn()``).

    The pgmap covers all of it. With the memmap on the device, the altmap begins with a reserve of
    8 KiB, or a page if that is larger, and the memory between that and the data stores the memmap.
    Without an altmap, the information block is device memory like the rest.
    """
    end = namespace_end(memory, align)
    if memmap == "mem":
        return expect(memory.start, end, data, page=page)
    reserve_end = memory.start + max(8 * KIB, page)
    first = memory.start + data_offset(memory, memmap, align, page=page)
    return (
        *expect(memory.start, reserve_end, "reserved", page=page),
        *expect(reserve_end, first, "metadata", page=page),
        *expect(first, end, data, page=page),
    )


def section_size(page: int) -> int:
    """Return the size of a section: arm64 has larger ones with pages of 64K."""
    return 4 * SECTION if page == 64 * KIB else SECTION


def section_head(start: int, case: str, *, page: int = PAGE) -> tuple[Expected, ...]:
    """Expect a case from the beginning of the section up to `start`."""
    return expect(align_down(start, section_size(page)), start, case, page=page)


def section_tail(end: int, case: str, *, page: int = PAGE) -> tuple[Expected, ...]:
    """Expect a case from `end` up to the end of the section."""
    return expect(end, align_up(end, section_size(page)), case, page=page)


def blocks(memory: MemoryArea) -> MemoryArea:
    """Return the whole memory blocks inside `memory`: all that can become RAM."""
    start = align_up(memory.start, SECTION)
    return MemoryArea(start, align_down(memory.end, SECTION) - start)


def stored_memmap(block: MemoryArea, rest: str) -> tuple[Expected, ...]:
    """
    Return what a memory block is that stores its own memmap: `rest`, after the struct pages of all
    of it.
    """
    end = block.start + block.size // PAGE * STRUCT_PAGE
    return expect(block.start, end, "metadata") + expect(end, block.end, rest)


def block_number(address: int) -> int:
    """Return the N of ``/sys/devices/system/memory/memoryN``."""
    return address // SECTION
