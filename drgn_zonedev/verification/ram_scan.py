# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Going Through RAM
-----------------

Reads the struct pages of RAM, a few MiB at a time, and looks again at what lies around
those that the fast path suspects.

Those of a running kernel change meanwhile. What is wrong with one counts if it is wrong at
every look, and holds the same words each time.
"""

from __future__ import annotations

import dataclasses
import functools
import time
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
from drgn_zonedev.verification.compound_links import compound_before
from drgn_zonedev.verification.deviations import Deviation, ram_deviations
from drgn_zonedev.verification.in_flight import IN_FLIGHT, compounds_in_flight
from drgn_zonedev.verification.page_access import access_spans
from drgn_zonedev.verification.promises import RamPages
from drgn_zonedev.verification.ram_aliases import CHUNK_ORDER
from drgn_zonedev.verification.ram_fastpath import Buffers, glance
from drgn_zonedev.verification.ram_window import read_window, window_of, window_size
from drgn_zonedev.verification.runs import Runs, add_deviation
from drgn_zonedev.verification.work import Scanned, batches

__all__ = ("scan_ram",)

# How often a running kernel's pages are looked at again, and after how many seconds:
# 262144 tails of a gigantic page are made or freed in some milliseconds.
_LIVE_LOOKS = 3
_LIVE_SECONDS = 0.02


@dataclass(frozen=True)
class _Blocks:
    """As many struct pages from each of some PFNs on, one block behind the other."""

    starts: np.ndarray
    raw: bytes


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
    :param progress: Called with the number of struct pages that were gone through.
    """
    done, windows, buffers = Scanned(), dict[_Window, None](), Buffers()
    cover = functools.partial(compound_before, prog, layout)
    for part in _parts(prog, layout, spans):
        if isinstance(part, UnreadablePages):
            done.append_gaps([part])
            progress(part.end_pfn - part.start_pfn)
            continue
        seen = glance(layout, promise, part.starts, part.raw, cover, buffers)
        pages = len(part.raw) // layout.size
        done.pages_read += pages
        done.bytes_read += len(part.raw)
        done.free.update(seen.free)
        words = np.frombuffer(part.raw, "<u8").reshape(pages, -1)
        done.access += access_spans(layout, promise.marks, part.starts, words)
        windows.update(dict.fromkeys(_windows(promise, part.starts, pages, seen.suspects)))
        progress(pages)
    found = _look(prog, layout, promise, windows)
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


def _parts(
    prog: Program, layout: PageLayout, spans: np.ndarray
) -> Iterator[_Blocks | UnreadablePages]:
    for starts, count in batches(spans, 1, 1 << CHUNK_ORDER):
        try:
            yield _Blocks(starts, read_blocks(prog, layout, starts.tolist(), count))
            continue
        except FaultError:
            pass
        # Part by part, it turns out what it is that cannot be read.
        for start in starts.tolist():
            for part in read_pages(prog, start, start + count, layout=layout):
                if isinstance(part, Pages):
                    yield _Blocks(np.array([part.start_pfn]), part.words.tobytes())
                else:
                    yield part


def _windows(
    promise: RamPages, starts: np.ndarray, pages: int, suspects: np.ndarray
) -> Iterator[_Window]:
    # Around suspects, within the block that each lies in: what is beside that is an alias, or
    # cannot be read. What begins or ends in a window may lie in a free block.
    count, size = pages // len(starts), window_size(promise)
    block = suspects // count
    window = (starts[block] + suspects % count) // size
    for number, first in np.unique(np.stack([block, window]), axis=1).T.tolist():
        begin = int(starts[number])
        pfn = min(max(first * size, begin), begin + count - 1)
        yield window_of(promise, pfn, (begin, begin + count))
    begin, end = int(starts[0]), int(starts[-1]) + count
    if begin == promise.start_pfn != promise.around[0]:
        yield window_of(promise, begin, (begin, begin + count))
    if end == promise.end_pfn != promise.around[1]:
        yield window_of(promise, end - 1, (end - count, end))


def _look(
    prog: Program, layout: PageLayout, promise: RamPages, windows: Iterable[_Window]
) -> list[_Wrong]:
    found = []
    for start, end in sorted(windows):
        for window in read_window(prog, layout, promise, start, end):
            deviations = tuple(ram_deviations(prog, window))
            in_flight = tuple(compounds_in_flight(window))
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
    still = {d.slug: d.wrong & same for d in other.deviations}
    common = (
        dataclasses.replace(d, wrong=d.wrong & still[d.slug])
        for d in one.deviations
        if d.slug in still
    )
    deviations = tuple(d for d in common if d.wrong.any())
    return dataclasses.replace(one, deviations=deviations, in_flight=other.in_flight)
