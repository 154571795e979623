# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Per-CPU Lists of Free Pages
---------------------------

The ``drgn_zonedev.kernel.pcp_lists`` module finds the free pages that each CPU keeps for
itself (``struct per_cpu_pages``), and those of a virtual machine that are not accepted yet, where
a list has them. No struct page says that it is on such a list.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from drgn import FaultError, Object, Program, Type, offsetof, sizeof
from drgn.helpers.common.prog import takes_program_or_default
from drgn.helpers.linux.percpu import per_cpu_ptr

from drgn_zonedev.kernel.masks import possible_cpus
from drgn_zonedev.kernel.memmap import PageLayout, page_layout
from drgn_zonedev.kernel.mmzone import sparsemem_geometry
from drgn_zonedev.kernel.zero_pages import hpage_pmd_order
from drgn_zonedev.kernel.zones import Zone
from drgn_zonedev.vmcore.reads import read_word

__all__ = ("pcp_free_blocks", "unaccepted_blocks")

# PAGE_ALLOC_COSTLY_ORDER
_COSTLY_ORDER = 3
# More than any machine keeps, so that a damaged one ends.
_MOST_BLOCKS = 1 << 20

_NONE = np.empty((0, 2), np.int64)


@takes_program_or_default
def pcp_free_blocks(prog: Program, zones: tuple[Zone, ...]) -> np.ndarray:
    """
    Get the free blocks on the per-CPU lists of some zones: a row of first PFN and order each.

    A list that cannot be read to its end counts as far as it goes. On a running kernel, a list
    changes while it is read.

    :raises LookupError: if the debugging information does not have the lists
    """
    pcp_type, member = _pcp_type(prog)
    found: list[tuple[int, int]] = []
    for zone in zones if len(zones) else ():
        address = zone.address + prog.type("struct zone").member(member).offset
        for cpu in possible_cpus(prog):
            for block in _blocks_of_cpu(prog, pcp_type, address, cpu):
                found.append(block)
                if len(found) == _MOST_BLOCKS:
                    return np.array(found, np.int64)
    return np.array(found, np.int64) if found else _NONE


def _pcp_type(prog: Program) -> tuple[Type, str]:
    # struct per_cpu_pageset had the lists of a zone, and its counters, until Linux kernel commit
    # 28f836b6777b ("mm/page_alloc: split per cpu page lists and zone stats") (in v5.14).
    zone = prog.type("struct zone")
    if zone.has_member("per_cpu_pageset"):
        return prog.type("struct per_cpu_pages"), "per_cpu_pageset"
    return prog.type(zone.member("pageset").type.type.type_name()), "pageset"


def _blocks_of_cpu(
    prog: Program, pcp_type: Type, address: int, cpu: int
) -> Iterator[tuple[int, int]]:
    try:
        base = read_word(prog, address)
        if not base:
            return
        pcp = per_cpu_ptr(Object(prog, prog.pointer_type(pcp_type), base), cpu)
        pages = pcp.pcp if pcp_type.has_member("pcp") else pcp[0]
        room = int(pages.count.value_())
    except FaultError:
        return
    lists = pages.lists
    per_order = int(prog.constant("MIGRATE_PCPTYPES").value_())
    size = sizeof(prog.type("struct list_head"))
    for index in range(lists.type_.length or 0):
        order = _order_of_list(prog, index, per_order)
        for pfn in _pages_on_list(prog, lists.address_ + index * size):
            # pcp->count has all pages of the blocks.
            if room < 1 << order:
                return
            room -= 1 << order
            yield pfn, order


def _order_of_list(prog: Program, index: int, per_order: int) -> int:
    # pindex_to_order(): higher orders since Linux kernel commit 44042b449872 ("mm/page_alloc:
    # allow high-order pages to be stored on the per-cpu lists") (in v5.14). The lists after those
    # of PAGE_ALLOC_COSTLY_ORDER have transparent huge pages.
    order = index // per_order
    return order if order <= _COSTLY_ORDER else hpage_pmd_order(prog)


def _pages_on_list(prog: Program, head: int) -> Iterator[int]:
    layout, limit = page_layout(prog), sparsemem_geometry(prog).max_pfn
    seen = {head}
    try:
        node = read_word(prog, head)
        while node not in seen:
            pfn = _pfn_of_entry(layout, node)
            if pfn is None or pfn >= limit:
                return
            seen.add(node)
            yield pfn
            node = read_word(prog, node)
    except FaultError:
        return


def _pfn_of_entry(layout: PageLayout, node: int) -> int | None:
    pfn, rest = divmod(node - layout.lru_offset - layout.vmemmap, layout.size)
    return None if rest or pfn < 0 else pfn


@takes_program_or_default
def unaccepted_blocks(prog: Program, zones: tuple[Zone, ...], order: int) -> np.ndarray:
    """
    Get the blocks on ``zone->unaccepted_pages``: a row of first PFN and order each. There is such
    a list since Linux kernel commit dcdfdd40fa82 ("mm: Add support for unaccepted memory") (in
    v6.5).

    :param order: Of each of them: ``MAX_PAGE_ORDER``.
    """
    type_ = prog.type("struct zone")
    if not type_.has_member("unaccepted_pages"):
        return _NONE
    offset = offsetof(type_, "unaccepted_pages")
    found = [
        (pfn, order)
        for zone in zones
        for pfn, _ in zip(_pages_on_list(prog, zone.address + offset), range(_MOST_BLOCKS))
    ]
    return np.array(found, np.int64) if found else _NONE
