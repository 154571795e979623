# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Fast Path of RAM
----------------

Finds the struct pages of RAM that may break :mod:`.ram_rules`, as fast as memory can be read, and
counts free blocks on the way.

It may suspect pages that keep the rules: :mod:`.deviations` looks at everything around those, and
alone decides. It never misses a page that breaks a rule.

What a page holds by itself is compared with the rules about its group (:mod:`.ram_groups`), as
whole columns for what most pages are, and page by page for what few are: heads, pages with
``PG_reserved`` or a type. What pages say of each other is looked at here: compound links, orders,
and where free blocks end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Optional

import numpy as np

from drgn_zonedev.kernel.memmap import PageLayout
from drgn_zonedev.util.sets import sorted_set
from drgn_zonedev.verification.columns import Buffers, Columns, rows_of, rows_of_runs
from drgn_zonedev.verification.compound_links import MAX_FOLIO_ORDER
from drgn_zonedev.verification.page_access import AccessSpan, access_among
from drgn_zonedev.verification.promises import RamPages
from drgn_zonedev.verification.ram_groups import Group, groups_of
from drgn_zonedev.verification.ram_window import first_idle_tail

__all__ = ("Cover", "Ends", "FastRam", "Glance")

Cover = Callable[[int], Optional[tuple[int, int]]]
"""
Takes a PFN; returns the head and the end of the compound page that the page before it is in, if
that continues at the PFN.
"""

Ends = Callable[[int, int], bool]
"""Takes the PFN of a head, and a number of pages: whether its compound page has that many."""

_ONE = np.uint64(1)
_NO_ROWS = np.empty(0, np.int64)
# If fewer of the pages are in a group, they are looked at one by one.
_FEW = 1 / 8


@dataclass(frozen=True)
class Glance:
    """
    ``suspects`` are the rows of pages to look at again, in ascending order, and ``free_zones``
    and ``free_orders`` what the first pages of free blocks say: zone IDs and orders. ``access``
    is that of :func:`~drgn_zonedev.verification.page_access.access_spans()`.
    """

    suspects: np.ndarray
    free_zones: np.ndarray
    free_orders: np.ndarray
    access: list[AccessSpan]


