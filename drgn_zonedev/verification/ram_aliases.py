# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Aliases in RAM
--------------

Which struct pages of RAM have the memory of others, as the page tables say. Hugetlb pages
with an optimised vmemmap share that of their tails (``hugetlb_vmemmap_optimize_folio()``);
since Linux kernel v7.1, all of a zone and an order share one page.

One struct page for each piece of memory is verified; the others would say the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from drgn import Program

from drgn_zonedev.findings import make_finding
from drgn_zonedev.kernel.memmap import PageLayout, UnreadablePages, page_layout, read_pages
from drgn_zonedev.kernel.page_kinds import PageKinds
from drgn_zonedev.kernel.vmemmap import UNMAPPED, vmemmap_page_frames, vmemmap_pages
from drgn_zonedev.model import Case, Finding
from drgn_zonedev.util.intervals import Span, difference, union
from drgn_zonedev.verification.compound_links import (
    MAX_FOLIO_ORDER,
    ends_with,
    heads_of,
    words_of_pages,
)
from drgn_zonedev.vmcore.pagetables import walks_in_bulk

__all__ = (
    "CHUNK_ORDER",
    "RamAliases",
    "RamSpans",
    "find_ram_aliases",
    "illegal_ram_aliases",
    "own_spans",
    "owner_of_alias",
    "unreadable_ram_aliases",
)

_NONE = np.empty((0, 2), np.int64)

CHUNK_ORDER = 16
"""
Struct pages that are read at once, to the power of two: 4 MiB of them. With fewer, Python takes
its time; more do not stay in the processor's cache.
"""

# Pages of vmemmap that are translated together: the struct pages of 16 GiB.
_WINDOW_ORDER = 16

# 1 GiB in pages of 4 KiB. Larger hugetlb pages share no memory with their first page.
_GIGANTIC_ORDER = 18


@dataclass(frozen=True)
class RamAliases:
    """
    ``spans`` are the PFNs of aliases in ``[start_pfn, end_pfn)``, where the largest hugetlb
    pages begin and end: half-open ranges in ascending order, a row each.
    """

    start_pfn: int
    end_pfn: int
    spans: np.ndarray


@dataclass(frozen=True)
class RamSpans:
    """
    ``own`` are the PFNs whose struct pages have memory of their own, or are the first ones
    with it, and ``illegal`` those that share it although no hugetlb page does: half-open
    ranges in ascending order, a row each. None of ``own`` goes beyond a multiple of a chunk.
    ``around`` are PFNs that begin and end with a window, or with a span, and may be looked at
    besides.
    """

    own: np.ndarray
    illegal: np.ndarray
    around: tuple[int, int]


def find_ram_aliases(prog: Program, start_pfn: int, end_pfn: int) -> RamAliases:
    """Find aliases in a range of RAM, and around it; none, if nothing can be translated."""
    # Pages share memory with those before them, in the same hugetlb page.
    size = 1 << _GIGANTIC_ORDER
    start, end = start_pfn // size * size, -(-end_pfn // size) * size
    found = _aliases(prog, page_layout(prog), start, end)
    return RamAliases(start, end, np.concatenate([_NONE, *found]))


def own_spans(
    prog: Program, kinds: PageKinds, found: RamAliases, start_pfn: int, end_pfn: int, window: int
) -> RamSpans:
    """Tell aliases in a part of RAM from the other pages."""
    first, last = start_pfn // window * window, -(-end_pfn // window) * window
    if not len(found.spans):
        own = np.array([[start_pfn, end_pfn]])
        return RamSpans(_cut(own, 1 << CHUNK_ORDER), _NONE, (first, last))
    borders = np.r_[found.start_pfn, found.spans.ravel(), found.end_pfn].reshape(-1, 2)
    spans = borders[borders[:, 0] < borders[:, 1]]
    around = _around(spans, start_pfn, first)[0], _around(spans, end_pfn - 1, last)[1]
    aliases = found.spans.clip(start_pfn, end_pfn)
    aliases = aliases[aliases[:, 0] < aliases[:, 1]]
    own = spans.clip(start_pfn, end_pfn)
    own = own[own[:, 0] < own[:, 1]]
    illegal = _illegal(prog, page_layout(prog), kinds, aliases)
    return RamSpans(_cut(own, 1 << CHUNK_ORDER), illegal, around)


