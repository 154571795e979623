# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Expected Struct Pages
---------------------

What ``memremap_pages()`` promises to leave in the struct pages of a pgmap, and
where struct pages deviate from it.

The tables below hold only what no driver may change later. Mappings, indices,
private data, most flags and high reference counts belong to whoever uses the
memory, and are not judged.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Union

import numpy as np
from drgn import Program

from drgn_zonedev.kernel.memmap import PageLayout, Pages, head_pgmaps
from drgn_zonedev.model import Pgmap
from drgn_zonedev.verification.patterns import self_link

__all__ = (
    "Deviation",
    "DevicePages",
    "MetadataPages",
    "Promise",
    "builds_folios",
    "deviations",
    "device_deviations",
    "fewest_references",
    "metadata_deviations",
    "order_is_in_flags",
    "tail_link",
)

_Column = Union[np.ndarray, np.generic]

# The fewest references that a head or base page has while its pgmap lives, by
# whether folio->pgmap exists. memremap_pages() starts with one reference, and for
# these types nobody drops the last one. Others are freed at 0: device-private and
# coherent pages, PCI P2PDMA pages, and fsdax pages since the release that brought
# folio->pgmap (v6.15).
_FEWEST_REFERENCES = {
    "MEMORY_DEVICE_GENERIC": {False: 1, True: 1},
    "MEMORY_DEVICE_FS_DAX": {False: 1, True: 0},
}

# Types whose drivers build folios out of base pages, where folio->pgmap exists.
_FOLIO_TYPES = ("MEMORY_DEVICE_FS_DAX", "MEMORY_DEVICE_PRIVATE", "MEMORY_DEVICE_COHERENT")


def fewest_references(layout: PageLayout, pgmap: Pgmap) -> int:
    """Get the fewest references that a page of a live pgmap can have."""
    return _FEWEST_REFERENCES.get(pgmap.type, {}).get(layout.pgmap_in_folio, 0)


def builds_folios(layout: PageLayout, pgmap: Pgmap) -> bool:
    """Return whether a pgmap's driver may build folios out of its base pages."""
    return layout.pgmap_in_folio and pgmap.type in _FOLIO_TYPES


@dataclass(frozen=True)
class Deviation:
    """
    Pages that are not as promised.

    ``wrong`` selects rows of the pages that were looked at; ``found`` and
    ``expected`` are columns or scalars, ``offset`` is that of the word in
    ``struct page``.
    """

    slug: str
    wrong: np.ndarray
    what: str
    offset: int | np.ndarray
    found: np.ndarray
    expected: _Column


@dataclass(frozen=True)
class DevicePages:
    """
    What is promised for ``[first_pfn, end_pfn)``.

    ``nodes`` are the nodes whose ZONE_DEVICE spans the range; if there are none,
    the pages' node is not judged. With
    ``vmemmap_shift`` the memmap is made of compound pages of that order, from
    ``first_pfn`` on. With ``folios``, the driver may build folios out of base
    pages as it likes, and take them apart.
    """

    pgmap: int
    first_pfn: int
    end_pfn: int
    nodes: tuple[int, ...]
    vmemmap_shift: int
    folios: bool
    fewest_references: int = 0


@dataclass(frozen=True)
class MetadataPages:
    """What is promised for the part of an altmap that holds the memmap."""

    nodes: tuple[int, ...]


Promise = Union[DevicePages, MetadataPages]


class _Area(enum.Enum):
    """What a device page is within the memmap of its pgmap."""

    BASE = enum.auto()
    HEAD = enum.auto()
    TAIL = enum.auto()


@dataclass(frozen=True)
class _Subject:
    """Struct pages, and what is promised for them."""

    prog: Program
    pages: Pages
    promise: DevicePages

    @property
    def layout(self) -> PageLayout:
        return self.pages.layout

    @cached_property
    def index(self) -> np.ndarray:
        """Of each page within its compound page."""
        return (self.pages.pfn - self.promise.first_pfn) % (1 << self.promise.vmemmap_shift)

    @cached_property
    def head_address(self) -> np.ndarray:
        size = np.uint64(self.layout.size)
        return self.pages.address - self.index.astype(np.uint64) * size

    def of_area(self, area: _Area) -> np.ndarray:
        """Which pages are in an area."""
        if self.promise.vmemmap_shift:
            return self.index == 0 if area is _Area.HEAD else self.index > 0
        return np.ones(len(self.pages.words), bool)

    @property
    def areas(self) -> tuple[_Area, ...]:
        return (_Area.HEAD, _Area.TAIL) if self.promise.vmemmap_shift else (_Area.BASE,)


