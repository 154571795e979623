# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Cost
----

What a lookup reads, counted on the structures of the kernel at hand, for one PFN at a
time: every address that has to be loaded, in order. Loads that end in the same line
of the cache count once as a line. Nothing is said of what is in the cache already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from drgn import FaultError, Program, TypeKind, offsetof, sizeof

from drgn_zonedev.kernel.memremap import find_dev_pagemap
from drgn_zonedev.kernel.mmzone import sparsemem_geometry
from drgn_zonedev.kernel.pageblock import pageblock_layout
from drgn_zonedev.kernel.reading import read_memory
from drgn_zonedev.model import Pgmap
from drgn_zonedev.proposal.variants import Variant
from drgn_zonedev.snapshot import Snapshot

__all__ = ("Lookup", "Memory", "kmalloc_size", "lookup_cost", "memory_cost", "xarray_path")

_LINE = 64
_TIB = 1 << 40

# Internal entries of an xarray, and the lowest address that can be a node.
_XA_INTERNAL, _XA_MAX_INTERNAL = 2, 4096
# XA_MAX_DEPTH is 11 with 6 bits a level.
_MAX_DEPTH = 12

# KMALLOC_MIN_SIZE is 8 on x86-64; the caches of 96 and 192 bytes are between powers of two.
_KMALLOC = sorted([96, 192] + [1 << i for i in range(3, 14)])


@dataclass(frozen=True)
class Lookup:
    """
    What one lookup costs.

    ``loads`` words in ``lines`` lines of the cache, and ``atomics`` writes to a
    counter that all holders of the pgmap share per CPU. ``depth`` is how many nodes of
    ``pgmap_array`` are on the way, ``pfn`` the PFN that it was counted for.
    """

    pfn: int
    loads: int
    lines: int
    atomics: int
    depth: int


@dataclass(frozen=True)
class Memory:
    """
    What the bits cost, in bytes.

    ``sections`` are present, ``usage`` bytes is the ``struct mem_section_usage`` of
    one today, ``slab`` what the allocator spends on one that is hot-added, before and
    after; ``None`` if that is not known.
    """

    per_section: int
    machine: int
    per_tib: int
    sections: int
    usage: int | None
    slab: tuple[int, int] | None


