# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Evidence of RAM
---------------

Collects evidence about RAM that is not simply online or offline: how far boot has initialised
struct pages, and where a memory block stores its memmap.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from drgn import Program, offsetof

from drgn_zonedev.classification.missing_debuginfo import optional
from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.kernel.deferred_init import DeferredMemmap
from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.model import Evidence
from drgn_zonedev.vmcore.pagetables import UNKNOWN, UNMAPPED, page_frames

__all__ = ("block_memmap_facts", "deferred_facts")


def deferred_facts(prog: Program, snapshot: Snapshot, pfn: int) -> Iterator[Evidence]:
    """Get the evidence that the struct page of a PFN may not be initialised yet."""
    for deferred in snapshot.deferred:
        if deferred.start_pfn <= pfn < deferred.end_pfn:
            yield from _progress(prog, deferred)


def _progress(prog: Program, deferred: DeferredMemmap) -> Iterator[Evidence]:
    node = deferred.node
    member = offsetof(prog.type("struct pglist_data"), "first_deferred_pfn")
    what = f"NODE_DATA({node.nid})->first_deferred_pfn"
    yield Evidence(what, node.address + member, node.first_deferred_pfn)
    yield Evidence("deferred_pages", prog["deferred_pages"].address_, note="enabled")
    if deferred.running:
        undone = prog["pgdat_init_n_undone"].address_
        note = "deferred_init_memmap() is running"
        yield Evidence("pgdat_init_n_undone", undone, deferred.undone, note=note)


def block_memmap_facts(prog: Program, snapshot: Snapshot, pfn: int) -> Iterator[Evidence]:
    """Get the evidence that a PFN stores the memmap of its memory block."""
    blocks, pages = snapshot.memory_blocks, snapshot.geometry.pages_per_section
    pages *= snapshot.sections_per_block
    block = pfn // pages
    row = int(np.searchsorted(blocks.id, np.uint64(block)))
    if row == len(blocks) or int(blocks.id[row]) != block:
        return
    count = int(blocks.memmap_pages[row])
    if pfn - block * pages < count:
        has_altmap = prog.type("struct memory_block").has_member("altmap")
        member = "altmap->free" if has_altmap else "nr_vmemmap_pages"
        yield Evidence(f"memory_blocks[{block}]->{member}", value=count)
        nothing: tuple[Evidence, ...] = ()
        page_size = 1 << snapshot.geometry.page_shift
        proof = optional("", nothing, lambda: tuple(_frame(prog, block * pages, page_size)))
        yield from proof.value


def _frame(prog: Program, pfn: int, page_size: int) -> Iterator[Evidence]:
    address = page_layout(prog).page_address(pfn)
    page = address // page_size
    frames = page_frames(prog, page, page + 1)
    if frames is not None and frames[0] not in (UNKNOWN, UNMAPPED):
        what = f"PFN of the vmemmap of PFN {pfn:#x}, by the page tables"
        yield Evidence(what, address, int(frames[0]))
