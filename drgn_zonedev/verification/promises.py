# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Promises
--------

Which struct pages the kernel makes promises about, and where each of them is
within the memmap of its device. What it promises is in :mod:`.rules`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cached_property
from typing import Union

import numpy as np

from drgn_zonedev.kernel.memmap import PageLayout
from drgn_zonedev.kernel.page_kinds import PageKinds
from drgn_zonedev.verification.page_access import NO_MARKS, AccessMarks

__all__ = (
    "DEVICE_AREAS",
    "TAIL_AREAS",
    "Area",
    "DevicePages",
    "MetadataPages",
    "Place",
    "Promise",
    "RamPages",
    "area_of",
    "builds_folios",
    "is_idle_at_one",
    "order_is_in_flags",
    "periodic_areas",
    "zone_id",
)

# Renamed in Linux kernel commit 4533d3aed857 ("memremap: rename MEMORY_DEVICE_DEVDAX to
# MEMORY_DEVICE_GENERIC") (in v5.10).
_DEVDAX = ("MEMORY_DEVICE_GENERIC", "MEMORY_DEVICE_DEVDAX")
# Types whose drivers build folios out of base pages, where folio->pgmap exists.
_FOLIO_TYPES = ("MEMORY_DEVICE_FS_DAX", "MEMORY_DEVICE_PRIVATE", "MEMORY_DEVICE_COHERENT")


@enum.unique
class Area(enum.Enum):
    """What a page is within the memmap of its device; the value is for people."""

    METADATA = "altmap page"
    BASE = "base page"
    HEAD = "head"
    FIRST_TAIL = "first tail"
    FOLIO_TAIL = "tail under `struct folio`"
    TAIL = "other tail"
    RAM = "page of RAM"
    RAM_UNRESERVED = "page of RAM without `PG_reserved`"
    RAM_RESERVED = "page of RAM with `PG_reserved`"
    RAM_KEPT = "page with `PG_reserved` and a reference of its own"
    RAM_HEAD = "head in RAM"
    RAM_SINGLE = "page outside compound pages and free blocks"
    RAM_TYPED = "page with a type, or with `PG_slab`"
    RAM_FIRST_TAIL = "first tail in RAM"
    RAM_TAIL = "tail in RAM"
    RAM_OTHER_TAIL = "tail but the first"
    RAM_OWN_TAIL = "tail that has a struct page of its own"
    RAM_IDLE_TAIL = "tail that `struct folio` and hugetlb leave alone"
    FREE_HEAD = "first page of a free block"
    FREE_INSIDE = "other page of a free block"

    # Enum.__hash__ is a function in Python, which is slow.
    __hash__ = object.__hash__


TAIL_AREAS = (Area.FIRST_TAIL, Area.FOLIO_TAIL, Area.TAIL)
DEVICE_AREAS = (Area.BASE, Area.HEAD, *TAIL_AREAS)


@dataclass(frozen=True)
class DevicePages:
    """
    The pages of a range of a pgmap, ``[first_pfn, end_pfn)``.

    ``type`` is the ``enum memory_type``. ``nodes`` are the nodes whose ZONE_DEVICE
    spans the range; if there are none, the pages' node is not judged. With
    ``vmemmap_shift`` the memmap is made of compound pages of that order, from
    ``first_pfn`` on. ``marks`` are those of pages whose memory must not be read.
    """

    pgmap: int
    type: str
    first_pfn: int
    end_pfn: int
    nodes: tuple[int, ...]
    vmemmap_shift: int
    marks: AccessMarks = NO_MARKS


@dataclass(frozen=True)
class MetadataPages:
    """The part of an altmap that holds the memmap."""

    nodes: tuple[int, ...]


@dataclass(frozen=True)
class RamPages:
    """
    Pages of online RAM, ``[start_pfn, end_pfn)``, without those that are aliases.

    ``around`` are the PFNs that may be read to judge the pages at its ends: no alias is among
    them. ``zone_end`` is where the next zone begins. ``zones`` are those whose spans have all of
    the pages, ``hole_zones`` those that a reserved page may have where no zone is, as
    :func:`zone_id()` says; both are ``None`` if not all zones could be read. ``nodes`` are
    online. ``pages_per_frame`` struct pages are in one page of vmemmap. ``marks`` are those of
    pages whose memory must not be read.
    """

    start_pfn: int
    end_pfn: int
    around: tuple[int, int]
    zone_end: int
    kinds: PageKinds
    zones: tuple[int, ...] | None
    hole_zones: tuple[int, ...] | None
    nodes: tuple[int, ...]
    pages_per_frame: int
    marks: AccessMarks = NO_MARKS


