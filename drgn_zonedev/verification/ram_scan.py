# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Going Through RAM
-----------------

Reads the struct pages of RAM, a few MiB at a time, and looks again at what lies around
those that the fast path suspects.

Those of a running kernel change meanwhile. What is wrong with one counts if it is wrong at
every look, and holds the same words each time. Of a wrong zone or node, only that has to be the
same: no page gets another one while its memory is online.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from drgn import FaultError, Program, ProgramFlags

from drgn_zonedev.kernel.memmap import (
    PageLayout,
    Pages,
    UnreadablePages,
    read_blocks,
    read_pages,
)
from drgn_zonedev.model import Unjudged
from drgn_zonedev.util.intervals import Span
from drgn_zonedev.verification.columns import buffers_of
from drgn_zonedev.verification.compound_links import compound_before, ends_with
from drgn_zonedev.verification.deviations import Deviation, ram_deviations
from drgn_zonedev.verification.free_blocks import may_go_on
from drgn_zonedev.verification.in_flight import IN_FLIGHT, compounds_in_flight
from drgn_zonedev.verification.promises import RamPages
from drgn_zonedev.verification.ram_aliases import CHUNK_ORDER
from drgn_zonedev.verification.ram_fastpath import FastRam
from drgn_zonedev.verification.ram_rules import RAM_RULES
from drgn_zonedev.verification.ram_window import read_window, window_of, window_size
from drgn_zonedev.verification.rule import Role
from drgn_zonedev.verification.runs import Runs, add_deviation
from drgn_zonedev.verification.work import Scanned, batches

__all__ = ("scan_ram",)

# How often a running kernel's pages are looked at again, and after how many seconds:
# 262144 tails of a gigantic page are made or freed in some milliseconds.
_LIVE_LOOKS = 3
_LIVE_SECONDS = 0.02

# What is wrong with where a page belongs, whoever uses it meanwhile.
_ORIGINS = frozenset(rule.finding for rule in RAM_RULES if rule.role is Role.ORIGIN)

# No kernel has orders that large.
_ORDER_BITS = 8


@dataclass(frozen=True)
class _Wrong:
    """Pages that deviate, in a part of a window that could be read."""

    pages: Pages
    deviations: tuple[Deviation, ...]
    in_flight: tuple[Span, ...]

    @property
    def wrong(self) -> np.ndarray:
        """Which of the pages."""
        nothing = np.zeros(len(self.pages.words), bool)
        return np.any([nothing, *(d.wrong for d in self.deviations)], axis=0)


_Window = tuple[int, int]


def scan_ram(
    prog: Program,
    layout: PageLayout,
    promise: RamPages,
    spans: np.ndarray,
    progress: Callable[[int], None],
) -> Scanned:
    """
    Go through struct pages of RAM.

    :param spans: Half-open ranges of PFNs, a row each; no free block lies in two of them.
    :param progress: Called with the number of struct pages that were scanned.
    """
    scan = _Scan(prog, layout, promise)
    for starts, count in batches(spans, 1, 1 << CHUNK_ORDER):
        scan.go_through(starts, count)
        progress(len(starts) * count)
    scan.done.free = scan.count_free()
    done, found = scan.done, _look(prog, layout, promise, scan.windows)
    if prog.flags & ProgramFlags.IS_LIVE:
        lasting = _lasting(prog, layout, promise, found)
        done.torn = _number(found) - _number(lasting)
        found = lasting
    for wrong in found:
        for deviation in wrong.deviations:
            add_deviation(done.runs.setdefault(deviation.slug, Runs()), wrong.pages, deviation)
        done.unconfirmed += [Unjudged(*span, IN_FLIGHT) for span in wrong.in_flight]
    return done


def _number(found: list[_Wrong]) -> int:
    return sum(int(w.wrong.sum()) for w in found)


