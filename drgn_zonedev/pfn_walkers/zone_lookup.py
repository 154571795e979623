# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Looking Up Zones
----------------

What ``page_zone()`` leads to, if the page says a zone or node that does not exist:
``&NODE_DATA(nid)->node_zones[zone]``, which is past the end of the array, or near NULL. And what
``page_to_nid()`` does.
"""

from __future__ import annotations

import numpy as np
from drgn import FaultError, Program, offsetof, sizeof
from drgn.helpers.linux.mmzone import NODE_DATA

from drgn_zonedev.kernel.masks import online_nodes, possible_cpus, possible_nodes
from drgn_zonedev.kernel.memmap import Pages
from drgn_zonedev.vmcore.reads import read_memory

__all__ = ("false_nodes", "false_zones")

_WORD = 1 << 64


def false_zones(prog: Program, pages: Pages) -> tuple[np.ndarray, np.ndarray]:
    """
    Return which pages say a zone or node that does not exist, and for which of them writing to
    the per-CPU pagesets of that zone faults. What could not be read counts as a fault.
    """
    layout = pages.layout
    no_node = ~np.isin(pages.node, np.array(online_nodes(prog), np.uint64))
    false = no_node | (pages.zone > np.uint64(layout.zone_device))
    faulting = no_node.copy()
    rows = np.flatnonzero(false & ~no_node)
    links = pages.node[rows] << np.uint64(layout.zones_shift) | pages.zone[rows]
    found, which = np.unique(links, return_inverse=True)
    pairs = (divmod(link, 1 << layout.zones_shift) for link in found.tolist())
    faulting[rows] = np.array([_faults(prog, *pair) for pair in pairs], bool)[which]
    return false, faulting


def false_nodes(prog: Program, pages: Pages) -> np.ndarray:
    """Return which pages say a node that can never exist: its ``NODE_DATA()`` is NULL."""
    # Linux kernel commit 09f49dca570a ("mm: handle uninitialized numa nodes gracefully") (in
    # v5.18) gave every possible node a pglist_data.
    return ~np.isin(pages.node, np.array(possible_nodes(prog), np.uint64))


def _faults(prog: Program, nid: int, number: int) -> bool:
    try:
        address = _first_pageset(prog, nid, number)
        # Below the kernel's half, there is at most user memory.
        if not address >> 63:
            return True
        read_memory(prog, address, 8)
    except FaultError:
        return True
    return False


def _first_pageset(prog: Program, nid: int, number: int) -> int:
    # per_cpu_ptr(zone->per_cpu_pageset, cpu). Up to v6.14, the per-CPU section of x86-64 began
    # at 0, so that even NULL led to per-CPU memory; "x86/percpu/64: Use relative percpu
    # offsets" (in v6.15) changed that.
    zone = prog.type("struct zone")
    # Renamed in "mm/page_alloc: split per cpu page lists and zone stats" (in v5.14).
    member = "per_cpu_pageset" if zone.has_member("per_cpu_pageset") else "pageset"
    zones = NODE_DATA(prog, nid).node_zones.address_of_().value_()
    word = zones + number * sizeof(zone) + offsetof(zone, member)
    pageset = int.from_bytes(read_memory(prog, word, 8), "little")
    offset = prog["__per_cpu_offset"][possible_cpus(prog)[0]].value_()
    return int(pageset + offset) % _WORD
