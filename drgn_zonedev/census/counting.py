# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Counting Pages
--------------

Scans the struct pages of stretches, and counts pages. A :class:`Count` is plain data, so
that it can be done here or in another process: :data:`COUNTING` is the task.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from drgn import Program

from drgn_zonedev.census.bins import NO_LABEL, NO_ZONE, Bin
from drgn_zonedev.census.deciding import Decided, PageMarks, decide, of_one_kind
from drgn_zonedev.census.grouping import By, Labels
from drgn_zonedev.census.kinds import PAGE_KINDS, KindWords, PageKind
from drgn_zonedev.census.mappings import KnownMappings
from drgn_zonedev.census.plan import Stretch
from drgn_zonedev.kernel.memmap import PageLayout, Pages, PagesOrGap, read_pages
from drgn_zonedev.kernel.records import read_records
from drgn_zonedev.verification.columns import Buffers, Columns, buffers_of
from drgn_zonedev.verification.promises import DevicePages
from drgn_zonedev.verification.task import Do, ScanTask

__all__ = (
    "CHUNK_PAGES",
    "COUNTING",
    "ChunkReader",
    "Count",
    "Counted",
    "count",
    "counts",
    "cut_count",
    "is_in_use",
    "read_aligned",
)

CHUNK_PAGES = 1 << 16
"""Struct pages that are read at once: no block of the buddy allocator is in two chunks."""

# Above all zone IDs of 1024 nodes.
_FEW_ZONES = 1 << 14
# Heads of device pages that are read at once.
_HEADS = 1 << 16


@dataclass(frozen=True)
class Count:
    """Pages to count. ``marks`` and ``labels`` are those within the stretch."""

    stretch: Stretch
    marks: PageMarks
    words: KindWords
    labels: Labels | None

    @property
    def pages(self) -> int:
        """Number of struct pages to scan."""
        return self.stretch.pages if self.stretch.is_read else 0

    def within(self, start_pfn: int, end_pfn: int) -> Count:
        """Get the same work for a part of the PFNs."""
        span = start_pfn, end_pfn
        stretch = dataclasses.replace(self.stretch, start_pfn=start_pfn, end_pfn=end_pfn)
        labels = self.labels and self.labels.within(*span)
        return Count(stretch, self.marks.within(*span), self.words, labels)


@dataclass
class Counted:
    """The result of counting."""

    bins: Counter[Bin] = field(default_factory=Counter)

    def extend(self, other: Counted) -> None:
        """Add the result for other pages."""
        self.bins.update(other.bins)


def counts(
    stretches: Sequence[Stretch], marks: PageMarks, words: KindWords, labels: Labels | None
) -> Iterator[Count]:
    """Get the work of counting stretches."""
    for stretch in stretches:
        whole = Count(stretch, marks, words, labels)
        yield whole.within(stretch.start_pfn, stretch.end_pfn)


