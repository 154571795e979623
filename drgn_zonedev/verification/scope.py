# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Scope
-----

The part of memory that a check looks at.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from drgn_zonedev.model import (
    Case,
    Finding,
    FreeBlocks,
    MemmapPart,
    Pgmap,
    Range,
    Scope,
    Unjudged,
)
from drgn_zonedev.util.intervals import difference, intersection, union

__all__ = (
    "InScope",
    "findings_in",
    "memmap_in",
    "pgmaps_in",
    "ranges_in",
    "unjudged_in",
    "with_unread",
)


@dataclass(frozen=True)
class InScope:
    """Ranges within the PFNs of a scope: those of its kind, and ``others``."""

    ranges: list[Range]
    others: list[Range]


def ranges_in(
    scope: Scope, ranges: Iterable[Range], range_of: Callable[[int], Range | None]
) -> InScope:
    """
    Cut ranges to a scope.

    :param range_of: The range of a PFN, with evidence for that PFN.
    """
    inside = [part for range_ in ranges for part in _cut(scope, range_, range_of)]
    return InScope(
        [r for r in inside if scope.includes(r.case, r.pgmap)],
        [r for r in inside if not scope.includes(r.case, r.pgmap)],
    )


def _cut(scope: Scope, range_: Range, range_of: Callable[[int], Range | None]) -> Iterator[Range]:
    if scope.start_pfn is None or scope.end_pfn is None:
        yield range_
        return
    span = (scope.start_pfn, scope.end_pfn)
    for start, end in intersection((range_.start_pfn, range_.end_pfn), (span,)):
        # The evidence of a range is about its first PFN.
        found = range_ if start == range_.start_pfn else range_of(start) or range_
        yield dataclasses.replace(found, start_pfn=start, end_pfn=end)


def findings_in(scope: Scope, findings: Iterable[Finding]) -> list[Finding]:
    """Keep the findings about a scope; those about no PFN may be about any."""
    return [
        f
        for f in findings
        if scope.includes(f.case, f.pgmap)
        and (f.start_pfn == f.end_pfn or scope.overlaps(f.start_pfn, f.end_pfn))
    ]


def memmap_in(parts: Iterable[MemmapPart], ranges: Iterable[Range]) -> tuple[MemmapPart, ...]:
    """Cut what is known of the memory behind struct pages to the ranges of a scope."""
    spans = union((r.start_pfn, r.end_pfn) for r in ranges)
    return tuple(
        dataclasses.replace(part, start_pfn=start, end_pfn=end)
        for part in parts
        for start, end in intersection((part.start_pfn, part.end_pfn), spans)
    )


def unjudged_in(scope: Scope, unjudged: Iterable[Unjudged]) -> list[Unjudged]:
    """Keep what could not be judged of a scope; if no PFN is known, it may be in it."""
    return [
        u for u in unjudged if u.start_pfn == u.end_pfn or scope.overlaps(u.start_pfn, u.end_pfn)
    ]


def pgmaps_in(scope: Scope, pgmaps: Iterable[Pgmap]) -> tuple[Pgmap, ...]:
    """Keep the pgmaps of devices in a scope."""
    if not scope.includes(Case.DEVICE, None):
        return ()
    return tuple(p for p in pgmaps if any(scope.overlaps(r.start_pfn, r.end_pfn) for r in p.ranges))


def with_unread(blocks: FreeBlocks, scope: Scope, ranges: Iterable[Range]) -> FreeBlocks:
    """Account for the RAM of all ranges that is not in a scope: what is free there is unknown."""
    spans = [(r.start_pfn, r.end_pfn) for r in ranges if r.case is Case.ONLINE]
    wanted = () if scope.start_pfn is None else ((scope.start_pfn, scope.end_pfn or 0),)
    if not scope.includes(Case.ONLINE, None):
        left_out = spans
    elif wanted:
        left_out = [part for span in spans for part in difference(span, wanted)]
    else:
        left_out = []
    return dataclasses.replace(blocks, unread=union((*blocks.unread, *left_out)))