_Rule = Callable[[_Subject], Deviation]


def _flag(pages: Pages, slug: str, what: str, bit: int, wanted: bool) -> Deviation:
    flags = pages.flags
    is_set = (flags & np.uint64(bit)) != 0
    clear = flags & np.uint64(~bit & (1 << 64) - 1)
    return Deviation(
        slug,
        ~is_set if wanted else is_set,
        what,
        pages.layout.flags_word * 8,
        flags,
        clear | np.uint64(bit) if wanted else clear,
    )


def _reserved(subject: _Subject) -> Deviation:
    bit = subject.layout.pg_reserved
    return _flag(subject.pages, "device-page-reserved", "PG_reserved", bit, wanted=True)


def _metadata_reserved(pages: Pages) -> Deviation:
    bit = pages.layout.pg_reserved
    return _flag(pages, "metadata-page-reserved", "PG_reserved", bit, wanted=True)


def _head_flag(subject: _Subject) -> Deviation:
    bit = subject.layout.pg_head
    return _flag(subject.pages, "device-head-flag", "PG_head", bit, wanted=True)


def _no_head_flag(subject: _Subject) -> Deviation:
    bit = subject.layout.pg_head
    found = _flag(subject.pages, "device-stray-head", "PG_head", bit, wanted=False)
    legal = np.full(len(found.wrong), subject.promise.folios)
    if subject.promise.vmemmap_shift and order_is_in_flags(subject.layout):
        # Since v6.6, the order is where PG_head is in other pages.
        legal |= subject.index == 1
    return _only(found, ~legal)


def order_is_in_flags(layout: PageLayout) -> bool:
    """Return whether the order of a compound page lies in the flags of its first tail."""
    return layout.order_offset == layout.flags_word * 8


def _order(subject: _Subject) -> Deviation:
    offset, shift = subject.layout.order_offset, subject.promise.vmemmap_shift
    known = offset is not None
    offset = offset or 0
    order = subject.pages.words.view(np.uint8)[:, offset].astype(np.uint64)
    return Deviation(
        "device-compound-order",
        (subject.index == 1) & known & (order != np.uint64(shift)),
        "order of the compound page, in its first tail,",
        offset,
        order,
        np.uint64(shift),
    )


def _tail_mapping(subject: _Subject) -> Deviation:
    layout = subject.layout
    mapping = subject.pages.words[:, layout.mapping_word]
    poison = np.uint64(layout.tail_mapping or 0)
    judged = (subject.index >= layout.folio_pages) & (layout.tail_mapping is not None)
    return Deviation(
        "device-tail-mapping",
        judged & (mapping != poison),
        "page->mapping",
        layout.mapping_word * 8,
        mapping,
        poison,
    )


def _references(pages: Pages, slug: str, wrong: np.ndarray, expected: int) -> Deviation:
    return Deviation(
        slug,
        wrong,
        "page->_refcount",
        pages.layout.refcount_offset,
        pages.refcount.view(np.uint32),
        np.uint32(expected),
    )


def _enough_references(subject: _Subject) -> Deviation:
    fewest = subject.promise.fewest_references
    few = subject.pages.refcount < fewest
    return _references(subject.pages, "device-page-refcount", few, fewest)


def _no_references(subject: _Subject) -> Deviation:
    pages = subject.pages
    return _references(pages, "device-page-refcount", pages.refcount != 0, 0)


def _one_reference(pages: Pages) -> Deviation:
    return _references(pages, "metadata-page-refcount", pages.refcount < 1, 1)


