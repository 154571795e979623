# SPDX-License-Identifier: LGPL-2.1-or-later

"""
References of Pgmaps
--------------------

Compares the references that a pgmap has with those that its pages account for.

``memremap_pages()`` takes one, and one for each page or compound page, but not of device-private
and coherent memory: there, ``zone_device_page_init()`` takes one for each page that it hands out,
and ``free_zone_device_folio()`` drops it. P2PDMA has both kinds. Each reference is taken before the
page gets one, and dropped after the page's last one, so there are never too few.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from drgn import Program, ProgramFlags

from drgn_zonedev.findings import make_finding
from drgn_zonedev.kernel.memmap import PageLayout
from drgn_zonedev.model import Case, Evidence, Finding, Pgmap, Range, Unjudged
from drgn_zonedev.util.intervals import Span

__all__ = (
    "BrokenFolio",
    "broken_folios",
    "compare_references",
    "counts_pages_in_use",
    "pages_in_use",
    "uncounted",
)

_HANDED_OUT = ("MEMORY_DEVICE_PRIVATE", "MEMORY_DEVICE_COHERENT")
_P2PDMA = "MEMORY_DEVICE_PCI_P2PDMA"
# No driver builds larger folios: MAX_FOLIO_ORDER.
_MAX_ORDER = 22


def counts_pages_in_use(layout: PageLayout, memory_type: str) -> bool:
    """
    Return whether a pgmap has a reference for each of its pages that has one, so the pages show how
    many there must be.

    P2PDMA pages are idle at 1 until Linux kernel commit b7e282378773 ("mm/mm_init: move p2pdma
    page refcount initialisation to p2pdma") (in v6.15), the release of ``folio->pgmap``.
    """
    return memory_type in _HANDED_OUT or (memory_type == _P2PDMA and layout.pgmap_in_folio)


def pages_in_use(layout: PageLayout, words: np.ndarray) -> int:
    """
    Count the pages of folios that have a reference: ``1 << folio_order()`` of each.

    :param words: Struct pages that follow each other, a row each; no folio begins in the last row
        and ends after it.
    """
    refcount = words.view("<i4")[:, layout.refcount_offset // 4]
    if not refcount.any():
        return 0
    is_tail = (words[:, layout.compound_word] & np.uint64(1)).astype(bool)
    rows = np.flatnonzero((refcount > 0) & ~is_tail)
    if not layout.pgmap_in_folio or layout.order_offset is None:
        # Drivers do not build folios.
        return len(rows)
    head = (words[rows, layout.flags_word] & np.uint64(layout.pg_head)) != 0
    head &= rows + 1 < len(words)
    first_tails = np.ascontiguousarray(words[rows[head] + 1]).view(np.uint8)
    order = np.minimum(first_tails[:, layout.order_offset], _MAX_ORDER).astype(np.int64)
    return len(rows) - len(order) + int((1 << order).sum())


BrokenFolio = tuple[str, int, int]
"""The kind of finding, and a half-open range of PFNs."""


def broken_folios(
    layout: PageLayout, starts: np.ndarray, words: np.ndarray
) -> Iterator[BrokenFolio]:
    """
    Find folios that have a reference, and tails that do not link to them: the order of such a head
    is left over from an earlier folio. Free folios may have anything left over. Also find tails
    that have references of their own.

    :param starts: PFN of the first page of each block.
    :param words: Struct pages of all blocks, a row each; all blocks have the same length.
    """
    refcount = words.view("<i4")[:, layout.refcount_offset // 4]
    if not layout.pgmap_in_folio or layout.order_offset is None or not refcount.any():
        return
    used = refcount > 0
    is_tail = (words[:, layout.compound_word] & np.uint64(1)) != 0
    is_head = (words[:, layout.flags_word] & np.uint64(layout.pg_head)) != 0
    count = len(words) // len(starts)
    pfn = (starts[:, np.newaxis] + np.arange(count)).ravel()
    for start, end in _together(pfn[used & is_tail]):
        yield "device-page-refcount", start, end
    for row in np.flatnonzero(used & is_head & ~is_tail).tolist():
        # Only the part of a folio in its block is looked at.
        size = _broken_size(layout, int(pfn[row]), words[row : row + count - row % count])
        if size:
            yield "device-folio-tails", int(pfn[row]), int(pfn[row]) + size


def _together(pfns: np.ndarray) -> Iterator[tuple[int, int]]:
    for run in np.split(pfns, np.flatnonzero(np.diff(pfns) != 1) + 1):
        if len(run):
            yield int(run[0]), int(run[-1]) + 1


def _broken_size(layout: PageLayout, pfn: int, words: np.ndarray) -> int:
    # How many pages a broken folio would have; 0 if it is whole.
    assert layout.order_offset is not None
    if len(words) == 1:
        return 0
    order = int(words[1].view(np.uint8)[layout.order_offset])
    if not order:
        # prep_compound_page() is only called for more than one page.
        return 1
    folio = words[: 1 << min(order, _MAX_ORDER)]
    is_linked = folio[1:, layout.compound_word] == _link_to(layout, pfn, order)
    # In the flags of the first tail, there is the order.
    has_heads = (folio[2:, layout.flags_word] & np.uint64(layout.pg_head)).any()
    return 0 if is_linked.all() and not has_heads else len(folio)


def _link_to(layout: PageLayout, pfn: int, order: int) -> np.uint64:
    # set_compound_head()
    if layout.compound_mask:
        return np.uint64(~((layout.size << order) - 1) & (1 << 64) - 1 | 1)
    return np.uint64(layout.page_address(pfn) | 1)


def compare_references(
    prog: Program, pgmaps: Iterable[Pgmap], in_use: dict[int, int], ranges: Iterable[Range]
) -> Iterator[Finding]:
    """
    Report live pgmaps that have fewer references than they took, and those of device-private and
    coherent memory that have more.

    :param in_use: How many pages of a pgmap are in use, by its address: of those whose struct
        pages were all read.
    """
    if prog.flags & ProgramFlags.IS_LIVE:
        # Counters of processors are read one after the other, and pages before them.
        return
    for pgmap in _live(pgmaps, ranges):
        if pgmap.is_settled:
            yield from _compared(prog, pgmap, in_use.get(pgmap.address))


def uncounted(pgmaps: Iterable[Pgmap], ranges: Iterable[Range]) -> Iterator[Unjudged]:
    """Say which live pgmaps have references that cannot be counted."""
    for pgmap in _live(pgmaps, ranges):
        if (pgmap.ref.mode, pgmap.ref.count) == ("percpu", None):
            yield Unjudged(*_span(pgmap), _UNCOUNTED)


_UNCOUNTED = "the references of the pgmap cannot be counted: its per-CPU counters are not readable"


def _live(pgmaps: Iterable[Pgmap], ranges: Iterable[Range]) -> Iterator[Pgmap]:
    # For the devices whose struct pages were looked at.
    shown = {r.pgmap for r in ranges if r.case is Case.DEVICE}
    return (p for p in pgmaps if p.address in shown and p.ref.state == "live")


def _span(pgmap: Pgmap) -> Span:
    start = min(r.start_pfn for r in pgmap.ranges)
    return start, max(start, *(r.end_pfn for r in pgmap.ranges))


def _compared(prog: Program, pgmap: Pgmap, used: int | None) -> Iterator[Finding]:
    count, least = pgmap.ref.count, 1 + _taken(pgmap) + (used or 0)
    if count is None or pgmap.in_progress or not pgmap.ranges:
        return
    # A word, as all evidence.
    word, accounts = count & (1 << 64) - 1, _accounts(pgmap, used)
    fact = Evidence("pgmap->ref, counted", pgmap.address, word, least, accounts)
    if count < least:
        yield _finding("pgmap-references-missing", pgmap, f"{least - count} are missing", fact)
    elif count > least and used is not None and _counts_no_idle_pages(prog, pgmap):
        yield _finding("pgmap-references-extra", pgmap, f"{count - least} more", fact)


def _counts_no_idle_pages(prog: Program, pgmap: Pgmap) -> bool:
    # See _taken(). Coherent memory came a release later.
    return pgmap.type in _HANDED_OUT and "MEMORY_DEVICE_COHERENT" in prog


def _finding(slug: str, pgmap: Pgmap, detail: str, fact: Evidence) -> Finding:
    address = pgmap.address
    return make_finding(
        slug, Case.DEVICE, *_span(pgmap), detail=detail, pgmap=address, evidence=(fact,)
    )


def _taken(pgmap: Pgmap) -> int:
    # pfn_len() of all ranges, unless pages in use have the references. Until Linux kernel commit
    # ef233450898f ("mm: free device private pages have zero refcount") (in v6.1), the pages of
    # device-private memory are idle at 1, so that counting them comes to the same.
    if pgmap.type in _HANDED_OUT:
        return 0
    spans = ((pgmap.pfn_first(i), r.end_pfn) for i, r in enumerate(pgmap.ranges))
    return sum(max(end - start, 0) >> pgmap.vmemmap_shift for start, end in spans)


def _accounts(pgmap: Pgmap, used: int | None) -> str:
    parts = ["1 of memremap_pages()"]
    taken = _taken(pgmap)
    if taken:
        parts.append(f"{taken} of its pages")
    if used is not None:
        parts.append(f"{used} of pages in use")
    return ", ".join(parts)
