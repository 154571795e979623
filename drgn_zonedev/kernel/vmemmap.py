# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The Memory Behind vmemmap
-------------------------

The ``drgn_zonedev.kernel.vmemmap`` module looks up which physical pages hold the
struct pages. Since Linux kernel v5.19, tails of compound device pages can share
theirs (``vmemmap_populate_compound_pages()``), and only the page tables say where
they do.
"""

from __future__ import annotations

import operator
import re

import numpy as np
from drgn import Architecture, FaultError, IntegerLike, Program
from drgn.helpers.common.prog import takes_program_or_default
from drgn.helpers.linux.mm import follow_phys

from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.kernel.reading import read_memory

__all__ = ("UNMAPPED", "vmemmap_page_frames", "vmemmap_pages")

UNMAPPED = -1
"""Stands for the page frame of a page of vmemmap that is not mapped."""

_PAGE_SHIFT = 12
_TABLE_BITS = 9
# Pages of 1 GiB; above that, the bit for huge pages is reserved.
_LARGEST_BITS = 18
_PRESENT, _HUGE = np.uint64(1 << 0), np.uint64(1 << 7)
# Bits 12 to 51 of an entry are the physical address.
_ADDRESS = (1 << 52) - (1 << 12)


@takes_program_or_default
def vmemmap_pages(prog: Program, start_pfn: IntegerLike, end_pfn: IntegerLike) -> tuple[int, int]:
    """
    Get the pages of vmemmap that hold the struct pages of a range of PFNs.

    :return: Half-open range of page numbers (virtual address divided by the page
        size).
    """
    layout, page_size = page_layout(prog), prog["PAGE_SIZE"].value_()
    first = layout.page_address(operator.index(start_pfn)) // page_size
    last = (layout.page_address(operator.index(end_pfn)) - 1) // page_size
    return first, last + 1


@takes_program_or_default
def vmemmap_page_frames(prog: Program, first: int, end: int) -> np.ndarray | None:
    """
    Translate pages of vmemmap.

    On x86-64, this reads one page table per 512 pages; elsewhere it asks drgn for
    every single page.

    :param first: Virtual page number, see :func:`vmemmap_pages()`.
    :param end: One more than the last.
    :return: PFN of each page, or :data:`UNMAPPED`; ``None`` if nothing can be
        translated: drgn does not know the architecture's page tables, or the dump
        does not have them.
    """
    assert prog.platform is not None
    try:
        if prog.platform.arch == Architecture.X86_64:
            return _Walk(prog, first, end).frames()
        return _one_by_one(prog, first, end)
    except (FaultError, LookupError, NotImplementedError, ValueError):
        return None


def _one_by_one(prog: Program, first: int, end: int) -> np.ndarray:
    page_size, mm = prog["PAGE_SIZE"].value_(), prog["init_mm"].address_of_()
    frames = np.full(end - first, UNMAPPED, np.int64)
    for i in range(end - first):
        try:
            frames[i] = follow_phys(mm, (first + i) * page_size).value_() // page_size
        except FaultError:
            continue
    return frames


class _Walk:
    """A walk through the kernel's page tables on x86-64, for ``[first, end)``."""

    def __init__(self, prog: Program, first: int, end: int) -> None:
        self._prog = prog
        self._first, self._end = first, end
        self._mask = np.uint64(_ADDRESS & ~_encryption_mask(prog))
        self._frames = np.full(end - first, UNMAPPED, np.int64)

    def frames(self) -> np.ndarray:
        levels = 5 if _five_levels(self._prog) else 4
        # The top of the tables is in the kernel's image, all others are anywhere.
        top = read_memory(self._prog, self._prog["init_mm"].pgd.value_(), 1 << _PAGE_SHIFT)
        bits = (levels - 1) * _TABLE_BITS
        start = self._first >> bits + _TABLE_BITS << bits + _TABLE_BITS
        self._descend(top, start, bits)
        return self._frames

    def _descend(self, raw: bytes, start: int, bits: int) -> None:
        # ``start`` is the first page that the table maps, 1 << bits the number of
        # pages that one entry maps.
        entries = np.frombuffer(raw, "<u8")
        low = max(self._first - start, 0) >> bits
        high = min((self._end - 1 - start >> bits) + 1, len(entries))
        if bits == 0:
            part = entries[low:high]
            frames = (part & self._mask).astype(np.int64) >> _PAGE_SHIFT
            present = (part & _PRESENT) != 0
            self._put(start + low, np.where(present, frames, UNMAPPED))
            return
        for i in (low + np.flatnonzero(entries[low:high] & _PRESENT)).tolist():
            base = start + (i << bits)
            frame = int(entries[i] & self._mask) >> _PAGE_SHIFT
            if entries[i] & _HUGE:
                if bits <= _LARGEST_BITS:
                    # Below the address of a huge page, there are flags.
                    frame = frame >> bits << bits
                    self._put(base, np.arange(frame, frame + (1 << bits)))
            else:
                table = read_memory(self._prog, frame << _PAGE_SHIFT, 1 << _PAGE_SHIFT, True)
                self._descend(table, base, bits - _TABLE_BITS)

    def _put(self, start: int, frames: np.ndarray) -> None:
        low, high = max(start, self._first), min(start + len(frames), self._end)
        self._frames[low - self._first : high - self._first] = frames[low - start : high - start]


def _five_levels(prog: Program) -> bool:
    info = prog["VMCOREINFO"].string_().decode(errors="replace")
    return re.search(r"^NUMBER\(pgtable_l5_enabled\)=1$", info, re.MULTILINE) is not None


def _encryption_mask(prog: Program) -> int:
    # Of AMD's memory encryption; the C-bit is within the address.
    try:
        return int(prog["sme_me_mask"].value_())
    except LookupError:
        return 0
