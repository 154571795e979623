# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Fast Path of RAM
----------------

Finds at the speed of memory the struct pages of RAM that may break :mod:`.ram_rules`, and
counts the free blocks on the way.

It may suspect pages that keep them: :mod:`.deviations` looks at all that lies around those,
and it alone decides. It never passes over a page that deviates.

Few words decide: flags, the compound link, and the two counts are copied to columns, which
are gone through as a whole. What few pages have (another zone, ``PG_reserved``, a type) is
looked at page by page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Optional

import numpy as np

from drgn_zonedev.kernel.memmap import PageLayout
from drgn_zonedev.kernel.page_kinds import PageKinds
from drgn_zonedev.verification.compound_links import MAX_FOLIO_ORDER
from drgn_zonedev.verification.promises import RamPages
from drgn_zonedev.verification.ram_rules import excluded_by_reserved, excluded_of_tails

__all__ = ("Buffers", "Cover", "FreeHeads", "Glance", "glance")

FreeHeads = dict[tuple[int, int], int]
"""How many first pages of free blocks there are, by zone ID and order."""

Cover = Callable[[int], Optional[tuple[int, int]]]
"""
Takes a PFN; tells the head and the end of the compound page that the page before it says
that it is in, if that is one.
"""

_ONE = np.uint64(1)
# _refcount 0 and _mapcount -1.
_FREE = np.uint64((1 << 32) - 1)
_REFERENCED = np.uint64(1 << 32)
_NONE = np.empty(0, np.int64)
# Truth values in a word.
_GROUP = 8


@dataclass(frozen=True)
class Glance:
    """``suspects`` are the rows of pages to look at again, in ascending order."""

    suspects: np.ndarray
    free: FreeHeads


class Buffers:
    """Arrays that are used again."""

    def __init__(self) -> None:
        self._kept: dict[str, np.ndarray] = {}

    def get(self, name: str, count: int, dtype: type) -> np.ndarray:
        """Get an array of a length; what it holds is what somebody left there."""
        if name not in self._kept or len(self._kept[name]) < count:
            self._kept[name] = np.empty(count, dtype)
        return self._kept[name][:count]


