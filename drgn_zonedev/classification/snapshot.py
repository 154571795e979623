# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Snapshot
--------

Holds the structures that decide the case of a PFN, as arrays and plain data. A snapshot is one
reading of them, by :mod:`~drgn_zonedev.classification.reading`; two snapshots can be
compared.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np

from drgn_zonedev.kernel.deferred_init import DeferredMemmap
from drgn_zonedev.kernel.memory_blocks import MemoryBlocks
from drgn_zonedev.kernel.mmzone import Geometry, SectionFlags
from drgn_zonedev.kernel.nodes import Nodes
from drgn_zonedev.kernel.predicates import Predicates
from drgn_zonedev.kernel.resource import Resources
from drgn_zonedev.kernel.sections import Sections
from drgn_zonedev.kernel.xarray import XArrayEntries
from drgn_zonedev.kernel.zones import Zones
from drgn_zonedev.model import Pgmap, PgmapRange, Unjudged
from drgn_zonedev.util.intervals import union

__all__ = ("Changes", "Snapshot", "changes_between")


@dataclass(frozen=True)
class Snapshot:
    """
    One consistent reading.

    ``stray_claims`` are PFNs for which ``pgmap_array`` holds an unusable pgmap, by its
    address: it cannot be read, or does not claim these PFNs.
    ``torn_sections`` (section numbers) and ``torn_pgmaps`` (addresses) changed
    during every reading. ``torn_spans`` are the PFNs of both,
    before and after. ``retries`` is the number of readings that differed from the one
    before. ``pgmap_array_gaps`` and ``memory_block_gaps`` are the PFNs for which the two
    arrays could not be read, and ``unreadable_zones`` the nodes whose zones could
    not be read, with the address that faulted. Spans are sorted and disjoint.
    ``zones``, ``nodes`` and ``resources``, which have no names, are ``None`` if the debugging
    information does not have them. ``deferred`` is RAM whose struct pages boot has not initialised
    yet.
    """

    geometry: Geometry
    flags: SectionFlags
    sections: Sections
    pgmap_array: XArrayEntries
    pgmaps: tuple[Pgmap, ...]
    memory_blocks: MemoryBlocks
    sections_per_block: int
    zone_device_spans: dict[int, tuple[int, int]]
    hotplug_in_progress: bool
    unjudged: tuple[Unjudged, ...]
    stray_claims: tuple[tuple[int, PgmapRange], ...] = ()
    torn_sections: frozenset[int] = frozenset()
    torn_pgmaps: frozenset[int] = frozenset()
    torn_spans: tuple[tuple[int, int], ...] = ()
    retries: int = 0
    knows_spans: bool = True
    unreadable_zones: tuple[tuple[int, int], ...] = ()
    zones: Zones | None = None
    nodes: Nodes | None = None
    deferred: tuple[DeferredMemmap, ...] = ()
    resources: Resources | None = None

    def is_reported(self, start_pfn: int, end_pfn: int) -> bool:
        """Return whether ``unjudged`` already covers all of a range."""
        starts, ends = self._reported
        i = bisect_right(starts, start_pfn)
        return i > 0 and ends[i - 1] >= end_pfn

    @cached_property
    def _reported(self) -> tuple[list[int], list[int]]:
        # The sorted starts, and for each the largest end of all spans up to it.
        spans = sorted((u.start_pfn, u.end_pfn) for u in self.unjudged)
        return [a for a, _ in spans], list(accumulate((b for _, b in spans), max))

    @property
    def pgmap_array_gaps(self) -> tuple[tuple[int, int], ...]:
        return union((gap.start, gap.end) for gap in self.pgmap_array.gaps)

    @property
    def memory_block_gaps(self) -> tuple[tuple[int, int], ...]:
        pages = self.geometry.pages_per_section * self.sections_per_block
        return union((gap.start * pages, gap.end * pages) for gap in self.memory_blocks.gaps)

    @property
    def block_memmaps(self) -> tuple[tuple[int, int], ...]:
        """
        The PFNs at the heads of memory blocks that store the memmap of the block. A block that
        would have nothing else is damaged.
        """
        blocks = self.memory_blocks
        pages = self.geometry.pages_per_section * self.sections_per_block
        rows = np.flatnonzero((blocks.memmap_pages > 0) & (blocks.memmap_pages < pages))
        starts = (block * pages for block in blocks.id[rows].tolist())
        lengths = blocks.memmap_pages[rows].tolist()
        return union((start, start + length) for start, length in zip(starts, lengths))

    def is_online(self, pfn: int) -> bool:
        """Return whether the section of a PFN has SECTION_IS_ONLINE."""
        words = self.sections.word[self.sections.rows(pfn, pfn + 1)]
        return bool((words & np.uint64(self.flags.online)).any())

    def predicates(self, pfn: np.ndarray) -> Predicates:
        """The kernel's predicates for PFNs."""
        return Predicates(self.flags, self.sections, self.pgmaps, pfn)


