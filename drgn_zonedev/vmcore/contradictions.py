# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Contradictory Program Headers
-----------------------------

Finds memory that the program headers of an ELF dump contradict each other about. Of two
segments with the same address, drgn reads the later one, and zeros where that one has no
contents. No writer of dumps makes such headers: one of them is damaged, and nothing says
which.

Headers contradict each other where

- one virtual address has contents at two places of the file;
- one physical address has contents at two places, and they differ (equal ones are legal:
  /proc/vmcore holds the kernel's image twice);
- one place of the file holds two physical addresses, or the headers themselves;
- a virtual address is at another place of its page than the physical one;
- the segment that drgn reads has no contents, and another one has, or its contents end
  within a page: filters leave out whole pages.

Such memory faults when it is read, for drgn's own code as for ours.
"""

from __future__ import annotations

import functools
import heapq
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from drgn import FaultError, Program, ProgramFlags

from drgn_zonedev.util.intervals import Span, intersection, union
from drgn_zonedev.vmcore.core_path import core_dump_path
from drgn_zonedev.vmcore.elf import ProgramHeaders, read_program_headers

__all__ = (
    "CONTRADICTORY",
    "Contradictions",
    "contradictions",
    "hide_contradictions",
    "is_contradictory",
)

CONTRADICTORY = "the program headers of the dump contradict each other"

_KEY = "zonedev_is_contradictory"

_LAST = np.uint64((1 << 64) - 1)
_PAGE, _EHDR_SIZE = 4096, 64
# How many pages to compare of memory that the file contains twice.
_SAMPLES = 5
# Damage of any number of headers stays far below this, unless the dump is hostile.
_MAX_SEGMENTS = 1 << 16

# Start and end of the contents, end of the segment, and the difference between an
# address and its offset in the file.
_Claim = tuple[int, int, int, int]
_Differ = Callable[[Span, Collection[int]], bool]


@dataclass(frozen=True)
class Contradictions:
    """Addresses that are in doubt: sorted and disjoint spans."""

    virtual: tuple[Span, ...] = ()
    physical: tuple[Span, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.virtual or self.physical)


@dataclass(frozen=True)
class _Claims:
    """
    What segments say of one kind of address, in the order of the file: contents in
    ``[start, filled)``, none in ``[filled, end)``. Columns of ``np.uint64``.

    :ivar is_cut_off: Whether the file ends before the contents do, as ``bool``.
    """

    start: np.ndarray
    filled: np.ndarray
    end: np.ndarray
    offset: np.ndarray
    is_cut_off: np.ndarray

    def only(self, rows: np.ndarray) -> _Claims:
        """Select segments."""
        columns = self.start, self.filled, self.end, self.offset, self.is_cut_off
        return _Claims(*(column[rows] for column in columns))

    def rows(self) -> list[_Claim]:
        """Get the segments as integers."""
        columns = self.start, self.filled, self.end, self.start - self.offset
        return list(zip(*(column.tolist() for column in columns)))


def hide_contradictions(prog: Program) -> None:
    """
    Make reads fault where the headers of a program's ELF dump contradict each other.

    :raises ValueError: if too many segments are concerned to trust the others
    """
    core = core_dump_path(prog)
    if prog.flags & ProgramFlags.IS_LIVE or not core or _KEY in prog.cache:
        return
    path = Path(core)
    headers = read_program_headers(path)
    found = contradictions(headers, path) if headers else Contradictions()
    for spans, physical in ((found.virtual, False), (found.physical, True)):
        for start, end in spans:
            prog.add_memory_segment(start, end - start, _fault, physical)
    prog.cache[_KEY] = bool(found)


def is_contradictory(prog: Program) -> bool:
    """Return whether :func:`hide_contradictions()` found any."""
    return bool(prog.cache.get(_KEY))


def _fault(address: int, count: int, offset: int, physical: bool) -> NoReturn:
    raise FaultError(CONTRADICTORY, address)


def contradictions(headers: ProgramHeaders, path: Path) -> Contradictions:
    """
    Find the addresses for which the headers of an ELF dump contradict each other.

    :param path: Of the dump, to compare what it contains twice.
    :raises ValueError: if too many segments are concerned
    """
    loads = headers.loads
    filled = np.minimum(loads["filesz"], loads["memsz"])
    if headers.size is not None:
        size = np.uint64(headers.size)
        filled = np.minimum(filled, size - np.minimum(loads["offset"], size))
    virtual = _claims(loads, "vaddr", filled)
    # drgn decides in the same way whether p_paddr is valid.
    located = (loads["paddr"] != _LAST) & bool(loads["paddr"].any())
    physical = _claims(loads[located], "paddr", filled[located])
    shared = _shared_places(headers, physical if located.any() else virtual)
    compare = functools.partial(_differ, path)
    moved = (loads["vaddr"] ^ loads["paddr"]) % np.uint64(_PAGE) > 0
    return Contradictions(
        virtual=union(
            (
                *_doubts(virtual, lambda span, deltas: True),
                *_at(shared, virtual),
                *_all_of(virtual.only(moved & located)),
            )
        ),
        physical=union(
            (
                *_doubts(physical, compare),
                *_at(shared, physical),
                *_all_of(physical.only(moved[located])),
            )
        ),
    )


def _all_of(claims: _Claims) -> Iterator[Span]:
    return zip(claims.start.tolist(), claims.end.tolist())


def _claims(loads: np.ndarray, name: str, filled: np.ndarray) -> _Claims:
    # Cut off what lies beyond the last address.
    start = loads[name].copy()
    room = _LAST - start
    return _Claims(
        start,
        start + np.minimum(filled, room),
        start + np.minimum(loads["memsz"], room),
        loads["offset"].copy(),
        filled < np.minimum(loads["filesz"], loads["memsz"]),
    )


def _doubts(claims: _Claims, differ: _Differ) -> Iterator[Span]:
    tangled = _tangled(claims.start, claims.end)
    if _disagree(claims) or (claims.filled < claims.end)[tangled].any():
        rows = _few(claims.only(tangled)).rows()
        yield from _double_contents(rows, differ)
        yield from _hidden_contents(rows)
    # Where the file ends, so do contents: that is reported by itself, and reads there fault.
    hole = (claims.filled < claims.end) & ~tangled & ~claims.is_cut_off
    cut = (claims.filled % np.uint64(_PAGE) > 0) | (claims.end % np.uint64(_PAGE) > 0)
    odd = claims.only(hole & cut & (claims.end < _LAST))
    yield from zip(odd.filled.tolist(), odd.end.tolist())


def _few(claims: _Claims) -> _Claims:
    if len(claims.start) > _MAX_SEGMENTS:
        raise ValueError(f"{CONTRADICTORY}: {len(claims.start)} segments overlap")
    return claims


def _tangled(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return which spans overlap another one."""
    found = np.zeros(len(start), bool)
    order = np.flatnonzero(start < end)
    order = order[np.argsort(start[order], kind="stable")]
    start, end = start[order], end[order]
    found[order[1:]] |= start[1:] < np.maximum.accumulate(end)[:-1]
    found[order[:-1]] |= end[:-1] > start[1:]
    return found


def _disagree(claims: _Claims) -> bool:
    """
    Return whether any address has contents at two places of the file. It is enough to
    compare neighbours: all segments between two that disagree overlap the first.
    """
    order = np.flatnonzero(claims.start < claims.filled)
    order = order[np.argsort(claims.start[order], kind="stable")]
    claims = claims.only(order)
    delta = claims.start - claims.offset
    overlap = claims.start[1:] < np.maximum.accumulate(claims.filled)[:-1]
    return bool((overlap & (delta[1:] != delta[:-1])).any())


def _double_contents(rows: list[_Claim], differ: _Differ) -> Iterator[Span]:
    # Sweep over the borders, keeping the segments that have contents between two of them.
    borders = [
        (at, step, delta)
        for start, filled, _, delta in rows
        if start < filled
        for at, step in ((start, 1), (filled, -1))
    ]
    active: Counter[int] = Counter()
    before = 0
    for at, step, delta in sorted(borders):
        if before < at and len(active) > 1 and differ((before, at), active.keys()):
            yield before, at
        before = at
        active[delta] += step
        if not active[delta]:
            del active[delta]


def _hidden_contents(rows: list[_Claim]) -> Iterator[Span]:
    # Sweep over the borders, keeping the segments between two of them, of which drgn reads the last
    # in the file.
    parts = [
        (start, end, i, is_filled)
        for i, (first, filled, last, _) in enumerate(rows)
        for start, end, is_filled in ((first, filled, True), (filled, last, False))
        if start < end
    ]
    parts.sort()
    borders = sorted({at for start, end, *_ in parts for at in (start, end)})
    active: list[tuple[int, int, bool]] = []
    following = iter(parts)
    part = next(following, None)
    for at, stop in zip(borders, borders[1:]):
        while part and part[0] <= at:
            heapq.heappush(active, (-part[2], part[1], part[3]))
            part = next(following, None)
        while active and active[0][1] <= at:
            heapq.heappop(active)
        if active and not active[0][2]:
            yield at, stop


def _shared_places(headers: ProgramHeaders, claims: _Claims) -> tuple[Span, ...]:
    """Find the offsets of the file that more than one address leads to."""
    end = claims.offset + np.minimum(claims.filled - claims.start, _LAST - claims.offset)
    # Give the headers an address that no segment can have at that offset.
    taken = np.array([0, min(headers.offset, int(_LAST) - 1)], np.uint64)
    taken_end = taken + np.array([_EHDR_SIZE, headers.table.nbytes], np.uint64)
    start = np.concatenate([taken, claims.offset])
    filled = np.concatenate([taken_end, end])
    address = np.concatenate([taken + np.uint64(1), claims.start])
    places = _Claims(start, filled, filled, address, np.zeros(len(start), bool))
    if not _disagree(places):
        return ()
    rows = _few(places.only(_tangled(start, filled))).rows()
    return union(_double_contents(rows, lambda span, deltas: True))


def _at(places: tuple[Span, ...], claims: _Claims) -> Iterator[Span]:
    """Get the addresses whose contents are there: from the first to the last of each segment."""
    if not places:
        return
    for start, filled, _, delta in claims.rows():
        offset = (start - delta) % (1 << 64)
        if found := list(intersection((offset, offset + filled - start), places)):
            yield start + found[0][0] - offset, start + found[-1][1] - offset


def _differ(path: Path, span: Span, deltas: Collection[int]) -> bool:
    """
    Tell whether addresses have different contents at their places in the file.

    :param deltas: Differences between an address and its offset in the file.
    """
    start, end = span
    step = max(_PAGE, (end - start) // _SAMPLES // _PAGE * _PAGE)
    with path.open("rb") as file:
        for at in range(start, end, step):
            size = min(_PAGE, end - at)
            offsets = [(at - delta) % (1 << 64) for delta in deltas]
            if len({_read(file.fileno(), offset, size) for offset in offsets}) > 1:
                return True
    return False


def _read(fd: int, offset: int, size: int) -> bytes:
    try:
        return os.pread(fd, size, offset)
    except (OSError, OverflowError):
        return b""