def glance(
    layout: PageLayout,
    promise: RamPages,
    starts: np.ndarray,
    raw: bytes,
    cover: Cover,
    buffers: Buffers,
) -> Glance:
    """
    Look at blocks of struct pages, as many in each.

    :param starts: PFNs of the blocks. None begins or ends in a free block.
    :param raw: The memory of all of them.
    """
    words = np.frombuffer(raw, "<u8").reshape(-1, layout.size // 8)
    if layout.refcount_offset != layout.mapcount_offset + 4 or layout.mapcount_offset % 8:
        # No kernel has that.
        return Glance(np.arange(len(words)), {})
    look = _Look(layout, promise, starts, words, buffers, cover)
    rows = [
        *look.wrong_zones(),
        *look.wrong_links(),
        *look.wrong_tails(),
        *look.wrong_counts(),
        *look.wrong_flags(),
        *look.wrong_free(),
    ]
    found = [each for each in rows if len(each)]
    return Glance(np.unique(np.concatenate(found)) if found else _NONE, look.free_heads())


@dataclass(frozen=True)
class _Look:
    """A look at some blocks; what is wrong is yielded as arrays of rows."""

    layout: PageLayout
    promise: RamPages
    starts: np.ndarray
    words: np.ndarray
    buffers: Buffers
    cover: Cover

    # Columns.

    @property
    def kinds(self) -> PageKinds:
        return self.promise.kinds

    @cached_property
    def pages(self) -> int:
        """In each block."""
        return len(self.words) // len(self.starts)

    def _column(self, name: str, index: int) -> np.ndarray:
        column = self.buffers.get(name, len(self.words), np.uint64)
        np.copyto(column, self.words[:, index])
        return column

    def _spare(self) -> np.ndarray:
        return self.buffers.get("spare", len(self.words), np.uint64)

    def _truth(self, name: str) -> np.ndarray:
        return self.buffers.get(name, len(self.words), bool)

    @cached_property
    def flags(self) -> np.ndarray:
        return self._column("flags", self.layout.flags_word)

    @cached_property
    def link(self) -> np.ndarray:
        return self._column("link", self.layout.compound_word)

    @cached_property
    def counts(self) -> np.ndarray:
        """``_mapcount`` in the lower half, ``_refcount`` in the upper one."""
        return self._column("counts", self.layout.mapcount_offset // 8)

    @cached_property
    def tail(self) -> np.ndarray:
        spare, found = self._spare(), self._truth("tail")
        np.bitwise_and(self.link, _ONE, out=spare)
        return np.not_equal(spare, 0, out=found)

    def _masked(self, mask: int, name: str = "masked") -> np.ndarray:
        # Which pages have any of some flags.
        spare, found = self._spare(), self._truth(name)
        np.bitwise_and(self.flags, np.uint64(mask), out=spare)
        return np.not_equal(spare, 0, out=found)

    def _pfn(self, rows: np.ndarray) -> np.ndarray:
        found: np.ndarray = self.starts[rows // self.pages] + rows % self.pages
        return found

    def _address(self, rows: np.ndarray) -> np.ndarray:
        size = np.uint64(self.layout.size)
        return np.uint64(self.layout.vmemmap) + self._pfn(rows).astype(np.uint64) * size

    # Zones.

    @property
    def _links_shift(self) -> np.uint64:
        return np.uint64(64 - self.layout.nodes_shift - self.layout.zones_shift)

    def wrong_zones(self) -> Iterator[np.ndarray]:
        zones, holes = self.promise.zones, self.promise.hole_zones
        if zones is None or holes is None:
            yield from self._wrong_nodes()
            return
        if not zones:
            others = np.arange(len(self.words))
        else:
            zone = self._spare()
            np.right_shift(self.flags, self._links_shift, out=zone)
            elsewhere = np.not_equal(zone, np.uint64(zones[0]), out=self._truth("elsewhere"))
            others = np.flatnonzero(elsewhere)
        if not len(others):
            return
        flags = self.flags[others]
        zone = flags >> self._links_shift
        reserved = (flags & np.uint64(self.layout.pg_reserved)) != 0
        allowed = np.isin(zone, np.array(zones, np.uint64))
        hole = reserved & np.isin(zone, np.array(holes, np.uint64))
        yield others[~(allowed | hole)]

    def _wrong_nodes(self) -> Iterator[np.ndarray]:
        zone = self.flags >> self._links_shift
        nodes = np.array(self.promise.nodes, np.uint64)
        known = np.isin(zone >> np.uint64(self.layout.zones_shift), nodes)
        device = (zone & np.uint64(self.layout.zone_mask)) == np.uint64(self.layout.zone_device)
        yield np.flatnonzero(~known | device)

    # Compound pages.

    def wrong_links(self) -> Iterator[np.ndarray]:
        heads = np.flatnonzero(self._masked(self.layout.pg_head, "head") & ~self.tail)
        first, last = self._runs
        if not len(heads) and not len(first):
            yield from self._wrong_begin()
            return
        yield from self._wrong_begin()
        inner = first % self.pages != 0
        first, last = first[inner], last[inner]
        yield np.setxor1d(heads, first - 1)
        bad = ~(self._leads_to_previous(first) & self._fits(first, last))
        for start, end in zip(first[bad].tolist(), last[bad].tolist()):
            yield np.arange(start - 1, end + 1)
        # Within a run, all links are the same.
        same = self._truth("same")[1:]
        np.not_equal(self.link[1:], self.link[:-1], out=same)
        same &= self.tail[1:]
        same &= self.tail[:-1]
        rows = np.flatnonzero(same) + 1
        yield rows[rows % self.pages != 0]

    @cached_property
    def _runs(self) -> tuple[np.ndarray, np.ndarray]:
        # First and last rows of tails that follow each other in a block.
        tail, borders = self.tail, np.arange(0, len(self.words), self.pages)
        begins, ends = self._truth("begins"), self._truth("ends")
        np.logical_not(tail[:-1], out=begins[1:])
        begins[borders] = True
        begins &= tail
        np.logical_not(tail[1:], out=ends[:-1])
        ends[borders - 1] = True
        ends &= tail
        return np.flatnonzero(begins), np.flatnonzero(ends)

    def _wrong_begin(self) -> Iterator[np.ndarray]:
        # Pages at the begin of a block that are in a compound page from before it, or say so.
        first, last = self._runs
        at_begin = first % self.pages == 0
        lengths = dict(zip(first[at_begin].tolist(), (last - first + 1)[at_begin].tolist()))
        # Short blocks lie between aliases: they begin with a head, or their first tail says so.
        asked = [0] if len(self.starts) == 1 else []
        for row in dict.fromkeys((*asked, *lengths)):
            pfn = int(self._pfn(np.array([row]))[0])
            known, length = self.cover(pfn), lengths.get(row, 0)
            covered = 0 if known is None else min(known[1] - pfn, self.pages)
            if covered != length or (known and length and not self._leads_to(row, known[0])):
                yield np.arange(row, row + max(covered, length))

    def _leads_to(self, row: int, head: int) -> bool:
        link, rows = int(self.link[row]), np.array([row])
        address = int(self._address(rows)[0])
        found = address & link if self.layout.compound_mask else link - 1
        return found == self.layout.page_address(head) and bool(self._is_mask(rows)[0])

    def _is_mask(self, rows: np.ndarray) -> np.ndarray:
        # See linked_heads().
        if not self.layout.compound_mask:
            return np.ones(len(rows), bool)
        zeros = ~(self.link[rows] & ~_ONE)
        found: np.ndarray = (zeros & zeros + _ONE) == 0
        return found

    def _leads_to_previous(self, rows: np.ndarray) -> np.ndarray:
        link, address = self.link[rows], self._address(rows)
        head = address & link if self.layout.compound_mask else link - _ONE
        found: np.ndarray = (head == address - np.uint64(self.layout.size)) & self._is_mask(rows)
        return found

    def _fits(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        # Whether compound pages have as many tails as their order says, or reach the end of
        # the block, where the next one begins with it.
        offset = self.layout.order_offset
        if offset is None:
            return np.ones(len(first), bool)
        order = self.words.view(np.uint8)[first, offset].astype(np.int64)
        size = 1 << np.minimum(order, MAX_FOLIO_ORDER + 1)
        pages = last - first + 2
        at_end = (last + 1) % self.pages == 0
        sound = (order > 0) & (order <= MAX_FOLIO_ORDER) & (self._pfn(first - 1) & size - 1 == 0)
        return sound & ((pages == size) | (at_end & (pages < size)))

    def wrong_tails(self) -> Iterator[np.ndarray]:
        first, _ = self._runs
        if not len(first):
            return
        layout, kinds, tail = self.layout, self.kinds, self.tail
        others = self._masked(excluded_of_tails(layout, kinds, first=False) | layout.pg_head)
        others &= tail
        others[first] = False
        yield np.flatnonzero(others)
        mask = excluded_of_tails(layout, kinds, first=True)
        if layout.order_offset != layout.flags_word * 8:
            mask |= layout.pg_head
        yield first[(self.flags[first] & np.uint64(mask)) != 0]
        referenced = self._truth("referenced")
        np.greater_equal(self.counts, _REFERENCED, out=referenced)
        referenced &= tail
        yield np.flatnonzero(referenced)
        yield from self._wrong_mappings()

    def _wrong_mappings(self) -> Iterator[np.ndarray]:
        wanted, tail = self.layout.tail_mapping, self.tail
        index = 3 if self.layout.folio_pages <= 2 else max(self.layout.folio_pages, 4)
        if wanted is None or len(tail) <= index:
            return
        # So many tails in a row.
        idle = self._truth("idle")
        idle[:] = tail
        for distance in range(1, index):
            idle[distance:] &= tail[:-distance]
        idle[: index - 1] = False
        idle &= self.words[:, self.layout.mapping_word] != np.uint64(wanted)
        yield np.flatnonzero(idle)

    # Counts and types.

    def wrong_counts(self) -> Iterator[np.ndarray]:
        counts = self.counts
        if int(counts.view(np.int64).min()) < 0:
            yield np.flatnonzero(counts.view(np.int64) < 0)
        # Never written: without references, and mapped once.
        blank = np.flatnonzero(np.equal(counts, 0, out=self._truth("blank")))
        yield blank[~self.tail[blank]]
        rows, types = self._typed
        wrong = ~self.kinds.has_type(types) | self.tail[rows]
        yield rows[wrong | ((self.flags[rows] & np.uint64(self.kinds.lru)) != 0)]

    @cached_property
    def _typed(self) -> tuple[np.ndarray, np.ndarray]:
        # Rows of pages with a type, or less than no mappings, and what it is.
        mapcount = self.counts.view(np.int32)[::2]
        typed = self._truth("typed")
        np.less(mapcount, -1, out=typed)
        rows = np.flatnonzero(typed)
        return rows, mapcount[rows]

    # Flags.

    def wrong_flags(self) -> Iterator[np.ndarray]:
        layout, kinds = self.layout, self.kinds
        reserved = np.flatnonzero(self._masked(layout.pg_reserved))
        flags, counts = self.flags[reserved], self.counts[reserved]
        wrong = (flags & np.uint64(excluded_by_reserved(kinds) | layout.pg_head)) != 0
        yield reserved[wrong | (counts < _REFERENCED) | self.tail[reserved]]
        if kinds.slab_flag:
            both = np.uint64(kinds.slab_flag | kinds.lru)
            spare = self._spare()
            np.bitwise_and(self.flags, both, out=spare)
            yield np.flatnonzero(spare == both)

    # Free blocks.

    @cached_property
    def _blocks(self) -> tuple[np.ndarray, np.ndarray]:
        # First rows and orders of free blocks, whatever the orders are.
        rows, types = self._typed
        rows = rows[self.kinds.buddy.matches(types) & ~self.tail[rows]]
        return rows, self.words[rows, self.kinds.private_offset // 8]

    def wrong_free(self) -> Iterator[np.ndarray]:
        rows, orders = self._blocks
        if not len(rows):
            return
        yield rows[self._wrong_heads(rows)]
        size = _ONE << np.minimum(orders, np.uint64(self.kinds.max_order + 1))
        behind = rows + size.astype(np.int64)
        sound = orders <= np.uint64(self.kinds.max_order)
        sound &= self._pfn(rows).astype(np.uint64) & size - _ONE == 0
        sound &= behind <= (rows // self.pages + 1) * self.pages
        yield rows[~sound]
        yield from self._wrong_inside(rows[sound], behind[sound])

    def _wrong_heads(self, rows: np.ndarray) -> np.ndarray:
        kinds = self.kinds
        wrong = (self.flags[rows] & np.uint64(kinds.at_prep & ~kinds.reported)) != 0
        wrong |= self.counts[rows] >= _REFERENCED
        wrong |= self.words[rows, self.layout.mapping_word] != 0
        if kinds.memcg_offset is not None:
            wrong |= self.words[rows, kinds.memcg_offset // 8] != 0
        return wrong

    def _wrong_inside(self, rows: np.ndarray, behind: np.ndarray) -> Iterator[np.ndarray]:
        # A block within another one.
        yield rows[1:][np.maximum.accumulate(behind)[:-1] > rows[1:]]
        used = self._used
        # What is wrong with the first pages is known.
        used[rows] = False
        inside = self.buffers.get("inside", len(self.words) + 1, np.int8)
        lead = -int(self.starts[0]) % _GROUP
        groups = (len(self.words) - lead) // _GROUP
        if len(self.starts) > 1 or groups < 1:
            yield np.flatnonzero(_between(rows, behind, inside) & used)
            return
        # Blocks are aligned: from eight pages on, one look at all of them is enough.
        large = behind - rows >= _GROUP
        for distance in range(1, _GROUP // 2):
            near = rows[(rows + distance < behind) & ~large] + distance
            yield near[used[near]]
        first, last = (rows[large] - lead) // _GROUP, (behind[large] - lead) // _GROUP
        eight = used[lead : lead + groups * _GROUP].view(np.uint64)
        found = np.flatnonzero(_between(first, last, inside[: groups + 1]) & (eight != 0))
        near = (found[:, None] * _GROUP + np.arange(lead, lead + _GROUP)).ravel()
        yield near[used[near]]

    @property
    def _used(self) -> np.ndarray:
        # Pages that do not look as free_pages_prepare() leaves them.
        found, more = self._masked(self.kinds.at_prep, "used"), self._truth("more")
        found |= np.not_equal(self.counts, _FREE, out=more)
        found |= np.not_equal(self.words[:, self.layout.mapping_word], 0, out=more)
        found |= self.tail
        return found

    def free_heads(self) -> FreeHeads:
        rows, orders = self._blocks
        known = orders <= np.uint64(self.kinds.max_order)
        zone = self.flags[rows[known]] >> self._links_shift
        key, number = np.unique(zone << np.uint64(8) | orders[known], return_counts=True)
        return {
            (each >> 8, each & 0xFF): count for each, count in zip(key.tolist(), number.tolist())
        }


def _between(first: np.ndarray, behind: np.ndarray, out: np.ndarray) -> np.ndarray:
    # Which of len(out) - 1 things lie in some spans.
    out[:] = 0
    out[first] += 1
    out[behind] -= 1
    found: np.ndarray = np.cumsum(out[:-1], dtype=np.int8, out=out[:-1]) != 0
    return found
