# SPDX-License-Identifier: LGPL-2.1-or-later

"""
In Flight
---------

Finds compound pages that the kernel was making, splitting or freeing when it was stopped, for
a dump or by ``--pause``. That is not a defect, and another look at the same memory shows nothing
new.

``prep_compound_page()`` links the tails in ascending order, and then writes the order;
freeing clears the order first since Linux kernel commit ebc1baf5c9b4 ("mm: free up a word in
the first tail page") (in v6.6), and then the links, in ascending order, too. So the tails
without a link are the last ones, which hold what they held when they were free, or the first
ones, whose links are 0. A single such tail is more likely a damaged one: the kernel spends hundreds
of instructions on the others.

Splitting a folio unlinks its tails, in ascending order since v6.15, and makes pages in use of
them. Meanwhile the head has no reference, but ``PG_locked``: ``folio_ref_freeze()``.

``PG_head`` is set before the first link, and cleared after the last one. In between, the head
has no tail, is on no list (``LIST_POISON1``), and the page after it has no reference either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from drgn_zonedev.util.intervals import Span
from drgn_zonedev.util.sets import sorted_set
from drgn_zonedev.verification.compound_links import said_orders
from drgn_zonedev.verification.promises import order_is_in_flags
from drgn_zonedev.verification.ram_window import RamWindow

__all__ = ("IN_FLIGHT", "compounds_in_flight", "is_in_flight")

IN_FLIGHT = "a compound page that the kernel was making, splitting or freeing when it was stopped"

_FEWEST = 2


def is_in_flight(window: RamWindow, compounds: Iterable[Span]) -> np.ndarray:
    """Which pages are in the compound pages that :func:`compounds_in_flight()` found."""
    pages = np.zeros(len(window.pages.words), bool)
    for start, end in compounds:
        pages[start - window.pages.start_pfn : end - window.pages.start_pfn] = True
    return pages


def compounds_in_flight(window: RamWindow) -> Iterator[Span]:
    """Get the PFNs of a window whose compound pages are being made, split or freed."""
    yield from _being_split(window)
    for row in np.flatnonzero(_is_head_alone(window)).tolist():
        # It has two pages at least.
        yield window.pages.start_pfn + row, window.pages.start_pfn + row + 2
    unlinked = window.tail & ~window.leads_to_head
    for head in sorted_set(window.compound.head[unlinked]).tolist():
        rows = np.flatnonzero(window.compound.head == head)
        if _is_half_linked(window, rows, unlinked[rows]):
            start = window.pages.start_pfn + int(rows[0])
            yield start, start + len(rows)


def _being_split(window: RamWindow) -> Iterator[Span]:
    pages, compound = window.pages, window.compound
    flags = np.uint64(pages.layout.pg_head | window.promise.kinds.locked)
    heads = ((pages.flags & flags) == flags) & (pages.refcount == 0) & ~pages.is_tail
    # A page that is no longer a tail does not hold an order.
    still = np.r_[window.leads_to_head[1:] & (compound.head[1:] == pages.pfn[:-1]), False]
    orders = np.where(still, said_orders(pages), 0)
    for row in np.flatnonzero(heads & ~window.typed).tolist():
        size = 1 << max(int(orders[row]), int(compound.order[row]))
        yield pages.start_pfn + row, min(pages.start_pfn + row + size, pages.end_pfn)


def _is_head_alone(window: RamWindow) -> np.ndarray:
    """Which pages have ``PG_head``, as if it had just been set, or were about to be cleared."""
    pages, layout = window.pages, window.pages.layout
    if layout.list_poison is None:
        return np.zeros(len(pages.words), bool)
    lru = layout.lru_offset // 8
    poisoned = pages.words[:, lru] == np.uint64(layout.list_poison[0])
    poisoned &= pages.words[:, lru + 1] == np.uint64(layout.list_poison[1])
    if not poisoned.any():
        return poisoned
    # The allocator sets the reference before PG_head, or after it: get_page_from_freelist().
    head = window.single & poisoned & (pages.pfn % 2 == 0) & (pages.refcount <= 1)
    head &= (pages.flags & np.uint64(layout.pg_head)) != 0
    tail = window.single & (pages.refcount == 0) & (pages.flags & np.uint64(layout.pg_head) == 0)
    idle = (pages.mapcount == -1) & ~pages.is_tail
    return head & idle & np.r_[(tail & idle)[1:], False]


def _is_half_linked(window: RamWindow, rows: np.ndarray, unlinked: np.ndarray) -> bool:
    without, index = np.flatnonzero(unlinked), window.index[rows]
    first, last = int(without[0]), int(without[-1])
    # If a compound page is larger than the window, the rest may be like this part.
    begins = index[first] == 1 or first == 0
    ends = last == len(rows) - 1
    is_whole = len(rows) == 1 << int(window.compound.order[rows[0]])
    one_side = (begins or ends) and not (begins and ends and is_whole)
    if len(without) < _FEWEST or last - first + 1 != len(without) or not one_side:
        return False
    links = window.pages.words[rows[without], window.pages.layout.compound_word]
    as_free = not links.any() or (ends and _are_unused(window, rows[without]))
    return as_free and not _has_order(window, rows, index)


def _are_unused(window: RamWindow, rows: np.ndarray) -> bool:
    pages = window.pages
    return bool((pages.refcount[rows] == 0).all() and (pages.mapcount[rows] == -1).all())


def _has_order(window: RamWindow, rows: np.ndarray, index: np.ndarray) -> bool:
    # Up to v6.5, a freed page keeps its order.
    layout = window.pages.layout
    if layout.order_offset is None or not order_is_in_flags(layout):
        return False
    first_tail = window.pages.words[rows[index == 1]]
    return bool(first_tail.view(np.uint8)[..., layout.order_offset].any())
