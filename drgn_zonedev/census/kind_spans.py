# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Kinds by Place
--------------

Finds which kinds of pages are where in RAM, for pictures, as exactly as a few thousand spans can
show. If reading all RAM would take more than some seconds, it takes samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from drgn import Program

from drgn_zonedev.census.counting import ChunkReader, read_aligned
from drgn_zonedev.census.kinds import PAGE_KINDS, PageKind, kind_words
from drgn_zonedev.census.plan import Stretch, find_marks, plan
from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.kernel.memmap import Pages
from drgn_zonedev.model import Range
from drgn_zonedev.verification.columns import Buffers

__all__ = ("SAMPLE_PAGES", "KindSpan", "KindsByPlace", "kind_spans")

SAMPLE_PAGES = 1 << 15
"""Where there are too many to read all, so many follow each other."""

_MOST_SPANS = 1 << 14
# 256 GiB of pages of 4 KiB take some seconds.
_MOST_READ = 1 << 26


@dataclass(frozen=True)
class KindSpan:
    """PFNs of which ``pages`` are of one kind, and fewer are of any other."""

    start_pfn: int
    end_pfn: int
    kind: PageKind
    pages: int


@dataclass(frozen=True)
class KindsByPlace:
    """
    Spans of RAM in ascending order. Of ``every`` times :data:`SAMPLE_PAGES`, those in the middle
    were read.
    """

    spans: Sequence[KindSpan] = ()
    every: int = 1


def kind_spans(
    prog: Program, snapshot: Snapshot, ranges: Sequence[Range], most: int = _MOST_SPANS
) -> KindsByPlace:
    """
    Get the kinds of RAM's pages whose struct pages can be read.

    :param most: Make spans so long that there are about as many, or fewer.
    :raises LookupError: if the debugging information does not have what is needed
    """
    stretches = [stretch for stretch in plan(prog, snapshot, ranges) if stretch.kind is None]
    pages = sum(stretch.pages for stretch in stretches)
    every = max(-(-pages // _MOST_READ), 1)
    block = 1 << max(pages // every // most, 1).bit_length() - 1
    words, (marks, _) = kind_words(prog), find_marks(prog, snapshot)
    reader = ChunkReader(prog, words, Buffers())
    spans: list[KindSpan] = []
    for stretch, start_pfn, end_pfn in _samples(stretches, every):
        for read in read_aligned(prog, words.layout, start_pfn, end_pfn):
            if isinstance(read, Pages):
                kind = reader.decide(read, stretch, marks).kind
                _extend(spans, _of_blocks(read.start_pfn, kind, min(block, SAMPLE_PAGES)))
    return KindsByPlace(spans, every)


def _samples(stretches: Sequence[Stretch], every: int) -> Iterator[tuple[Stretch, int, int]]:
    """Yield what to read: whole stretches, or one sample in ``every``."""
    if every == 1:
        yield from ((stretch, stretch.start_pfn, stretch.end_pfn) for stretch in stretches)
        return
    # Counted, not taken by PFN: nodes begin at multiples of large powers of two, and what the
    # kernel keeps at the start of each is not what is in the rest.
    chunks = (
        (stretch, max(pfn, stretch.start_pfn), min(pfn + SAMPLE_PAGES, stretch.end_pfn))
        for stretch in stretches
        for pfn in range(
            stretch.start_pfn // SAMPLE_PAGES * SAMPLE_PAGES, stretch.end_pfn, SAMPLE_PAGES
        )
    )
    yield from islice(chunks, every // 2, None, every)


def _of_blocks(start_pfn: int, kind: np.ndarray, block: int) -> Iterator[KindSpan]:
    """Yield the most frequent kind of each block."""
    kinds, number = len(PAGE_KINDS), (start_pfn + np.arange(len(kind))) // block
    number -= number[0]
    counts = np.bincount(number * kinds + kind, minlength=(number[-1] + 1) * kinds)
    counts = counts.reshape(-1, kinds)
    columns = counts.sum(axis=1), counts.argmax(axis=1), counts.max(axis=1)
    for pages, code, most in zip(*(column.tolist() for column in columns)):
        yield KindSpan(start_pfn, start_pfn + pages, PAGE_KINDS[code], most)
        start_pfn += pages


def _extend(spans: list[KindSpan], more: Iterator[KindSpan]) -> None:
    for span in more:
        last = spans[-1] if spans else None
        if last and _is_whole(last) and _is_whole(span) and _continues(last, span):
            span = KindSpan(last.start_pfn, span.end_pfn, span.kind, last.pages + span.pages)
            spans.pop()
        spans.append(span)


def _is_whole(span: KindSpan) -> bool:
    return span.pages == span.end_pfn - span.start_pfn


def _continues(last: KindSpan, span: KindSpan) -> bool:
    return last.end_pfn == span.start_pfn and last.kind is span.kind
