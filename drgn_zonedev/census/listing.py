# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Lists of Pages
--------------

Lists pages one by one, with their kinds and owners, and gives the kinds of pages as arrays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from drgn import IntegerLike, Object, Program
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.census.counting import ChunkReader, read_aligned
from drgn_zonedev.census.deciding import Decided, PageMarks
from drgn_zonedev.census.kinds import PAGE_KINDS, KindWords, PageKind, kind_words
from drgn_zonedev.census.owners import Owner, file_owner, pgmap_owner, slab_owner
from drgn_zonedev.census.plan import Stretch, find_marks, plan
from drgn_zonedev.census.query import PageQuery
from drgn_zonedev.classification.classify import classify_snapshot
from drgn_zonedev.classification.reading import take_snapshot, with_names_if_known
from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.kernel.arguments import require_number
from drgn_zonedev.kernel.memmap import Pages, page_layout
from drgn_zonedev.kernel.page_flags import PageUse, PageUses, flag_names, page_uses
from drgn_zonedev.model import Pgmap, Range
from drgn_zonedev.util.handles import Result, bind
from drgn_zonedev.verification.columns import Buffers
from drgn_zonedev.verification.page_access import with_page_access

__all__ = (
    "KindColumns",
    "ListedPage",
    "PageList",
    "for_each_page_of_kind",
    "list_pages",
    "page_kinds",
)

_MAPPING_BITS = 3
_ALIKE_PAGES = 1 << 20
_WITH_FILES = (PageKind.FILE, PageKind.SHMEM, PageKind.THP)


@dataclass(frozen=True)
class ListedPage:
    """
    A page. ``address`` is that of its ``struct page``. ``flags`` are the names that apply,
    ``refcount`` is that of the head, and ``mapcount`` how often the page itself is mapped; these
    and ``order`` are ``None`` if the struct page tells nothing. ``range`` has its case and access.
    """

    # There can be millions of them.
    __slots__ = (
        *("pfn", "address", "kind", "flags", "refcount", "mapcount", "order", "owner", "range"),
    )

    pfn: int
    address: int
    kind: PageKind
    flags: tuple[str, ...] | None
    refcount: int | None
    mapcount: int | None
    order: int | None
    owner: Owner | None
    range: Range


@dataclass(frozen=True, repr=False)
class PageList(Result):
    """
    The pages that a query asks for, or the first of them: ``matching`` is how many there are.
    ``unknown`` says in words what could not be told apart.
    """

    query: PageQuery
    page_size: int
    matching: int
    pages: tuple[ListedPage, ...]
    unknown: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<PageList of {len(self.pages):,} of {self.matching:,} pages>"


@dataclass(frozen=True)
class KindColumns:
    """
    The kinds of the pages at ``[start_pfn, end_pfn)``, as an array of ``np.uint8`` for users of
    numpy: ``kind`` has the :attr:`~drgn_zonedev.census.kinds.PageKind.code` of each PFN, and
    :data:`NOWHERE` where no section is present.
    """

    start_pfn: int
    end_pfn: int
    kind: np.ndarray

    @property
    def pfn(self) -> np.ndarray:
        """PFN of each page (``np.int64``)."""
        return np.arange(self.start_pfn, self.end_pfn)

    def where(self, kind: str | PageKind) -> np.ndarray:
        """
        Get the PFNs of the pages of a kind (``np.int64``).

        :raises ValueError: if there is no such kind
        """
        return self.start_pfn + np.flatnonzero(self.kind == PageKind(kind).code)


NOWHERE = 0xFF
"""The code of PFNs that no present section has."""

# An array of 4 GiB, for 16 TiB of memory in pages of 4 KiB.
_MOST_KINDS = 1 << 32


@takes_program_or_default
def page_kinds(prog: Program, start_pfn: IntegerLike, end_pfn: IntegerLike) -> KindColumns:
    """
    Get what each page of a range of PFNs is used for, as an array.

    :param start_pfn: First PFN.
    :param end_pfn: One more than the last.
    :raises LookupError: if the debugging information does not have what is needed
    :raises ValueError: if there is no PFN in the range, or more than 2^32
    """
    start, end = require_number(start_pfn), require_number(end_pfn)
    if not 0 <= start < end:
        raise ValueError(f"no PFN is in [{start:#x}, {end:#x}): the end must be above the start")
    if end - start > _MOST_KINDS:
        raise ValueError(
            f"too many PFNs are in [{start:#x}, {end:#x}): ask about {_MOST_KINDS:#x} at a time"
        )
    kind = np.full(end - start, NOWHERE, np.uint8)
    for part in _Search(prog, take_snapshot(prog)).parts(start, end):
        kind[part.start_pfn - start : part.end_pfn - start] = part.kind
    return KindColumns(start, end, kind)