@dataclass(frozen=True)
class Changes:
    """
    The differences between two readings: section numbers, addresses of pgmaps, and
    the PFNs of both, before and after, sorted and disjoint.
    """

    sections: frozenset[int]
    pgmaps: frozenset[int]
    spans: tuple[tuple[int, int], ...]

    def __bool__(self) -> bool:
        return bool(self.sections or self.pgmaps)


def changes_between(before: Snapshot, after: Snapshot) -> Changes:
    """Get what was added, removed or changed between two readings."""
    sections = _changed_sections(before, after) | _sections_of_changed_blocks(before, after)
    pgmaps = _changed_pgmaps(before, after)
    return Changes(sections, pgmaps, _changed_spans(before, after, sections, pgmaps))


def _changed_spans(
    before: Snapshot, after: Snapshot, sections: frozenset[int], pgmaps: frozenset[int]
) -> tuple[tuple[int, int], ...]:
    pages = after.geometry.pages_per_section
    spans = [(nr * pages, (nr + 1) * pages) for nr in sections]
    for pgmap in before.pgmaps + after.pgmaps:
        if pgmap.address in pgmaps:
            spans += [(r.start_pfn, min(r.end_pfn, after.geometry.max_pfn)) for r in pgmap.ranges]
    return union(spans)


def _changed_sections(a: Snapshot, b: Snapshot) -> frozenset[int]:
    # Sections that were added or removed, and those whose words differ.
    both, in_a, in_b = np.intersect1d(
        a.sections.nr, b.sections.nr, assume_unique=True, return_indices=True
    )
    same = np.ones(len(both), bool)
    for name in ("word", "usage", "subsection_map"):
        differs = getattr(a.sections, name)[in_a] != getattr(b.sections, name)[in_b]
        same &= ~differs.reshape(len(both), -1).any(axis=1)
    one = np.setxor1d(a.sections.nr, b.sections.nr, assume_unique=True)
    return frozenset(one.tolist() + both[~same].tolist())


def _sections_of_changed_blocks(a: Snapshot, b: Snapshot) -> frozenset[int]:
    ids = [block for block, *_ in _block_rows(a) ^ _block_rows(b)]
    nr = np.union1d(a.sections.nr, b.sections.nr)
    return frozenset(nr[np.isin(nr // b.sections_per_block, ids)].tolist())


def _block_rows(snapshot: Snapshot) -> set[tuple[int, int, int, str]]:
    blocks = snapshot.memory_blocks
    names = [blocks.state_names[state] for state in blocks.state.tolist()]
    columns = blocks.id, blocks.address, blocks.memmap_pages
    return set(zip(*(column.tolist() for column in columns), names))


def _changed_pgmaps(a: Snapshot, b: Snapshot) -> frozenset[int]:
    # The reference count changes all the time and does not matter here.
    def without_count(p: Pgmap) -> Pgmap:
        return dataclasses.replace(p, ref=dataclasses.replace(p.ref, count=None, mode=None))

    differing = {without_count(p) for p in a.pgmaps} ^ {without_count(p) for p in b.pgmaps}
    return frozenset(p.address for p in differing)