class _Scan:
    """Goes through blocks of pages, and finds the windows to look at again."""

    def __init__(self, prog: Program, layout: PageLayout, promise: RamPages) -> None:
        self._prog, self._layout, self._promise = prog, layout, promise
        cover = functools.partial(compound_before, prog, layout)
        ends = functools.partial(ends_with, prog, layout)
        self._fast = FastRam(layout, promise, cover, ends, buffers_of(prog))
        self._free: list[tuple[np.ndarray, np.ndarray]] = []
        self.done, self.windows = Scanned(), set[_Window]()

    def go_through(self, starts: np.ndarray, count: int) -> None:
        """Read this many struct pages from each of some PFNs on, and look at them."""
        # What was read is not kept here, so that the next read takes its place.
        try:
            raw = read_blocks(self._prog, self._layout, starts.tolist(), count)
        except FaultError:
            self._go_through_parts(starts, count)
            return
        self._glance(starts, count, raw)

    def _go_through_parts(self, starts: np.ndarray, count: int) -> None:
        # Part by part, it turns out what it is that cannot be read.
        for start in starts.tolist():
            for part in read_pages(self._prog, start, start + count, layout=self._layout):
                if isinstance(part, UnreadablePages):
                    self.done.append_gaps([part])
                else:
                    first, pages = np.array([part.start_pfn]), part.end_pfn - part.start_pfn
                    self._glance(first, pages, part.words.tobytes())

    def _glance(self, starts: np.ndarray, count: int, raw: bytes) -> None:
        seen = self._fast.glance(starts, raw)
        self.done.pages_read += len(starts) * count
        self.done.bytes_read += len(raw)
        self.done.access += seen.access
        self._free.append((seen.free_zones, seen.free_orders))
        if len(seen.suspects):
            self.windows.update(_windows(self._promise, starts, count, seen.suspects))
        first, last = int(starts[0]), int(starts[-1])
        if first == self._promise.start_pfn:
            self.windows.update(self._at_begin((first, first + count)))
        if last + count == self._promise.end_pfn:
            self.windows.update(self._at_end((last, last + count)))

    def count_free(self) -> Counter[tuple[int, int]]:
        """How many free blocks there are, by zone ID and order."""
        numbers = Counter[int]()
        for zones, orders in self._free:
            numbers.update((zones << np.uint64(_ORDER_BITS) | orders).tolist())
        return Counter({divmod(both, 1 << _ORDER_BITS): n for both, n in numbers.items()})

    # Where the pages before the first one, or after the last one, have a say.

    def _at_begin(self, block: _Window) -> Iterator[_Window]:
        begin, first = block[0], self._promise.around[0]
        for part in read_pages(self._prog, first, begin, layout=self._layout):
            if isinstance(part, Pages) and may_go_on(part, self._promise.kinds):
                yield window_of(self._promise, begin, block)

    def _at_end(self, block: _Window) -> Iterator[_Window]:
        end = block[1]
        if end == self._promise.around[1]:
            return
        pages = next(read_pages(self._prog, end - 1, end + 1, layout=self._layout))
        if not isinstance(pages, Pages) or len(pages.words) < 2 or _may_be_compound(pages):
            yield window_of(self._promise, end - 1, block)


def _may_be_compound(pages: Pages) -> bool:
    # Whether the first of two pages may be in a compound page with the other one.
    return bool(int(pages.flags[0]) & pages.layout.pg_head or pages.is_tail.any())


def _windows(
    promise: RamPages, starts: np.ndarray, count: int, suspects: np.ndarray
) -> Iterator[_Window]:
    # Around suspects, within the block that each lies in: what is beside that is an alias, or
    # cannot be read.
    size = window_size(promise)
    block = suspects // count
    window = (starts[block] + suspects % count) // size
    for number, first in dict.fromkeys(zip(block.tolist(), window.tolist())):
        begin = int(starts[number])
        pfn = min(max(first * size, begin), begin + count - 1)
        yield window_of(promise, pfn, (begin, begin + count))


def _look(
    prog: Program, layout: PageLayout, promise: RamPages, windows: Iterable[_Window]
) -> list[_Wrong]:
    found = []
    for start, end in sorted(windows):
        for window in read_window(prog, layout, promise, start, end):
            in_flight = tuple(compounds_in_flight(window))
            deviations = tuple(ram_deviations(prog, window, in_flight))
            if deviations or in_flight:
                found.append(_Wrong(window.pages, deviations, in_flight))
    return found


def _lasting(
    prog: Program, layout: PageLayout, promise: RamPages, found: list[_Wrong]
) -> list[_Wrong]:
    # What is wrong with the same words at every look.
    for _ in range(_LIVE_LOOKS if found else 0):
        time.sleep(_LIVE_SECONDS)
        windows = [(w.pages.start_pfn, w.pages.end_pfn) for w in found]
        again = {w.pages.start_pfn: w for w in _look(prog, layout, promise, windows)}
        both = ((w, again.get(w.pages.start_pfn)) for w in found)
        found = [_common(one, other) for one, other in both if other]
        found = [w for w in found if w.deviations or w.in_flight]
    return found


def _common(one: _Wrong, other: _Wrong) -> _Wrong:
    if len(one.pages.words) != len(other.pages.words):
        return dataclasses.replace(one, deviations=(), in_flight=())
    same = (one.pages.words == other.pages.words).all(axis=1)
    again = {d.slug: d for d in other.deviations}
    common = (
        dataclasses.replace(d, wrong=d.wrong & _still(d, again[d.slug], same))
        for d in one.deviations
        if d.slug in again
    )
    deviations = tuple(d for d in common if d.wrong.any())
    return dataclasses.replace(one, deviations=deviations, in_flight=other.in_flight)


def _still(one: Deviation, other: Deviation, same: np.ndarray) -> np.ndarray:
    still: np.ndarray = other.wrong & (one.found == other.found)
    return still if one.slug in _ORIGINS else still & same
