# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Promised Struct Pages
---------------------

Scans the struct pages that have promises. This is most of the work, so it is cut into pieces of
plain data, which can be done here or in another process. Their results are joined in order.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np
from drgn import FaultError, Program, ProgramFlags

from drgn_zonedev.kernel.memmap import (
    PageLayout,
    Pages,
    PagesOrGap,
    UnreadablePages,
    default_chunk,
    read_blocks,
    read_pages,
)
from drgn_zonedev.model import Unjudged
from drgn_zonedev.util.sets import sorted_set
from drgn_zonedev.verification.deviations import Deviation, deviations
from drgn_zonedev.verification.fastpath import FastPath, cached_fast_path, make_fast_path
from drgn_zonedev.verification.page_access import access_spans
from drgn_zonedev.verification.promises import DevicePages, Promise, RamPages
from drgn_zonedev.verification.ram_scan import scan_ram
from drgn_zonedev.verification.references import (
    broken_folios,
    counts_pages_in_use,
    pages_in_use,
)
from drgn_zonedev.verification.runs import Runs, add_deviation
from drgn_zonedev.verification.task import Do, ScanTask
from drgn_zonedev.verification.work import Scanned, Work, batches

__all__ = ("pieces", "scan", "scanning")

# A page on a running kernel that is wrong only now and then is being written.
_LIVE_REREADS = 3


def scanning(layout: PageLayout) -> ScanTask[Work, Scanned]:
    """Get the task of finding struct pages that are not as promised; see :func:`scan()`."""
    return ScanTask(pieces, functools.partial(_begin, layout), Scanned)


def _begin(layout: PageLayout) -> Do[Work, Scanned]:
    fast_path = cached_fast_path()

    def scan_piece(prog: Program, work: Work, progress: Callable[[int], None]) -> Scanned:
        known = fast_path(layout, work.promise)
        return scan(prog, layout, work, progress, fast_path=known)

    return scan_piece


def pieces(work: Work, pages: int) -> Iterator[Work]:
    """Cut work in pieces of at most this many struct pages, which is one or more."""
    if isinstance(work.promise, RamPages):
        yield from _groups(work, pages)
        return
    for first in range(0, len(work.spans), pages):
        yield from _pieces(work.promise, work.spans[first : first + pages], pages)


def _groups(work: Work, pages: int) -> Iterator[Work]:
    # Spans are not cut, because free blocks must not be.
    counts = work.spans[:, 1] - work.spans[:, 0]
    number = (np.cumsum(counts) - 1) // max(pages, 1)
    for rows in np.split(work.spans, np.flatnonzero(np.diff(number)) + 1):
        if len(rows):
            yield Work(work.promise, rows)


def _pieces(promise: Promise, spans: np.ndarray, pages: int) -> Iterator[Work]:
    # Offsets in struct pages: the ends of spans, the ends of pieces, and both.
    lengths = spans[:, 1] - spans[:, 0]
    ends = np.cumsum(lengths)
    borders = np.arange(pages, ends[-1], pages)
    stops = sorted_set(np.concatenate([ends, borders]))
    starts = np.r_[0, stops[:-1]]
    span = np.searchsorted(ends, starts, side="right")
    first = spans[span, 0] + starts - (ends - lengths)[span]
    rows = np.stack([first, first + stops - starts], axis=1)
    for piece in np.split(rows, np.searchsorted(stops, borders) + 1):
        yield Work(promise, piece)


def scan(
    prog: Program,
    layout: PageLayout,
    work: Work,
    progress: Callable[[int], None] = lambda pages: None,
    *,
    chunk: int | None = None,
    fast_path: FastPath | None = None,
) -> Scanned:
    """
    Read struct pages, and find those that are not as promised.

    :param layout: The layout of *prog*, which then does not need debugging symbols.
    :param progress: Called with the number of struct pages that were scanned.
    :param chunk: Struct pages per read.
    :param fast_path: Returns whether pages need no closer look.
    """
    if isinstance(work.promise, RamPages):
        return scan_ram(prog, layout, work.promise, work.spans, progress)
    done = Scanned()
    chunk = chunk or default_chunk(layout)
    fast_path = fast_path or make_fast_path(layout, work.promise)
    for starts, count in _blocks(work, chunk):
        raw = _read(prog, layout, starts, count)
        if raw is None:
            # Reading part by part shows what cannot be read.
            for start in starts.tolist():
                for part in read_pages(prog, start, start + count, chunk=chunk, layout=layout):
                    _look(prog, work.promise, part, done)
        elif fast_path(starts, count, raw):
            done.pages_read += len(starts) * count
            done.bytes_read += len(raw)
            _look_at_users(layout, work.promise, starts, raw, done)
        else:
            words = np.frombuffer(raw, "<u8").reshape(len(starts), count, -1)
            for start, block in zip(starts.tolist(), words):
                _look(prog, work.promise, Pages(start, start + count, block, layout), done)
        progress(len(starts) * count)
    return done