def _mapcount(subject: _Subject) -> Deviation:
    # What is below PAGE_MAPCOUNT_RESERVE is a page type. Device pages have none
    # so far, but that is for the kernel to decide.
    count = subject.pages.mapcount
    return Deviation(
        "device-page-mapcount",
        (count < -1) & (count >= -128),
        "page->_mapcount",
        subject.layout.mapcount_offset,
        count.view(np.uint32),
        np.uint32(0xFFFFFFFF),
    )


# What is written once and never changed, besides zone, node, and the way to the
# pgmap, which are judged first: where they are wrong, the rest means nothing.
_PROMISES: dict[_Area, tuple[_Rule, ...]] = {
    # __init_zone_device_page()
    _Area.BASE: (_reserved, _no_head_flag, _enough_references, _mapcount),
    # memmap_init_compound(), prep_compound_head()
    _Area.HEAD: (_reserved, _head_flag, _enough_references, _mapcount),
    # prep_compound_tail(); the order comes from prep_compound_head()
    _Area.TAIL: (_reserved, _no_head_flag, _order, _tail_mapping, _no_references, _mapcount),
}

# memmap_init_range(), __init_single_page()
_METADATA_RULES: tuple[Callable[[Pages], Deviation], ...] = (_metadata_reserved, _one_reference)


def deviations(prog: Program, pages: Pages, promise: Promise) -> Iterator[Deviation]:
    """Compare struct pages with what is promised for them."""
    if isinstance(promise, MetadataPages):
        return metadata_deviations(pages, promise.nodes)
    return device_deviations(prog, pages, promise)


def device_deviations(prog: Program, pages: Pages, promise: DevicePages) -> Iterator[Deviation]:
    """Compare struct pages with what ``memmap_init_zone_device()`` writes."""
    subject = _Subject(prog, pages, promise)
    links = list(_link_deviations(subject))
    bad_link = np.any([d.wrong for d in links], axis=0)
    bad_links = _zone_and_node(pages, promise.nodes, bad_link, "device-page")
    yield from bad_links
    bad = np.any([d.wrong for d in bad_links], axis=0)
    for d in links:
        yield _only(d, ~bad)
    good = ~bad & ~bad_link
    # Pages of both areas may deviate from one and the same rule.
    found: dict[str, Deviation] = {}
    for area in subject.areas:
        rows = good & subject.of_area(area)
        for rule in _PROMISES[area]:
            d = _only(rule(subject), rows)
            found[d.slug] = _union(found[d.slug], d) if d.slug in found else d
    yield from found.values()


def _only(deviation: Deviation, rows: np.ndarray) -> Deviation:
    return dataclasses.replace(deviation, wrong=deviation.wrong & rows)


def _union(a: Deviation, b: Deviation) -> Deviation:
    # Of the same word.
    expected = np.where(a.wrong, a.expected, b.expected)
    return dataclasses.replace(a, wrong=a.wrong | b.wrong, expected=expected)


def _zone_and_node(
    pages: Pages, nodes: tuple[int, ...], bad_link: np.ndarray, prefix: str
) -> list[Deviation]:
    layout = pages.layout
    bad_zone = pages.zone != layout.zone_device
    bad_node = np.zeros(len(pages.words), bool)
    if nodes:
        bad_node = ~np.isin(pages.node, np.array(nodes, np.uint64))
    # Neither zone and node nor the way to the pgmap: nobody wrote this page. What
    # a device held before has the bits of ZONE_DEVICE by chance.
    unwritten = (bad_zone | bad_node) & bad_link
    offset = layout.flags_word * 8
    zone, node = np.uint64(layout.zone_device), np.uint64(nodes[0] if nodes else 0)
    links = _with_links(pages, zone, node)
    bad_zone, bad_node = bad_zone & ~unwritten, bad_node & ~bad_zone & ~unwritten
    return [
        Deviation(f"{prefix}-uninitialized", unwritten, "page->flags", offset, pages.flags, links),
        Deviation(f"{prefix}-zone", bad_zone, "page_zonenum()", offset, pages.zone, zone),
        Deviation(f"{prefix}-node", bad_node, "page_to_nid()", offset, pages.node, node),
    ]


