# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Access to Pages
---------------

Finds the struct pages that say of themselves that the memory behind them must not be read, and
cuts their ranges there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from drgn import Program, ProgramFlags

from drgn_zonedev.kernel.memmap import PageLayout, Pages, page_layout, read_pages
from drgn_zonedev.kernel.page_kinds import flag_mask, kinds_of_ram
from drgn_zonedev.kernel.page_types import PageType, page_types
from drgn_zonedev.kernel.pcp_lists import unaccepted_blocks
from drgn_zonedev.kernel.zones import zones
from drgn_zonedev.model import Access, Case, Range
from drgn_zonedev.util.intervals import Span, difference, intersection, union
from drgn_zonedev.util.once import once_per_program
from drgn_zonedev.verification.compound_links import compound_before
from drgn_zonedev.vmcore.exported import leaves_out_ram

__all__ = (
    "NO_MARKS",
    "AccessMarks",
    "AccessSpan",
    "access_among",
    "access_before",
    "access_marks",
    "access_of_page",
    "access_spans",
    "divided_by_access",
    "listed_access",
    "with_page_access",
)

AccessSpan = tuple[int, int, Access]
"""A half-open range of PFNs, and why its memory must not be read."""

# If more than one applies, the first one is reported.
_WORST_FIRST = (Access.HWPOISON, Access.UNACCEPTED, Access.OFFLINE)

# More than any machine has; in a damaged one, every second page can say so.
_MAX_SPANS = 1 << 14

# No folio is larger: 16 GiB.
_MAX_ORDER = 22


@dataclass(frozen=True)
class AccessMarks:
    """
    How struct pages of a kernel say that their memory must not be read. ``poisoned`` is the mask
    of ``PG_hwpoison``, 0 without ``CONFIG_MEMORY_FAILURE``. Each of ``types`` is about as many
    pages, from the one with the type on.
    """

    poisoned: int = 0
    types: tuple[tuple[PageType, Access, int], ...] = ()


NO_MARKS = AccessMarks()
"""Pages say nothing of their memory."""


def access_marks(prog: Program) -> AccessMarks:
    """
    Get how struct pages say that their memory must not be read.

    :raises LookupError: if the debugging information does not have ``enum pageflags``
    """
    known = page_types(prog).by_name
    # __free_unaccepted() marks the first page of a block of MAX_PAGE_ORDER.
    block = 1 << kinds_of_ram(prog).max_order
    names = (("offline", Access.OFFLINE, 1), ("unaccepted", Access.UNACCEPTED, block))
    types = tuple((known[name], access, size) for name, access, size in names if name in known)
    return AccessMarks(flag_mask(prog, "PG_hwpoison"), types)


