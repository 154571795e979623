# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Counts of Folios
----------------

The ``drgn_zonedev.kernel.folio_counts`` module reads in bulk how often pages are referenced,
pinned and mapped, as ``folio_ref_count()``, ``folio_maybe_dma_pinned()`` and
``folio_mapcount()`` do for one folio.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from drgn import Program, offsetof, sizeof
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.kernel.memmap import Pages, page_layout
from drgn_zonedev.kernel.records import read_records

__all__ = (
    "GUP_PIN_COUNTING_BIAS",
    "FolioCounts",
    "drops_initial_references",
    "folio_counts",
    "idle_references",
    "mappings_take_references",
)

GUP_PIN_COUNTING_BIAS = 1 << 10
"""How many references a pin takes of a page that is not part of a large folio."""

# No folio is larger: see PUD_ORDER.
_MAX_ORDER = 26

_PRIVATE = ("MEMORY_DEVICE_PRIVATE", "MEMORY_DEVICE_COHERENT")
_COUNTED_LATE = ("MEMORY_DEVICE_FS_DAX", "MEMORY_DEVICE_PCI_P2PDMA")


@takes_program_or_default
def mappings_take_references(prog: Program) -> bool:
    """
    Return whether each mapping of an fsdax or devdax page takes a reference, and is counted.

    So it is since Linux kernel commits 38607c62b34b ("fs/dax: properly refcount fs dax pages")
    and aed877c2b425 ("device/dax: properly refcount device dax pages when mapping") (in v6.15),
    the release that brought ``folio->pgmap``.
    """
    return page_layout(prog).pgmap_in_folio


@takes_program_or_default
def drops_initial_references(prog: Program) -> bool:
    """
    Return whether ``memunmap_pages()`` drops a reference of each page, and then waits for those
    that are left, instead of references of the pgmap only.

    So it was until Linux kernel commit 27674ef6c73f ("mm: remove the extra ZONE_DEVICE struct
    page refcount") (in v5.18), which nothing shows; MEMORY_DEVICE_COHERENT came in v6.0.
    """
    try:
        prog.constant("MEMORY_DEVICE_COHERENT")
    except LookupError:
        return True
    return False


@takes_program_or_default
def idle_references(prog: Program, pgmap_type: str, *, is_live: bool = True) -> int:
    """
    Get the references of a device page that is not used.

    :param pgmap_type: Name of an enumerator of ``enum memory_type``.
    :param is_live: Whether the pgmap is not being removed.
    """
    if pgmap_type in _COUNTED_LATE:
        idle = 0 if mappings_take_references(prog) else 1
    elif pgmap_type in _PRIVATE:
        idle = 1 if drops_initial_references(prog) else 0
    else:
        idle = 1
    return 0 if drops_initial_references(prog) and not is_live else idle


@dataclass(frozen=True)
class FolioCounts:
    """
    Folios; each column has an element per folio.

    ``references`` is ``folio_ref_count()``, ``mappings`` ``folio_mapcount()``, and ``mapping``
    and ``index`` are ``folio->mapping`` and ``folio->index``. ``pins`` are references that
    ``FOLL_PIN`` took, each of which is :data:`GUP_PIN_COUNTING_BIAS` of ``references`` if the
    order is 0, and one of them otherwise. ``readable`` says whether what a large folio counts
    in its further pages could be read.
    """

    pfn: np.ndarray
    order: np.ndarray
    references: np.ndarray
    pins: np.ndarray
    mappings: np.ndarray
    mapping: np.ndarray
    index: np.ndarray
    readable: np.ndarray


@takes_program_or_default
def folio_counts(prog: Program, pages: Pages) -> FolioCounts:
    """
    Read the folios whose first page is among some pages.

    :param pages: With further pages of those folios, or without.
    :raises LookupError: if the debugging information does not say where the counts are
    """
    layout = pages.layout
    rows = np.flatnonzero(~pages.is_tail)
    words, refcounts = pages.words[rows], pages.refcount[rows].astype(np.int64)
    large = (pages.flags[rows] & np.uint64(layout.pg_head)) != 0
    order = np.zeros(len(rows), np.int64)
    # A negative count below -1 is a page type.
    mappings = np.maximum(pages.mapcount[rows].astype(np.int64) + 1, 0)
    # A page that is mapped a thousand times has as many references, and no pin.
    pins = np.maximum(refcounts - mappings, 0) // GUP_PIN_COUNTING_BIAS
    readable = np.ones(len(rows), bool)
    if large.any():
        further = _further_counts(prog, pages.address[rows][large])
        order[large], pins[large], mappings[large], readable[large] = further
    return FolioCounts(
        pfn=pages.pfn[rows],
        order=order,
        references=refcounts,
        pins=np.maximum(pins, 0),
        mappings=mappings,
        mapping=words[:, layout.mapping_word],
        index=words[:, _index_offset(prog) // 8],
        readable=readable,
    )


def _index_offset(prog: Program) -> int:
    # Renamed in Linux kernel commit acc53a0b4c15 ("mm: rename page->index to
    # page->__folio_index") (in v6.16).
    page = prog.type("struct page")
    return offsetof(page, "index" if page.has_member("index") else "__folio_index")


def _further_counts(
    prog: Program, heads: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    # Order, pins and mappings of large folios, and whether they could be read.
    places = _places(prog)
    size = max(offset for offset in places if offset is not None) + 4
    raw, readable = read_records(prog, heads, size)
    order, pins, mappings = (_column(raw, offset) for offset in places)
    order = np.where((order & 0xFF) <= _MAX_ORDER, order & 0xFF, 0)
    # _large_mapcount starts at -1.
    count = mappings + 1 if places[2] is not None else mappings
    return order, pins, np.maximum(count, 0), readable


def _places(prog: Program) -> tuple[int | None, int, int | None]:
    # Offsets of the order, the pins and the mappings, from the head. Before large folios count
    # all their mappings, only devdax has them, and does not count.
    layout = page_layout(prog)
    order = None if layout.order_offset is None else layout.size + layout.order_offset
    return order, _pincount_place(prog), _mapcount_place(prog)


def _pincount_place(prog: Program) -> int:
    # In the third page before Linux kernel commit 5232c63f46fd ("mm: Make compound_pincount
    # always available") (in v5.18), and in struct folio since 1c5509be58f6 ("mm: remove 'First
    # tail page' members from struct page") (in v6.3) at the latest.
    page = prog.type("struct page")
    if page.has_member("hpage_pinned_refcount"):
        return 2 * sizeof(page) + offsetof(page, "hpage_pinned_refcount")
    if page.has_member("compound_pincount"):
        return sizeof(page) + offsetof(page, "compound_pincount")
    return offsetof(prog.type("struct folio"), "_pincount")


def _mapcount_place(prog: Program) -> int | None:
    # Since Linux kernel commit 05c5323b2a34 ("mm: track mapcount of large folios in single
    # value") (in v6.10).
    try:
        folio = prog.type("struct folio")
    except LookupError:
        return None
    return offsetof(folio, "_large_mapcount") if folio.has_member("_large_mapcount") else None


def _column(raw: np.ndarray, offset: int | None) -> np.ndarray:
    if offset is None:
        return np.zeros(len(raw), np.int64)
    return np.ascontiguousarray(raw[:, offset : offset + 4]).view("<i4")[:, 0].astype(np.int64)
