# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Zones
-----

The ``drgn_zonedev.kernel.zones`` module reads where the zones of all nodes lie.
"""

from __future__ import annotations

from dataclasses import dataclass

from drgn import Program
from drgn.helpers.common.prog import takes_program_or_default
from drgn.helpers.linux.mmzone import NODE_DATA

from drgn_zonedev.kernel.masks import online_nodes

__all__ = ("Zone", "zones")


@dataclass(frozen=True)
class Zone:
    """
    One ``struct zone``; PFNs are half-open. Whoever walks with
    ``for_each_populated_zone()`` skips those without ``present_pages``: ZONE_DEVICE
    never has any.
    """

    nid: int
    number: int
    start_pfn: int
    end_pfn: int
    present_pages: int


@takes_program_or_default
def zones(prog: Program) -> tuple[Zone, ...]:
    """Get the zones that span anything, of all nodes that are online."""
    found = []
    for nid in online_nodes(prog):
        for number, zone in enumerate(NODE_DATA(prog, nid).node_zones):
            start, spanned = zone.zone_start_pfn.value_(), zone.spanned_pages.value_()
            if spanned:
                present = zone.present_pages.value_()
                found.append(Zone(nid, number, start, start + spanned, present))
    return tuple(found)
