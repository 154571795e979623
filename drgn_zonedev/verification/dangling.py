# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Dangling Pgmaps
---------------

What is known of a pgmap that struct pages point to, but ``pgmap_array`` does not
hold: whether its memory was freed, and which device it belonged to.
"""

from __future__ import annotations

from drgn import FaultError, Object, Program

from drgn_zonedev.kernel.devres import dev_pagemap_devices
from drgn_zonedev.kernel.memremap import dev_pagemap_info
from drgn_zonedev.kernel.mmzone import sparsemem_geometry
from drgn_zonedev.kernel.slab import slab_object
from drgn_zonedev.model import Evidence

__all__ = ("dangling_pgmap",)

_UNKNOWN = (FaultError, LookupError, ValueError, NotImplementedError, TypeError)


def dangling_pgmap(prog: Program, address: int, count: int, span: tuple[int, int]) -> Evidence:
    """
    Describe a pgmap that is not in ``pgmap_array``.

    :param count: Number of struct pages that lead to it.
    :param span: PFNs that they lie in.
    """
    facts = [f"of {count} struct pages", _slab(prog, address), *_owner(prog, address, span)]
    return Evidence("dangling pgmap", value=address, note="; ".join(facts))


def _slab(prog: Program, address: int) -> str:
    try:
        found = slab_object(prog, address)
    except FaultError:
        return "its memory cannot be looked up"
    if found is None:
        return "not in a slab object"
    state = {True: "allocated", False: "freed", None: "unknown"}[found.allocated]
    where = "" if found.address is None else f", at +{address - found.address:#x}"
    return f"{state} object of {found.cache}{where}"


def _owner(prog: Program, address: int, span: tuple[int, int]) -> list[str]:
    # Freed memory keeps most of its words until it is allocated again. Then, what
    # it says is not a range that memory could be hot-added for.
    unit = sparsemem_geometry(prog).pages_per_subsection
    facts = []
    try:
        pgmap = dev_pagemap_info(Object(prog, "struct dev_pagemap *", address))
        sound = all(
            r.start_pfn < r.end_pfn and r.start_pfn % unit == r.end_pfn % unit == 0
            for r in pgmap.ranges
        )
        if sound and any(r.start_pfn < span[1] and span[0] < r.end_pfn for r in pgmap.ranges):
            spans = ", ".join(f"[{r.start_pfn:#x}, {r.end_pfn:#x})" for r in pgmap.ranges)
            facts.append(f"still reads as {pgmap.type} for {spans}, operations {pgmap.ops}")
        device = dev_pagemap_devices(prog, frozenset({address})).get(address)
        if device:
            facts.append(f"device {device.name}")
    except _UNKNOWN:
        pass
    return facts
