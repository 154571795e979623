# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Page Tables
-----------

The ``drgn_zonedev.vmcore.pagetables`` module translates many virtual pages of the
kernel, or of a process, at once. On x86-64 and arm64 this needs no debugging symbols: VMCOREINFO
says where the page tables of the kernel are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from drgn import FaultError, Object, Program
from drgn.helpers.common.prog import takes_program_or_default
from drgn.helpers.linux.mm import follow_phys

from drgn_zonedev.vmcore.entry_format import EntryFormat, EntryKind, entry_format, has_entry_format
from drgn_zonedev.vmcore.left_out import LEFT_OUT, absent_frames, leaves_something_out
from drgn_zonedev.vmcore.raw import read_raw

__all__ = (
    "UNKNOWN",
    "UNMAPPED",
    "Mappings",
    "TopLevel",
    "knows_swap_entries",
    "mapped_frames",
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


_TOO_MANY = "a process has more page tables than its memory needs"


@dataclass(frozen=True)
class Mappings:
    """
    What pages of virtual memory are mapped to; columns with a row for each page.

    ``frame`` is the PFN, or :data:`UNMAPPED` or :data:`UNKNOWN`. ``order`` is the size of the page
    that maps it, as the number of small pages to the power of two; -1 if it is not known.
    ``table`` is the PFN of the page table that cannot be read; -1 if that is not why.
    """

    frame: np.ndarray
    order: np.ndarray
    table: np.ndarray


@dataclass(frozen=True)
class _UnreadableTable:
    frame: int


@takes_program_or_default
def page_frames(prog: Program, first: int, end: int) -> np.ndarray | None:
    """
    Translate pages of the kernel's memory.

    Where :func:`walks_in_bulk()`, this reads one page table for all the pages that it maps;
    elsewhere it asks drgn for every single page.

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
        nowhere = np.full(end - first, -1, np.int64)
        return Mappings(frames, nowhere.astype(np.int8), nowhere)
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


def mapped_frames(
    mm: Object, first: int, end: int, most_tables: int, *, swapped: bool = False
) -> Iterator[tuple[int, np.ndarray]]:
    """
    Find what a process has mapped in a part of its memory, whether or not it may access it
    (``PROT_NONE``). Only page tables that exist are read.

    :param mm: ``struct mm_struct *``
    :param first: Virtual page number: the address divided by the page size.
    :param end: One more than the last.
    :param most_tables: Read no more page tables than this: those of a damaged process may
        form a cycle. Where drgn has to be asked for every page, the most pages.
    :param swapped: Have the offsets of swap entries as well, where :func:`knows_swap_entries()`:
        those of device-private memory are PFNs.
    :return: Iterator of (first virtual page number of a part, PFN of each of its pages,
        which is :data:`UNMAPPED` where nothing is mapped)
    :raises FaultError: if a page table cannot be read, or at the limit
    """
    prog = mm.prog_
    if walks_in_bulk(prog):
        top = mm.pgd.value_()
        yield from _Walk(prog, first, end, top, most_tables, swapped=swapped).parts()
        return
    page_size = prog["PAGE_SIZE"].value_()
    for page in range(first, end):
        if page - first == most_tables:
            raise FaultError(_TOO_MANY, page * page_size)
        with contextlib.suppress(FaultError):
            frame = follow_phys(mm, page * page_size).value_() // page_size
            yield page, np.array([frame], np.int64)


@takes_program_or_default
def walks_in_bulk(prog: Program) -> bool:
    """
    Return whether translating many pages costs little more than translating one, and needs no
    debugging symbols.
    """
    return has_entry_format(prog)


@takes_program_or_default
def knows_swap_entries(prog: Program) -> bool:
    """Return whether swap entries differ from empty ones, and have a known offset."""
    return walks_in_bulk(prog) and bool(entry_format(prog).swap)


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
    """
    A walk through page tables, for ``[first, end)``: those of the kernel, or those of a process
    whose top is at a virtual address. ``most_tables`` limits how many are read.
    """

    def __init__(
        self,
        prog: Program,
        first: int,
        end: int,
        top: int | None = None,
        most_tables: int | None = None,
        *,
        swapped: bool = False,
    ) -> None:
        self._prog = prog
        self._top = top
        self._tables_left = most_tables
        self._format: EntryFormat = entry_format(prog)
        self._swap = self._format.swap if swapped else ()
        # The bits above those that page tables translate only extend the sign.
        self._asked = first
        self._first = first & (1 << self._format.page_number_bits) - 1
        self._end = self._first + end - first
        self._filtered = leaves_something_out(prog)

    def mappings(self) -> Mappings:
        frames = np.full(self._end - self._first, UNMAPPED, np.int64)
        orders = np.full(len(frames), -1, np.int8)
        tables = np.full(len(frames), -1, np.int64)
        try:
            top = self._read_top()
        except FaultError:
            frames[:] = UNKNOWN
            return Mappings(frames, orders, tables)
        for at, count, leaf, bits in self._leaves(top, 0, self._format.top_bits):
            part = frames[at : at + count]
            if isinstance(leaf, _UnreadableTable):
                part[:], tables[at : at + count] = UNKNOWN, leaf.frame
                continue
            if isinstance(leaf, int):
                part[:] = np.arange(leaf, leaf + count)
            else:
                mapped = self._format.page.among(leaf)
                part[mapped] = self._format.frames(leaf[mapped])
            orders[at : at + count][part >= 0] = bits
        return Mappings(frames, orders, tables)

    def parts(self) -> Iterator[tuple[int, np.ndarray]]:
        for at, count, leaf, _ in self._leaves(self._read_top(), 0, self._format.top_bits):
            if isinstance(leaf, _UnreadableTable):
                address = self._asked + at << self._format.page_shift
                raise FaultError("a page table cannot be read, or the tables do not end", address)
            if isinstance(leaf, int):
                yield self._asked + at, np.arange(leaf, leaf + count)
                continue
            frames = self._format.frames(leaf)
            frames[~self._format.page.among(leaf)] = UNMAPPED
            self._add_without_access(frames, leaf, self._format.no_access.page)
            for kind in self._swap:
                swapped = kind.among(leaf)
                frames[swapped] = kind.offsets(leaf[swapped])
            yield self._asked + at, frames

    def top_level(self, table: int | None) -> TopLevel:
        bits = self._format.top_bits
        low = self._first >> bits
        count = (self._end - 1 >> bits) + 1 - low
        if table is None:
            raw = self._read_top()[8 * low :][: 8 * count]
        else:
            # Its other half is the task's own.
            raw = self._read_table(table + 8 * low, 8 * count)
        entries = np.frombuffer(raw, "<u8")
        leads = self._format.table.among(entries) | self._format.block.among(entries)
        used = np.where(leads, entries & ~np.uint64(self._format.used), np.uint64(0))
        page = (self._asked >> bits) + np.arange(count) << bits
        return TopLevel(page, bits, used)

    def next_mapped(self) -> int:
        for at, _, leaf, _ in self._leaves(self._read_top(), 0, self._format.top_bits):
            if isinstance(leaf, (_UnreadableTable, int)):
                return self._asked + at
            mapped = np.flatnonzero(self._format.page.among(leaf))
            if len(mapped):
                return self._asked + at + int(mapped[0])
        return self._asked + self._end - self._first

    def _read_top(self) -> bytes:
        if self._top is not None:
            return self._read_top_of_process(self._top)
        top = self._format.top()
        if not any(top):
            # The kernel itself is mapped.
            raise FaultError("the top of the page tables is not in the dump", 0)
        return top

    def _read_top_of_process(self, address: int) -> bytes:
        size = 8 << self._format.page_number_bits - self._format.top_bits
        top = read_raw(self._prog, address, size)
        if self._filtered and not any(top):
            raise FaultError("the top of the page tables is not in the dump", address)
        return top

    def _leaves(
        self, raw: bytes, start: int, bits: int
    ) -> Iterator[tuple[int, int, np.ndarray | int | _UnreadableTable, int]]:
        """
        Go down a table, of which ``start`` is the first page that it maps, and ``1 << bits``
        the number of pages that one entry maps.

        :return: Tuples of (index, count, leaf, bits) for pages that were asked for, the first of
            which has index 0: their entries, the first frame of a part of a huge page, or
            their table if it cannot be read; and the ``bits`` of such an entry.
        """
        entries = np.frombuffer(raw, "<u8")
        low = max(self._first - start, 0) >> bits
        high = min((self._end - 1 - start >> bits) + 1, len(entries))
        entries = entries[low:high]
        if bits == 0:
            yield start + low - self._first, high - low, entries, bits
            return
        frames, blocks = self._format.frames(entries), self._format.block.among(entries)
        blocks |= self._add_without_access(frames, entries, self._format.no_access.block)
        swapped = np.zeros(len(entries), bool)
        for kind in self._swap:
            of_kind = kind.among(entries)
            frames[of_kind] = kind.offsets(entries[of_kind])
            swapped |= of_kind
        for i in np.flatnonzero(blocks | swapped | self._format.table.among(entries)).tolist():
            base, frame = start + (low + i << bits), int(frames[i])
            at = max(base - self._first, 0)
            count = min(base + (1 << bits), self._end) - self._first - at
            if blocks[i]:
                if bits <= self._format.largest_bits:
                    # The low bits of a huge page's entry are flags.
                    yield at, count, (frame >> bits << bits) + self._first + at - base, bits
                continue
            if swapped[i]:
                # A large folio: its entry is that of its first page.
                yield at, count, frame + self._first + at - base, bits
                continue
            try:
                table = self._table(frame)
            except FaultError:
                yield at, count, _UnreadableTable(frame), bits
                continue
            yield from self._leaves(table, base, bits - self._format.table_bits)

    def _add_without_access(
        self, frames: np.ndarray, entries: np.ndarray, kind: EntryKind
    ) -> np.ndarray:
        # Set the frames of entries that map memory without access, and say which these are.
        if self._top is None:
            return np.zeros(len(entries), bool)
        hidden = kind.among(entries)
        frames[hidden] = self._format.frames_without_access(entries[hidden])
        return hidden

    def _table(self, frame: int) -> bytes:
        shift = self._format.page_shift
        if self._tables_left is not None:
            self._tables_left -= 1
            if self._tables_left < 0:
                raise FaultError(_TOO_MANY, frame << shift)
        return self._read_table(frame << shift, 1 << shift)

    def _read_table(self, address: int, size: int) -> bytes:
        frame = address >> self._format.page_shift
        if self._filtered and absent_frames(self._prog, np.array([frame]))[0]:
            raise FaultError(LEFT_OUT, address)
        return read_raw(self._prog, address, size, True)
