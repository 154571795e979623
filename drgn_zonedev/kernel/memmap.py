# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Struct Pages in Bulk
--------------------

The ``drgn_zonedev.kernel.memmap`` module reads struct pages by the thousand and
decodes them with numpy. Reading one field of one page through a drgn object
costs microseconds; this costs tens of nanoseconds a page.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Union

import numpy as np
from drgn import (
    Architecture,
    BadDataError,
    FaultError,
    IntegerLike,
    Object,
    Program,
    Type,
    TypeKind,
    offsetof,
    sizeof,
)
from drgn.helpers.common.prog import takes_program_or_default
from drgn.helpers.linux.mm import compound_head, pfn_to_page

from drgn_zonedev.kernel.arguments import require_number
from drgn_zonedev.kernel.memremap import has_zone_device
from drgn_zonedev.kernel.sections import section_mem_map
from drgn_zonedev.util.once import once_per_program
from drgn_zonedev.vmcore.absence import absent_pages, next_present_page
from drgn_zonedev.vmcore.reads import read_memory

__all__ = (
    "PageLayout",
    "Pages",
    "PagesOrGap",
    "UnreadablePages",
    "default_chunk",
    "head_pgmaps",
    "page_layout",
    "page_pgmap",
    "poisons_struct_pages",
    "read_blocks",
    "read_pages",
)

# __mm_zero_struct_page() takes these sizes and no others.
_PAGE_SIZES = range(56, 97, 8)

# Large enough that the overhead of a read does not matter; small enough that the data is
# still in the processor's cache when it is decoded.
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class PageLayout:
    """
    The offsets of the members of ``struct page``, and the layout of ``page->flags``.

    ``*_word`` are indices of 64-bit words. ``compound_mask`` is true if the
    compound link of a tail is a mask for its own address (``compound_info``)
    instead of a pointer (``compound_head``). ``pgmap_in_folio`` is true if the pgmap is
    ``folio->pgmap``; then, drivers may build folios out of device pages.
    ``order_offset`` is where the first tail of a compound page holds its order,
    ``folio_pages`` how many struct pages lie under a ``struct folio``, and
    ``pointer_delta`` the POISON_POINTER_DELTA; ``None`` if that is not known. Without
    ``CONFIG_ZONE_DEVICE``, ``zone_device`` is a number that no page can have.
    """

    size: int
    vmemmap: int
    flags_word: int
    pgmap_word: int
    compound_word: int
    mapping_word: int
    lru_offset: int
    refcount_offset: int
    mapcount_offset: int
    zones_shift: int
    nodes_shift: int
    compound_mask: bool
    pgmap_in_folio: bool
    pg_reserved: int
    pg_head: int
    nr_zones: int
    zone_device: int
    order_offset: int | None
    folio_pages: int
    pointer_delta: int | None

    @property
    def tail_mapping(self) -> int | None:
        """``TAIL_MAPPING``: the value of ``mapping`` in tails."""
        return None if self.pointer_delta is None else self.pointer_delta + 0x400

    @property
    def list_poison(self) -> tuple[int, int] | None:
        """``LIST_POISON1`` and ``LIST_POISON2``, which ``list_del()`` leaves behind."""
        delta = self.pointer_delta
        return None if delta is None else (delta + 0x100, delta + 0x122)

    @property
    def zone_mask(self) -> int:
        """Mask for the zone number, once shifted down."""
        return (1 << self.zones_shift) - 1

    def page_address(self, pfn: int) -> int:
        """Address of the ``struct page`` of a PFN."""
        return self.vmemmap + pfn * self.size

    def memmap_pages(self, start_pfn: int, end_pfn: int, page_size: int) -> tuple[int, int]:
        """
        Get the pages of virtual memory that hold the struct pages of a range of PFNs, as a
        half-open range of page numbers.
        """
        last = (self.page_address(end_pfn) - 1) // page_size
        return self.page_address(start_pfn) // page_size, last + 1