Promise = Union[DevicePages, MetadataPages, RamPages]


def zone_id(layout: PageLayout, nid: int, number: int) -> int:
    """``page_zone_id()``, but for a node that is above the zone: what page->flags begin with."""
    return nid << layout.zones_shift | number


def builds_folios(layout: PageLayout, promise: Promise) -> bool:
    """Return whether the driver may build folios out of base pages, and take them apart."""
    return (
        isinstance(promise, DevicePages) and layout.pgmap_in_folio and promise.type in _FOLIO_TYPES
    )


def is_idle_at_one(layout: PageLayout, promise: Promise) -> bool:
    """
    Return whether a page keeps its last reference while its pgmap lives.

    device-dax pages keep the reference that ``__init_single_page()`` gives them. fsdax
    pages did until Linux kernel commit 38607c62b34b ("fs/dax: properly refcount fs dax
    pages") (in v6.15), the release that brought ``folio->pgmap``. Pages of other types
    are freed at 0.
    """
    if not isinstance(promise, DevicePages):
        return True
    keeps = promise.type == "MEMORY_DEVICE_FS_DAX" and not layout.pgmap_in_folio
    return keeps or promise.type in _DEVDAX


def order_is_in_flags(layout: PageLayout) -> bool:
    """
    Return whether the order of a compound page lies in the flags of its first tail,
    as since Linux kernel commit ebc1baf5c9b4 ("mm: free up a word in the first tail
    page") (in v6.6).
    """
    return layout.order_offset == layout.flags_word * 8


def periodic_areas(layout: PageLayout, promise: Promise) -> tuple[int, dict[Area, range]]:
    """
    Get the number of pages after which areas repeat, and the indices of each within it.
    """
    if isinstance(promise, MetadataPages):
        return 1, {Area.METADATA: range(1)}
    assert isinstance(promise, DevicePages)
    if not promise.vmemmap_shift:
        return 1, {Area.BASE: range(1)}
    size = 1 << promise.vmemmap_shift
    under_folio = min(max(layout.folio_pages, 2), size)
    areas = {
        Area.HEAD: range(1),
        Area.FIRST_TAIL: range(1, 2),
        Area.FOLIO_TAIL: range(2, under_folio),
        Area.TAIL: range(under_folio, size),
    }
    return size, {area: indices for area, indices in areas.items() if indices}


def area_of(layout: PageLayout, promise: Promise, pfn: int) -> Area | None:
    """Get what a page of a promise is; ``None`` in RAM, where pages say that themselves."""
    if isinstance(promise, RamPages):
        return None
    _, areas = periodic_areas(layout, promise)
    index = int(Place(layout, promise, np.array([pfn])).index[0])
    return next(area for area, indices in areas.items() if index in indices)


@dataclass(frozen=True)
class Place:
    """Where struct pages are: ``pfn`` is an array of any shape."""

    layout: PageLayout
    promise: Promise
    pfn: np.ndarray

    @property
    def device(self) -> DevicePages:
        """The promise for device pages, where there can be no other."""
        assert isinstance(self.promise, DevicePages)
        return self.promise

    @cached_property
    def address(self) -> np.ndarray:
        """``struct page *`` of each page."""
        layout = self.layout
        return np.uint64(layout.vmemmap) + self.pfn.astype(np.uint64) * np.uint64(layout.size)

    @cached_property
    def index(self) -> np.ndarray:
        """Index of each page in its compound page, 0 for others."""
        if not isinstance(self.promise, DevicePages):
            return np.zeros_like(self.pfn)
        return (self.pfn - self.promise.first_pfn) % (1 << self.promise.vmemmap_shift)

    @cached_property
    def head_address(self) -> np.ndarray:
        """``struct page *`` of the head of each page, or of itself."""
        return self.address - self.index.astype(np.uint64) * np.uint64(self.layout.size)
