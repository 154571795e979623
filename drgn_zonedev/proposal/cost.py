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
from drgn_zonedev.kernel.pgmap_array import walk_pgmap_array
from drgn_zonedev.model import Pgmap
from drgn_zonedev.proposal.variants import Variant
from drgn_zonedev.snapshot import Snapshot

__all__ = ("Lookup", "Memory", "kmalloc_size", "lookup_cost", "memory_cost")

_LINE = 64
_TIB = 1 << 40

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


@dataclass(frozen=True)
class _Question:
    """What is looked up; ``pgmap`` is that of the PFN, if there is one."""

    prog: Program
    snapshot: Snapshot
    variant: Variant
    pfn: int
    pgmap: Pgmap | None

    @property
    def section_nr(self) -> int:
        return self.pfn // self.snapshot.geometry.pages_per_section

    @property
    def row(self) -> int:
        """Of the section."""
        row = self.snapshot.sections.find(self.section_nr)
        if row is None:
            raise LookupError(f"section {self.section_nr} is not present")
        return row

    def section_member(self, member: str) -> int:
        """Address of a member of the ``struct mem_section``."""
        offset = offsetof(self.prog.type("struct mem_section"), member)
        return int(self.snapshot.sections.address[self.row]) + offset


def _count(prog: Program, snapshot: Snapshot, variant: Variant, pfn: int) -> Lookup:
    addresses: list[int] = []
    depth = 0
    pgmap = next((p for p in snapshot.pgmaps if _has(p, pfn)), None)
    question = _Question(prog, snapshot, variant, pfn, pgmap)
    for what in variant.reads:
        if what == "pgmap_array":
            walk = walk_pgmap_array(prog, pfn)
            addresses += walk.loads
            depth = walk.depth
        else:
            addresses += _READS[what](question)
    lines = {address // _LINE for address in addresses}
    atomics = 2 if "reference" in variant.reads and pgmap else 0
    return Lookup(pfn, len(addresses), len(lines), atomics, depth)


def _has(pgmap: Pgmap, pfn: int) -> bool:
    return any(r.start_pfn <= pfn < r.end_pfn for r in pgmap.ranges)


def _section(q: _Question) -> Iterator[int]:
    # The root array's pointer, the root's, and the section's word.
    mem_section = q.prog["mem_section"]
    if mem_section.type_.unaliased_kind() == TypeKind.POINTER:
        yield mem_section.address_of_().value_()
        yield mem_section.value_() + q.section_nr // q.prog["SECTIONS_PER_ROOT"].value_() * 8
    yield q.section_member("section_mem_map")


def _usage(q: _Question) -> Iterator[int]:
    yield q.section_member("usage")


def _subsection_map(q: _Question) -> Iterator[int]:
    offset = offsetof(q.prog.type("struct mem_section_usage"), "subsection_map")
    bit = q.snapshot.geometry.subsection_map_index(q.pfn)
    yield int(q.snapshot.sections.usage[q.row]) + offset + bit // 64 * 8


def _bitmap(q: _Question) -> Iterator[int]:
    # pfn_valid() reads subsection_map, except in early sections; the other bitmaps
    # would follow it.
    (first,) = _subsection_map(q)
    yield first
    size = -(-q.snapshot.geometry.subsections_per_section // 64) * 8
    for i in range(q.variant.bitmaps):
        yield first + (i + 1) * size


def _reference(q: _Question) -> Iterator[int]:
    # percpu_ref_tryget_live(): the pointer, and the counter that it leads to.
    if q.pgmap is None:
        return
    ref = find_dev_pagemap(q.prog, q.pfn).ref
    if ref.type_.unaliased_kind() == TypeKind.POINTER:
        yield ref.address_of_().value_()
        ref = ref[0]
    yield ref.percpu_count_ptr.address_of_().value_()
    yield ref.percpu_count_ptr.value_() & ~3


def _ranges(q: _Question) -> Iterator[int]:
    # pgmap_pfn_valid(): each range up to the one that has the PFN, then the altmap.
    if q.pgmap is None:
        return
    found = find_dev_pagemap(q.prog, q.pfn)
    yield found.nr_range.address_of_().value_()
    size = sizeof(q.prog.type("struct range"))
    first = q.pgmap.address + offsetof(q.prog.type("struct dev_pagemap"), "ranges")
    for i, range_ in enumerate(q.pgmap.ranges):
        yield from (first + i * size, first + i * size + size // 2)
        if range_.start_pfn <= q.pfn < range_.end_pfn:
            break
    yield found.flags.address_of_().value_()
    if q.pgmap.altmap:
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