def _read(prog: Program, layout: PageLayout, starts: np.ndarray, count: int) -> bytes | None:
    try:
        return read_blocks(prog, layout, starts.tolist(), count)
    except FaultError:
        return None


def _blocks(work: Work, chunk: int) -> Iterator[tuple[np.ndarray, int]]:
    # Yields start PFNs of blocks that are read together, and their common length.
    promise, size, first = work.promise, 1, 0
    if isinstance(promise, DevicePages):
        size, first = 1 << promise.vmemmap_shift, promise.first_pfn
    for starts, count in batches(work.spans, size, chunk):
        if len(starts) > 1:
            yield starts, count
            continue
        start = int(starts[0])
        for begin, end in _cuts(start, start + count, first, size, chunk):
            yield np.array([begin]), end - begin


def _cuts(start: int, end: int, first: int, size: int, chunk: int) -> Iterator[tuple[int, int]]:
    # Cut at borders of compound pages, as the fast path likes it: in parts of one, and in
    # whole ones.
    while start < end:
        into = (start - first) % size
        stop = min(start + chunk, end)
        if into or stop - start < size:
            stop = min(stop, start + size - into)
        else:
            stop -= (stop - start) % size
        yield start, stop
        start = stop


def _look(prog: Program, promise: Promise, part: PagesOrGap, done: Scanned) -> None:
    if isinstance(part, UnreadablePages):
        done.append_gaps([part])
        return
    done.pages_read += part.end_pfn - part.start_pfn
    done.bytes_read += part.words.nbytes
    raw = np.ascontiguousarray(part.words)
    _look_at_users(part.layout, promise, np.array([part.start_pfn]), raw, done)
    for deviation in _confirmed(prog, promise, part, done):
        add_deviation(done.runs.setdefault(deviation.slug, Runs()), part, deviation)


def _look_at_users(
    layout: PageLayout, promise: Promise, starts: np.ndarray, raw: bytes | np.ndarray, done: Scanned
) -> None:
    if isinstance(promise, DevicePages):
        words = np.frombuffer(raw, "<u8").reshape(-1, layout.size // 8)
        done.access += access_spans(layout, promise.marks, starts, words)
        if counts_pages_in_use(layout, promise.type):
            done.in_use += pages_in_use(layout, words)
            done.broken_folios += broken_folios(layout, starts, words)


def _confirmed(prog: Program, promise: Promise, pages: Pages, done: Scanned) -> list[Deviation]:
    # A running kernel changes pages while they are read. What is really wrong
    # stays wrong.
    found = deviations(prog, pages, promise)
    live = bool(prog.flags & ProgramFlags.IS_LIVE)
    for _ in range(_LIVE_REREADS if live and found else 0):
        count = len(pages.words)
        again = next(
            read_pages(prog, pages.start_pfn, pages.end_pfn, chunk=count, layout=pages.layout)
        )
        if not isinstance(again, Pages) or again.end_pfn != pages.end_pfn:
            done.unconfirmed += _unconfirmed(pages, found)
            return []
        still = {d.slug: d.wrong for d in deviations(prog, again, promise)}
        found = [
            dataclasses.replace(d, wrong=d.wrong & still[d.slug])
            for d in found
            if d.slug in still and (d.wrong & still[d.slug]).any()
        ]
    return found


def _unconfirmed(pages: Pages, found: list[Deviation]) -> Iterator[Unjudged]:
    # What looked wrong, and could not be confirmed.
    for d in found:
        rows = np.flatnonzero(d.wrong)
        start, end = pages.start_pfn + int(rows[0]), pages.start_pfn + int(rows[-1]) + 1
        yield Unjudged(start, end, f"{d.slug}: could not be read again")