def _around(spans: np.ndarray, pfn: int, border: int) -> tuple[int, int]:
    # What of the span that a PFN is in lies within the border of its window.
    for start, end in spans[(spans[:, 0] <= pfn) & (pfn < spans[:, 1])].tolist():
        return max(start, min(border, pfn)), min(end, max(border, pfn + 1))
    return pfn, pfn + 1


def illegal_ram_aliases(spans: RamSpans) -> Iterator[Finding]:
    """Report struct pages of RAM that share memory that they must not share."""
    for start, end in spans.illegal.tolist():
        yield make_finding("vmemmap-alias", Case.ONLINE, start, end)


def unreadable_ram_aliases(prog: Program, span: Span, own: np.ndarray) -> Iterator[UnreadablePages]:
    """
    Find aliases that cannot be read.

    :param span: PFNs of RAM.
    :param own: Those that are no aliases, of :class:`RamSpans`.
    """
    for start, end in difference(span, union(own.tolist())):
        for part in read_pages(prog, start, end):
            if isinstance(part, UnreadablePages):
                yield part


def owner_of_alias(prog: Program, pfn: int) -> int | None:
    """
    Get the PFN that is judged in place of one whose struct page has the same memory; ``None`` if
    that page is judged itself.
    """
    start = pfn >> _GIGANTIC_ORDER << _GIGANTIC_ORDER
    first, end = vmemmap_pages(prog, start, pfn + 1)
    frames = vmemmap_page_frames(prog, first, end) if _may_share(prog) else None
    if frames is None or frames[-1] == UNMAPPED:
        return None
    before = end - 1 - first - int(np.argmax(frames == frames[-1]))
    per_page = prog["PAGE_SIZE"].value_() // page_layout(prog).size
    return pfn - before * per_page if before else None


