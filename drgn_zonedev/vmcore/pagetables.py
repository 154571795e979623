# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The Kernel's Page Tables
------------------------

The ``drgn_zonedev.vmcore.pagetables`` module translates many virtual pages of the
kernel at once. On x86-64 this needs no debugging symbols: VMCOREINFO says where the
page tables are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from drgn import Architecture, FaultError, Program
from drgn.helpers.common.prog import takes_program_or_default
from drgn.helpers.linux.mm import follow_phys

from drgn_zonedev.vmcore.left_out import LEFT_OUT, absent_frames, leaves_something_out
from drgn_zonedev.vmcore.raw import read_raw

__all__ = (
    "UNKNOWN",
    "UNMAPPED",
    "Mappings",
    "TopLevel",
    "next_mapped",
    "page_frames",
    "page_mappings",
    "top_level",
    "walks_in_bulk",
)

UNMAPPED = -1
"""Stands for the page frame of a page that is not mapped."""

UNKNOWN = -2
"""Stands for the page frame of a page whose page table cannot be read."""


@dataclass(frozen=True)
class Mappings:
    """
    What pages of virtual memory are mapped to; columns with a row for each page.

    ``frame`` is the PFN, or :data:`UNMAPPED` or :data:`UNKNOWN`. ``order`` is the size of the page
    that maps it, as the number of small pages to the power of two; -1 if it is not known.
    """

    frame: np.ndarray
    order: np.ndarray


_PAGE_SHIFT = 12
_TABLE_BITS = 9
# 1 GiB is the largest page; the bit for huge pages is reserved above it.
_LARGEST_BITS = 18
_PRESENT, _HUGE = np.uint64(1 << 0), np.uint64(1 << 7)
# _PAGE_ACCESSED and _PAGE_DIRTY: the processor sets them, in each table by itself.
_USED = 1 << 5 | 1 << 6
# Bits 12 to 51 of an entry are the physical address.
_ADDRESS = (1 << 52) - (1 << 12)


@takes_program_or_default
def page_frames(prog: Program, first: int, end: int) -> np.ndarray | None:
    """
    Translate pages of the kernel's memory.

    On x86-64, this reads one page table per 512 pages; elsewhere it asks drgn for
    every single page.

    :param first: Virtual page number: the address divided by the page size.
    :param end: One more than the last.
    :return: PFN of each page, or :data:`UNMAPPED` or :data:`UNKNOWN`; ``None`` if
        nothing can be translated, as drgn does not know the architecture's page tables.
    """
    found = page_mappings(prog, first, end)
    return None if found is None else found.frame


@takes_program_or_default
def page_mappings(prog: Program, first: int, end: int) -> Mappings | None:
    """
    Like :func:`page_frames()`, with the size of the page that maps each.
    """
    try:
        if walks_in_bulk(prog):
            return _Walk(prog, first, end).mappings()
        frames = _one_by_one(prog, first, end)
        return Mappings(frames, np.full(end - first, -1, np.int8))
    except (FaultError, LookupError, NotImplementedError, ValueError):
        return None


@dataclass(frozen=True)
class TopLevel:
    """
    Entries of the top of a page table; a row for each. ``page`` is the first virtual page that an
    entry translates, ``order`` says how many it does, to the power of two. ``entry`` is 0 where
    nothing is mapped, and does not have the bits that the processor sets.
    """

    page: np.ndarray
    order: int
    entry: np.ndarray


@takes_program_or_default
def top_level(prog: Program, first: int, end: int, table: int | None = None) -> TopLevel:
    """
    Get the entries of the top of a page table that translate pages of the kernel's memory. Use it
    where :func:`walks_in_bulk()`.

    :param first: Virtual page number: the address divided by the page size.
    :param end: One more than the last.
    :param table: Physical address of the table; by default, the kernel's own.
    :raises FaultError: if it cannot be read
    :raises LookupError: if neither VMCOREINFO nor symbols say where it is
    """
    return _Walk(prog, first, end).top_level(table)


@takes_program_or_default
def next_mapped(prog: Program, first: int, end: int) -> int:
    """
    Find the first page of the kernel's memory that is mapped, or may be mapped, because
    its page table cannot be read. Use it where :func:`walks_in_bulk()`.

    :param first: Virtual page number: the address divided by the page size.
    :param end: One more than the last.
    :return: Virtual page number; *end* if there is none.
    :raises FaultError: if the top of the page tables cannot be read
    :raises LookupError: if neither VMCOREINFO nor symbols say where it is
    """
    return _Walk(prog, first, end).next_mapped()


@takes_program_or_default
def walks_in_bulk(prog: Program) -> bool:
    """Tell whether translating many pages costs little more than translating one."""
    assert prog.platform is not None
    return prog.platform.arch == Architecture.X86_64


def _one_by_one(prog: Program, first: int, end: int) -> np.ndarray:
    page_size, mm = prog["PAGE_SIZE"].value_(), prog["init_mm"].address_of_()
    frames = np.full(end - first, UNMAPPED, np.int64)
    for i in range(end - first):
        try:
            frames[i] = follow_phys(mm, (first + i) * page_size).value_() // page_size
        except FaultError as e:
            # Of a page table that cannot be read, drgn says where that is.
            if e.address != (first + i) * page_size:
                frames[i] = UNKNOWN
    return frames


