# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Neighbours
----------

Finds the borders of the run of PFNs around a page, and says for each what lies beyond it and
which structures change there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from drgn import Program

from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.kernel.mmzone import decode_section_word
from drgn_zonedev.model import Pgmap, Range

__all__ = ("Border", "Neighbours", "neighbours")


@dataclass(frozen=True)
class Border:
    """
    A PFN at which the case changes, or a structure that decides it.

    ``why`` names every structure that changes between ``pfn - 1`` and ``pfn``.
    ``beyond`` is the range on the far side; ``None`` if there is no memory.
    """

    pfn: int
    why: tuple[str, ...]
    beyond: Range | None


@dataclass(frozen=True)
class Neighbours:
    """The borders below and above; ``None`` at the ends of physical memory."""

    below: Border | None
    above: Border | None


def neighbours(prog: Program, snapshot: Snapshot, ranges: Sequence[Range], pfn: int) -> Neighbours:
    """
    Find the next border on both sides of a PFN.

    :param ranges: All ranges of the classification.
    """
    here = next((r for r in ranges if r.start_pfn <= pfn < r.end_pfn), None)
    if here is not None:
        start, end = here.start_pfn, here.end_pfn
    else:
        start = max((r.end_pfn for r in ranges if r.end_pfn <= pfn), default=0)
        end = min((r.start_pfn for r in ranges if r.start_pfn > pfn), default=0)
    before = next((r for r in ranges if r.end_pfn == start), None)
    behind = next((r for r in ranges if r.start_pfn == end), None)
    below = Border(start, tuple(_changes(prog, snapshot, start)), before) if start else None
    above = Border(end, tuple(_changes(prog, snapshot, end)), behind) if end else None
    return Neighbours(below, above)


def _changes(prog: Program, snapshot: Snapshot, pfn: int) -> Iterator[str]:
    for pgmap in snapshot.pgmaps:
        yield from _pgmap_changes(pgmap, pfn)
    for address, claim in snapshot.stray_claims:
        if pfn in (claim.start_pfn, claim.end_pfn):
            side = "starts" if pfn == claim.start_pfn else "ends"
            yield f"the claim of {address:#x}, which is not a usable pgmap, in pgmap_array {side}"
    yield from _ram_changes(snapshot, pfn)
    geometry = snapshot.geometry
    if pfn % geometry.pages_per_section == 0:
        yield from _section_changes(prog, snapshot, pfn)
    if pfn % geometry.pages_per_subsection == 0:
        yield from _subsection_changes(snapshot, pfn)


def _ram_changes(snapshot: Snapshot, pfn: int) -> Iterator[str]:
    per_block = snapshot.geometry.pages_per_section * snapshot.sections_per_block
    for start, end in snapshot.block_memmaps:
        if pfn in (start, end):
            side = "starts" if pfn == start else "ends"
            yield f"the memmap of memory block {start // per_block} in its head {side}"
    for deferred in snapshot.deferred:
        node = f"node {deferred.node.nid}"
        if pfn == deferred.start_pfn and deferred.running:
            yield f"the zone that deferred_init_memmap() of {node} initialises starts"
        elif pfn == deferred.start_pfn:
            yield f"first_deferred_pfn of {node}"
        elif pfn == deferred.end_pfn:
            yield f"the zone of {node} that boot initialises in parts ends"


def _pgmap_changes(pgmap: Pgmap, pfn: int) -> Iterator[str]:
    for i, range_ in enumerate(pgmap.ranges):
        where = f"range {i} of pgmap {pgmap.address:#x}"
        if pfn == range_.end_pfn:
            yield f"{where} ends"
        if pfn == range_.start_pfn:
            yield f"{where} starts"
        if i == 0 and pgmap.altmap and range_.start_pfn < pfn < range_.end_pfn:
            if pfn == range_.start_pfn + pgmap.altmap.reserve:
                yield f"altmap.reserve of pgmap {pgmap.address:#x} ends"
            if pfn == range_.start_pfn + pgmap.altmap.offset:
                yield f"altmap.free of pgmap {pgmap.address:#x} ends: pfn_first()"


def _section_word(snapshot: Snapshot, nr: int) -> int | None:
    row = snapshot.sections.find(nr)
    return None if row is None else int(snapshot.sections.word[row])


def _section_changes(prog: Program, snapshot: Snapshot, pfn: int) -> Iterator[str]:
    nr = pfn // snapshot.geometry.pages_per_section
    before, after = _section_word(snapshot, nr - 1), _section_word(snapshot, nr)
    if before is None or after is None:
        for number, word in ((nr - 1, before), (nr, after)):
            if word is None and (before, after) != (None, None):
                yield f"section {number} is not present"
        return
    old, new = decode_section_word(prog, before), decode_section_word(prog, after)
    gone = [flag for flag in old if flag not in new]
    come = [flag for flag in new if flag not in old]
    if gone or come:
        changes = [f"not {flag}" for flag in gone] + come
        yield f"section {nr} starts: {', '.join(changes)}"
    yield from _block_changes(snapshot, nr)


def _block_changes(snapshot: Snapshot, nr: int) -> Iterator[str]:
    before, after = ((nr - 1) // snapshot.sections_per_block, nr // snapshot.sections_per_block)
    if before == after:
        return
    absent = (0, "no memory block")
    _, old = snapshot.memory_blocks.find(before) or absent
    _, new = snapshot.memory_blocks.find(after) or absent
    if old != new:
        yield f"memory block {after} starts: {new}, after {old}"


def _subsection_changes(snapshot: Snapshot, pfn: int) -> Iterator[str]:
    before, after = _bit(snapshot, pfn - 1), _bit(snapshot, pfn)
    if before is not None and after is not None and before != after:
        geometry = snapshot.geometry
        bit, nr = geometry.subsection_map_index(pfn), pfn // geometry.pages_per_section
        state = "populated" if after else "not populated"
        yield f"subsection {bit} of section {nr} starts: {state}"


def _bit(snapshot: Snapshot, pfn: int) -> bool | None:
    sections = snapshot.sections
    row = sections.find(pfn // snapshot.geometry.pages_per_section)
    if row is None or not sections.usage_readable[row]:
        return None
    bit = snapshot.geometry.subsection_map_index(pfn)
    word = int(sections.subsection_map[row, bit // 64])
    return bool(word >> bit % 64 & 1)