@takes_program_or_default
def for_each_page_of_kind(prog: Program, kind: str | PageKind) -> Iterator[Object]:
    """
    Iterate over all pages of a kind.

    :param kind: Its name, such as ``anon``.
    :return: Iterator of ``struct page *``.
    :raises LookupError: if the debugging information does not have what is needed
    :raises ValueError: if there is no such kind
    """
    wanted, layout = PageKind(kind), page_layout(prog)
    type_ = prog.type("struct page *")
    for part in _Search(prog, take_snapshot(prog)).parts(0, 1 << 62):
        for row in np.flatnonzero(part.kind == wanted.code).tolist():
            yield Object(prog, type_, layout.page_address(part.start_pfn + row))


def list_pages(prog: Program, query: PageQuery, limit: int | None = None) -> PageList:
    """
    List pages.

    :param limit: List at most this many; only count the others.
    :raises ValueError: if there is no such pgmap
    """
    search = _Search(prog, take_snapshot(prog))
    if query.pgmap is not None and query.pgmap not in search.pgmaps:
        raise ValueError(f"no pgmap is at {query.pgmap:#x}: zonedev pgmaps shows where they are")
    shown: list[ListedPage] = []
    matching = 0
    for part in search.parts(query.start_pfn, query.end_pfn):
        rows = np.flatnonzero(part.matches(query))
        matching += len(rows)
        room = len(rows) if limit is None else max(limit - len(shown), 0)
        shown += [search.listed(part, row) for row in rows[:room].tolist()]
    size = int(prog["PAGE_SIZE"].value_())
    return bind(prog, PageList(query, size, matching, tuple(shown), search.unknown))


@dataclass(frozen=True)
class _Part:
    """
    Some of the pages of a stretch, from row ``first`` of what is ``decided`` on; that is ``None``
    where their struct pages say nothing. ``poison`` is the mask of ``PG_hwpoison``, and
    ``deciding_uses`` says which names of flags apply.
    """

    start_pfn: int
    end_pfn: int
    stretch: Stretch
    kind: np.ndarray
    decided: Decided | None
    first: int = 0
    poison: int = 0
    deciding_uses: PageUses | None = None

    def matches(self, query: PageQuery) -> np.ndarray:
        found = np.ones(len(self.kind), bool)
        if query.kind is not None:
            found &= self.kind == query.kind.code
        if query.pgmap is not None:
            device = self.stretch.device
            found &= device is not None and device.pgmap == query.pgmap
        if query.flag is None and query.refcount is None:
            return found
        if self.decided is None:
            return np.zeros(len(found), bool)
        if query.flag is not None:
            found &= (self.flags & np.uint64(query.flag)) != 0
        if query.refcount is not None:
            found &= query.refcount.holds(self.heads.refcount)
        return found

    @cached_property
    def heads(self) -> Pages:
        assert self.decided is not None
        return self._cut(self.decided.heads)

    @cached_property
    def pages(self) -> Pages:
        assert self.decided is not None
        return self._cut(self.decided.pages)

    @cached_property
    def flags(self) -> np.ndarray:
        """The flags of the head: a tail has only ``PG_hwpoison`` of its own."""
        poison = np.uint64(self.poison)
        return (self.heads.flags & ~poison) | (self.pages.flags & poison)

    @cached_property
    def uses(self) -> np.ndarray:
        """The values of :class:`PageUse`."""
        assert self.deciding_uses is not None
        return self.deciding_uses.of(self.heads)

    @cached_property
    def order(self) -> np.ndarray:
        assert self.decided is not None
        return self.decided.order[self.first :][: len(self.kind)]

    def _cut(self, pages: Pages) -> Pages:
        words = pages.words[self.first :][: len(self.kind)]
        return Pages(self.start_pfn, self.end_pfn, np.ascontiguousarray(words), pages.layout)