def cut_count(work: Count, pages: int) -> Iterator[Count]:
    """Cut work in pieces of about this many pages, between chunks: no block is cut."""
    if not work.stretch.is_read:
        yield work
        return
    size = max(pages // CHUNK_PAGES, 1) * CHUNK_PAGES
    start, end = work.stretch.start_pfn, work.stretch.end_pfn
    while start < end:
        stop = min((start // size + 1) * size, end)
        yield work.within(start, stop)
        start = stop


class ChunkReader:
    """What is kept from one chunk to the next."""

    def __init__(self, prog: Program, words: KindWords, buffers: Buffers) -> None:
        self.prog = prog
        self.words = words
        self.mappings = KnownMappings(prog, words)
        self.buffers = buffers

    def decide(self, pages: Pages, stretch: Stretch, marks: PageMarks) -> Decided:
        """Decide the kinds of some pages of a stretch."""
        if stretch.kind is not None:
            return of_one_kind(self.prog, self.words, self.mappings, pages, stretch.kind)
        here = marks.within(pages.start_pfn, pages.end_pfn)
        return decide(
            self.prog, self.words, self.mappings, pages, here, stretch.end_pfn, self.buffers
        )


def count(
    prog: Program, work: Count, progress: Callable[[int], None] = lambda pages: None
) -> Counted:
    """
    Count pages.

    :param prog: Needs no debugging symbols.
    :param progress: Called with the number of struct pages that were scanned.
    """
    done, stretch = Counted(), work.stretch
    if not stretch.is_read:
        assert stretch.kind is not None
        _count_alike(done, work, stretch.start_pfn, stretch.end_pfn, stretch.kind)
        return done
    if stretch.device is not None and stretch.device.vmemmap_shift:
        _count_heads(prog, done, work, stretch.device, progress)
        return done
    reader = ChunkReader(prog, work.words, buffers_of(prog))
    for part in read_aligned(prog, work.words.layout, stretch.start_pfn, stretch.end_pfn):
        if isinstance(part, Pages):
            _count_pages(done, work, reader, part)
        else:
            _count_alike(done, work, part.start_pfn, part.end_pfn, PageKind.NOT_IN_DUMP)
        progress(part.end_pfn - part.start_pfn)
        # See read_pages().
        del part
    return done


def _begin() -> Do[Count, Counted]:
    return count


COUNTING = ScanTask(cut_count, _begin, Counted)
"""The task of counting pages."""


def read_aligned(
    prog: Program, layout: PageLayout, start_pfn: int, end_pfn: int
) -> Iterator[PagesOrGap]:
    """Read struct pages like :func:`read_pages`, in chunks that do not cut blocks."""
    border = min(-(-start_pfn // CHUNK_PAGES) * CHUNK_PAGES, end_pfn)
    for start, end in ((start_pfn, border), (border, end_pfn)):
        yield from read_pages(prog, start, end, chunk=CHUNK_PAGES, layout=layout)


def _count_alike(done: Counted, work: Count, start: int, end: int, kind: PageKind) -> None:
    # Pages whose struct page tells nothing.
    for label, pages in _place_labels(work, start, end):
        done.bins[Bin(kind.code, NO_ZONE, 0, label, None, False)] += pages


def _place_labels(work: Count, start: int, end: int) -> Iterator[tuple[int, int]]:
    labels = work.labels
    if labels is None or labels.by not in (By.MIGRATETYPE, By.MEMORY_BLOCK):
        yield NO_LABEL, end - start
    else:
        yield from labels.parts(start, end)


def _count_pages(done: Counted, work: Count, reader: ChunkReader, pages: Pages) -> None:
    stretch = work.stretch
    if stretch.kind in (PageKind.UNINITIALISED, PageKind.OFFLINE_SECTION):
        _count_alike(done, work, pages.start_pfn, pages.end_pfn, stretch.kind)
        return
    decided = reader.decide(pages, stretch, work.marks)
    in_use = None
    if stretch.device is not None:
        in_use = is_in_use(stretch, decided.heads)
    columns = _Columns(
        _zones(decided.look.columns, pages.layout),
        decided.kind,
        _orders(work, decided),
        stretch.device,
        in_use,
    )
    _add(done, columns, _labels(work, decided))


def _zones(columns: Columns, layout: PageLayout) -> _Zones:
    # Node and zone of pages as one number: what page->flags begin with.
    shift = 64 - layout.nodes_shift - layout.zones_shift
    flags = columns.word(layout.flags_word)
    common = columns.common(layout.flags_word, (1 << 64) - (1 << shift))
    if common is not None:
        return _Zones(np.array([common >> shift]), None)
    ids = (flags >> np.uint64(shift)).view(np.int64)
    if int(ids.max()) >= _FEW_ZONES:
        zones, which = np.unique(ids, return_inverse=True)
        return _Zones(zones, which.reshape(-1))
    # There are few, so sorting is not needed.
    zones = np.flatnonzero(np.bincount(ids))
    place = np.zeros(zones[-1] + 1, np.int64)
    place[zones] = np.arange(len(zones))
    return _Zones(zones, place[ids])


def is_in_use(stretch: Stretch, heads: Pages) -> np.ndarray:
    """Which pages of a device have more references than one that is not in use."""
    return heads.refcount > stretch.idle


def _orders(work: Count, decided: Decided) -> np.ndarray | None:
    return decided.order if work.labels and work.labels.by is By.ORDER else None


def _labels(work: Count, decided: Decided) -> np.ndarray | None:
    labels, pages = work.labels, decided.pages
    if labels is None or labels.by is By.ORDER:
        return None
    if labels.by is By.PGMAP:
        device = work.stretch.device
        return np.full(len(pages.words), device.pgmap if device else NO_LABEL, np.uint64)
    if labels.by is By.FLAGS:
        return labels.of_flags(decided.heads)
    if labels.by is By.SLAB_CACHE:
        word, slab = work.words.slab_cache_word, decided.kind == PageKind.SLAB.code
        caches = decided.heads.words[:, word] if word is not None else np.uint64(NO_LABEL)
        return np.where(slab, caches, np.uint64(NO_LABEL))
    return labels.at(pages.pfn)


@dataclass(frozen=True)
class _Zones:
    """The different zone IDs of pages, and which of them each page has if there are several."""

    ids: np.ndarray
    which: np.ndarray | None


@dataclass(frozen=True)
class _Columns:
    zones: _Zones
    kind: np.ndarray
    order: np.ndarray | None
    device: DevicePages | None
    in_use: np.ndarray | None


def _add(
    done: Counted,
    columns: _Columns,
    labels: np.ndarray | None,
    pages: np.ndarray | None = None,
) -> None:
    # ``pages`` is how many pages each row stands for.
    key = _keys(columns)
    if labels is None:
        numbers = _frequencies(key) if pages is None else np.bincount(key, pages)
        for index in np.flatnonzero(numbers).tolist():
            done.bins[_bin(columns, index, NO_LABEL)] += int(numbers[index])
        return
    different, which = np.unique(labels, return_inverse=True)
    both = key.astype(np.int64) * len(different) + which.reshape(-1)
    found, rows = np.unique(both, return_inverse=True)
    numbers = np.bincount(rows.reshape(-1), pages)
    for index, number in zip(found.tolist(), numbers.tolist()):
        rest, label = divmod(index, len(different))
        done.bins[_bin(columns, rest, int(different[label]))] += int(number)


def _keys(columns: _Columns) -> np.ndarray:
    # What is counted together, as one number for each row; codes of kinds if they are enough.
    zones, key = columns.zones, columns.kind
    if zones.which is not None:
        key = zones.which * len(PAGE_KINDS) + key
    if columns.in_use is not None:
        key = key + columns.in_use * (len(PAGE_KINDS) * len(zones.ids))
    if columns.order is not None:
        key = key + columns.order * (2 * len(PAGE_KINDS) * len(zones.ids))
    return key


def _frequencies(key: np.ndarray) -> np.ndarray:
    # Pages that follow each other are mostly of the same kind, and counted together.
    borders = np.flatnonzero(key[1:] != key[:-1]) + 1
    if len(borders) > len(key) // 8:
        return np.bincount(key)
    firsts, ends = np.append(0, borders), np.append(borders, len(key))
    return np.bincount(key[firsts], ends - firsts)


def _bin(columns: _Columns, index: int, label: int) -> Bin:
    rest, kind = divmod(index, len(PAGE_KINDS))
    zones = columns.zones.ids
    rest, zone = divmod(rest, len(zones))
    order, in_use = divmod(rest, 2)
    device = columns.device.type if columns.device else None
    return Bin(kind, int(zones[zone]), order, label, device, bool(in_use))


def _count_heads(
    prog: Program,
    done: Counted,
    work: Count,
    device: DevicePages,
    progress: Callable[[int], None],
) -> None:
    # The head of a compound page decides for its tails, whose struct pages may share memory.
    layout, stretch, size = work.words.layout, work.stretch, 1 << device.vmemmap_shift
    first = stretch.start_pfn - (stretch.start_pfn - device.first_pfn) % size
    for start in range(first, stretch.end_pfn, size * _HEADS):
        end = min(start + size * _HEADS, stretch.end_pfn)
        pfn = np.arange(start, end, size)
        begins, ends = pfn.clip(stretch.start_pfn), (pfn + size).clip(None, stretch.end_pfn)
        addresses = np.uint64(layout.vmemmap) + pfn.astype(np.uint64) * np.uint64(layout.size)
        raw, readable = read_records(prog, addresses, layout.size)
        for begin, stop in zip(begins[~readable].tolist(), ends[~readable].tolist()):
            _count_alike(done, work, begin, stop, PageKind.NOT_IN_DUMP)
        heads = Pages(0, int(readable.sum()), raw[readable].view("<u8"), layout)
        if len(heads.words):
            kind = np.full(len(heads.words), PageKind.DEVICE.code, np.uint8)
            order = np.full(len(kind), device.vmemmap_shift) if _by(work) is By.ORDER else None
            columns = _Columns(
                _zones(Columns(heads.words, buffers_of(prog)), layout),
                kind,
                order,
                device,
                is_in_use(stretch, heads),
            )
            labels = _labels_of_heads(work, device, heads, pfn[readable])
            _add(done, columns, labels, (ends - begins)[readable])
        progress(end - max(start, stretch.start_pfn))


def _by(work: Count) -> By | None:
    return work.labels.by if work.labels else None


def _labels_of_heads(
    work: Count, device: DevicePages, heads: Pages, pfn: np.ndarray
) -> np.ndarray | None:
    labels = work.labels
    if labels is None or labels.by is By.ORDER:
        return None
    if labels.by is By.FLAGS:
        return labels.of_flags(heads)
    if labels.by is By.PGMAP:
        return np.full(len(pfn), device.pgmap, np.uint64)
    if labels.by is By.SLAB_CACHE:
        return np.full(len(pfn), NO_LABEL, np.uint64)
    return labels.at(pfn)
