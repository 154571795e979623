# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Sieve
-----

Tells at the speed of memory whether struct pages are as promised, all of them.

It may say no of pages that are: then :mod:`~drgn_zonedev.verification.deviations` takes them
apart, and it alone decides what is wrong. It must never say yes of a page that
deviates.

Idle device pages hold the same bytes: if the first one is a page that was
verified, and each one is what the one before it is, nothing is left to look at.
Whatever differs, because somebody uses the pages, is compared by columns, under
masks that leave out what users may change.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from drgn import Program

from drgn_zonedev.kernel.memmap import PageLayout, Pages
from drgn_zonedev.verification.deviations import (
    DevicePages,
    MetadataPages,
    Promise,
    deviations,
    order_is_in_flags,
    tail_link,
)

__all__ = ("Sieve", "make_sieve", "one_sieve")

Sieve = Callable[[np.ndarray, int, bytes], bool]
"""
Takes the start PFNs of blocks of struct pages that were read, the number of pages
in a block, and the memory of all of them; tells whether they are as promised.
Compound pages may not begin inside of a block, unless one begins at its start and
the block is made of whole ones.
"""


def make_sieve(prog: Program, layout: PageLayout, promise: Promise) -> Sieve:
    """Make a sieve for pages of one promise."""
    if isinstance(promise, MetadataPages):
        return _MetadataSieve(layout, promise)
    if promise.vmemmap_shift:
        return _CompoundSieve(layout, promise)
    return _BaseSieve(prog, layout, promise)


def one_sieve(prog: Program) -> Callable[[PageLayout, Promise], Sieve]:
    """
    Like :func:`make_sieve()`, for pages that come piece by piece: as long as the
    promise is the same, what was verified in one piece is known in the next.
    """
    return functools.lru_cache(maxsize=1)(functools.partial(make_sieve, prog))


