# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Holes
-----

Finds what a departed device left in an early section, and what is a hole that was initialised
at boot. Metadata does not decide that; struct pages do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from drgn_zonedev.kernel.memmap import Pages
from drgn_zonedev.model import Case, Memmap, Range, Unjudged
from drgn_zonedev.verification.context import Context, read_range

__all__ = ("divide_hole",)

# In all holes together. A device leaves its struct pages as a whole: the largest machines
# have some thousand holes, but a damaged one can have a ghost on every second page.
_MAX_CUTS = 1 << 14

_GHOST_REASON = "a hole in an early section, with struct pages that a removed device left behind"
_HOLE_REASON = "a boot-time hole in an early section"
_TOO_MANY = (
    "struct pages of devices alternate with boot-time holes more often than on any machine: from "
    "here on, they are not distinguished"
)

# Start, end, and whether a device left it: None if that could not be read.
_Part = tuple[int, int, "bool | None"]


def divide_hole(context: Context, range_: Range) -> list[Range]:
    """
    Cut a hole where what a device left begins and ends, and account for what was read.
    What could not be read stays what the metadata said.
    """
    if range_.memmap is not Memmap.MAPPED:
        return [range_]
    results = context.results
    most = max(_MAX_CUTS - results.cuts, 0) + 1
    parts: list[_Part] = []
    for pages in read_range(context, range_):
        # The rest is still read, to find out which part of it can be.
        if len(parts) <= most:
            _append(parts, (_end(parts, range_), pages.start_pfn, None))
            for part in _runs(pages, most + 2):
                _append(parts, part)
    if len(parts) > most:
        del parts[most:]
        results.unjudged.append(Unjudged(_end(parts, range_), range_.end_pfn, _TOO_MANY))
    _append(parts, (_end(parts, range_), range_.end_pfn, None))
    results.cuts += len(parts) - 1
    return [_range(range_, part) for part in parts]


def _end(parts: list[_Part], range_: Range) -> int:
    return parts[-1][1] if parts else range_.start_pfn


def _append(parts: list[_Part], part: _Part) -> None:
    start, end, left = part
    if parts and parts[-1][2] is left:
        start = parts.pop()[0]
    if start < end:
        parts.append((start, end, left))


def _runs(pages: Pages, most: int) -> Iterator[_Part]:
    # Only the zone tells, or the poison of a kernel that was built for debugging.
    poisoned = (pages.words == np.uint64(0xFFFFFFFFFFFFFFFF)).all(axis=1)
    left = (pages.zone == pages.layout.zone_device) | poisoned
    borders = np.r_[0, np.flatnonzero(left[1:] != left[:-1]) + 1, len(left)]
    for first, end in zip(borders[:most].tolist(), borders[1:].tolist()):
        yield pages.start_pfn + first, pages.start_pfn + end, bool(left[first])


def _range(hole: Range, part: _Part) -> Range:
    start, end, left = part
    if left is None:
        return dataclasses.replace(hole, start_pfn=start, end_pfn=end)
    case, reason = (Case.GHOST, _GHOST_REASON) if left else (Case.PARTIAL, _HOLE_REASON)
    return dataclasses.replace(hole, start_pfn=start, end_pfn=end, case=case, reason=reason)
