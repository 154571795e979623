# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Scene
-----

The contents of a picture: a report, or its ranges and pgmaps without any findings.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drgn_zonedev.model import Finding, KernelFacts, Pgmap, Provenance, Range, Severity
from drgn_zonedev.render.finding_groups import FindingGroup, group_findings
from drgn_zonedev.render.picture.glyphs import BAD, mark_of_range
from drgn_zonedev.util.intervals import union

__all__ = (
    "Picture",
    "error_findings_between",
    "errors_between",
    "first_pfn",
    "make_scene",
    "pgmaps_between",
    "ranges_between",
)

Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Picture:
    """
    Sorted ranges that do not overlap, and pgmaps by their first PFN.

    ``findings`` is ``None`` if nothing was verified; ``groups`` has equal findings together.
    ``error_findings`` are the errors that have
    pages, by their first PFN; ``error_starts`` are these PFNs, ``error_ends`` the largest end of
    the errors up to each, and ``errors`` their PFN ranges, disjoint and sorted. ``starts`` are
    the ranges' first PFNs, ``owners`` the indices of their pgmaps or -1, and ``numbers`` maps
    the address of a pgmap to its index. A row of ``spans`` is start, end and mark of a range,
    or of errors.
    """

    kernel: KernelFacts
    ranges: tuple[Range, ...]
    pgmaps: tuple[Pgmap, ...]
    findings: tuple[Finding, ...] | None
    groups: tuple[FindingGroup, ...]
    error_findings: tuple[Finding, ...]
    error_starts: tuple[int, ...]
    error_ends: tuple[int, ...]
    errors: tuple[tuple[int, int], ...]
    starts: tuple[int, ...]
    owners: Array
    spans: Array
    numbers: dict[int, int]
    provenance: Provenance | None


def first_pfn(pgmap: Pgmap) -> int:
    """Get the lowest PFN of a pgmap's ranges, 0 if it has none."""
    return min((r.start_pfn for r in pgmap.ranges), default=0)


def make_scene(
    kernel: KernelFacts,
    ranges: Iterable[Range],
    pgmaps: Iterable[Pgmap],
    findings: Iterable[Finding] | None = None,
    provenance: Provenance | None = None,
) -> Picture:
    """Make the contents of a picture."""
    found = None if findings is None else tuple(findings)
    in_order = tuple(sorted(ranges, key=lambda r: r.start_pfn))
    errors = [f for f in found or () if f.severity is Severity.ERROR and f.start_pfn < f.end_pfn]
    errors.sort(key=lambda f: (f.start_pfn, f.end_pfn))
    by_pfn = tuple(sorted(pgmaps, key=lambda p: (first_pfn(p), p.address)))
    numbers = {pgmap.address: i for i, pgmap in enumerate(by_pfn)}
    owners = [-1 if r.pgmap is None else numbers.get(r.pgmap, -1) for r in in_order]
    merged = union((f.start_pfn, f.end_pfn) for f in errors)
    spans = [(r.start_pfn, r.end_pfn, mark_of_range(r)) for r in in_order]
    spans += [(start, end, BAD) for start, end in merged]
    return Picture(
        kernel=kernel,
        ranges=in_order,
        pgmaps=by_pfn,
        findings=found,
        groups=tuple(group_findings(found or ())),
        error_findings=tuple(errors),
        error_starts=tuple(f.start_pfn for f in errors),
        error_ends=tuple(itertools.accumulate((f.end_pfn for f in errors), max)),
        errors=merged,
        starts=tuple(r.start_pfn for r in in_order),
        owners=np.array(owners, np.int64),
        spans=np.array(spans, np.int64).reshape(-1, 3),
        numbers=numbers,
        provenance=provenance,
    )


def errors_between(scene: Picture, start_pfn: int, end_pfn: int) -> tuple[tuple[int, int], ...]:
    """Get the parts of ``[start_pfn, end_pfn)`` with errors, disjoint and sorted."""
    low = max(bisect.bisect_left(scene.errors, (start_pfn,)) - 1, 0)
    high = bisect.bisect_left(scene.errors, (end_pfn,))
    clipped = ((max(a, start_pfn), min(b, end_pfn)) for a, b in scene.errors[low:high])
    return tuple((a, b) for a, b in clipped if a < b)


def error_findings_between(
    scene: Picture, start_pfn: int, end_pfn: int, limit: int
) -> tuple[Finding, ...]:
    """Get the first *limit* errors with a page in ``[start_pfn, end_pfn)``."""
    if not errors_between(scene, start_pfn, end_pfn):
        return ()
    low = bisect.bisect_right(scene.error_ends, start_pfn)
    high = bisect.bisect_left(scene.error_starts, end_pfn)
    about = (f for f in scene.error_findings[low:high] if f.end_pfn > start_pfn)
    return tuple(itertools.islice(about, limit))


def _between(scene: Picture, start_pfn: int, end_pfn: int) -> slice:
    low = bisect.bisect_right(scene.starts, start_pfn)
    if low and scene.ranges[low - 1].end_pfn > start_pfn:
        low -= 1
    return slice(low, bisect.bisect_left(scene.starts, end_pfn))


def ranges_between(scene: Picture, start_pfn: int, end_pfn: int) -> tuple[Range, ...]:
    """Get the ranges that have a PFN in ``[start_pfn, end_pfn)``."""
    return scene.ranges[_between(scene, start_pfn, end_pfn)]


def pgmaps_between(scene: Picture, start_pfn: int, end_pfn: int) -> tuple[int, ...]:
    """Get the indices of the pgmaps that ranges in ``[start_pfn, end_pfn)`` belong to."""
    owners = np.unique(scene.owners[_between(scene, start_pfn, end_pfn)])
    return tuple(owners[owners >= 0].tolist())