class _Walk:
    """A walk through the kernel's page tables on x86-64, for ``[first, end)``."""

    def __init__(self, prog: Program, first: int, end: int) -> None:
        self._prog = prog
        levels = 5 if _five_levels(prog) else 4
        self._top_bits = (levels - 1) * _TABLE_BITS
        # The bits above those that page tables translate only extend the sign.
        bits = levels * _TABLE_BITS
        self._asked = first
        self._first = first & (1 << bits) - 1
        self._end = self._first + end - first
        self._mask = np.uint64(_ADDRESS & ~_encryption_mask(prog))
        self._filtered = leaves_something_out(prog)

    def mappings(self) -> Mappings:
        frames = np.full(self._end - self._first, UNMAPPED, np.int64)
        orders = np.full(len(frames), -1, np.int8)
        try:
            top = self._read_top()
        except FaultError:
            frames[:] = UNKNOWN
            return Mappings(frames, orders)
        for at, count, leaf, bits in self._leaves(top, 0, self._top_bits):
            part = frames[at : at + count]
            if leaf is None:
                part[:] = UNKNOWN
                continue
            if isinstance(leaf, int):
                part[:] = np.arange(leaf, leaf + count)
            else:
                mapped = (leaf & _PRESENT) != 0
                part[mapped] = (leaf[mapped] & self._mask).astype(np.int64) >> _PAGE_SHIFT
            orders[at : at + count][part >= 0] = bits
        return Mappings(frames, orders)

    def top_level(self, table: int | None) -> TopLevel:
        low = self._first >> self._top_bits
        count = (self._end - 1 >> self._top_bits) + 1 - low
        if table is None:
            raw = self._read_top()[8 * low :][: 8 * count]
        else:
            # Its other half is the task's own.
            raw = self._read_table(table + 8 * low, 8 * count)
        entries = np.frombuffer(raw, "<u8")
        used = np.where(entries & _PRESENT, entries & ~np.uint64(_USED), np.uint64(0))
        page = (self._asked >> self._top_bits) + np.arange(count) << self._top_bits
        return TopLevel(page, self._top_bits, used)

    def next_mapped(self) -> int:
        for at, _, leaf, _ in self._leaves(self._read_top(), 0, self._top_bits):
            if leaf is None or isinstance(leaf, int):
                return self._asked + at
            present = np.flatnonzero(leaf & _PRESENT)
            if len(present):
                return self._asked + at + int(present[0])
        return self._asked + self._end - self._first

    def _read_top(self) -> bytes:
        # Only the top of the page tables is in the kernel's image.
        top = read_raw(self._prog, _top(self._prog), 1 << _PAGE_SHIFT)
        if not any(top):
            # The kernel itself is mapped.
            raise FaultError("the top of the page tables is not in the dump", _top(self._prog))
        return top

    def _leaves(
        self, raw: bytes, start: int, bits: int
    ) -> Iterator[tuple[int, int, np.ndarray | int | None, int]]:
        """
        Go down a table, of which ``start`` is the first page that it maps, and ``1 << bits``
        the number of pages that one entry maps.

        :return: Tuples of (index, count, leaf, bits) for pages that were asked for, the first of
            which has index 0: their entries, the first frame of a part of a huge page, or
            ``None`` if their table cannot be read; and the ``bits`` of such an entry.
        """
        entries = np.frombuffer(raw, "<u8")
        low = max(self._first - start, 0) >> bits
        high = min((self._end - 1 - start >> bits) + 1, len(entries))
        if bits == 0:
            yield start + low - self._first, high - low, entries[low:high], bits
            return
        for i in (low + np.flatnonzero(entries[low:high] & _PRESENT)).tolist():
            base = start + (i << bits)
            at = max(base - self._first, 0)
            count = min(base + (1 << bits), self._end) - self._first - at
            frame = int(entries[i] & self._mask) >> _PAGE_SHIFT
            if entries[i] & _HUGE:
                if bits <= _LARGEST_BITS:
                    # The low bits of a huge page's entry are flags.
                    yield at, count, (frame >> bits << bits) + self._first + at - base, bits
                continue
            try:
                table = self._table(frame)
            except FaultError:
                yield at, count, None, bits
                continue
            yield from self._leaves(table, base, bits - _TABLE_BITS)

    def _table(self, frame: int) -> bytes:
        return self._read_table(frame << _PAGE_SHIFT, 1 << _PAGE_SHIFT)

    def _read_table(self, address: int, size: int) -> bytes:
        if self._filtered and absent_frames(self._prog, np.array([address >> _PAGE_SHIFT]))[0]:
            raise FaultError(LEFT_OUT, address)
        return read_raw(self._prog, address, size, True)


def _top(prog: Program) -> int:
    top = _top_in_vmcoreinfo(prog)
    return int(prog["init_mm"].pgd.value_()) if top is None else top


def _top_in_vmcoreinfo(prog: Program) -> int | None:
    found = _vmcoreinfo(prog, r"SYMBOL\(swapper_pg_dir\)=([0-9a-f]{1,16})")
    return None if found is None else int(found, 16)


def _five_levels(prog: Program) -> bool:
    return _vmcoreinfo(prog, r"NUMBER\(pgtable_l5_enabled\)=(1)") is not None


def _encryption_mask(prog: Program) -> int:
    # The C-bit of AMD's memory encryption is within the address. Older kernels do not put
    # it into VMCOREINFO.
    found = _vmcoreinfo(prog, r"NUMBER\(sme_mask\)=(-?[0-9]{1,20})")
    if found is not None:
        return int(found)
    try:
        return int(prog["sme_me_mask"].value_())
    except LookupError:
        return 0


def _vmcoreinfo(prog: Program, pattern: str) -> str | None:
    info = prog["VMCOREINFO"].string_().decode(errors="replace")
    found = re.search(f"^{pattern}$", info, re.MULTILINE)
    return found and found[1]
