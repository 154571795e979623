# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Deciding Kinds
--------------

Decides the kinds of RAM's pages, some thousand struct pages at a time, as fast as memory can be
read: few words decide, and most of those are copied to columns of bytes.

Codes of kinds ascend by precedence, so the lesser of two codes is right.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from drgn import Program

from drgn_zonedev.census.kinds import KindWords, PageKind
from drgn_zonedev.census.mappings import SHMEM, UNKNOWN, KnownMappings
from drgn_zonedev.kernel.free_area import private_of
from drgn_zonedev.kernel.memmap import Pages
from drgn_zonedev.kernel.records import read_records
from drgn_zonedev.verification.columns import Buffers, Columns, rows_of, rows_of_runs
from drgn_zonedev.verification.free_blocks import free_pages

__all__ = ("NO_PAGE_MARKS", "Decided", "PageMarks", "decide", "of_one_kind")

_NO_SPANS = np.empty((0, 3), np.int64)
# Columns of spans.
_PFNS = np.array([1, 1, 0])
_ONE = np.uint64(1)
# Truth values in a word, and all of them true.
_GROUP, _ALL = 8, np.uint64(0x0101010101010101)
# Up to this many spans, a loop is faster than to list their rows.
_FEW_SPANS = 32
# PAGE_MAPPING_FLAGS
_MAPPING_BITS = 3

_NO_ROWS, _NO_WORDS = np.empty(0, np.int64), np.empty(0, np.uint64)

_KERNEL = PageKind.KERNEL.code
_FREE = PageKind.FREE.code
# PAGE_MAPPING_ANON and PAGE_MAPPING_KSM; PAGE_MAPPING_MOVABLE alone means a driver's page.
_OF_MAPPING_BITS = ((1, PageKind.ANON), (3, PageKind.KSM))


@dataclass(frozen=True)
class PageMarks:
    """
    What struct pages do not show themselves: rows of half-open ranges of PFNs with an order, in
    ascending order. ``hot_added`` is memory that boot did not know.
    """

    vmemmap: np.ndarray = field(default_factory=lambda: _NO_SPANS)
    pcp_free: np.ndarray = field(default_factory=lambda: _NO_SPANS)
    unaccepted: np.ndarray = field(default_factory=lambda: _NO_SPANS)
    zero: np.ndarray = field(default_factory=lambda: _NO_SPANS)
    hot_added: np.ndarray = field(default_factory=lambda: _NO_SPANS)

    def within(self, start_pfn: int, end_pfn: int) -> PageMarks:
        """Get the marks within a range of PFNs."""
        return PageMarks(
            *(
                _within(spans, start_pfn, end_pfn)
                for spans in (
                    *(self.vmemmap, self.pcp_free, self.unaccepted),
                    *(self.zero, self.hot_added),
                )
            )
        )


NO_PAGE_MARKS = PageMarks()


def _within(spans: np.ndarray, start_pfn: int, end_pfn: int) -> np.ndarray:
    first = np.searchsorted(spans[:, 1], start_pfn, side="right")
    last = np.searchsorted(spans[:, 0], end_pfn)
    if first == last:
        # As in most parts: what follows takes longer than to find that out.
        return _NO_SPANS
    found = spans[first:last].copy()
    found[:, :2] = found[:, :2].clip(start_pfn, end_pfn)
    return found


@dataclass(frozen=True)
class Decided:
    """
    Columns for pages that follow each other; ``kind`` is a code.
    """

    pages: Pages
    kind: np.ndarray
    look: _Look
    marks: PageMarks

    @cached_property
    def order(self) -> np.ndarray:
        """
        The order of the block or the compound page that each page is in: ``buddy_order()``, that
        of a per-CPU list, ``compound_order()``, or 0.
        """
        order = self.look.compound_orders()
        free = self.kind == _FREE
        if free.any():
            order[free] = self.look.free_orders()[free]
        for kind, spans in (
            (PageKind.UNACCEPTED, self.marks.unaccepted),
            (PageKind.PCP_FREE, self.marks.pcp_free),
        ):
            for first, end, number in (spans - self.pages.start_pfn * _PFNS).tolist():
                order[first:end][self.kind[first:end] == kind.code] = number
        return order

    @cached_property
    def heads(self) -> Pages:
        """The struct page of each page's head, or its own; zeros where it cannot be read."""
        pages = self.pages
        words = self.look.head_words() if self.look.tail.any() else pages.words
        return Pages(pages.start_pfn, pages.end_pfn, words, pages.layout)


