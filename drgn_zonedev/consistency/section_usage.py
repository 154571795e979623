# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Usages of Sections
------------------

Checks that the ``struct mem_section_usage`` of each section is memory that was allocated for
it, and for no other section: ``section_activate()`` takes it from a slab, and boot from memblock.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from drgn import FaultError, Program, offsetof, sizeof
from drgn.helpers.linux.mm import pfn_to_virt, virt_to_pfn

from drgn_zonedev.consistency.claims import Check, Scene
from drgn_zonedev.findings import make_finding
from drgn_zonedev.kernel.memmap import Pages, read_pages
from drgn_zonedev.kernel.slab import SlabObject, slab_object
from drgn_zonedev.model import Evidence, Finding
from drgn_zonedev.vmcore.exported import leaves_out_ram
from drgn_zonedev.vmcore.pagetables import UNKNOWN, UNMAPPED, page_frames, walks_in_bulk

__all__ = ("USAGE_CHECKS",)

# Asking a slab about an object takes a millisecond.
_MOST_OBJECTS = 64
_KERNEL_START = np.uint64(1 << 63)


def _dead_usages(scene: Scene) -> Iterator[Finding]:
    sections, flags = scene.snapshot.sections, scene.snapshot.flags
    if scene.snapshot.hotplug_in_progress:
        return
    there = scene.has_flag(flags.has_mem_map) & (sections.usage != 0) & ~scene.torn
    impossible = (sections.usage < _KERNEL_START) | (sections.usage % np.uint64(8) != 0)
    for row in scene.rows_where(there & impossible):
        yield _finding(scene, row, "not the address of an object of the kernel")
    for row in scene.rows_where(there & ~impossible & ~sections.usage_readable):
        if _frame_behind(scene, int(sections.usage[row])) == UNMAPPED:
            yield _finding(scene, row, "not mapped, by the page tables")
    # Usages from boot are not in a slab, and removing devices never frees them.
    added = there & ~impossible & sections.usage_readable & ~scene.has_flag(flags.early)
    claimed = scene.rows_where(added & scene.claimed)
    for row in (*claimed, *scene.rows_where(added & ~scene.claimed))[:_MOST_OBJECTS]:
        usage = int(sections.usage[row])
        state = _not_linear(scene, usage) or _not_allocated(scene.prog, usage)
        if state:
            yield _finding(scene, row, state)


def _frame_behind(scene: Scene, address: int) -> int:
    # By the page tables; UNKNOWN, too, where they are not walked in bulk.
    page = address >> scene.snapshot.geometry.page_shift
    frames = page_frames(scene.prog, page, page + 1) if walks_in_bulk(scene.prog) else None
    return UNKNOWN if frames is None else int(frames[0])


def _not_linear(scene: Scene, address: int) -> str | None:
    # Slabs and memblock give addresses of the linear mapping, which the kernel's image, vmalloc()
    # and vmemmap are not part of.
    shift, frame = scene.snapshot.geometry.page_shift, _frame_behind(scene, address)
    if frame < 0:
        return None
    try:
        linear = int(pfn_to_virt(scene.prog, frame).value_())
    except Exception as e:
        if _is_missing(e):
            return None
        raise
    return None if linear >> shift == address >> shift else "not in the kernel's linear mapping"


def _is_missing(e: Exception) -> bool:
    # drgn raises a plain Exception if it finds no variable that shows where the linear mapping is:
    # on arm64, an export has none.
    missing = (FaultError, LookupError, NotImplementedError, ValueError)
    return type(e) is Exception or isinstance(e, missing)


def _not_allocated(prog: Program, address: int) -> str | None:
    # What the memory is, if it is not an allocated object; None if that is not known.
    try:
        found = slab_object(prog, address)
        if found is not None:
            return _not_an_object(found, address)
        # A section from boot that was removed and added again keeps its usage from boot.
        if leaves_out_ram(prog) or _is_reserved(prog, address):
            return None
    except Exception as e:
        if _is_missing(e):
            return None
        raise
    return "in no slab, and not of boot"


def _not_an_object(found: SlabObject, address: int) -> str | None:
    if found.allocated is False:
        return f"a freed object of {found.cache}"
    if found.address is not None and found.address != address:
        return f"within an object of {found.cache}"
    return None


def _is_reserved(prog: Program, address: int) -> bool:
    pfn = virt_to_pfn(prog, address).value_()
    page = next(read_pages(prog, pfn, pfn + 1))
    if not isinstance(page, Pages):
        raise FaultError(page.reason, page.address)
    return bool(int(page.flags[0]) & page.layout.pg_reserved)


def _shared_usages(scene: Scene) -> Iterator[Finding]:
    sections = scene.snapshot.sections
    if scene.snapshot.hotplug_in_progress:
        return
    has_map = scene.has_flag(scene.snapshot.flags.has_mem_map)
    rows = np.flatnonzero(has_map & (sections.usage != 0) & ~scene.torn)
    rows = rows[np.argsort(sections.usage[rows], kind="stable")]
    size = sizeof(scene.prog.type("struct mem_section_usage"))
    near = np.flatnonzero(np.diff(sections.usage[rows]) < np.uint64(size))
    others = {int(rows[i + 1]): int(rows[i]) for i in near}
    others = {**others, **{int(rows[i]): int(rows[i + 1]) for i in near}}
    for row in sorted(set(scene.rows_where(has_map)) & others.keys()):
        state = f"that of section {sections.nr[others[row]]} as well"
        yield _finding(scene, row, state, "section-usage-shared")


def _finding(scene: Scene, row: int, state: str, slug: str = "section-usage-dead") -> Finding:
    sections = scene.snapshot.sections
    start, end = scene.section_span(row)
    offset = offsetof(scene.prog.type("struct mem_section"), "usage")
    fact = Evidence(
        f"mem_section[{sections.nr[row]}].usage",
        int(sections.address[row]) + offset,
        int(sections.usage[row]),
        note=state,
    )
    facts = (fact, scene.section_word(row))
    return make_finding(slug, scene.case_at(start), start, end, evidence=facts)


USAGE_CHECKS: tuple[Check, ...] = (_dead_usages, _shared_usages)
