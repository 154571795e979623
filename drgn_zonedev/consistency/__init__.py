# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Consistency
-----------

Compares the structures that decide what a PFN is with each other, without reading struct
pages.

Only live pgmaps are checked, and most promises hold only once a range is complete: while
memory is added or removed, every contradiction is legal for a moment.

``pgmap_array.py``, ``sections.py``, ``elsewhere.py``, ``zones.py`` and ``memory_blocks.py`` hold
the checks, ``claims.py`` and ``ram.py`` their input. ``vmemmap.py`` audits the memory behind struct
pages, by the page tables.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from drgn import Program

from drgn_zonedev.classification.missing_debuginfo import optional
from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.consistency.altmap import ALTMAP_CHECKS
from drgn_zonedev.consistency.claims import Check, Scene
from drgn_zonedev.consistency.elsewhere import ELSEWHERE_CHECKS
from drgn_zonedev.consistency.memory_blocks import BLOCK_CHECKS
from drgn_zonedev.consistency.pgmap_array import ARRAY_CHECKS
from drgn_zonedev.consistency.section_usage import USAGE_CHECKS
from drgn_zonedev.consistency.sections import SECTION_CHECKS
from drgn_zonedev.consistency.vmemmap import MemmapAudit, audit_memmap
from drgn_zonedev.consistency.zones import ZONE_CHECKS
from drgn_zonedev.model import Finding, MemmapPart, Range, Unjudged
from drgn_zonedev.util.intervals import Span
from drgn_zonedev.vmcore.raw import END

__all__ = ("Inconsistencies", "inconsistencies", "inconsistencies_at")

_CHECKS = (
    *ARRAY_CHECKS,
    *SECTION_CHECKS,
    *USAGE_CHECKS,
    *ELSEWHERE_CHECKS,
    *ALTMAP_CHECKS,
    *ZONE_CHECKS,
    *BLOCK_CHECKS,
)


@dataclass(frozen=True)
class Inconsistencies:
    """
    ``unjudged`` is what could not be compared, because it cannot be read, or the
    debugging information does not have it. ``memmap`` says which memory struct pages are in.
    """

    findings: tuple[Finding, ...]
    unjudged: tuple[Unjudged, ...]
    memmap: tuple[MemmapPart, ...] = ()


def inconsistencies(
    prog: Program, snapshot: Snapshot, ranges: Sequence[Range], pfns: Span = (0, END)
) -> Inconsistencies:
    """
    Compare the structures with each other.

    :param ranges: The result of the classification.
    :param pfns: Compare at least the structures that these PFNs depend on.
    """
    # Every promise is about a whole memory block, or more.
    pages = snapshot.geometry.pages_per_section * snapshot.sections_per_block
    start, end = pfns[0] // pages * pages, -(-pfns[1] // pages) * pages
    return _compared(Scene(prog, snapshot, ranges, (start, min(end, END))))


def inconsistencies_at(
    prog: Program, snapshot: Snapshot, ranges: Sequence[Range], pfn: int
) -> tuple[Finding, ...]:
    """Like :func:`inconsistencies()`, but only the findings about one PFN."""
    found = inconsistencies(prog, snapshot, ranges, (pfn, pfn + 1)).findings
    return tuple(f for f in found if f.start_pfn <= pfn < f.end_pfn)


def _compared(scene: Scene) -> Inconsistencies:
    findings: list[Finding] = []
    unjudged = list(scene.not_compared)
    for check in _CHECKS:
        nothing: list[Finding | Unjudged] = []
        found = optional(
            "not all structures were compared", nothing, functools.partial(_all, check, scene)
        )
        findings += (f for f in found.value if isinstance(f, Finding))
        unjudged += (u for u in found.value if isinstance(u, Unjudged))
        unjudged += found.unjudged
    audit = optional(
        "the memory behind struct pages was not looked at",
        MemmapAudit(),
        lambda: audit_memmap(scene),
    )
    findings += audit.value.findings
    unjudged += (*audit.value.unjudged, *audit.unjudged)
    return Inconsistencies(tuple(findings), tuple(unjudged), audit.value.parts)


def _all(check: Check, scene: Scene) -> list[Finding | Unjudged]:
    return list(check(scene))
