# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Trace
-----

A second program with the memory of the first, which records what is read: that is what an analysis
needs.

Its debugging information is the small vmlinux of the export, so whatever works here also works on
the export.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

from drgn import FaultError, Program, ProgramFlags
from drgn.helpers.linux.mm import follow_phys, phys_to_virt

from drgn_zonedev.util.intervals import Span, intersection, pages, union
from drgn_zonedev.vmcore.raw import read_raw

__all__ = ("MemoryRun", "Recorder")

# Kernels of the supported architectures map everything in the upper half. At virtual address 0,
# QEMU's dumps have physical memory.
_KERNEL_START = 1 << 63
_END = (1 << 64) - 1


@dataclass(frozen=True)
class MemoryRun:
    """Bytes to keep; ``paddr`` is ``None`` if their physical address is not known."""

    vaddr: int
    paddr: int | None
    size: int


class Recorder:
    """
    Records what is read through its program.

    :param vmcoreinfo: VMCOREINFO of the source, with what this tool adds to it.
    :param blanks: Spans of virtual memory that read as ``x``.
    """

    def __init__(self, source: Program, vmcoreinfo: bytes, blanks: tuple[Span, ...] = ()) -> None:
        self.source = source
        self.vmcoreinfo = vmcoreinfo
        self.prog = Program(source.platform)
        self.prog.set_linux_kernel_custom(vmcoreinfo, False)
        self.prog.add_memory_segment(0, _END, self._read_physical, physical=True)
        self.prog.add_memory_segment(_KERNEL_START, _END - _KERNEL_START, self._read_virtual)
        self._blanks = union(blanks)
        self._read: set[Span] = set()
        self._kept: frozenset[Span] = frozenset()
        self._faulted: set[Span] = set()
        self._tables: set[Span] = set()
        # On a running kernel, the first read of some memory counts.
        self._live = bool(source.flags & ProgramFlags.IS_LIVE)
        self._reads_left: int | None = None
        self._first: dict[Span, bytes] = {}
        self._sorted_first: list[tuple[Span, int]] = []

    def keep(self, address: int, size: int) -> None:
        """Keep memory if it can be read."""
        try:
            self.prog.read(address, size)
        except FaultError:
            return

    @contextlib.contextmanager
    def at_most(self, reads: int) -> Iterator[None]:
        """
        Make all memory unreadable after a number of reads: drgn's helpers follow a damaged
        structure as long as it leads anywhere, and never stop in a loop.
        """
        self._reads_left = reads
        try:
            yield
        finally:
            self._reads_left = None

    def _read_virtual(self, address: int, count: int, offset: int, physical: bool) -> bytes:
        if self._reads_left is not None:
            if not self._reads_left:
                raise FaultError("reached the limit of reads", address)
            self._reads_left -= 1
        span = address, address + count
        if span in self._first:
            return self._first[span]
        try:
            data = self.read(address, count)
        except FaultError:
            self._faulted.add(span)
            raise
        self._read.add(span)
        if self._live and count <= 4096:
            self._first[span] = data
        return data

    def _read_physical(self, address: int, count: int, offset: int, physical: bool) -> bytes:
        data = read_raw(self.source, address, count, physical=True)
        self._tables.add((address, address + count))
        return data

    def read(self, address: int, count: int) -> bytes:
        """Read without recording; blanks read as ``x``."""
        return self._blanked(address, read_raw(self.source, address, count))

    def _blanked(self, address: int, data: bytes) -> bytes:
        for start, end in intersection((address, address + len(data)), self._blanks):
            data = data[: start - address] + b"x" * (end - start) + data[end - address :]
        return data

    def sort_first_reads(self) -> None:
        """Prepare :meth:`read_run()`, which needs the order of the reads until now."""
        self._sorted_first = sorted((span, number) for number, span in enumerate(self._first))

    def read_run(self, run: MemoryRun) -> bytes:
        """Read the bytes to write for a run; see :meth:`sort_first_reads()`."""
        data = bytearray(self.read(run.vaddr, run.size))
        run_end = run.vaddr + run.size
        low = bisect_left(self._sorted_first, ((run.vaddr, 0), 0))
        high = bisect_left(self._sorted_first, ((run_end, 0), 0))
        # In the order of reading: where reads overlap, the last one counts.
        for span, _ in sorted(self._sorted_first[low:high], key=itemgetter(1)):
            start, end = span
            if end <= run_end:
                data[start - run.vaddr : end - run.vaddr] = self._first[span]
        return bytes(data)

    def read_table(self, run: MemoryRun) -> bytes:
        """Read the bytes to write for a run of page tables."""
        assert run.paddr is not None
        data = read_raw(self.source, run.paddr, run.size, physical=True)
        # A damaged name may point there, too.
        return self._blanked(run.vaddr, data)

    def narrow(self, starts: frozenset[int], objects: Sequence[Span]) -> None:
        """
        Forget what is between objects that were read at once.

        :param starts: Where such reads start.
        :param objects: The parts to keep, sorted and disjoint.
        """
        wide = {span for span in self._read if span[0] in starts}
        self._read -= wide
        for span in wide:
            self._read.update(intersection(span, objects))

    def was_read(self, span: Span) -> bool:
        """Return whether exactly this memory was read at once."""
        return span in self._read

    def keep_all(self) -> None:
        """Protect what was read so far from being forgotten later."""
        self._kept = frozenset(self._read)

    def forget_words(self, addresses: frozenset[int]) -> None:
        """Forget words that were read one by one; keep other reads of the same memory."""
        self._read -= {(address, address + 8) for address in addresses} - self._kept

    def runs(self) -> tuple[list[MemoryRun], list[MemoryRun]]:
        """
        Return the memory that was read, and the page tables that map it.

        Addresses that faulted are translated, too: the export must fault for the same reason.
        """
        page_size = self.prog["PAGE_SIZE"].value_()
        where = self._translate(page_size)
        self.sort_first_reads()
        memory: list[MemoryRun] = []
        for span in union(self._read):
            memory += _merged(
                MemoryRun(start, _physical(where, start, page_size), end - start)
                for start, end in pages(span, page_size)
            )
        tables = [
            MemoryRun(phys_to_virt(self.prog, start).value_(), start, end - start)
            for start, end in union(self._tables)
        ]
        return memory, tables

    def _translate(self, page_size: int) -> dict[int, int]:
        where: dict[int, int] = {}
        looked_up: set[int] = set()
        # Translating reads memory that must be translated, too.
        for _ in range(8):
            wanted = {
                page
                for span in union(self._read | self._faulted)
                for page in range(span[0] // page_size, -(-span[1] // page_size))
            }
            if not wanted - looked_up:
                break
            for page in sorted(wanted - looked_up):
                try:
                    address = follow_phys(self.prog["init_mm"].address_of_(), page * page_size)
                    where[page] = address.value_()
                except (FaultError, LookupError, NotImplementedError):
                    continue
            looked_up |= wanted
        return where


def _physical(where: dict[int, int], address: int, page_size: int) -> int | None:
    page, offset = divmod(address, page_size)
    return where[page] + offset if page in where else None


def _merged(runs: Iterator[MemoryRun]) -> list[MemoryRun]:
    merged: list[MemoryRun] = []
    for run in runs:
        if merged and _follows(merged[-1], run):
            last = merged.pop()
            run = MemoryRun(last.vaddr, last.paddr, last.size + run.size)
        merged.append(run)
    return merged


def _follows(last: MemoryRun, run: MemoryRun) -> bool:
    if last.paddr is None or run.paddr is None:
        return last.paddr is run.paddr
    return last.paddr + last.size == run.paddr
