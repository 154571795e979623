# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The classification as one would write it with drgn's helpers: section by section.

It knows what large machines have (no early holes, nothing in flight), and gives
the same answers there.
"""

from __future__ import annotations

from drgn import Object, Program, cast
from drgn.helpers.linux.mmzone import nr_to_section, online_section, present_section
from drgn.helpers.linux.xarray import xa_load

from drgn_zonedev.model import Case

__all__ = ("section_cases",)

_PAGES, _SUBSECTION = 1 << 15, 1 << 9
_MEM_ONLINE = 1


def section_cases(prog: Program, nr: int) -> list[tuple[int, int, Case]]:
    """Classify the PFNs of one section."""
    section = nr_to_section(prog, nr)
    if not section or not present_section(section):
        return []
    bitmap = section.usage.subsection_map[0].value_()
    array = prog["pgmap_array"].address_of_()
    cases: list[tuple[int, int, Case]] = []
    first = nr * _PAGES
    for i in range(_PAGES // _SUBSECTION):
        if bitmap == (1 << 64) - 1 and i not in (0, 63) and cases and not _cut_inside(cases):
            # Nothing changes in the middle of a section that is full.
            continue
        pfn = first + i * _SUBSECTION
        pgmap = cast("struct dev_pagemap *", xa_load(array, pfn))
        populated = bool(bitmap >> i & 1)
        for start, end, case in _subsection(prog, section, nr, pfn, populated, pgmap):
            if cases and cases[-1][2] is case:
                start = cases.pop()[0]
            cases.append((start, end, case))
    return cases


def _cut_inside(cases: list[tuple[int, int, Case]]) -> bool:
    return cases[-1][2] in (Case.RESERVED, Case.METADATA)


def _subsection(
    prog: Program, section: Object, nr: int, pfn: int, populated: bool, pgmap: Object
) -> list[tuple[int, int, Case]]:
    end = pfn + _SUBSECTION
    if not pgmap:
        return [(pfn, end, _ram(prog, section, nr) if populated else Case.PARTIAL)]
    if pgmap.ref.percpu_count_ptr.value_() & 2:
        return [(pfn, end, Case.TEARDOWN)]
    start = pgmap.ranges[0].start.value_() >> 12
    if not pgmap.flags.value_() & 1:
        return [(pfn, end, Case.DEVICE)]
    reserved = start + pgmap.altmap.reserve.value_()
    head = reserved + pgmap.altmap.free.value_()
    parts = (
        (start, reserved, Case.RESERVED),
        (reserved, head, Case.METADATA),
        (head, 1 << 52, Case.DEVICE),
    )
    return [(max(a, pfn), min(b, end), case) for a, b, case in parts if a < end and pfn < b]


def _ram(prog: Program, section: Object, nr: int) -> Case:
    if online_section(section):
        return Case.ONLINE
    block_id = nr // prog["sections_per_block"].value_()
    block = cast("struct memory_block *", xa_load(prog["memory_blocks"].address_of_(), block_id))
    if not block:
        return Case.ORPHAN
    return Case.UNKNOWN if block.state.value_() == _MEM_ONLINE else Case.OFFLINE
