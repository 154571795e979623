# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Compare the tool's reading of nodes, zones and free areas with what the guest's kernel said of them
when its machine was stopped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
from drgn import Program

from drgn_zonedev.kernel.free_area import count_free_blocks, zone_nr_free
from drgn_zonedev.kernel.memmap import Pages, read_pages
from drgn_zonedev.kernel.nodes import nodes
from drgn_zonedev.kernel.zones import zones
from drgn_zonedev.lab.truth.frozen import Frozen
from drgn_zonedev.lab.verdict.disagreement import Disagreement, runs

__all__ = ("counter_disagreements",)

_Counts = Mapping[tuple[int, ...], int]


def counter_disagreements(prog: Program, frozen: Frozen) -> Iterator[Disagreement]:
    """Yield where counters differ; empty zones are left out by the tool, and must be empty."""
    yield from _differences("node", _nodes(prog), _rows(frozen.nodes))
    theirs = {row[:2]: row[2:6] for row in frozen.zones.tolist() if any(row[3:6])}
    yield from _differences("zone", _zones(prog), theirs)
    wanted = _nr_free(frozen)
    read: _Counts = {
        (zone.nid, zone.number, order): number
        for zone in zones(prog).found
        for order, number in enumerate(zone_nr_free(prog, zone.address))
        if number
    }
    yield from _differences("nr_free", read, wanted)
    yield from _differences("free blocks found", _free_blocks(prog, frozen), wanted)


def _rows(table: np.ndarray) -> dict[tuple[int, ...], tuple[int, ...]]:
    return {tuple(row[:1]): tuple(row[1:]) for row in table.tolist()}


def _nodes(prog: Program) -> dict[tuple[int, ...], tuple[int, ...]]:
    return {
        (node.nid,): (node.start_pfn, node.spanned_pages, node.present_pages)
        for node in nodes(prog).found
    }


def _zones(prog: Program) -> dict[tuple[int, ...], tuple[int, ...]]:
    return {
        (z.nid, z.number): (z.start_pfn, z.spanned_pages, z.present_pages, z.managed_pages)
        for z in zones(prog).found
    }


def _nr_free(frozen: Frozen) -> _Counts:
    return {
        (nid, number, order): count
        for nid, number, *_, orders in frozen.zones.tolist()
        for order, count in enumerate(orders)
        if count
    }


def _free_blocks(prog: Program, frozen: Frozen) -> _Counts:
    found: Counter[tuple[int, ...]] = Counter()
    pfn = frozen.pfn
    for first, end in runs(pfn):
        for pages in read_pages(prog, int(pfn[first]), int(pfn[end - 1]) + 1):
            if isinstance(pages, Pages):
                found.update(count_free_blocks(prog, pages))
    return found


def _differences(
    about: str, ours: Mapping[tuple[int, ...], object], theirs: Mapping[tuple[int, ...], object]
) -> Iterator[Disagreement]:
    for key in sorted({*ours, *theirs}):
        if ours.get(key) != theirs.get(key):
            yield Disagreement(f"{about} {key}", f"{ours.get(key)}", f"{theirs.get(key)}")