def access_spans(
    layout: PageLayout, marks: AccessMarks, starts: np.ndarray, words: np.ndarray
) -> list[AccessSpan]:
    """
    Find pages whose memory must not be read among blocks of struct pages.

    Where the head of a compound page is poisoned, all of it is: of hugetlb pages and of devdax,
    nothing else says which of its pages it is (``is_page_hwpoison()``).

    :param starts: PFN of the first page of each block.
    :param words: Struct pages of all blocks, a row each; blocks are as long as each other.
    """
    poisoned = np.flatnonzero(words[:, layout.flags_word] & np.uint64(marks.poisoned))
    typed = np.flatnonzero(words.view("<i4")[:, layout.mapcount_offset // 4] < -1)
    # Tails have something else there.
    typed = typed[(words[typed, layout.compound_word] & np.uint64(1)) == 0]
    return access_among(layout, marks, starts, words, poisoned, typed)


def access_among(
    layout: PageLayout,
    marks: AccessMarks,
    starts: np.ndarray,
    words: np.ndarray,
    poisoned: np.ndarray,
    typed: np.ndarray,
) -> list[AccessSpan]:
    """
    Like :func:`access_spans()`, of pages that are known.

    :param poisoned: Rows of pages with ``PG_hwpoison``.
    :param typed: Rows of pages with a page type, whichever it is.
    """
    found: list[AccessSpan] = []
    count = len(words) // len(starts)
    if len(poisoned):
        pfns = starts[poisoned // count] + poisoned % count
        found += ((*span, Access.HWPOISON) for span in _runs(pfns))
        flags = words[poisoned, layout.flags_word]
        heads = poisoned[(flags & np.uint64(layout.pg_head)) != 0]
        found += _compound_pages(layout, starts, words, heads)
    types = words.view("<u4")[typed, layout.mapcount_offset // 4] if len(typed) else typed
    for page_type, access, size in marks.types if len(typed) else ():
        rows = typed[page_type.matches(types)]
        pfns = starts[rows // count] + rows % count
        runs = _runs(pfns) if size == 1 else ((pfn, pfn + size) for pfn in pfns.tolist())
        found += ((*span, access) for span in runs)
    return found


def access_before(
    prog: Program, layout: PageLayout, marks: AccessMarks, pfn: int
) -> list[AccessSpan]:
    """
    Find what reaches a PFN of blocks and compound pages that begin before it, and whose memory
    must not be read.
    """
    heads = {pfn // size * size for _, _, size in marks.types}
    compound = compound_before(prog, layout, pfn)
    heads |= {compound[0]} if compound else set()
    found: list[AccessSpan] = []
    for head in sorted(heads - {pfn}):
        for part in read_pages(prog, head, head + 2, layout=layout):
            if isinstance(part, Pages):
                found += access_spans(layout, marks, np.array([part.start_pfn]), part.words)
    return [span for span in found if span[1] > pfn]


def listed_access(prog: Program) -> tuple[AccessSpan, ...]:
    """
    Find blocks that are not accepted where only a list of their zone says so: from Linux kernel
    commit dcdfdd40fa82 ("mm: Add support for unaccepted memory") (in v6.5) until
    "mm: introduce PageUnaccepted() page type" (in v6.12).

    :raises LookupError: if the debugging information does not have the zones
    """
    if "unaccepted" in page_types(prog).by_name:
        return ()
    if not prog.type("struct zone").has_member("unaccepted_pages"):
        return ()
    return _on_lists(prog) if prog.flags & ProgramFlags.IS_LIVE else _on_lists_of_dump(prog)


@once_per_program
def _on_lists_of_dump(prog: Program) -> tuple[AccessSpan, ...]:
    return _on_lists(prog)


def _on_lists(prog: Program) -> tuple[AccessSpan, ...]:
    order = kinds_of_ram(prog).max_order
    blocks = unaccepted_blocks(prog, zones(prog).found, order)[:, 0].tolist()
    return tuple((pfn, pfn + (1 << order), Access.UNACCEPTED) for pfn in blocks)


def _runs(pfns: np.ndarray) -> Iterator[Span]:
    # PFNs are in ascending order.
    if len(pfns):
        breaks = np.flatnonzero(np.diff(pfns) != 1) + 1
        first, last = pfns[np.r_[0, breaks]], pfns[np.r_[breaks, len(pfns)] - 1]
        yield from zip(first.tolist(), (last + 1).tolist())


def _compound_pages(
    layout: PageLayout, starts: np.ndarray, words: np.ndarray, heads: np.ndarray
) -> Iterator[AccessSpan]:
    count = len(words) // len(starts)
    for row in heads.tolist():
        pfn = int(starts[row // count]) + row % count
        # The first tail has the order.
        if layout.order_offset is not None and row % count + 1 < count:
            order = int(words[row + 1].view(np.uint8)[layout.order_offset])
            if order <= _MAX_ORDER:
                yield pfn, pfn + (1 << order), Access.HWPOISON


def access_of_page(prog: Program, range_: Range, page: Pages) -> Access:
    """Get the access to a page of a range, by its struct page and those before it."""
    layout, marks, pfn = page.layout, access_marks(prog), page.start_pfn
    spans = access_spans(layout, marks, np.array([pfn]), page.words)
    spans += access_before(prog, layout, marks, pfn)
    spans += listed_access(prog) if range_.case is Case.ONLINE else ()
    alone = dataclasses.replace(range_, start_pfn=pfn, end_pfn=pfn + 1)
    return divided_by_access(alone, spans)[0].access


def divided_by_access(range_: Range, spans: Sequence[AccessSpan]) -> list[Range]:
    """Cut a range where the memory of its pages must not be read."""
    if not spans or range_.access is not Access.READABLE:
        return [range_]
    parts: list[Range] = []
    at = range_.start_pfn
    for start, end, access in _disjoint(range_, spans):
        if at < start:
            parts.append(dataclasses.replace(range_, start_pfn=at, end_pfn=start))
        parts.append(dataclasses.replace(range_, start_pfn=start, end_pfn=end, access=access))
        at = end
    if at < range_.end_pfn:
        parts.append(dataclasses.replace(range_, start_pfn=at))
    return parts


def _disjoint(range_: Range, spans: Sequence[AccessSpan]) -> Iterator[AccessSpan]:
    whole = (range_.start_pfn, range_.end_pfn)
    merged: list[AccessSpan] = []
    taken: tuple[Span, ...] = ()
    for access in _WORST_FIRST:
        of_this = union((start, end) for start, end, why in spans if why is access)
        free = _without(of_this, taken)
        merged += ((a, b, access) for span in free for a, b in intersection(whole, (span,)))
        taken = union((*taken, *of_this))
    merged.sort()
    if len(merged) > _MAX_SPANS:
        # The last one stands for all that follow.
        start, _, access = merged[_MAX_SPANS - 1]
        merged[_MAX_SPANS - 1 :] = [(start, merged[-1][1], access)]
    yield from merged


def _without(spans: Iterable[Span], others: tuple[Span, ...]) -> Iterator[Span]:
    for span in spans:
        yield from difference(span, others)


def with_page_access(prog: Program, ranges: Iterable[Range]) -> list[Range]:
    """
    Cut ranges where struct pages say that their memory must not be read, and look at nothing else
    of them. Struct pages that cannot be read say nothing.

    :raises LookupError: if the debugging information does not have what is needed
    """
    layout, marks = page_layout(prog), access_marks(prog)
    found: list[Range] = []
    for range_ in ranges:
        spans: list[AccessSpan] = []
        looked_at = range_.case is Case.DEVICE or (
            range_.case is Case.ONLINE and not leaves_out_ram(prog)
        )
        if looked_at and range_.access is Access.READABLE:
            spans += listed_access(prog) if range_.case is Case.ONLINE else ()
            spans += access_before(prog, layout, marks, range_.start_pfn)
            for part in read_pages(prog, range_.start_pfn, range_.end_pfn):
                if isinstance(part, Pages):
                    starts = np.array([part.start_pfn])
                    spans += access_spans(layout, marks, starts, part.words)
        found += divided_by_access(range_, spans)
    return found