@takes_program_or_default
@once_per_program
def page_layout(prog: Program) -> PageLayout:
    """
    Get the layout of ``struct page`` in this kernel.

    :raises LookupError: if the debugging information does not have what is needed
    :raises BadDataError: if ``struct page`` has a size that no kernel has
    """
    page = prog.type("struct page")
    if sizeof(page) not in _PAGE_SIZES:
        raise BadDataError(
            f"the debugging information has a struct page of {sizeof(page)} bytes, which no "
            "kernel has: give the vmlinux of the kernel"
        )
    compound = _compound_member(page)
    zones, devices = prog.constant("__MAX_NR_ZONES").value_(), has_zone_device(prog)
    zones_shift = (zones - 1).bit_length()
    return PageLayout(
        size=sizeof(page),
        vmemmap=_vmemmap(prog),
        flags_word=offsetof(page, "flags") // 8,
        pgmap_word=(_pgmap_offset(prog, page) if devices else offsetof(page, compound)) // 8,
        compound_word=offsetof(page, compound) // 8,
        mapping_word=offsetof(page, "mapping") // 8,
        lru_offset=offsetof(page, "lru"),
        refcount_offset=offsetof(page, "_refcount"),
        mapcount_offset=offsetof(page, "_mapcount"),
        zones_shift=zones_shift,
        nodes_shift=_nodes_shift(prog),
        pgmap_in_folio=devices and not page.has_member("pgmap"),
        compound_mask=compound == "compound_info" and _compound_info_has_mask(prog),
        pg_reserved=1 << prog.constant("PG_reserved").value_(),
        pg_head=1 << prog.constant("PG_head").value_(),
        nr_zones=zones,
        zone_device=prog.constant("ZONE_DEVICE").value_() if devices else 1 << zones_shift,
        order_offset=_order_offset(prog, page),
        folio_pages=_folio_pages(prog, page),
        pointer_delta=_pointer_delta(prog),
    )


def _vmemmap(prog: Program) -> int:
    # drgn's vmemmap is that of the first section. If most sections agree on another value,
    # the first one is damaged, and must not decide where all struct pages are.
    if _has_subsections(prog):
        common = section_mem_map(prog)
        if common is not None:
            return common
    try:
        return int(pfn_to_page(prog, 0).value_())
    except FaultError:
        # No section can be read. x86-64 also has the vmemmap in a variable:
        # VMEMMAP_START.
        try:
            return int(prog["vmemmap_base"].value_())
        except LookupError:
            pass
        raise


def _has_subsections(prog: Program) -> bool:
    # CONFIG_SPARSEMEM_VMEMMAP
    try:
        return prog.type("struct mem_section_usage").has_member("subsection_map")
    except LookupError:
        return False


def _compound_member(page: Type) -> str:
    # Renamed in Linux kernel commit d50569612c29 ("mm: rename the
    # 'compound_head' field in the 'struct page' to 'compound_info'") (in v7.1).
    return "compound_info" if page.has_member("compound_info") else "compound_head"


def _compound_info_has_mask(prog: Program) -> bool:
    # Since Linux kernel commit 8c846c879e22 ("mm: rework compound_head() for
    # power-of-2 sizeof(struct page)") (in v7.1), compound_info is a mask if
    # sizeof(struct page) is a power of two and
    # CONFIG_HUGETLB_PAGE_OPTIMIZE_VMEMMAP is set, which gives struct zone the
    # member vmemmap_tails.
    size = sizeof(prog.type("struct page"))
    return size & (size - 1) == 0 and prog.type("struct zone").has_member("vmemmap_tails")


def _order_offset(prog: Program, page: Type) -> int | None:
    # The places are those of drgn's compound_order(): struct page before Linux kernel
    # commit 1c5509be58f6 ("mm: remove 'First tail page' members from struct page") (in
    # v6.3), struct folio::_folio_order since 379708ffde1b ("mm: add the first tail page
    # to struct folio") (in v6.1), and since ebc1baf5c9b4 ("mm: free up a word in the
    # first tail page") (in v6.6) the low byte of struct folio::_flags_1.
    if page.has_member("compound_order"):
        return offsetof(page, "compound_order")
    folio = prog.type("struct folio")
    for member in ("_folio_order", "_flags_1"):
        if folio.has_member(member):
            return offsetof(folio, member) - sizeof(page)
    return None