def decide(
    prog: Program,
    words: KindWords,
    mappings: KnownMappings,
    pages: Pages,
    marks: PageMarks,
    end_pfn: int,
    buffers: Buffers,
) -> Decided:
    """
    Decide the kinds of pages of RAM that is online.

    :param pages: They begin and end where blocks of the largest order do, or where what can be
        read does.
    :param marks: Those within these pages.
    :param end_pfn: No block goes beyond it.
    """
    look = _Look(prog, words, mappings, pages, marks, end_pfn, buffers)
    return Decided(pages, look.kinds(), look, marks)


def of_one_kind(
    prog: Program, words: KindWords, mappings: KnownMappings, pages: Pages, kind: PageKind
) -> Decided:
    """Get pages of one kind, whatever their struct pages hold."""
    look = _Look(prog, words, mappings, pages, NO_PAGE_MARKS, pages.end_pfn, Buffers())
    return Decided(pages, np.full(len(pages.words), kind.code, np.uint8), look, NO_PAGE_MARKS)


@dataclass(frozen=True)
class _Look:
    """A look at some pages."""

    prog: Program
    words: KindWords
    mappings: KnownMappings
    pages: Pages
    marks: PageMarks
    end_pfn: int
    buffers: Buffers

    def kinds(self) -> np.ndarray:
        """The codes of the pages' kinds."""
        kind = self._use.copy()
        self._propagate(kind)
        for name, flag in (
            (PageKind.RESERVED, self.pages.layout.pg_reserved),
            (PageKind.HWPOISON, self.words.hwpoison),
        ):
            rows = self._with(flag)
            kind[rows] = np.minimum(kind[rows], np.uint8(name.code))
        np.copyto(kind, np.uint8(_FREE), where=self.free)
        for name, spans in (
            (PageKind.UNACCEPTED, self.marks.unaccepted),
            (PageKind.PCP_FREE, self.marks.pcp_free),
            (PageKind.SELF_HOSTED_VMEMMAP, self._self_hosted()),
            (PageKind.VMEMMAP, self.marks.vmemmap),
        ):
            _lower(kind, spans[:, :2] - self.pages.start_pfn, name.code)
        return kind

    # Words of all pages.

    @cached_property
    def columns(self) -> Columns:
        return Columns(self.pages.words, self.buffers)

    @property
    def flags(self) -> np.ndarray:
        return self.columns.word(self.pages.layout.flags_word)

    @cached_property
    def tail(self) -> np.ndarray:
        """``PageTail()``, of the struct page itself."""
        return ~self.columns.equal(self.pages.layout.compound_word, 1, 0)

    def _links(self, rows: np.ndarray) -> np.ndarray:
        return self.columns.of(rows, self.pages.layout.compound_word)

    @property
    def _mappings(self) -> np.ndarray:
        return self.pages.words[:, self.pages.layout.mapping_word]

    @cached_property
    def _flagged(self) -> tuple[np.ndarray, np.ndarray]:
        # Rows with flags that few pages have, and the flags.
        layout, words = self.pages.layout, self.words
        mask = layout.pg_head | layout.pg_reserved | words.hwpoison | words.swapcache
        mask |= words.ram.slab_flag
        rows = rows_of(self.columns.masked(layout.flags_word, mask) != 0)
        return rows, self.flags[rows]

    def _with(self, flag: int) -> np.ndarray:
        """Rows that have one of these flags."""
        if not self.columns.any_has(self.pages.layout.flags_word, flag):
            return _NO_ROWS
        rows, flags = self._flagged
        found: np.ndarray = rows[(flags & np.uint64(flag)) != 0]
        return found

    # What single pages and heads are used for.

    def use_of_heads(self) -> np.ndarray:
        """The codes of every other page, a head with the struct page after it."""
        kind = self._kinds_of_mappings()
        self._set_slabs(kind)
        self._set_types(kind)
        rows = np.arange(0, len(kind), 2)
        rows = rows[np.isin(rows, self._flagged_heads)]
        if len(rows):
            kind[rows] = self._kinds_of_heads(kind[rows], self.pages.words, rows)
        return kind[::2]

    @cached_property
    def _use(self) -> np.ndarray:
        kind = self._kinds_of_mappings()
        self._set_slabs(kind)
        self._set_types(kind)
        self._set_heads(kind)
        for first, end in (self.marks.zero[:, :2] - self.pages.start_pfn).tolist():
            part = kind[first:end]
            part[part >= PageKind.THP.code] = PageKind.ZERO.code
        return kind

    def _kinds_of_mappings(self) -> np.ndarray:
        kind = np.full(len(self.pages.words), _KERNEL, np.uint8)
        # In tails, this word is not their own mapping.
        mapped = (self._mappings != 0) & ~self.tail
        if mapped.any():
            self._set_mapped(kind, mapped)
        # PageSwapCache() of a page that has no mapping yet, or none any more.
        rows = self._with(self.words.swapcache)
        if len(rows):
            both = self.words.ram.swapbacked | self.words.swapcache
            cached = (self.flags[rows] & np.uint64(both)) == np.uint64(both)
            kind[rows[cached & (self._mappings[rows] == 0) & ~self.tail[rows]]] = PageKind.ANON.code
        return kind

    def _set_mapped(self, kind: np.ndarray, mapped: np.ndarray) -> None:
        # A byte of each mapping is compared several times as fast as the word.
        low = self.pages.words.view(np.uint8)[:, 8 * self.pages.layout.mapping_word]
        low = low & np.uint8(_MAPPING_BITS)
        for bits, name in _OF_MAPPING_BITS:
            np.copyto(kind, np.uint8(name.code), where=mapped & (low == bits))
        mapped &= low == 0
        np.copyto(kind, np.uint8(PageKind.FILE.code), where=mapped)
        rows = rows_of(mapped)
        answers, runs = self.mappings.ask(self._mappings[rows])
        kind[_in_runs(rows, answers == SHMEM, runs)] = PageKind.SHMEM.code
        unknown = _in_runs(rows, answers == UNKNOWN, runs)
        # All of shmem's pages have it.
        swapbacked = self.flags[unknown] & np.uint64(self.words.ram.swapbacked)
        kind[unknown[swapbacked != 0]] = PageKind.SHMEM.code

    def _set_slabs(self, kind: np.ndarray) -> None:
        rows = self._with(self.words.ram.slab_flag)
        kind[rows[~self.tail[rows]]] = PageKind.SLAB.code

    @cached_property
    def _typed(self) -> tuple[np.ndarray, np.ndarray]:
        # Rows of pages with a page type, and what it is.
        mapcount = self.pages.mapcount
        rows = rows_of(mapcount < self.words.ram.end_of_types)
        rows = rows[~self.tail[rows]]
        return rows, mapcount[rows]

    @cached_property
    def _buddy(self) -> np.ndarray:
        # Which of these are first pages of free blocks.
        return self.words.ram.buddy.matches(self._typed[1])

    def _set_types(self, kind: np.ndarray) -> None:
        rows, types = (column[~self._buddy] for column in self._typed)
        if not len(rows):
            return
        words = self.words
        found = np.full(len(rows), _KERNEL, np.uint8)
        for name, type_ in (
            (PageKind.HUGETLB, words.ram.hugetlb),
            (PageKind.PAGE_TABLE, words.table),
            (PageKind.SLAB, words.slab),
            (PageKind.OFFLINE, words.offline),
            (PageKind.UNACCEPTED, words.unaccepted),
        ):
            if type_ is not None:
                found[type_.matches(types)] = name.code
        # PG_slab is not a page type, so _mapcount of such a page may hold anything.
        found[kind[rows] == PageKind.SLAB.code] = PageKind.SLAB.code
        kind[rows] = found

    # Compound pages.

    @cached_property
    def _heads(self) -> np.ndarray:
        """Rows of heads that are not copies of another head."""
        rows, copies = self._flagged_heads, self._copies[0]
        return rows[~np.isin(rows, copies, assume_unique=True)] if len(copies) else rows

    @cached_property
    def _flagged_heads(self) -> np.ndarray:
        rows = self._with(self.pages.layout.pg_head)
        return rows[~self.tail[rows]]

    @cached_property
    def _copies(self) -> tuple[np.ndarray, np.ndarray]:
        # Rows that read like a head, but are tails, and addresses of their heads: see
        # compound_heads().
        if self.pages.layout.compound_mask:
            return _NO_ROWS, _NO_WORDS
        rows = self._flagged_heads
        per_frame = self.words.page_size // self.pages.layout.size
        rows = rows[(rows + self.pages.start_pfn) % per_frame == 0]
        rows = rows[rows + 1 < len(self.tail)]
        links = self._links(rows + 1)
        heads = links - _ONE
        copy = ((links & _ONE) != 0) & (heads != self._address(rows))
        return rows[copy], heads[copy]

    def _address(self, rows: np.ndarray) -> np.ndarray:
        layout = self.pages.layout
        first = np.uint64(layout.page_address(self.pages.start_pfn))
        return first + rows.astype(np.uint64) * np.uint64(layout.size)

    @cached_property
    def _tails(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of tails, and addresses of their heads."""
        layout = self.pages.layout
        rows = rows_of(self.tail)
        links = self._links(rows)
        heads = self._address(rows) & links if layout.compound_mask else links - _ONE
        copies, of_copies = self._copies
        if len(copies):
            rows, heads = np.concatenate([rows, copies]), np.concatenate([heads, of_copies])
        return rows, heads

    def _set_heads(self, kind: np.ndarray) -> None:
        rows = self._heads
        rows = rows[rows + 1 < len(kind)]
        if len(rows):
            kind[rows] = self._kinds_of_heads(kind[rows], self.pages.words, rows)
        if self._last is not None:
            kind[-1] = self._last.kinds[0]

    @cached_property
    def _last(self) -> _Outside | None:
        # A head is aligned, so only a damaged one has its first tail outside.
        row = self._heads[-1:]
        is_last = len(row) and row[0] == len(self.pages.words) - 1
        return _outside(self, self._address(row)) if is_last else None

    def _kinds_of_heads(self, kind: np.ndarray, words: np.ndarray, rows: np.ndarray) -> np.ndarray:
        # By what the struct page after each head says.
        raw, mark = words.view(np.uint8), self.words.huge_mark
        if mark is not None:
            huge = (raw[rows + 1, mark.offset] & np.uint8(mark.mask)) == mark.value
            kind = np.where(huge, np.uint8(PageKind.HUGETLB.code), kind)
        # PageTransCompound() and PageLRU() or PageAnon(); PG_large_rmappable, where there is that,
        # since Linux kernel commit de53c05f2ae3 ("mm: add large_rmappable page flag") (in v6.6).
        is_thp = (self.flags[rows] & np.uint64(self.words.ram.lru)) != 0
        is_thp |= (kind == PageKind.ANON.code) | (kind == PageKind.KSM.code)
        flags = words[rows + 1, self.pages.layout.flags_word]
        is_thp |= (flags & np.uint64(self.words.rmappable)) != 0
        return np.where(is_thp & (kind >= PageKind.THP.code), np.uint8(PageKind.THP.code), kind)

    def _propagate(self, kind: np.ndarray) -> None:
        # A tail is used for what its head is.
        rows, heads = self._tails
        if not len(rows):
            return
        place, inside = self._places(heads)
        kind[rows[inside]] = self._use[place[inside]]
        if not inside.all():
            kind[rows[~inside]] = self._outside.kinds

    def _places(self, heads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # Rows of heads, and which of them are among these pages.
        layout = self.pages.layout
        offset = heads - np.uint64(layout.page_address(self.pages.start_pfn))
        place = (offset // np.uint64(layout.size)).astype(np.int64)
        inside = offset < np.uint64(len(self.pages.words) * layout.size)
        return np.where(inside, place, 0), inside

    @cached_property
    def _outside(self) -> _Outside:
        # For the tails whose heads are elsewhere, in order.
        _, heads = self._tails
        _, inside = self._places(heads)
        return _outside(self, heads[~inside])

    def compound_orders(self) -> np.ndarray:
        """``compound_order()`` of each page's head."""
        order = np.zeros(len(self.pages.words), np.int64)
        offset = self.pages.layout.order_offset
        if offset is None:
            return order
        heads = self._heads[self._heads + 1 < len(order)]
        order[heads] = self.pages.words.view(np.uint8)[heads + 1, offset]
        if self._last is not None:
            order[-1] = self._last.orders[0]
        rows, heads = self._tails
        if len(rows):
            place, inside = self._places(heads)
            order[rows[inside]] = order[place[inside]]
            if not inside.all():
                order[rows[~inside]] = self._outside.orders
        return order

    def head_words(self) -> np.ndarray:
        """The words of each page's head, or its own; zeros where they cannot be read."""
        words = self.pages.words.copy()
        rows, heads = self._tails
        if len(rows):
            place, inside = self._places(heads)
            words[rows[inside]] = self.pages.words[place[inside]]
            if not inside.all():
                words[rows[~inside]] = self._outside.words
        return words

    # Free blocks.

    @cached_property
    def free(self) -> np.ndarray:
        """Which pages are in free blocks."""
        rows, sizes = self._plain_blocks
        if sizes is None:
            return self._doubtful_blocks[0]
        found = np.zeros(len(self.pages.words), bool)
        if not len(rows):
            return found
        small = sizes < _GROUP
        if self.pages.start_pfn % _GROUP or len(found) % _GROUP:
            small[:] = True
        # Blocks are aligned, so that large ones fill whole groups.
        _fill(found.view(np.uint64), rows[~small] // _GROUP, sizes[~small] // _GROUP, _ALL)
        rows, sizes = rows[small], sizes[small]
        while len(rows):
            found[rows] = True
            more = sizes > 1
            rows, sizes = rows[more] + 1, sizes[more] - 1
        return found

    def free_orders(self) -> np.ndarray:
        """The order of the free block that each page is in."""
        _, sizes = self._plain_blocks
        if sizes is None:
            return self._doubtful_blocks[1]
        order = np.zeros(len(self.pages.words), np.int64)
        of_blocks = np.log2(sizes).astype(np.int64) if len(sizes) else sizes
        order[self.free] = np.repeat(of_blocks, sizes)
        return order

    @cached_property
    def _plain_blocks(self) -> tuple[np.ndarray, np.ndarray | None]:
        # First rows of free blocks, and their sizes, unless something is wrong with them.
        ram, pages = self.words.ram, self.pages
        rows = self._typed[0][self._buddy]
        orders = private_of(pages, ram)[rows]
        if (orders > np.uint64(ram.max_order)).any():
            return rows, None
        sizes = np.int64(1) << orders.astype(np.int64)
        ends = rows + sizes
        limit = min(len(pages.words), self.end_pfn - pages.start_pfn)
        sound = ((rows + pages.start_pfn) & (sizes - 1) == 0) & (ends <= limit)
        sound[:-1] &= ends[:-1] <= rows[1:]
        return rows, (sizes if sound.all() else None)

    @cached_property
    def _doubtful_blocks(self) -> tuple[np.ndarray, np.ndarray]:
        found = free_pages(self.pages, self.words.ram, self.end_pfn)
        order = np.zeros(len(self.pages.words), np.int64)
        first = np.flatnonzero(found.first)
        number = np.cumsum(found.first) - 1
        order[found.any] = found.order[first][number[found.any]].astype(np.int64)
        return found.any, order

    # Pages that store their own memmap.

    def _self_hosted(self) -> np.ndarray:
        # PG_owner_priv_1 of others; only hot-added memory has such pages.
        spans = [_NO_SPANS]
        if self.words.self_hosted and len(self.marks.hot_added):
            others = self.words.ram.lru | self.words.ram.swapbacked
            found = (self.flags & np.uint64(self.words.self_hosted)) != 0
            found &= ((self.flags & np.uint64(others)) == 0) & (self._mappings == 0) & ~self.tail
            found[self._typed[0]] = False
            for first, end in (self.marks.hot_added[:, :2] - self.pages.start_pfn).tolist():
                at = first + np.flatnonzero(found[first:end]) + self.pages.start_pfn
                spans.append(np.stack([at, at + 1, np.zeros_like(at)], axis=1))
        return np.concatenate(spans)


def _in_runs(rows: np.ndarray, wanted: np.ndarray, runs: np.ndarray) -> np.ndarray:
    # Those in wanted runs, which are of some lengths.
    return rows[np.repeat(wanted, runs)] if wanted.any() else _NO_ROWS


def _fill(column: np.ndarray, rows: np.ndarray, sizes: np.ndarray, value: np.uint64) -> None:
    # Blocks do not overlap.
    if len(rows):
        np.copyto(column, value, where=_inside(len(column), rows, rows + sizes))


def _inside(length: int, firsts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    border = np.zeros(length + 1, np.int8)
    border[firsts] += 1
    border[ends] -= 1
    return np.cumsum(border[:-1], dtype=np.int8).view(bool)


def _lower(kind: np.ndarray, spans: np.ndarray, code: int) -> None:
    # The lesser of two codes is right.
    if len(spans) > _FEW_SPANS:
        rows = rows_of_runs(spans[:, 0], spans[:, 1] - spans[:, 0])
        kind[rows] = np.minimum(kind[rows], np.uint8(code))
        return
    for first, end in spans.tolist():
        np.minimum(kind[first:end], np.uint8(code), out=kind[first:end])


@dataclass(frozen=True)
class _Outside:
    """
    What heads outside these pages say, with an element for each of their tails: the kind and the
    order of the compound page, and the words of the head.
    """

    kinds: np.ndarray
    orders: np.ndarray
    words: np.ndarray


def _outside(look: _Look, heads: np.ndarray) -> _Outside:
    layout = look.pages.layout
    unique, which = np.unique(heads, return_inverse=True)
    size = layout.size
    first, readable = read_records(look.prog, unique, size)
    # Apart from the first read: after the last page, there may be no memmap.
    second, _ = read_records(look.prog, unique + np.uint64(size), size)
    raw = np.stack([first, second], axis=1).reshape(-1, size)
    # Each head, and the struct page after it, as pages of their own.
    pages = Pages(0, len(raw), raw.view("<u8"), layout)
    there = _Look(look.prog, look.words, look.mappings, pages, NO_PAGE_MARKS, 0, Buffers())
    kinds, at = there.use_of_heads(), np.arange(0, len(raw), 2)
    orders = np.zeros(len(unique), np.int64)
    if layout.order_offset is not None:
        large = (there.flags[at] & np.uint64(layout.pg_head)) != 0
        orders = np.where(large, raw[at + 1, layout.order_offset], 0).astype(np.int64)
    kinds = np.where(readable, kinds, np.uint8(PageKind.NOT_IN_DUMP.code))
    return _Outside(kinds[which], orders[which], pages.words[at][which])
