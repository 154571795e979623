# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Reading
-------

Takes a :class:`~drgn_zonedev.classification.snapshot.Snapshot`.

A running kernel changes while it is read. :func:`take_snapshot` repeats the reading until
two readings agree. Structures that never agree are marked as torn, and everything that
depends on them is unknown, not wrong.
"""

from __future__ import annotations

import dataclasses

from drgn import FaultError, Object, Program, ProgramFlags

from drgn_zonedev.classification.missing_debuginfo import Attempt, debug_info, named_once, optional
from drgn_zonedev.classification.snapshot import Changes, Snapshot, changes_between
from drgn_zonedev.classification.unreadable import bad_address, unreadable_structures
from drgn_zonedev.kernel.deferred_init import DeferredMemmap, deferred_memmaps
from drgn_zonedev.kernel.devres import dev_pagemap_devices
from drgn_zonedev.kernel.memory_blocks import (
    MemoryBlocks,
    mem_hotplug_in_progress,
    memory_blocks,
    no_memory_blocks,
    sections_per_block,
)
from drgn_zonedev.kernel.memremap import (
    dev_pagemap_info,
    pgmap_array_entries,
    require_percpu_ref,
)
from drgn_zonedev.kernel.mmzone import section_flags, sparsemem_geometry
from drgn_zonedev.kernel.nodes import Nodes, nodes
from drgn_zonedev.kernel.resource import resource_name, unnamed_iomem_resources
from drgn_zonedev.kernel.sections import sections
from drgn_zonedev.kernel.xarray import XArrayEntries
from drgn_zonedev.kernel.zones import Zones, spans_of_zone, zone_device_number, zones
from drgn_zonedev.model import Pgmap, PgmapRange, Unjudged
from drgn_zonedev.opening.symbols import require_symbols
from drgn_zonedev.util.intervals import difference, union

__all__ = ("changed_since", "take_snapshot", "with_devices", "with_names_if_known")

# Namespaces and memory blocks come and go in milliseconds, and a reading takes as long.
# Structures that change during every try remain torn.
_MAX_TRIES = 5

_PRIVATE = "MEMORY_DEVICE_PRIVATE"

# For all pgmaps together. In damaged memory, each pgmap can claim thousands.
_MAX_RANGES = 1 << 15


def take_snapshot(prog: Program) -> Snapshot:
    """
    Read the sections, pgmaps and memory blocks of a program.

    :raises LookupError: if the debugging information does not have one of them, or the
        kernel was built without ``CONFIG_SPARSEMEM``
    :raises MissingSymbolsError: if there is no debugging information
    """
    require_symbols(prog)
    if not prog.flags & ProgramFlags.IS_LIVE:
        return _read(prog)
    snapshot = _read_moving(prog)
    for retries in range(_MAX_TRIES):
        before, snapshot = snapshot, _read_moving(prog)
        # A section that was being added when it was read looks abandoned if that
        # was over when the lock was.
        busy = before.hotplug_in_progress or snapshot.hotplug_in_progress
        changes = changes_between(before, snapshot)
        # A node that was freed while it was read leaves a gap.
        gaps = snapshot.pgmap_array.gaps or snapshot.memory_blocks.gaps
        if not changes and (not gaps or retries == _MAX_TRIES - 1):
            return dataclasses.replace(snapshot, hotplug_in_progress=busy, retries=retries)
    return dataclasses.replace(
        snapshot,
        hotplug_in_progress=busy,
        torn_sections=changes.sections,
        torn_pgmaps=changes.pgmaps,
        torn_spans=changes.spans,
        retries=_MAX_TRIES,
    )


def _read_moving(prog: Program) -> Snapshot:
    # A structure that is freed while it is read can lead anywhere.
    for _ in range(_MAX_TRIES):
        try:
            return _read(prog)
        except FaultError as e:
            fault = e
    raise fault


def changed_since(prog: Program, snapshot: Snapshot) -> Changes:
    """Read again, and find what was added, removed or changed."""
    return changes_between(snapshot, _read_moving(prog))


def with_devices(prog: Program, pgmaps: tuple[Pgmap, ...]) -> tuple[Pgmap, ...]:
    """Add the names of devices to their pgmaps. They are only shown; nothing depends on them."""
    devices = dev_pagemap_devices(prog, frozenset(p.address for p in pgmaps))
    names = optional("", _NO_NAMES, lambda: _resource_names(prog, pgmaps)).value
    return tuple(
        dataclasses.replace(p, device=devices.get(p.address), resource=names.get(p.address))
        for p in pgmaps
    )


def with_names_if_known(prog: Program, pgmaps: tuple[Pgmap, ...]) -> tuple[Pgmap, ...]:
    """Like :func:`with_devices()`, but without names if a type or symbol of devices is missing."""
    return optional("devices have no names", pgmaps, lambda: with_devices(prog, pgmaps)).value


_NO_NAMES: dict[int, str] = {}


def _resource_names(prog: Program, pgmaps: tuple[Pgmap, ...]) -> dict[int, str]:
    # request_free_mem_region() names the memory of drivers that leave no trace in a device.
    private = {p.ranges[0].start_pfn: p for p in pgmaps if p.type == _PRIVATE and p.ranges}
    if not private:
        return {}
    shift = prog["PAGE_SHIFT"].value_()
    found = unnamed_iomem_resources(prog).found
    # Of those that begin there, the last one is the innermost.
    inner = {r.start >> shift: r for r in found if r.start >> shift in private}
    return {private[pfn].address: resource_name(prog, r) for pfn, r in inner.items()}


def _read(prog: Program) -> Snapshot:
    geometry = sparsemem_geometry(prog)
    array = pgmap_array_entries(prog)
    pgmaps, stray_claims, unjudged = _read_pgmaps(prog, array)
    known = optional(
        "whether RAM is online or offline is not known",
        (no_memory_blocks(""), 1),
        lambda: _read_blocks(prog),
    )
    found = optional("which nodes have device memory is not known", None, lambda: _zones(prog))
    alive = Attempt(None)
    if any(pgmap.ref.state == "unreadable" for pgmap in pgmaps):
        alive = optional(
            "whether pgmaps are alive is not known", None, lambda: require_percpu_ref(prog)
        )
    blocks, per_block = known.value
    on_nodes = optional("", None, lambda: nodes(prog)).value
    deferred = _deferred(prog, blocks, on_nodes, found.value)
    missing = (*known.unjudged, *found.unjudged, *alive.unjudged, *deferred.unjudged)
    spans, unreadable_zones = spans_of_zone(*found.value) if found.value else ({}, ())
    snapshot = Snapshot(
        geometry=geometry,
        flags=section_flags(prog),
        sections=sections(prog),
        pgmap_array=array,
        pgmaps=pgmaps,
        memory_blocks=blocks,
        sections_per_block=per_block,
        zone_device_spans=spans,
        knows_spans=found.value is not None,
        unreadable_zones=unreadable_zones,
        hotplug_in_progress=mem_hotplug_in_progress(prog),
        unjudged=unjudged,
        stray_claims=stray_claims,
        zones=found.value and found.value[0],
        nodes=on_nodes,
        deferred=deferred.value,
        # The comparison reports what is missing in the debugging information.
        resources=optional("", None, lambda: unnamed_iomem_resources(prog)).value,
    )
    unread = unreadable_structures(prog, snapshot)
    return dataclasses.replace(snapshot, unjudged=named_once((*unjudged, *missing, *unread)))


def _zones(prog: Program) -> tuple[Zones, int | None]:
    # Without the number of the zone, there would be none.
    return zones(prog), zone_device_number(prog)


def _deferred(
    prog: Program,
    blocks: MemoryBlocks,
    on_nodes: Nodes | None,
    found: tuple[Zones, int | None] | None,
) -> Attempt[tuple[DeferredMemmap, ...]]:
    nothing: tuple[DeferredMemmap, ...] = ()
    # page_alloc_init_late() comes before memory_dev_init(), which makes the first block.
    if len(blocks) or on_nodes is None or found is None:
        return Attempt(nothing)
    return optional(
        "which struct pages boot has not initialised yet is not known",
        nothing,
        lambda: deferred_memmaps(prog, on_nodes, *found),
    )


def _read_blocks(prog: Program) -> tuple[MemoryBlocks, int]:
    # The PFNs of a block depend on the size of blocks.
    try:
        blocks = memory_blocks(prog)
        if not (len(blocks) or blocks.gaps):
            # Before memory_dev_init(), nothing says how large they will be.
            return blocks, 1
        return blocks, sections_per_block(prog)
    except (FaultError, ValueError) as e:
        return no_memory_blocks(str(e)), 1


_PgmapReading = tuple[tuple[Pgmap, ...], tuple[tuple[int, PgmapRange], ...], tuple[Unjudged, ...]]


def _read_pgmaps(prog: Program, array: XArrayEntries) -> _PgmapReading:
    if not len(array):
        return (), (), ()
    pgmap_type = prog.type("struct dev_pagemap *")
    pgmaps: dict[int, Pgmap] = {}
    claims: list[tuple[int, PgmapRange]] = []
    unjudged: list[Unjudged] = []
    spans, ranges = array.spans(), 0
    for address in sorted(spans, key=lambda address: spans[address][0]):
        unread = None
        try:
            if ranges > _MAX_RANGES:
                raise ValueError("the pgmaps before it have more ranges than on any machine")
            with debug_info():
                pgmap = dev_pagemap_info(Object(prog, pgmap_type, address))
            ranges += len(pgmap.ranges)
            pgmaps[address] = pgmap
            reason = f"pgmap_array holds pgmap {address:#x}, whose ranges lie elsewhere"
        except (FaultError, ValueError, LookupError) as e:
            reason = f"pgmap_array holds {address:#x}, which is not a usable pgmap: {e}"
            if isinstance(e, FaultError):
                unread = bad_address(prog, address, "struct dev_pagemap")
        known = pgmaps[address].ranges if address in pgmaps else ()
        inside = union((r.start_pfn, r.end_pfn) for r in known)
        for span in spans[address]:
            for start, end in difference(span, inside):
                claims.append((address, PgmapRange(start, end)))
                unjudged.append(Unjudged(start, end, reason, unread))
    return tuple(pgmaps.values()), tuple(claims), tuple(unjudged)
