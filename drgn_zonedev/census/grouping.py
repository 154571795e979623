# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Grouping
--------

Labels by which pages are grouped, besides kind, node and zone. While pages are counted, a label is
a number; it gets its name afterwards.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from drgn import FaultError, Object, Program

from drgn_zonedev.census.bins import NO_LABEL, Bin
from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.kernel.memmap import Pages
from drgn_zonedev.kernel.page_flags import PageUse, PageUses, flag_names, page_uses
from drgn_zonedev.kernel.pageblock import pageblock_layout, present_migratetypes
from drgn_zonedev.model import Pgmap
from drgn_zonedev.util.strings import c_string

__all__ = ("By", "Labels", "PgmapLabel", "label_names", "labels_by")


# In labels, the use is below the flags.
_USE_BITS = 8

_NO_PFNS, _NO_VALUES = np.empty(0, np.int64), np.empty(0, np.uint64)


class By(enum.Enum):
    """What pages can be grouped by. The value is the name that users give."""

    ORDER = "order"
    MIGRATETYPE = "migratetype"
    FLAGS = "flags"
    SLAB_CACHE = "slab-cache"
    PGMAP = "pgmap"
    MEMORY_BLOCK = "memory-block"

    @property
    def key(self) -> str:
        """Its name in JSON and CSV."""
        return self.value.replace("-", "_")


@dataclass(frozen=True)
class Labels:
    """
    How to label pages. ``mask`` has the bits of page flags, and ``uses`` decides which of their
    names apply, for :data:`By.FLAGS`. If labels depend on the PFN, as with memory blocks,
    ``values[i]`` is the label of PFNs from ``starts[i]`` on.
    """

    by: By
    mask: int = 0
    uses: PageUses | None = None
    starts: np.ndarray = field(default_factory=lambda: _NO_PFNS)
    values: np.ndarray = field(default_factory=lambda: _NO_VALUES)

    def of_flags(self, heads: Pages) -> np.ndarray:
        """Get the labels of pages by the flags of their heads."""
        assert self.uses is not None
        use = self.uses.of(heads).astype(np.uint64)
        return (heads.flags & np.uint64(self.mask)) << np.uint64(_USE_BITS) | use

    def at(self, pfn: np.ndarray) -> np.ndarray:
        """Get the labels of PFNs."""
        if not len(self.starts):
            return np.full(len(pfn), NO_LABEL, np.uint64)
        row = np.searchsorted(self.starts, pfn, side="right") - 1
        return np.where(row < 0, np.uint64(NO_LABEL), self.values[row])

    def within(self, start_pfn: int, end_pfn: int) -> Labels:
        """Get only the labels for a range of PFNs."""
        first = max(int(np.searchsorted(self.starts, start_pfn, side="right")) - 1, 0)
        last = int(np.searchsorted(self.starts, end_pfn))
        starts, values = self.starts[first:last], self.values[first:last]
        return dataclasses.replace(self, starts=starts, values=values)

    def parts(self, start_pfn: int, end_pfn: int) -> Iterator[tuple[int, int]]:
        """Yield the labels in a range of PFNs, and how many pages have each."""
        inside = self.starts[(self.starts > start_pfn) & (self.starts < end_pfn)]
        borders = np.r_[start_pfn, inside, end_pfn]
        yield from zip(self.at(borders[:-1]).tolist(), np.diff(borders).tolist())


def labels_by(prog: Program, snapshot: Snapshot, by: By) -> Labels:
    """
    Find out how to label this kernel's pages.

    :raises LookupError: if the debugging information does not have what is needed
    """
    if by is By.FLAGS:
        return Labels(by, (1 << prog.constant("__NR_PAGEFLAGS").value_()) - 1, page_uses(prog))
    if by is By.MEMORY_BLOCK:
        return _of_memory_blocks(snapshot)
    return _of_pageblocks(prog, snapshot) if by is By.MIGRATETYPE else Labels(by)


