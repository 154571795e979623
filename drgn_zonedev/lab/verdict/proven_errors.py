# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Where a guest's kernel is wrong by what it says itself, so that ``error`` findings are right.

Debian's kernels are healthy but for one bug: struct pages of reserved memory that no zone spans may
have a zone that does not exist (see the scenario ``acpi-hole``).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from drgn import Program

from drgn_zonedev.lab.scenarios.arithmetic import PAGE
from drgn_zonedev.lab.truth.frozen import Frozen, Is, read_frozen
from drgn_zonedev.lab.truth.guest_facts import Facts
from drgn_zonedev.lab.verdict.disagreement import runs
from drgn_zonedev.util.intervals import union

__all__ = ("pages_in_no_zone", "proven_errors")

_Spans = list[tuple[int, int]]


def proven_errors(prog: Program, facts: Facts) -> _Spans:
    """
    Return the PFNs at which the kernel is known to be wrong.

    If it was not asked about every struct page, these are all the PFNs at which it can have that
    bug: memory that firmware keeps for itself.
    """
    frozen = read_frozen(prog, facts)
    return pages_in_no_zone(frozen) if frozen else list(union(_firmware(facts)))


def _firmware(facts: Facts) -> Iterator[tuple[int, int]]:
    for entry in facts.get("iomem", ()):
        if entry.name == "Reserved" or entry.name.startswith("ACPI"):
            yield entry.start // PAGE, -(-entry.end // PAGE)


def pages_in_no_zone(frozen: Frozen) -> _Spans:
    """
    Return the online PFNs whose struct page says a zone that it cannot be in.

    That is any but a zone that spans the PFN, or, of reserved pages, one of the two that are
    nearest: ``init_unavailable_range()`` takes these for holes.
    """
    pfn = frozen.pfn
    link = _links(frozen.column("nid"), frozen.column("zone"))
    right = ~frozen.yes(Is.ONLINE)
    zones = frozen.zones[frozen.zones["spanned"] > 0]
    start = zones["start_pfn"].astype(np.int64)
    end = start + zones["spanned"].astype(np.int64)
    known = _links(zones["nid"], zones["number"])
    for zone in range(len(zones)):
        right |= (link == known[zone]) & (pfn >= start[zone]) & (pfn < end[zone])
    reserved = frozen.yes(Is.RESERVED)
    for row in np.flatnonzero(~right & reserved).tolist():
        right[row] = link[row] in _nearest(int(pfn[row]), start, end, known)
    wrong = pfn[~right]
    return [(int(wrong[first]), int(wrong[last - 1]) + 1) for first, last in runs(wrong)]


def _links(nid: np.ndarray, zone: np.ndarray) -> np.ndarray:
    return nid.astype(np.int64) << 16 | zone.astype(np.int64)


def _nearest(pfn: int, start: np.ndarray, end: np.ndarray, links: np.ndarray) -> set[int]:
    below, above = np.where(end <= pfn, end, -1), np.where(start > pfn, -start, -(1 << 62))
    found = set()
    if below.max() >= 0:
        found.add(int(links[below.argmax()]))
    if above.max() > -(1 << 62):
        found.add(int(links[above.argmax()]))
    return found