def _cut(spans: np.ndarray, size: int) -> np.ndarray:
    # At multiples of a size. Few spans are as long as that.
    long = (spans[:, 1] - 1) // size != spans[:, 0] // size
    if not long.any():
        return spans
    parts = [_NONE]
    for rows in np.split(np.arange(len(spans)), np.flatnonzero(np.diff(long) | long[1:]) + 1):
        if not len(rows) or not long[rows[0]]:
            parts.append(spans[rows])
            continue
        ((start, end),) = spans[rows].tolist()
        borders = np.arange(start // size * size + size, end, size)
        parts.append(np.stack([np.r_[start, borders], np.r_[borders, end]], axis=1))
    return np.concatenate(parts)


def _aliases(
    prog: Program, layout: PageLayout, start_pfn: int, end_pfn: int
) -> Iterator[np.ndarray]:
    page_size = prog["PAGE_SIZE"].value_()
    if page_size % layout.size or layout.vmemmap % page_size or not _may_share(prog):
        return
    base, per_page = layout.vmemmap // page_size, page_size // layout.size
    first, end = vmemmap_pages(prog, start_pfn, end_pfn)
    # No hugetlb page lies in two windows.
    window = 1 << _WINDOW_ORDER
    for border in range((first - base) // window * window + base, end, window):
        start = max(border, first)
        frames = vmemmap_page_frames(prog, start, min(border + window, end))
        if frames is None or (np.diff(frames) == 1).all():
            # Nearly always, one huge page follows the other.
            continue
        rows = np.flatnonzero(_came_before(frames))
        if len(rows):
            # Each run is of one frame.
            breaks = np.flatnonzero((np.diff(rows) > 1) | (np.diff(frames[rows]) != 0)) + 1
            runs = np.stack(
                [rows[np.r_[0, breaks]], rows[np.r_[breaks, len(rows)] - 1] + 1], axis=1
            )
            yield (start + runs - base) * per_page


def _came_before(frames: np.ndarray) -> np.ndarray:
    again = frames != UNMAPPED
    ordered = np.sort(frames[again])
    if (ordered[1:] != ordered[:-1]).all():
        # Faster than finding the first page of each frame.
        return np.zeros(len(frames), bool)
    _, first = np.unique(frames, return_index=True)
    again[first] = False
    return again


def _may_share(prog: Program) -> bool:
    # Elsewhere, each page is looked up by itself: not if no hugetlb page can be optimised.
    if walks_in_bulk(prog):
        return True
    zone = prog.type("struct zone")
    return "hugetlb_optimize_vmemmap_key" in prog or zone.has_member("vmemmap_tails")


def _illegal(
    prog: Program, layout: PageLayout, kinds: PageKinds, aliases: np.ndarray
) -> np.ndarray:
    # What is wrong with one page of vmemmap says nothing of those beside it.
    doubtful = aliases[~_are_hugetlb(prog, layout, kinds, aliases)]
    size = prog["PAGE_SIZE"].value_() // layout.size
    parts = [_NONE]
    for start, end in doubtful.tolist():
        borders = np.arange(start // size * size + size, end, size)
        parts.append(np.stack([np.r_[start, borders], np.r_[borders, end]], axis=1))
    pages = np.concatenate(parts)
    wrong = pages[~_are_hugetlb(prog, layout, kinds, pages)]
    return np.array(union(wrong.tolist()), np.int64).reshape(-1, 2)


def _are_hugetlb(
    prog: Program, layout: PageLayout, kinds: PageKinds, aliases: np.ndarray
) -> np.ndarray:
    """
    Whether each is in an optimised hugetlb page to which the tails in the first page of its
    vmemmap lead. Nothing is said against what cannot be read.
    """
    per_page = prog["PAGE_SIZE"].value_() // layout.size
    begin = aliases[:, 0] // per_page * per_page
    found = np.zeros(len(aliases), bool)
    # One of them may be damaged.
    for index in (per_page - 1, per_page // 2):
        rows = np.flatnonzero(~found)
        if len(rows):
            pfn = begin[rows] + index
            words, readable = words_of_pages(prog, layout, pfn)
            head = heads_of(layout, pfn, words)
            found[rows] = ~readable | _in_optimized(prog, layout, kinds, aliases[rows], head)
    if layout.compound_mask and len(aliases):
        # A mask leads to another head from everywhere: no head may be among the tails.
        words, _ = words_of_pages(prog, layout, begin)
        is_head = (words[:, layout.flags_word] & np.uint64(layout.pg_head)) != 0
        found &= ~is_head | _is_tail(layout, words)
    return found


def _in_optimized(
    prog: Program, layout: PageLayout, kinds: PageKinds, aliases: np.ndarray, head: np.ndarray
) -> np.ndarray:
    # Whether each is in an optimised hugetlb page that begins before it, at ``head``. A head that
    # contradicts its tails is reported itself.
    words, readable = words_of_pages(prog, layout, head)
    first_tails, there = words_of_pages(prog, layout, head + 1)
    order = np.zeros(len(aliases), np.int64)
    if layout.order_offset is not None:
        order[:] = first_tails.view(np.uint8)[:, layout.order_offset]
    size = 1 << np.minimum(order, MAX_FOLIO_ORDER)
    optimized = (words[:, kinds.private_offset // 8] & np.uint64(kinds.optimized)) != 0
    found: np.ndarray = optimized & (head + size >= aliases[:, 1])
    is_head = (words[:, layout.flags_word] & np.uint64(layout.pg_head)) != 0
    for row in np.flatnonzero(~found & (head >= 0)).tolist():
        sound = is_head[row] and ends_with(prog, layout, int(head[row]), int(size[row]))
        found[row] = not (sound and readable[row] and there[row])
    return found & (head >= 0) & (head < aliases[:, 0])


def _is_tail(layout: PageLayout, words: np.ndarray) -> np.ndarray:
    found: np.ndarray = (words[:, layout.compound_word] & np.uint64(1)).astype(bool)
    return found