def _with_links(pages: Pages, zone: np.uint64, node: np.uint64) -> np.ndarray:
    # page->flags with another zone and node, as set_page_links() writes them.
    layout = pages.layout
    shift = 64 - layout.nodes_shift - layout.zones_shift
    links = int(node) << layout.zones_shift | int(zone)
    return pages.flags & np.uint64((1 << shift) - 1) | np.uint64(links << shift)


def _link_deviations(subject: _Subject) -> Iterator[Deviation]:
    if subject.promise.vmemmap_shift:
        yield from _compound_deviations(subject)
    else:
        yield _base_page_deviation(subject)


def _compound_deviations(subject: _Subject) -> Iterator[Deviation]:
    # memmap_init_compound(): the head holds the pgmap, and every tail links to
    # the head, also those tails whose memory is shared with other tails of the
    # same compound page.
    pages, layout = subject.pages, subject.layout
    is_head = subject.of_area(_Area.HEAD)
    pgmap = np.uint64(subject.promise.pgmap)
    yield Deviation(
        "device-page-pgmap",
        is_head & (pages.pgmap != pgmap),
        "pgmap of the head",
        layout.pgmap_word * 8,
        pages.pgmap,
        pgmap,
    )
    link = pages.words[:, layout.compound_word]
    expected = tail_link(layout, subject.head_address, subject.promise.vmemmap_shift)
    yield Deviation(
        "device-tail-link",
        ~is_head & (link != expected),
        "compound link of the tail",
        layout.compound_word * 8,
        link,
        expected,
    )


def tail_link(layout: PageLayout, head_address: np.ndarray, order: int) -> np.ndarray:
    """
    Get the word by which tails of a compound page lead to their head
    (``prep_compound_tail()``, ``set_compound_head()``; see ``PageLayout.compound_mask``).
    """
    if layout.compound_mask:
        return np.full_like(head_address, ~((layout.size << order) - 1) & (1 << 64) - 1 | 1)
    return head_address | np.uint64(1)


def _base_page_deviation(subject: _Subject) -> Deviation:
    pages, promise = subject.pages, subject.promise
    wrong = pages.pgmap != np.uint64(promise.pgmap)
    if promise.folios and wrong.any():
        wrong &= ~_in_good_folio(subject)
    return Deviation(
        "device-page-pgmap",
        wrong,
        "pgmap of the page",
        pages.layout.pgmap_word * 8,
        pages.pgmap,
        np.uint64(promise.pgmap),
    )


def _in_good_folio(subject: _Subject) -> np.ndarray:
    # Tails of a folio whose head lies in the same range and holds the pgmap.
    pages, promise, layout = subject.pages, subject.promise, subject.layout
    head_pfn = (pages.head - np.uint64(layout.vmemmap)) // np.uint64(layout.size)
    inside = (head_pfn >= np.uint64(promise.first_pfn)) & (head_pfn < np.uint64(promise.end_pfn))
    return pages.is_tail & inside & (head_pgmaps(subject.prog, pages) == np.uint64(promise.pgmap))


def metadata_deviations(pages: Pages, nodes: tuple[int, ...] = ()) -> Iterator[Deviation]:
    """
    Compare struct pages with what ``memmap_init_range()`` writes for the part of
    an altmap that holds the memmap: a ZONE_DEVICE page without a pgmap, whose
    list head is empty.

    :param nodes: Nodes whose ZONE_DEVICE spans the pages; if there are none, the
        node is not judged.
    """
    link = _list_deviation(pages)
    bad_links = _zone_and_node(pages, nodes, link.wrong, "metadata-page")
    yield from bad_links
    bad = np.any([d.wrong for d in bad_links], axis=0)
    yield _only(link, ~bad)
    for rule in _METADATA_RULES:
        yield _only(rule(pages), ~bad & ~link.wrong)


def _list_deviation(pages: Pages) -> Deviation:
    # lru.next, or lru.prev where only that is wrong.
    word = pages.layout.lru_offset // 8
    following, previous = pages.words[:, word], pages.words[:, word + 1]
    link = self_link(pages)
    bad_next = following != link
    return Deviation(
        "metadata-page-link",
        bad_next | (previous != link),
        "page->lru",
        np.where(bad_next, word * 8, word * 8 + 8),
        np.where(bad_next, following, previous),
        link,
    )
