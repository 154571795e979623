# SPDX-License-Identifier: LGPL-2.1-or-later

"""
RAM
---

Gets the spans of PFNs that are RAM, according to each structure that records it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from drgn_zonedev.consistency.claims import Scene
from drgn_zonedev.model import Case
from drgn_zonedev.util.intervals import Span, difference, intersection, union

__all__ = ("common", "hot_added_ram", "missing", "online_ram", "ram_blocks", "system_ram")


def common(some: Iterable[Span], others: Sequence[Span]) -> tuple[Span, ...]:
    """Intersect two lists of spans; ``others`` are sorted and disjoint."""
    return union(part for span in some for part in intersection(span, others))


def missing(some: Iterable[Span], others: Sequence[Span]) -> tuple[Span, ...]:
    """Remove other spans, which are sorted and disjoint."""
    return union(part for span in some for part in difference(span, others))


def online_ram(scene: Scene) -> tuple[Span, ...]:
    """
    Get RAM that is online. Online sections from boot also have holes: in these sections, only
    System RAM of the resource tree counts.
    """
    online = union(_online(scene))
    return union((*common(hot_added_ram(scene), online), *common(system_ram(scene), online)))


def _online(scene: Scene) -> Iterator[Span]:
    for range_ in scene.ranges:
        if range_.pgmap is None and (
            range_.case is Case.ONLINE
            or (range_.case is Case.METADATA and scene.snapshot.is_online(range_.start_pfn))
        ):
            yield range_.start_pfn, range_.end_pfn


def hot_added_ram(scene: Scene) -> tuple[Span, ...]:
    """Get the sections that were added after boot, without the PFNs that pgmaps claim."""
    snapshot = scene.snapshot
    nr = snapshot.sections.nr[~scene.has_flag(snapshot.flags.early) & ~scene.torn]
    of_devices = union((r.start_pfn, r.end_pfn) for r in scene.ranges if r.pgmap is not None)
    return missing(_runs(nr, snapshot.geometry.pages_per_section), of_devices)


def system_ram(scene: Scene) -> tuple[Span, ...]:
    """
    Get the whole pages that are RAM in the resource tree, by its flags. memblock leaves out
    parts of pages, too.

    :raises LookupError: if the debugging information does not have it
    """
    page_size = 1 << scene.snapshot.geometry.page_shift
    ram = union((r.start, r.end) for r in scene.resources.found if r.is_ram)
    return union((-(-start // page_size), end // page_size) for start, end in ram)


def ram_blocks(scene: Scene) -> tuple[Span, ...]:
    """Get the PFNs that memory blocks have."""
    pages = scene.snapshot.geometry.pages_per_section * scene.snapshot.sections_per_block
    ids = scene.snapshot.memory_blocks.id
    return _runs(ids[ids <= np.uint64(scene.snapshot.geometry.max_pfn // pages)], pages)


def _runs(numbers: np.ndarray, pages: int) -> tuple[Span, ...]:
    # PFNs of sections or blocks, whose numbers ascend.
    apart = np.diff(numbers) != 1
    first, last = np.append(True, apart)[: len(numbers)], np.append(apart, True)[: len(numbers)]
    borders = zip(numbers[first].tolist(), numbers[last].tolist())
    return tuple((start * pages, (end + 1) * pages) for start, end in borders)
