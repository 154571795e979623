# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Expected Struct Pages
---------------------

What ``memremap_pages()`` promises to leave in the struct pages of a pgmap, and
where struct pages deviate from it.

Only what no driver may change later is held against a page: its zone, its node,
and the way to its pgmap. Reference counts, mappings, indices and private data
belong to whoever uses the memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from drgn import Program

from drgn_zonedev.contents import self_link
from drgn_zonedev.kernel.memmap import PageLayout, Pages, head_pgmaps

__all__ = ("Deviation", "DevicePages", "device_deviations", "metadata_deviations")


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
    offset: int
    found: np.ndarray
    expected: np.ndarray


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


def device_deviations(prog: Program, pages: Pages, promise: DevicePages) -> Iterator[Deviation]:
    """Compare struct pages with what ``memmap_init_zone_device()`` writes."""
    layout = pages.layout
    bad_zone = pages.zone != layout.zone_device
    bad_node = np.zeros(len(pages.words), bool)
    if promise.nodes:
        bad_node = ~np.isin(pages.node, np.array(promise.nodes, np.uint64))
    links = list(_link_deviations(prog, pages, promise))
    bad_link = np.any([d.wrong for d in links], axis=0)
    # Neither zone and node nor the way to the pgmap: nobody wrote this page. What
    # a device held before has the bits of ZONE_DEVICE by chance.
    unwritten = (bad_zone | bad_node) & bad_link
    flags_offset = layout.flags_word * 8
    zone, node = np.uint64(layout.zone_device), np.uint64(promise.nodes[0] if promise.nodes else 0)
    yield Deviation(
        "device-page-uninitialized",
        unwritten,
        "page->flags",
        flags_offset,
        pages.flags,
        _with_links(pages, zone, node),
    )
    yield Deviation(
        "device-page-zone", bad_zone & ~unwritten, "page_zonenum()", flags_offset, pages.zone, zone
    )
    yield Deviation(
        "device-page-node",
        bad_node & ~bad_zone & ~unwritten,
        "page_to_nid()",
        flags_offset,
        pages.node,
        node,
    )
    for d in links:
        wrong = d.wrong & ~bad_zone & ~unwritten
        yield Deviation(d.slug, wrong, d.what, d.offset, d.found, d.expected)


def _with_links(pages: Pages, zone: np.uint64, node: np.uint64) -> np.ndarray:
    # page->flags with another zone and node, as set_page_links() writes them.
    layout = pages.layout
    shift = 64 - layout.nodes_shift - layout.zones_shift
    links = int(node) << layout.zones_shift | int(zone)
    return pages.flags & np.uint64((1 << shift) - 1) | np.uint64(links << shift)


def _link_deviations(prog: Program, pages: Pages, promise: DevicePages) -> Iterator[Deviation]:
    if promise.vmemmap_shift:
        yield from _compound_deviations(pages, promise)
    else:
        yield _base_page_deviation(prog, pages, promise)


def _compound_deviations(pages: Pages, promise: DevicePages) -> Iterator[Deviation]:
    # memmap_init_compound(): the head holds the pgmap, and every tail links to
    # the head, also those tails whose memory is shared with other tails of the
    # same compound page.
    layout = pages.layout
    index = (pages.pfn - promise.first_pfn) % (1 << promise.vmemmap_shift)
    is_head = index == 0
    head_address = pages.address - index.astype(np.uint64) * np.uint64(layout.size)
    pgmap = np.uint64(promise.pgmap)
    yield Deviation(
        "device-page-pgmap",
        is_head & (pages.pgmap != pgmap),
        "pgmap of the head",
        layout.pgmap_word * 8,
        pages.pgmap,
        pgmap,
    )
    flags = pages.flags
    yield Deviation(
        "device-head-flag",
        is_head & ((flags & np.uint64(layout.pg_head)) == 0),
        "PG_head",
        layout.flags_word * 8,
        flags,
        flags | np.uint64(layout.pg_head),
    )
    link = pages.words[:, layout.compound_word]
    yield Deviation(
        "device-tail-link",
        ~is_head & (~pages.is_tail | (pages.head != head_address)),
        "compound link of the tail",
        layout.compound_word * 8,
        link,
        _link_to(layout, head_address, promise.vmemmap_shift),
    )


def _link_to(layout: PageLayout, head_address: np.ndarray, order: int) -> np.ndarray:
    # prep_compound_tail(), set_compound_head(): see PageLayout.compound_mask.
    if layout.compound_mask:
        mask = ~((layout.size << order) - 1) & (1 << 64) - 1
        return np.full(len(head_address), mask | 1, np.uint64)
    return head_address | np.uint64(1)


def _base_page_deviation(prog: Program, pages: Pages, promise: DevicePages) -> Deviation:
    wrong = pages.pgmap != np.uint64(promise.pgmap)
    if promise.folios and wrong.any():
        wrong &= ~_in_good_folio(prog, pages, promise)
    return Deviation(
        "device-page-pgmap",
        wrong,
        "pgmap of the page",
        pages.layout.pgmap_word * 8,
        pages.pgmap,
        np.uint64(promise.pgmap),
    )


def _in_good_folio(prog: Program, pages: Pages, promise: DevicePages) -> np.ndarray:
    # Tails of a folio whose head lies in the same range and holds the pgmap.
    layout = pages.layout
    head_pfn = (pages.head - np.uint64(layout.vmemmap)) // np.uint64(layout.size)
    inside = (head_pfn >= np.uint64(promise.first_pfn)) & (head_pfn < np.uint64(promise.end_pfn))
    return pages.is_tail & inside & (head_pgmaps(prog, pages) == np.uint64(promise.pgmap))


def metadata_deviations(pages: Pages) -> Iterator[Deviation]:
    """
    Compare struct pages with what ``memmap_init_range()`` writes for the part of
    an altmap that holds the memmap: a ZONE_DEVICE page without a pgmap, whose
    list head is empty.
    """
    layout = pages.layout
    bad_zone = pages.zone != layout.zone_device
    link = self_link(pages)
    bad_link = pages.pgmap != link
    unwritten = bad_zone & bad_link
    flags_offset = layout.flags_word * 8
    zone = np.uint64(layout.zone_device)
    yield Deviation(
        "metadata-page-uninitialized", unwritten, "page_zonenum()", flags_offset, pages.zone, zone
    )
    yield Deviation(
        "metadata-page-zone",
        bad_zone & ~unwritten,
        "page_zonenum()",
        flags_offset,
        pages.zone,
        zone,
    )
    yield Deviation(
        "metadata-page-link",
        bad_link & ~bad_zone,
        "page->lru.next",
        layout.lru_offset,
        pages.pgmap,
        link,
    )
