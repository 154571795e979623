# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Snapshot
--------

The structures that decide what a PFN is, read once, as arrays and plain data.

A running kernel moves while it is read. :func:`take_snapshot` reads everything
twice until two readings agree; what never agrees is marked as torn, and
everything that depends on it is unknown rather than wrong.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from drgn import FaultError, Program, ProgramFlags

from drgn_zonedev.kernel.devres import dev_pagemap_devices
from drgn_zonedev.kernel.memory import (
    mem_hotplug_in_progress,
    memory_block_states,
    sections_per_block,
)
from drgn_zonedev.kernel.memremap import dev_pagemap_info, for_each_dev_pagemap
from drgn_zonedev.kernel.mmzone import (
    Geometry,
    SectionFlags,
    Sections,
    section_flags,
    sections,
    sparsemem_geometry,
    zone_device_spans,
)
from drgn_zonedev.model import Pgmap, Unjudged

__all__ = ("Snapshot", "changed_since", "take_snapshot", "with_devices")

# Namespaces and memory blocks come and go in milliseconds, and a reading takes
# as long. Whoever changes something at every single try is out of reach.
_MAX_TRIES = 5


@dataclass(frozen=True)
class Snapshot:
    """
    One consistent reading.

    ``torn_sections`` (section numbers) and ``torn_pgmaps`` (addresses) changed
    under the reader's hands at every try.
    """

    geometry: Geometry
    flags: SectionFlags
    sections: Sections
    pgmaps: tuple[Pgmap, ...]
    memory_blocks: dict[int, tuple[int, str]]
    sections_per_block: int
    zone_device_spans: dict[int, tuple[int, int]]
    hotplug_in_progress: bool
    unjudged: tuple[Unjudged, ...]
    torn_sections: frozenset[int] = frozenset()
    torn_pgmaps: frozenset[int] = frozenset()


def take_snapshot(prog: Program) -> Snapshot:
    """
    Read the sections, pgmaps and memory blocks of a program.

    :raises LookupError: if the debugging information lacks one of them, or the
        kernel was built without ``CONFIG_SPARSEMEM`` or ``CONFIG_ZONE_DEVICE``
    """
    snapshot = _read(prog)
    if not prog.flags & ProgramFlags.IS_LIVE:
        return snapshot
    for _ in range(_MAX_TRIES):
        again = _read(prog)
        torn_sections = _changed_sections(snapshot, again)
        torn_pgmaps = _changed_pgmaps(snapshot, again)
        snapshot = again
        if not torn_sections and not torn_pgmaps:
            break
    return dataclasses.replace(snapshot, torn_sections=torn_sections, torn_pgmaps=torn_pgmaps)


def changed_since(prog: Program, snapshot: Snapshot) -> frozenset[int]:
    """
    Read again, and tell which pgmaps came, went or changed.

    :return: Addresses of ``struct dev_pagemap``.
    """
    return _changed_pgmaps(snapshot, _read(prog))


def with_devices(prog: Program, pgmaps: tuple[Pgmap, ...]) -> tuple[Pgmap, ...]:
    """Name the devices that pgmaps belong to. This is for people: nothing is decided by it."""
    devices = dev_pagemap_devices(prog, frozenset(p.address for p in pgmaps))
    return tuple(dataclasses.replace(p, device=devices.get(p.address)) for p in pgmaps)


def _read(prog: Program) -> Snapshot:
    pgmaps, unjudged = _read_pgmaps(prog)
    return Snapshot(
        geometry=sparsemem_geometry(prog),
        flags=section_flags(prog),
        sections=sections(prog),
        pgmaps=pgmaps,
        memory_blocks=memory_block_states(prog),
        sections_per_block=sections_per_block(prog),
        zone_device_spans=zone_device_spans(prog),
        hotplug_in_progress=mem_hotplug_in_progress(prog),
        unjudged=unjudged,
    )


def _read_pgmaps(prog: Program) -> tuple[tuple[Pgmap, ...], tuple[Unjudged, ...]]:
    pgmaps = []
    unjudged = []
    for pfn, pgmap in for_each_dev_pagemap(prog):
        try:
            info = dev_pagemap_info(pgmap)
        except (FaultError, ValueError) as e:
            reason = f"pgmap_array[{pfn:#x}] is {pgmap.value_():#x}, which is no usable pgmap: {e}"
            unjudged.append(Unjudged(pfn, pfn + 1, reason))
            continue
        if not any(r.start_pfn <= pfn < r.end_pfn for r in info.ranges):
            reason = f"pgmap_array[{pfn:#x}] is pgmap {info.address:#x}, whose ranges lie elsewhere"
            unjudged.append(Unjudged(pfn, pfn + 1, reason))
        pgmaps.append(info)
    return tuple(pgmaps), tuple(unjudged)


def _changed_sections(a: Snapshot, b: Snapshot) -> frozenset[int]:
    rows_a, rows_b = _section_rows(a.sections), _section_rows(b.sections)
    differing = rows_a.symmetric_difference(rows_b)
    return frozenset(row[0] for row in differing)


def _section_rows(s: Sections) -> set[tuple[int, ...]]:
    columns = [s.nr.astype(np.uint64), s.word, s.usage, *s.subsection_map.T]
    return set(zip(*(column.tolist() for column in columns)))


def _changed_pgmaps(a: Snapshot, b: Snapshot) -> frozenset[int]:
    # The reference count moves all the time and decides nothing.
    def essence(p: Pgmap) -> Pgmap:
        return dataclasses.replace(p, ref=dataclasses.replace(p.ref, count=None, mode=None))

    differing = {essence(p) for p in a.pgmaps} ^ {essence(p) for p in b.pgmaps}
    return frozenset(p.address for p in differing)