@dataclass(frozen=True)
class _Search:
    """What a search for pages needs to know."""

    prog: Program
    snapshot: Snapshot

    @cached_property
    def words(self) -> KindWords:
        return kind_words(self.prog)

    @cached_property
    def ranges(self) -> list[Range]:
        return classify_snapshot(self.prog, self.snapshot)

    @cached_property
    def _marks(self) -> tuple[PageMarks, tuple[str, ...]]:
        return find_marks(self.prog, self.snapshot)

    @property
    def unknown(self) -> tuple[str, ...]:
        return self._marks[1]

    @cached_property
    def _names_of_flags(self) -> dict[tuple[int, PageUse], tuple[str, ...]]:
        return {}

    @cached_property
    def _all_flags(self) -> int:
        return (1 << int(self.prog["__NR_PAGEFLAGS"].value_())) - 1

    @cached_property
    def _owners(self) -> dict[tuple[str, int], Owner]:
        return {}

    @cached_property
    def _accesses(self) -> dict[int, list[Range]]:
        return {}

    @cached_property
    def pgmaps(self) -> dict[int, Pgmap]:
        named = with_names_if_known(self.prog, self.snapshot.pgmaps)
        return {pgmap.address: pgmap for pgmap in named}

    def parts(self, start_pfn: int, end_pfn: int) -> Iterator[_Part]:
        """Decide the kinds of pages, chunk by chunk."""
        reader = ChunkReader(self.prog, self.words, Buffers())
        for stretch in plan(self.prog, self.snapshot, self.ranges):
            start, end = max(stretch.start_pfn, start_pfn), min(stretch.end_pfn, end_pfn)
            if start < end:
                yield from self._parts_of(reader, stretch, start, end)

    def _parts_of(
        self, reader: ChunkReader, stretch: Stretch, start: int, end: int
    ) -> Iterator[_Part]:
        if not stretch.is_read:
            assert stretch.kind is not None
            yield from _alike(stretch, start, end, stretch.kind)
            return
        # Blocks begin and end at multiples of the largest one.
        block = 1 << self.words.ram.max_order
        first = max(start // block * block, stretch.start_pfn)
        last = min(-(-end // block) * block, stretch.end_pfn)
        for read in read_aligned(self.prog, self.words.layout, first, last):
            begin, stop = max(read.start_pfn, start), min(read.end_pfn, end)
            if begin >= stop:
                continue
            if not isinstance(read, Pages):
                yield from _alike(stretch, begin, stop, PageKind.NOT_IN_DUMP)
                continue
            decided = reader.decide(read, stretch, self._marks[0])
            rows = slice(begin - read.start_pfn, stop - read.start_pfn)
            says = stretch.kind not in (PageKind.UNINITIALISED, PageKind.OFFLINE_SECTION)
            known = decided if says else None
            yield _Part(
                *(begin, stop, stretch, decided.kind[rows], known, rows.start),
                *(self.words.hwpoison, page_uses(self.prog)),
            )

    def listed(self, part: _Part, row: int) -> ListedPage:
        """Get everything about one page."""
        pfn, kind = part.start_pfn + row, PAGE_KINDS[part.kind[row]]
        range_, address = self._range(pfn), self.words.layout.page_address(pfn)
        if part.decided is None:
            return ListedPage(pfn, address, kind, None, None, None, None, None, range_)
        mapcount = int(part.pages.mapcount[row])
        return ListedPage(
            pfn=pfn,
            address=address,
            kind=kind,
            flags=self._flags(part, row),
            refcount=int(part.heads.refcount[row]),
            mapcount=max(mapcount + 1, 0),
            order=int(part.order[row]),
            owner=self._owner(part, row, kind),
            range=range_,
        )

    def _flags(self, part: _Part, row: int) -> tuple[str, ...]:
        # Thousands of pages have the same flags.
        key = int(part.flags[row]) & self._all_flags, PageUse(part.uses[row])
        names = self._names_of_flags.get(key)
        if names is None:
            names = self._names_of_flags[key] = flag_names(self.prog, *key)
        return names

    def _range(self, pfn: int) -> Range:
        range_ = next(r for r in self.ranges if r.start_pfn <= pfn < r.end_pfn)
        known = self._accesses.setdefault(pfn >> 15, [])
        if not known:
            start, end = pfn >> 15 << 15, (pfn >> 15) + 1 << 15
            near = [r for r in self.ranges if r.start_pfn < end and start < r.end_pfn]
            known += with_page_access(self.prog, (_clipped(r, start, end) for r in near))
        return next((r for r in known if r.start_pfn <= pfn < r.end_pfn), range_)

    def _owner(self, part: _Part, row: int, kind: PageKind) -> Owner | None:
        words = part.heads.words[row]
        device = part.stretch.device
        if device is not None:
            pgmap = self.pgmaps.get(device.pgmap)
            return pgmap_owner(pgmap) if pgmap else Owner("pgmap", device.pgmap)
        if kind is PageKind.SLAB and self.words.slab_cache_word is not None:
            address = int(words[self.words.slab_cache_word])
            return self._known("slab-cache", address)
        mapping = int(words[self.words.layout.mapping_word])
        if kind in _WITH_FILES and mapping and not mapping & _MAPPING_BITS:
            return self._known("file", mapping)
        return None

    def _known(self, type_: str, address: int) -> Owner:
        key = type_, address
        if key not in self._owners:
            read = slab_owner if type_ == "slab-cache" else file_owner
            self._owners[key] = read(self.prog, address)
        return self._owners[key]


def _clipped(range_: Range, start: int, end: int) -> Range:
    return dataclasses.replace(
        range_, start_pfn=max(range_.start_pfn, start), end_pfn=min(range_.end_pfn, end)
    )


def _alike(stretch: Stretch, start: int, end: int, kind: PageKind) -> Iterator[_Part]:
    # The struct pages of terabytes may be missing in a dump.
    for first in range(start, end, _ALIKE_PAGES):
        stop = min(first + _ALIKE_PAGES, end)
        yield _Part(first, stop, stretch, np.full(stop - first, kind.code, np.uint8), None)