def kmalloc_size(size: int) -> int:
    """Get what ``kmalloc()`` spends on an object."""
    return next((s for s in _KMALLOC if s >= size), -(-size // 4096) * 4096)


def memory_cost(prog: Program, snapshot: Snapshot, variant: Variant) -> Memory:
    """Count what the bits of a variant cost on this machine, and for a TiB of memory."""
    geometry = snapshot.geometry
    # DECLARE_BITMAP() makes whole words.
    per_section = variant.bitmaps * (-(-geometry.subsections_per_section // 64) * 8)
    usage = _usage_size(prog)
    slab = None
    if usage is not None:
        slab = kmalloc_size(usage), kmalloc_size(usage + per_section)
    return Memory(
        per_section=per_section,
        machine=per_section * len(snapshot.sections),
        per_tib=per_section * (_TIB >> geometry.section_size_bits),
        sections=len(snapshot.sections),
        usage=usage,
        slab=slab,
    )


def _usage_size(prog: Program) -> int | None:
    # sizeof(struct mem_section_usage) and usemap_size().
    try:
        type_ = prog.type("struct mem_section_usage")
        layout = pageblock_layout(prog)
        fixed = offsetof(type_, "pageblock_flags")
    except LookupError:
        return None
    if layout is None:
        return None
    blocks = sparsemem_geometry(prog).pages_per_section // layout.pages
    return int(fixed) + -(-blocks * layout.bits // 64) * 8


def lookup_cost(
    prog: Program, snapshot: Snapshot, variant: Variant, pfns: Iterable[int]
) -> Lookup | None:
    """
    Count what a lookup costs for the worst of some PFNs.

    :return: ``None`` if it cannot be counted for any of them.
    """
    found: list[Lookup] = []
    for pfn in pfns:
        try:
            found.append(_count(prog, snapshot, variant, pfn))
        except (FaultError, LookupError):
            continue
    return max(found, key=lambda cost: (cost.lines, cost.loads), default=None)


def _count(prog: Program, snapshot: Snapshot, variant: Variant, pfn: int) -> Lookup:
    addresses: list[int] = []
    depth = 0
    pgmap = next((p for p in snapshot.pgmaps if _has(p, pfn)), None)
    for what in variant.reads:
        if what == "pgmap_array":
            path = xarray_path(prog, prog["pgmap_array"].address_of_().value_(), pfn)
            addresses += [a for a, _ in path]
            depth = sum(1 for _, is_node in path if is_node)
        else:
            addresses += _READS[what](prog, snapshot, variant, pgmap, pfn)
    lines = {address // _LINE for address in addresses}
    atomics = 2 if "reference" in variant.reads and pgmap else 0
    return Lookup(pfn, len(addresses), len(lines), atomics, depth)


def _has(pgmap: Pgmap, pfn: int) -> bool:
    return any(r.start_pfn <= pfn < r.end_pfn for r in pgmap.ranges)


def _section(
    prog: Program, snapshot: Snapshot, variant: Variant, pgmap: Pgmap | None, pfn: int
) -> Iterator[int]:
    # The root array's pointer, the root's, and the section's word.
    nr = pfn // snapshot.geometry.pages_per_section
    mem_section = prog["mem_section"]
    section_type = prog.type("struct mem_section")
    if mem_section.type_.unaliased_kind() == TypeKind.POINTER:
        yield mem_section.address_of_().value_()
        yield mem_section.value_() + nr // prog["SECTIONS_PER_ROOT"].value_() * 8
    yield _section_address(snapshot, nr) + offsetof(section_type, "section_mem_map")


def _section_address(snapshot: Snapshot, nr: int) -> int:
    return int(snapshot.sections.address[_row(snapshot, nr)])


def _row(snapshot: Snapshot, nr: int) -> int:
    row = snapshot.sections.find(nr)
    if row is None:
        raise LookupError(f"section {nr} is not present")
    return row


def _usage(
    prog: Program, snapshot: Snapshot, variant: Variant, pgmap: Pgmap | None, pfn: int
) -> Iterator[int]:
    nr = pfn // snapshot.geometry.pages_per_section
    yield _section_address(snapshot, nr) + offsetof(prog.type("struct mem_section"), "usage")


def _subsection_map(
    prog: Program, snapshot: Snapshot, variant: Variant, pgmap: Pgmap | None, pfn: int
) -> Iterator[int]:
    geometry = snapshot.geometry
    row = _row(snapshot, pfn // geometry.pages_per_section)
    offset = offsetof(prog.type("struct mem_section_usage"), "subsection_map")
    bit = geometry.subsection_map_index(pfn)
    yield int(snapshot.sections.usage[row]) + offset + bit // 64 * 8


def _bitmap(
    prog: Program, snapshot: Snapshot, variant: Variant, pgmap: Pgmap | None, pfn: int
) -> Iterator[int]:
    # pfn_valid() reads subsection_map, except in early sections; the other bitmaps
    # would follow it.
    (first,) = _subsection_map(prog, snapshot, variant, pgmap, pfn)
    yield first
    size = -(-snapshot.geometry.subsections_per_section // 64) * 8
    for i in range(variant.bitmaps):
        yield first + (i + 1) * size


def _reference(
    prog: Program, snapshot: Snapshot, variant: Variant, pgmap: Pgmap | None, pfn: int
) -> Iterator[int]:
    # percpu_ref_tryget_live(): the pointer, and the counter that it leads to.
    if pgmap is None:
        return
    ref = find_dev_pagemap(prog, pfn).ref
    if ref.type_.unaliased_kind() == TypeKind.POINTER:
        yield ref.address_of_().value_()
        ref = ref[0]
    yield ref.percpu_count_ptr.address_of_().value_()
    yield ref.percpu_count_ptr.value_() & ~3


def _ranges(
    prog: Program, snapshot: Snapshot, variant: Variant, pgmap: Pgmap | None, pfn: int
) -> Iterator[int]:
    # pgmap_pfn_valid(): each range up to the one that has the PFN, then the altmap.
    if pgmap is None:
        return
    found = find_dev_pagemap(prog, pfn)
    yield found.nr_range.address_of_().value_()
    size = sizeof(prog.type("struct range"))
    first = pgmap.address + offsetof(prog.type("struct dev_pagemap"), "ranges")
    for i, range_ in enumerate(pgmap.ranges):
        yield from (first + i * size, first + i * size + size // 2)
        if range_.start_pfn <= pfn < range_.end_pfn:
            break
    yield found.flags.address_of_().value_()
    if pgmap.altmap:
        yield found.altmap.reserve.address_of_().value_()
        yield found.altmap.free.address_of_().value_()


_READS = {
    "section": _section,
    "usage": _usage,
    "subsection_map": _subsection_map,
    "bitmap": _bitmap,
    "reference": _reference,
    "ranges": _ranges,
}


def xarray_path(prog: Program, xa: int, index: int) -> list[tuple[int, bool]]:
    """
    Get what ``xa_load()`` reads, in order.

    :return: (address, whether it is the first one in another node) of each load.
    """
    head = offsetof(prog.type("struct xarray"), "xa_head")
    node_type = prog.type("struct xa_node")
    shift_at, slots_at = offsetof(node_type, "shift"), offsetof(node_type, "slots")
    path = [(xa + head, False)]
    entry = _word(prog, xa + head)
    for _ in range(_MAX_DEPTH):
        if entry & 3 != _XA_INTERNAL or entry <= _XA_MAX_INTERNAL:
            break
        node = entry - _XA_INTERNAL
        path.append((node + shift_at, True))
        shift = read_memory(prog, node + shift_at, 1)[0]
        slot = node + slots_at + (index >> shift & 63) * 8
        path.append((slot, False))
        entry = _word(prog, slot)
        if entry & 3 == _XA_INTERNAL and entry < 64 << 2:
            # A sibling: the entry is in another slot.
            slot = node + slots_at + (entry >> 2) * 8
            path.append((slot, False))
            entry = _word(prog, slot)
    return path


def _word(prog: Program, address: int) -> int:
    return int.from_bytes(read_memory(prog, address, 8), "little")