class _Columns:
    """What all sieves compare, in buffers that are used again."""

    def __init__(self, layout: PageLayout, nodes: tuple[int, ...]) -> None:
        self.layout = layout
        self.nodes = nodes
        self.shift = 64 - layout.nodes_shift - layout.zones_shift
        self._words = np.empty(0, np.uint64)
        self._truth = np.empty(0, bool)

    def links(self) -> tuple[int, int]:
        """Mask for the zone and the node in ``page->flags``, and what must be there."""
        layout = self.layout
        mask, wanted = layout.zone_mask, layout.zone_device
        if self.nodes:
            mask |= (1 << layout.nodes_shift) - 1 << layout.zones_shift
            wanted |= self.nodes[0] << layout.zones_shift
        return mask << self.shift, wanted << self.shift

    def buffer(self, count: int) -> np.ndarray:
        if len(self._words) < count:
            self._words = np.empty(count, np.uint64)
            self._truth = np.empty(count, bool)
        return self._words[:count]

    def masked_equal(
        self, column: np.ndarray, mask: np.ndarray | np.uint64, wanted: np.ndarray | np.uint64
    ) -> bool:
        """Whether the bits of the mask are as wanted."""
        out = self.buffer(column.size).reshape(column.shape)
        np.bitwise_and(column, mask, out=out)
        return self.equal(out, wanted)

    def equal(self, column: np.ndarray, wanted: np.ndarray | np.uint64) -> bool:
        self.buffer(column.size)
        truth = self._truth[: column.size].reshape(column.shape)
        np.equal(column, wanted, out=truth)
        return bool(truth.all())

    def halves(self, words: np.ndarray, offset: int) -> np.ndarray:
        """A column of 32-bit integers."""
        return words.view("<i4")[..., offset // 4]


def _repeats(raw: bytes, size: int, start: int, end: int) -> bool:
    # Compares the bytes with themselves, one struct page further on; not a byte of
    # them is copied.
    return raw.startswith(memoryview(raw)[start : end - size], start + size)


def _words(layout: PageLayout, starts: np.ndarray, raw: bytes) -> np.ndarray:
    return np.frombuffer(raw, "<u8").reshape(len(starts), -1, layout.size // 8)


class _BaseSieve:
    def __init__(self, prog: Program, layout: PageLayout, promise: DevicePages) -> None:
        self._prog, self._promise = prog, promise
        self._columns = _Columns(layout, promise.nodes)
        mask, wanted = self._columns.links()
        # A driver that builds folios sets PG_head as it likes.
        mask |= layout.pg_reserved | (0 if promise.folios else layout.pg_head)
        self._mask, self._wanted = np.uint64(mask), np.uint64(wanted | layout.pg_reserved)
        self._verified = b""

    def __call__(self, starts: np.ndarray, count: int, raw: bytes) -> bool:
        layout = self._columns.layout
        repeats = _repeats(raw, layout.size, 0, len(raw))
        if repeats and self._verified and raw.startswith(self._verified):
            return True
        if not self._sound(_words(layout, starts, raw)):
            return False
        if repeats:
            self._adopt(int(starts[0]), raw[: layout.size])
        return True

    def _sound(self, words: np.ndarray) -> bool:
        columns, layout = self._columns, self._columns.layout
        return (
            columns.masked_equal(words[..., layout.flags_word], self._mask, self._wanted)
            and columns.equal(words[..., layout.pgmap_word], np.uint64(self._promise.pgmap))
            and columns.halves(words, layout.refcount_offset).min()
            >= self._promise.fewest_references
            and columns.halves(words, layout.mapcount_offset).min() >= -1
        )

    def _adopt(self, pfn: int, page: bytes) -> None:
        # A base page is judged by its words, wherever it is, as long as it holds
        # the pgmap itself, and that is the case here.
        words = np.frombuffer(page, "<u8").reshape(1, -1)
        pages = Pages(pfn, pfn + 1, words, self._columns.layout)
        if not any(d.wrong.any() for d in deviations(self._prog, pages, self._promise)):
            self._verified = page


class _CompoundSieve:
    def __init__(self, layout: PageLayout, promise: DevicePages) -> None:
        self._promise = promise
        self._columns = _Columns(layout, promise.nodes)
        # By index in the compound page. All tails behind these are alike.
        self._distinct = max(layout.folio_pages, 2)
        mask, wanted = self._columns.links()
        self._masks = np.full(self._distinct + 1, mask | layout.pg_reserved, np.uint64)
        self._wanted = np.full(self._distinct + 1, wanted | layout.pg_reserved, np.uint64)
        head = np.uint64(layout.pg_head)
        self._masks[0] |= head
        self._wanted[0] |= head
        if not promise.folios:
            self._masks[1:] |= head
        if order_is_in_flags(layout):
            # The order is where PG_head is in other pages.
            self._masks[1] &= ~head

    def __call__(self, starts: np.ndarray, count: int, raw: bytes) -> bool:
        size = 1 << self._promise.vmemmap_shift
        if count > size and count % size == 0:
            whole = np.arange(0, count, size)
            starts, count = (starts[:, None] + whole).ravel(), size
        index = (starts - self._promise.first_pfn) % size
        if (index != index[0]).any() or index[0] + count > size:
            return False
        first = int(index[0])
        words = _words(self._columns.layout, starts, raw)
        if self._others_repeat(raw, len(starts), count, first):
            words = words[:, : max(self._distinct - first, 0) + 1]
        return self._sound(words, starts - index, first)

    def _others_repeat(self, raw: bytes, blocks: int, count: int, first: int) -> bool:
        # Then it is enough to look at one of them in each block.
        size = self._columns.layout.size
        skip, block = max(self._distinct - first, 0) * size, count * size
        return all(
            _repeats(raw, size, start + skip, start + block)
            for start in range(0, blocks * block, block)
            if skip < block
        )

    def _sound(self, words: np.ndarray, heads: np.ndarray, first: int) -> bool:
        columns, layout = self._columns, self._columns.layout
        # The head, the tails that hold something of the folio, and the others.
        for i in range(first, min(self._distinct, first + words.shape[1])):
            if not self._page_sound(words[:, i - first], i):
                return False
        tails = words[:, max(1 - first, 0) :]
        others = words[:, max(self._distinct - first, 0) :]
        return (
            columns.masked_equal(others[..., layout.flags_word], self._masks[-1], self._wanted[-1])
            and self._links_sound(tails[..., layout.compound_word], heads)
            and self._mappings_sound(others)
            and not columns.halves(tails, layout.refcount_offset).any()
            and bool((columns.halves(words, layout.mapcount_offset) >= -1).all())
        )

    def _page_sound(self, page: np.ndarray, index: int) -> bool:
        columns, layout, promise = self._columns, self._columns.layout, self._promise
        if not columns.masked_equal(
            page[..., layout.flags_word], self._masks[index], self._wanted[index]
        ):
            return False
        if index == 0:
            references = columns.halves(page, layout.refcount_offset)
            return bool(
                columns.equal(page[..., layout.pgmap_word], np.uint64(promise.pgmap))
                and (references >= promise.fewest_references).all()
            )
        if index == 1 and layout.order_offset is not None:
            order = page.view(np.uint8)[..., layout.order_offset]
            if (order != promise.vmemmap_shift).any():
                return False
        if index >= layout.folio_pages and layout.tail_mapping is not None:
            return columns.equal(page[..., layout.mapping_word], np.uint64(layout.tail_mapping))
        return True

    def _links_sound(self, links: np.ndarray, heads: np.ndarray) -> bool:
        layout = self._columns.layout
        size, base = np.uint64(layout.size), np.uint64(layout.vmemmap)
        addresses = (base + heads.astype(np.uint64) * size)[:, None]
        return self._columns.equal(links, tail_link(layout, addresses, self._promise.vmemmap_shift))

    def _mappings_sound(self, others: np.ndarray) -> bool:
        layout = self._columns.layout
        if layout.tail_mapping is None:
            return True
        mapping = others[..., layout.mapping_word]
        return self._columns.equal(mapping, np.uint64(layout.tail_mapping))


class _MetadataSieve:
    def __init__(self, layout: PageLayout, promise: MetadataPages) -> None:
        self._columns = _Columns(layout, promise.nodes)
        mask, wanted = self._columns.links()
        self._mask = np.uint64(mask | layout.pg_reserved)
        self._wanted = np.uint64(wanted | layout.pg_reserved)

    def __call__(self, starts: np.ndarray, count: int, raw: bytes) -> bool:
        columns, layout = self._columns, self._columns.layout
        words = _words(layout, starts, raw)
        pfn = (starts[:, None] + np.arange(count)).astype(np.uint64)
        link = np.uint64(layout.vmemmap + layout.lru_offset) + pfn * np.uint64(layout.size)
        lru = layout.lru_offset // 8
        return (
            columns.masked_equal(words[..., layout.flags_word], self._mask, self._wanted)
            and columns.equal(words[..., lru], link)
            and columns.equal(words[..., lru + 1], link)
            and bool((columns.halves(words, layout.refcount_offset) >= 1).all())
        )
