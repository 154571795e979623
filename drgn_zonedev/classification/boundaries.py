# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Boundaries
----------

Finds the PFNs at which the answer of any predicate can change. Between two such borders, all
PFNs have the same answers, so it is enough to evaluate one of them: a GiB takes as long as
64 TiB.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.util.sets import sorted_set

__all__ = ("aligned", "pgmap_borders", "section_borders")

# PFNs must fit into the integers of numpy.
_MAX_PFN = 1 << 62


def pgmap_borders(snapshot: Snapshot) -> set[int]:
    """Get the ends of pgmaps' ranges, and of the reserve and the pages of their altmaps."""
    borders: set[int] = set()
    for pgmap in snapshot.pgmaps:
        for i, range_ in enumerate(pgmap.ranges):
            borders |= {range_.start_pfn, range_.end_pfn}
            borders.add(pgmap.pfn_first(i))
            if pgmap.altmap and i == 0:
                borders.add(range_.start_pfn + pgmap.altmap.reserve)
    return borders


def aligned(borders: Iterable[int], units: Iterable[int]) -> np.ndarray:
    """Sort borders, together with the ends of the blocks that they are in."""
    found = set(borders)
    for pages in units:
        found |= {
            edge for pfn in found for edge in (pfn // pages * pages, -(-pfn // pages) * pages)
        }
    return np.array(sorted(pfn for pfn in found if 0 <= pfn < _MAX_PFN), np.int64)


def section_borders(snapshot: Snapshot) -> np.ndarray:
    """
    Get the start of every section that differs from the one before it, and of every
    subsection of partly populated sections.
    """
    geometry, sections = snapshot.geometry, snapshot.sections
    if not len(sections):
        return np.empty(0, np.int64)
    start = sections.nr * geometry.pages_per_section
    inside = start[sections.mixed][:, None] + np.arange(
        0, geometry.pages_per_section, geometry.pages_per_subsection
    )
    flags = np.uint64(~snapshot.flags.map_mask & (1 << 64) - 1)
    key = np.stack([sections.word & flags, *sections.subsection_map.T])
    same = (key[:, 1:] == key[:, :-1]).all(axis=0) & (np.diff(sections.nr) == 1)
    first = start[np.concatenate([[True], ~same])]
    end = (start + geometry.pages_per_section)[np.concatenate([~same, [True]])]
    return sorted_set(np.concatenate([first, end, inside.ravel()]))