def _folio_pages(prog: Program, page: Type) -> int:
    try:
        return -(-sizeof(prog.type("struct folio")) // sizeof(page))
    except LookupError:
        return 1


def _pointer_delta(prog: Program) -> int | None:
    # POISON_POINTER_DELTA in include/linux/poison.h: a macro, CONFIG_ILLEGAL_POINTER_VALUE, which
    # depends on the architecture.
    assert prog.platform is not None
    known = (Architecture.X86_64, Architecture.AARCH64)
    return 0xDEAD000000000000 if prog.platform.arch in known else None


def _pgmap_offset(prog: Program, page: Type) -> int:
    # Moved to struct folio in Linux kernel commit 82ba975e4c43 ("mm: allow
    # compound zone device pages") (in v6.15).
    if page.has_member("pgmap"):
        return offsetof(page, "pgmap")
    return offsetof(prog.type("struct folio"), "pgmap")


def poisons_struct_pages(prog: Program) -> bool:
    """
    Return whether a kernel fills struct pages with ``PAGE_POISON_PATTERN`` before they are
    initialised and after their memory is removed: ``page_init_poison()``.
    """
    # CONFIG_DEBUG_VM, which has this variable since Linux kernel commit f682a97a0059 ("mm: provide
    # kernel parameter to allow disabling page init poisoning") (in v4.20).
    return "page_init_poisoning" in prog


def _nodes_shift(prog: Program) -> int:
    # NODES_SHIFT is a macro, but node_data has MAX_NUMNODES entries.
    try:
        node_data = prog["node_data"].type_
    except LookupError:
        # CONFIG_NUMA=n has this one instead.
        prog["contig_page_data"]
        return 0
    if node_data.unaliased_kind() != TypeKind.ARRAY or not node_data.length:
        return 0
    return (node_data.length - 1).bit_length()


@dataclass(frozen=True, repr=False)
class Pages:
    """
    The struct pages of ``[start_pfn, end_pfn)``.

    ``words`` has a row per page and a column per 64-bit word of ``struct page``.
    """

    start_pfn: int
    end_pfn: int
    words: np.ndarray
    layout: PageLayout

    def __repr__(self) -> str:
        return f"<Pages [{self.start_pfn:#x}, {self.end_pfn:#x}): {len(self.words)} struct pages>"

    @cached_property
    def pfn(self) -> np.ndarray:
        """PFN of each page."""
        return np.arange(self.start_pfn, self.end_pfn, dtype=np.int64)

    @cached_property
    def address(self) -> np.ndarray:
        """Address of each ``struct page``."""
        layout = self.layout
        return np.uint64(layout.vmemmap) + self.pfn.astype(np.uint64) * np.uint64(layout.size)

    @property
    def flags(self) -> np.ndarray:
        """``page->flags``, or ``page->flags.f`` since v6.18."""
        return self.words[:, self.layout.flags_word]

    @property
    def zone(self) -> np.ndarray:
        """``page_zonenum()``"""
        shift = 64 - self.layout.nodes_shift - self.layout.zones_shift
        return (self.flags >> np.uint64(shift)) & np.uint64(self.layout.zone_mask)

    @property
    def node(self) -> np.ndarray:
        """``page_to_nid()``"""
        if not self.layout.nodes_shift:
            return np.zeros(len(self.words), np.uint64)
        return self.flags >> np.uint64(64 - self.layout.nodes_shift)

    @property
    def pgmap(self) -> np.ndarray:
        """
        The word that is ``page->pgmap`` or ``folio->pgmap`` in a head or base
        page, the compound link in a tail, and ``lru.next`` in others.
        """
        return self.words[:, self.layout.pgmap_word]

    @property
    def is_tail(self) -> np.ndarray:
        """Whether bit 0 of the compound link is set (``PageTail()``)."""
        return (self.words[:, self.layout.compound_word] & np.uint64(1)).astype(bool)

    @property
    def head(self) -> np.ndarray:
        """Address of each page's head: itself unless it is a tail (``compound_head()``)."""
        link = self.words[:, self.layout.compound_word]
        linked = self.address & link if self.layout.compound_mask else link - np.uint64(1)
        return np.where(self.is_tail, linked, self.address)

    @property
    def refcount(self) -> np.ndarray:
        """``page->_refcount``"""
        return self._int(self.layout.refcount_offset)

    @property
    def mapcount(self) -> np.ndarray:
        """``page->_mapcount``"""
        return self._int(self.layout.mapcount_offset)

    def _int(self, offset: int) -> np.ndarray:
        return self.words.view("<i4")[:, offset // 4]


@dataclass(frozen=True)
class UnreadablePages:
    """Struct pages that could not be read; ``address`` is where the first read faulted."""

    start_pfn: int
    end_pfn: int
    address: int
    reason: str


PagesOrGap = Union[Pages, UnreadablePages]


def default_chunk(layout: PageLayout) -> int:
    """Get the number of struct pages that are read at once."""
    return max(1, _CHUNK_BYTES // layout.size)


@takes_program_or_default
def read_pages(
    prog: Program,
    start_pfn: IntegerLike,
    end_pfn: IntegerLike,
    *,
    chunk: int | None = None,
    layout: PageLayout | None = None,
) -> Iterator[PagesOrGap]:
    """
    Read the struct pages of a range of PFNs.

    Everything that can be read is yielded as :class:`Pages`, in ascending order
    and in chunks. What cannot be read, down to one page of the memmap, is yielded
    as :class:`UnreadablePages`: it may be unmapped, filtered out of a dump, or
    on a device whose memory is not in the dump. A core dump usually records what it does not have,
    so one of these may span terabytes.

    :param start_pfn: First PFN.
    :param end_pfn: One more than the last PFN.
    :param chunk: Struct pages per read; the default is what is fastest.
    :param layout: :func:`page_layout()`, for a program without debugging symbols.
    """
    layout = layout or page_layout(prog)
    chunk = chunk or default_chunk(layout)
    gap: UnreadablePages | None = None
    start, end = require_number(start_pfn), require_number(end_pfn)
    while start < end:
        chunk_end = min(start + chunk, end)
        for part in _read_chunk(prog, layout, start, chunk_end):
            if isinstance(part, UnreadablePages):
                gap = dataclasses.replace(gap, end_pfn=part.end_pfn) if gap else part
                continue
            if gap:
                yield gap
                gap = None
            yield part
            # The next chunk reuses this memory: new memory would take as long as reading.
            del part
        start = chunk_end
        if gap:
            start = _next_chunk(prog, layout, start, end, chunk)
            gap = dataclasses.replace(gap, end_pfn=start)
    if gap:
        yield gap


def _next_chunk(prog: Program, layout: PageLayout, start_pfn: int, end_pfn: int, chunk: int) -> int:
    # The first chunk that is not certainly absent: gaps are skipped without reading.
    if start_pfn == end_pfn:
        return end_pfn
    page_size = prog["PAGE_SIZE"].value_()
    first, end = layout.memmap_pages(start_pfn, end_pfn, page_size)
    page = next_present_page(prog, first, end)
    if page == end:
        return end_pfn
    pages = max((page * page_size - layout.vmemmap) // layout.size - start_pfn, 0)
    return start_pfn + pages // chunk * chunk


def read_blocks(prog: Program, layout: PageLayout, starts: Sequence[int], count: int) -> bytes:
    """
    Read *count* struct pages at each of *starts* (PFNs), one after the other.

    :raises FaultError: if something cannot be read
    """
    size = count * layout.size
    return b"".join([read_memory(prog, layout.page_address(start), size) for start in starts])


def _read_chunk(
    prog: Program, layout: PageLayout, start_pfn: int, end_pfn: int
) -> Iterator[PagesOrGap]:
    try:
        yield _read(prog, layout, start_pfn, end_pfn)
        return
    except FaultError:
        pass
    # The dump's own headers locate most gaps; reading ever smaller parts locates the rest.
    for first, last, absent in _runs(prog, layout, start_pfn, end_pfn):
        if absent:
            # Read once more, only to get the message of the fault.
            try:
                _read(prog, layout, first, first + 1)
            except FaultError as e:
                yield _gap(layout, first, last, e)
                continue
        yield from _bisect(prog, layout, first, last)


def _read(prog: Program, layout: PageLayout, start_pfn: int, end_pfn: int) -> Pages:
    raw = read_memory(prog, layout.page_address(start_pfn), (end_pfn - start_pfn) * layout.size)
    words = np.frombuffer(raw, "<u8").reshape(-1, layout.size // 8)
    return Pages(start_pfn, end_pfn, words, layout)


def _runs(
    prog: Program, layout: PageLayout, start_pfn: int, end_pfn: int
) -> list[tuple[int, int, bool]]:
    # Cut where what is certainly absent begins and ends.
    page_size = prog["PAGE_SIZE"].value_()
    base = layout.page_address(start_pfn)
    absent = absent_pages(prog, *layout.memmap_pages(start_pfn, end_pfn, page_size))
    if absent[0] == absent.all() == absent.any():
        return [(start_pfn, end_pfn, bool(absent[0]))]
    # A struct page that lies across two pages needs both.
    begin = base % page_size + layout.size * np.arange(end_pfn - start_pfn)
    rows = absent[begin // page_size] | absent[(begin + layout.size - 1) // page_size]
    borders = (np.flatnonzero(np.diff(rows)) + 1).tolist()
    starts, ends = [0, *borders], [*borders, len(rows)]
    return [
        (start_pfn + start, start_pfn + end, bool(rows[start])) for start, end in zip(starts, ends)
    ]


def _bisect(
    prog: Program, layout: PageLayout, start_pfn: int, end_pfn: int
) -> Iterator[PagesOrGap]:
    try:
        yield _read(prog, layout, start_pfn, end_pfn)
    except FaultError as e:
        middle = _split(prog, layout, start_pfn, end_pfn)
        if middle is None:
            yield _gap(layout, start_pfn, end_pfn, e)
        else:
            yield from _bisect(prog, layout, start_pfn, middle)
            yield from _bisect(prog, layout, middle, end_pfn)


def _gap(layout: PageLayout, start_pfn: int, end_pfn: int, fault: FaultError) -> UnreadablePages:
    # A fault may be at a physical address.
    start, end = layout.page_address(start_pfn), layout.page_address(end_pfn)
    address = fault.address if start <= fault.address < end else start
    return UnreadablePages(start_pfn, end_pfn, address, str(fault))


def _split(prog: Program, layout: PageLayout, start_pfn: int, end_pfn: int) -> int | None:
    # Memory is mapped, and filtered, by whole pages: if these struct pages lie
    # in one page of memmap, they fault together.
    page_size = prog["PAGE_SIZE"].value_()
    first, end = layout.memmap_pages(start_pfn, end_pfn, page_size)
    if end - first == 1 or end_pfn - start_pfn == 1:
        return None
    border = (first + end) // 2 * page_size
    middle = (border - layout.vmemmap) // layout.size
    return min(max(middle, start_pfn + 1), end_pfn - 1)


@takes_program_or_default
def head_pgmaps(prog: Program, pages: Pages) -> np.ndarray:
    """
    Get the word that :func:`page_pgmap()` would return for each page.

    It is read from the head, which may lie outside of ``pages``; 0 if a tail
    leads nowhere.
    """
    words = pages.pgmap.copy()
    rows = np.flatnonzero(pages.is_tail)
    heads, inverse = np.unique(pages.head[rows], return_inverse=True)
    found = [_head_pgmap(prog, pages, head) for head in heads.tolist()]
    words[rows] = np.array(found, np.uint64)[inverse]
    return words


def _head_pgmap(prog: Program, pages: Pages, address: int) -> int:
    layout = pages.layout
    pfn, misaligned = divmod(address - layout.vmemmap, layout.size)
    if misaligned or pfn < 0:
        return 0
    if pages.start_pfn <= pfn < pages.end_pfn:
        return int(pages.pgmap[pfn - pages.start_pfn])
    try:
        return int.from_bytes(read_memory(prog, address + layout.pgmap_word * 8, 8), "little")
    except FaultError:
        return 0


def page_pgmap(page: Object) -> Object:
    """
    Get the pgmap that a device page points at, like the kernel's
    ``page_pgmap()``. A page that is not an initialised device page has
    something else there.

    :param page: ``struct page *``
    :return: ``struct dev_pagemap *``
    """
    prog = page.prog_
    head = compound_head(page)
    # See _pgmap_offset().
    try:
        return head.pgmap.read_()
    except AttributeError:
        return Object(prog, "struct folio *", head.value_()).pgmap.read_()