def _of_memory_blocks(snapshot: Snapshot) -> Labels:
    pages = snapshot.geometry.pages_per_section * snapshot.sections_per_block
    ids = snapshot.memory_blocks.id.astype(np.int64)
    borders = np.stack([ids * pages, (ids + 1) * pages], axis=1).ravel()
    values = np.stack([ids.astype(np.uint64), np.full(len(ids), NO_LABEL, np.uint64)], axis=1)
    return _places(By.MEMORY_BLOCK, borders, values.ravel())


def _of_pageblocks(prog: Program, snapshot: Snapshot) -> Labels:
    sections = snapshot.sections
    layout = pageblock_layout(prog, sections)
    if layout is None:
        raise LookupError("the size of a pageblock is not known on this architecture")
    pages = snapshot.geometry.pages_per_section
    per_section = pages // layout.pages
    starts, values = [_NO_PFNS], [_NO_VALUES]
    for nr, usage in zip(sections.nr.tolist(), sections.usage.tolist()):
        types = (
            present_migratetypes(prog, usage, layout) if snapshot.is_online(nr * pages) else None
        )
        known = np.full(per_section, NO_LABEL, np.uint64) if types is None else types
        starts.append(nr * pages + np.arange(per_section + 1) * layout.pages)
        values.append(np.append(known.astype(np.uint64), np.uint64(NO_LABEL)))
    return _places(By.MIGRATETYPE, np.concatenate(starts), np.concatenate(values))


def _places(by: By, starts: np.ndarray, values: np.ndarray) -> Labels:
    # If one label ends where the next one begins, the latter counts.
    last = np.append(np.diff(starts) != 0, True)[: len(starts)]
    return Labels(by, starts=starts[last], values=values[last])


@dataclass(frozen=True)
class PgmapLabel:
    """
    Pages of a device: its ``struct dev_pagemap *``, the type of its memory, its name if that is
    known, and whether the pages are in use.
    """

    address: int
    type: str
    device: str | None
    in_use: bool


def label_names(prog: Program, by: By, pgmaps: tuple[Pgmap, ...]) -> Callable[[Bin], object]:
    """
    Get a function that returns the meaning of a bin's label: the name of a migratetype or a slab
    cache, names of flags, the number of a memory block, or a :class:`PgmapLabel`; ``None`` for
    :data:`NO_LABEL`.
    """
    known = {p.address: p for p in pgmaps}
    names: dict[By, _Name] = {
        By.MIGRATETYPE: lambda b: _migratetype(prog, b.label),
        By.FLAGS: lambda b: _names_of_flags(prog, b.label),
        By.SLAB_CACHE: lambda b: _cache_name(prog, b.label),
        By.PGMAP: lambda b: _pgmap_label(known, b),
        By.MEMORY_BLOCK: lambda b: b.label,
    }
    name = names.get(by)
    return lambda b: None if name is None or b.label == NO_LABEL else name(b)


_Name = Callable[[Bin], object]


def _names_of_flags(prog: Program, label: int) -> tuple[str, ...]:
    flags, use = divmod(label, 1 << _USE_BITS)
    return flag_names(prog, flags, PageUse(use))


def _migratetype(prog: Program, number: int) -> str:
    for name, value in prog.constant("MIGRATE_MOVABLE").type_.enumerators or ():
        # MIGRATE_PCPTYPES is the number of some of them.
        if value == number and name not in ("MIGRATE_PCPTYPES", "MIGRATE_TYPES"):
            return str(name)
    return str(number)


def _cache_name(prog: Program, address: int) -> str:
    try:
        return c_string(Object(prog, "struct kmem_cache *", address).name)
    except (FaultError, LookupError):
        return f"{address:#x}"


def _pgmap_label(known: dict[int, Pgmap], of: Bin) -> PgmapLabel:
    pgmap = known.get(of.label)
    name = pgmap.device.name if pgmap and pgmap.device else None
    return PgmapLabel(of.label, of.device or "", name, of.in_use)
