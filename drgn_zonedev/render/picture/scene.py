# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Scene
-----

What a picture is of: a report, or what is known of one without reading struct pages.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass

from drgn_zonedev.model import Finding, KernelFacts, Pgmap, Range, Severity

__all__ = ("Scene", "first_pfn", "make_scene", "pgmaps_between", "ranges_between")


@dataclass(frozen=True)
class Scene:
    """
    Sorted ranges that do not overlap, and pgmaps by their first PFN.

    ``findings`` is ``None`` if nobody looked for any. ``errors`` are the PFN ranges of the
    errors among them, disjoint and sorted. ``starts`` are those of the ranges, and
    ``numbers`` tells a pgmap's index by its address.
    """

    kernel: KernelFacts
    ranges: tuple[Range, ...]
    pgmaps: tuple[Pgmap, ...]
    findings: tuple[Finding, ...] | None
    errors: tuple[tuple[int, int], ...]
    starts: tuple[int, ...]
    numbers: dict[int, int]


def first_pfn(pgmap: Pgmap) -> int:
    """Get the lowest PFN of a pgmap's ranges, 0 if it has none."""
    return min((r.start_pfn for r in pgmap.ranges), default=0)


def make_scene(
    kernel: KernelFacts,
    ranges: Iterable[Range],
    pgmaps: Iterable[Pgmap],
    findings: Iterable[Finding] | None = None,
) -> Scene:
    """Put together what a picture is of."""
    found = None if findings is None else tuple(findings)
    in_order = tuple(sorted(ranges, key=lambda r: r.start_pfn))
    by_pfn = tuple(sorted(pgmaps, key=lambda p: (first_pfn(p), p.address)))
    return Scene(
        kernel=kernel,
        ranges=in_order,
        pgmaps=by_pfn,
        findings=found,
        errors=tuple(_errors(found or ())),
        starts=tuple(r.start_pfn for r in in_order),
        numbers={pgmap.address: i for i, pgmap in enumerate(by_pfn)},
    )


def _errors(findings: Iterable[Finding]) -> Iterable[tuple[int, int]]:
    errors = sorted(
        (f.start_pfn, f.end_pfn)
        for f in findings
        if f.severity is Severity.ERROR and f.start_pfn < f.end_pfn
    )
    merged: list[tuple[int, int]] = []
    for start, end in errors:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def ranges_between(scene: Scene, start_pfn: int, end_pfn: int) -> tuple[Range, ...]:
    """Get the ranges that have a PFN in ``[start_pfn, end_pfn)``."""
    low = bisect.bisect_right(scene.starts, start_pfn)
    if low and scene.ranges[low - 1].end_pfn > start_pfn:
        low -= 1
    return scene.ranges[low : bisect.bisect_left(scene.starts, end_pfn)]


def pgmaps_between(scene: Scene, start_pfn: int, end_pfn: int) -> tuple[int, ...]:
    """Get the indices of the pgmaps that ranges in ``[start_pfn, end_pfn)`` belong to."""
    addresses = {r.pgmap for r in ranges_between(scene, start_pfn, end_pfn)}
    return tuple(sorted(scene.numbers[a] for a in addresses if a in scene.numbers))