class FastRam:
    """Looks at the pages of a promise."""

    def __init__(
        self,
        layout: PageLayout,
        promise: RamPages,
        cover: Cover,
        ends: Ends,
        buffers: Buffers,
    ) -> None:
        self.layout, self.kinds, self.cover, self.ends = layout, promise.kinds, cover, ends
        self.groups, self._buffers = groups_of(layout, promise), buffers
        self._marks = promise.marks

    def glance(self, starts: np.ndarray, raw: bytes) -> Glance:
        """
        Look at blocks of struct pages, as many in each.

        :param starts: PFNs of the blocks. None begins or ends in a free block.
        :param raw: The memory of all of them.
        """
        words = np.frombuffer(raw, "<u8").reshape(-1, self.layout.size // 8)
        look = _Look(self, starts, Columns(words, self._buffers))
        found = [rows for rows in look.suspects() if len(rows)]
        suspects = sorted_set(np.concatenate(found)) if found else _NO_ROWS
        marks, poisoned = self._marks, look.poisoned(self._marks.poisoned)
        access = access_among(self.layout, marks, starts, words, poisoned, look.used_typed)
        return Glance(suspects, *look.free_heads(), access)


@dataclass(frozen=True)
class _Runs:
    """
    Tails that follow each other: ``first`` and ``last`` are rows of each run, and ``following``
    tells which pages are tails behind a tail.
    """

    first: np.ndarray
    last: np.ndarray
    following: np.ndarray


_NO_RUNS = _Runs(_NO_ROWS, _NO_ROWS, np.empty(0, bool))


class _Look:
    """A look at some blocks; what is wrong is yielded as arrays of rows."""

    def __init__(self, ram: FastRam, starts: np.ndarray, columns: Columns) -> None:
        self.layout, self.kinds, self.ram = ram.layout, ram.kinds, ram
        self.starts, self.columns = starts, columns
        # Pages in each block.
        self.pages = len(columns) // len(starts)
        self.flags = columns.word(self.layout.flags_word)
        self.tail = ~columns.equal(self.layout.compound_word, 1, 0)
        tails = int(np.count_nonzero(self.tail))
        self.any_tail, self.many_tails = tails > 0, tails > _FEW * len(self.tail)
        # Rows of pages that are not tails, and differ from most pages in use.
        self.unusual = rows_of(~(ram.groups.usual.passes(columns) | self.tail))
        self.unusual_flags = self.flags[self.unusual]
        typed, types = self._typed()
        free = self.kinds.buddy.matches(types)
        self.free, self.used_typed = typed[free], typed[~free]
        self.orders = columns.of(self.free, self.kinds.private_offset // 8)

    def _link(self, rows: np.ndarray) -> np.ndarray:
        return self.columns.of(rows, self.layout.compound_word)

    def suspects(self) -> Iterator[np.ndarray]:
        """Rows of pages to look at again."""
        yield from self._wrong_alone()
        if len(self.unusual):
            yield from self._wrong_unusual()
        heads = self.unusual[self._having(self.layout.pg_head)]
        runs = self._runs() if self.any_tail else _NO_RUNS
        yield from self._wrong_begin(runs.first, runs.last)
        if self.any_tail or len(heads):
            inner = runs.first % self.pages != 0
            yield from self._wrong_links(heads, runs.first[inner], runs.last[inner])
            yield from self._wrong_tails(runs)
        if len(self.free):
            yield from self._wrong_free()

    def poisoned(self, flag: int) -> np.ndarray:
        """Rows of pages with ``PG_hwpoison``, which few have."""
        if self.columns.any_has(self.layout.flags_word, flag):
            return rows_of(self.flags & np.uint64(flag))
        return _NO_ROWS

    def free_heads(self) -> tuple[np.ndarray, np.ndarray]:
        """Zone IDs and orders of free blocks."""
        shift = 64 - self.layout.nodes_shift - self.layout.zones_shift
        known = self.orders <= np.uint64(self.kinds.max_order)
        return self.flags[self.free[known]] >> np.uint64(shift), self.orders[known]

    def _pfn(self, rows: np.ndarray) -> np.ndarray:
        found: np.ndarray = self.starts[rows // self.pages] + rows % self.pages
        return found

    def _address(self, rows: np.ndarray) -> np.ndarray:
        size = np.uint64(self.layout.size)
        return np.uint64(self.layout.vmemmap) + self._pfn(rows).astype(np.uint64) * size

    # Pages by themselves.

    def _passes(self, group: Group) -> np.ndarray:
        return self.ram.groups[group].passes(self.columns)

    def _broken(self, group: Group, rows: np.ndarray) -> np.ndarray:
        # The rows, among those of a group, of pages that break its rules.
        return rows[self.ram.groups[group].broken(self.columns.at(rows))] if len(rows) else rows

    def _broken_among(self, group: Group, tails: np.ndarray) -> np.ndarray:
        if self.many_tails:
            tails = tails & ~self._passes(group)
        return self._broken(group, rows_of(tails))

    def _having(self, flag: int) -> np.ndarray:
        # Which of the unusual pages have a flag.
        return (self.unusual_flags & np.uint64(flag)) != 0

    def _typed(self) -> tuple[np.ndarray, np.ndarray]:
        # Rows of pages with a type, or a negative number of mappings, and what it is.
        index = self.layout.mapcount_offset // 4
        rows = self.columns.below(index, -1)
        rows = rows[~self.tail[rows]] if self.any_tail else rows
        return rows, self.columns.half(index)[rows]

    def _wrong_alone(self) -> Iterator[np.ndarray]:
        elsewhere = rows_of(~self._passes(Group.UNRESERVED))
        if len(elsewhere):
            reserved = (self.flags[elsewhere] & np.uint64(self.layout.pg_reserved)) != 0
            yield self._broken(Group.UNRESERVED, elsewhere[~reserved])
        yield self._broken(Group.TYPED, self.used_typed)
        if self.columns.any_has(self.layout.flags_word, self.layout.pg_reserved):
            yield self._wrong_reserved()
        yield self._unwritten(elsewhere)

    def _wrong_reserved(self) -> np.ndarray:
        # Heads and tails must not be reserved, so they need not be excluded.
        reserved = self.columns.masked(self.layout.flags_word, self.layout.pg_reserved) != 0
        if np.count_nonzero(reserved) > _FEW * len(reserved):
            reserved &= ~self._passes(Group.RESERVED)
        return self._broken(Group.RESERVED, rows_of(reserved))

    def _wrong_unusual(self) -> Iterator[np.ndarray]:
        head = self._having(self.layout.pg_head)
        yield self._broken(Group.HEAD, self.unusual[head])
        yield self._broken(Group.SINGLE, self.unusual[~head])
        if self.kinds.slab_flag:
            yield self._broken(Group.TYPED, self.unusual[self._having(self.kinds.slab_flag)])

    def _unwritten(self, elsewhere: np.ndarray) -> np.ndarray:
        # Pages of zeros: one that holds another pattern is a tail.
        zeros_pass = self.ram.groups[Group.UNRESERVED].checks.pass_zeros
        rows = rows_of(self.flags == 0) if zeros_pass else elsewhere
        return rows[~self.columns.at(rows).words.any(axis=1)] if len(rows) else rows

    # Compound pages.

    def _runs(self) -> _Runs:
        # No run goes beyond its block.
        before, behind = np.empty_like(self.tail), np.empty_like(self.tail)
        before[1:], behind[:-1] = self.tail[:-1], self.tail[1:]
        before[:: self.pages] = behind[self.pages - 1 :: self.pages] = False
        first, last = (rows_of(self.tail & ~beside) for beside in (before, behind))
        return _Runs(first, last, self.tail & before)

    def _wrong_begin(self, first: np.ndarray, last: np.ndarray) -> Iterator[np.ndarray]:
        # Pages at the beginning of a block that are, or claim to be, in a compound page that begins
        # before it.
        at_begin = first % self.pages == 0
        lengths = dict(zip(first[at_begin].tolist(), (last - first + 1)[at_begin].tolist()))
        # Short blocks lie between aliases: they begin with a head, or their first tail says so.
        asked = [0] if len(self.starts) == 1 else []
        for row in dict.fromkeys((*asked, *lengths)):
            pfn = int(self.starts[row // self.pages])
            known, length = self.ram.cover(pfn), lengths.get(row, 0)
            covered = 0 if known is None else min(known[1] - pfn, self.pages)
            if covered != length or (known and length and not self._leads_to(row, known[0])):
                yield np.arange(row, row + max(covered, length))

    def _leads_to(self, row: int, head: int) -> bool:
        rows = np.array([row])
        link, address = int(self._link(rows)[0]), int(self._address(rows)[0])
        found = address & link if self.layout.compound_mask else link - 1
        return found == self.layout.page_address(head) and bool(self._is_mask(rows)[0])

    def _wrong_links(
        self, heads: np.ndarray, first: np.ndarray, last: np.ndarray
    ) -> Iterator[np.ndarray]:
        # For tails whose head is in the same block.
        if not np.array_equal(heads, first - 1):
            yield np.setxor1d(heads, first - 1, assume_unique=True)
        bad = ~(self._leads_to_previous(first) & self._fits(first, last))
        for start, end in zip(first[bad].tolist(), last[bad].tolist()):
            yield np.arange(start - 1, end + 1)

    def _is_mask(self, rows: np.ndarray) -> np.ndarray:
        # See linked_heads().
        if not self.layout.compound_mask:
            return np.ones(len(rows), bool)
        zeros = ~(self._link(rows) & ~_ONE)
        found: np.ndarray = (zeros & zeros + _ONE) == 0
        return found

    def _leads_to_previous(self, rows: np.ndarray) -> np.ndarray:
        link, address = self._link(rows), self._address(rows)
        head = address & link if self.layout.compound_mask else link - _ONE
        found: np.ndarray = (head == address - np.uint64(self.layout.size)) & self._is_mask(rows)
        return found

    def _fits(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        # Whether compound pages have as many tails as their order says. One that reaches the end
        # of the block may go on, or be followed by the next block, if that is not behind aliases.
        offset = self.layout.order_offset
        if offset is None:
            return np.ones(len(first), bool)
        order = self.columns.words.view(np.uint8)[first, offset].astype(np.int64)
        size = 1 << np.minimum(order, MAX_FOLIO_ORDER + 1)
        pages = last - first + 2
        at_end = (last + 1) % self.pages == 0
        head = self._pfn(first - 1)
        sound = (order > 0) & (order <= MAX_FOLIO_ORDER) & (head & size - 1 == 0)
        next_block = np.append(self.starts[1:], -1)[first // self.pages]
        fits = np.where(at_end, head + size == next_block, pages == size)
        for row in (at_end & ~fits & sound & (pages <= size)).nonzero()[0].tolist():
            fits[row] = self.ram.ends(int(head[row]), int(size[row]))
        return sound & fits

    def _wrong_tails(self, runs: _Runs) -> Iterator[np.ndarray]:
        # Tails at the beginning of a block are far from their heads.
        inner = runs.first % self.pages != 0
        first, last = runs.first[inner], runs.last[inner]
        yield self._broken(Group.FIRST_TAIL, first)
        others = self.tail.copy()
        others[first] = False
        yield self._broken_among(Group.OTHER_TAIL, others)
        for index in range(2, first_idle_tail(self.layout)):
            others[np.minimum(first + index - 1, last)] = False
        yield self._broken_among(Group.IDLE_TAIL, others)
        yield self._differing(runs.following)

    def _differing(self, following: np.ndarray) -> np.ndarray:
        # Within a run, all links are the same.
        if self.many_tails:
            links = self.columns.word(self.layout.compound_word)
            return rows_of((links[1:] != links[:-1]) & following[1:]) + 1
        rows = rows_of(following)
        return rows[self._link(rows) != self._link(rows - 1)]

    # Free blocks.

    def _wrong_free(self) -> Iterator[np.ndarray]:
        rows, orders = self.free, self.orders
        yield self._broken(Group.FREE_HEAD, rows)
        size = _ONE << np.minimum(orders, np.uint64(self.kinds.max_order + 1))
        behind = rows + size.astype(np.int64)
        sound = orders <= np.uint64(self.kinds.max_order)
        sound &= self._pfn(rows).astype(np.uint64) & size - _ONE == 0
        sound &= behind <= (rows // self.pages + 1) * self.pages
        yield rows[~sound]
        sound &= orders > 0
        yield from self._wrong_inside(rows[sound], behind[sound])

    def _wrong_inside(self, rows: np.ndarray, behind: np.ndarray) -> Iterator[np.ndarray]:
        # A block within another one.
        within = rows_of(np.maximum.accumulate(behind)[:-1] > rows[1:]) + 1
        if len(within):
            yield rows[within]
            rows, behind = np.delete(rows, within), np.delete(behind, within)
        inside = behind - rows - 1
        if inside.sum() < _FEW * len(self.tail):
            yield self._broken(Group.FREE_INSIDE, rows_of_runs(rows + 1, inside))
            return
        used = np.empty(len(self.tail) + 1, np.uint8)
        np.logical_not(self._passes(Group.FREE_INSIDE), out=used[:-1].view(bool))
        # The pages within each block, and those between it and the next one.
        borders = np.stack([rows + 1, behind], axis=1).ravel()
        found = rows_of(np.bitwise_or.reduceat(used, borders)[::2])
        for start, end in zip(rows[found].tolist(), behind[found].tolist()):
            yield self._broken(Group.FREE_INSIDE, np.arange(start + 1, end))
