# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Deferred Initialisation
-----------------------

The ``drgn_zonedev.kernel.deferred_init`` module says which struct pages of RAM the kernel is
still to initialise, with ``CONFIG_DEFERRED_STRUCT_PAGE_INIT``. At boot, it initialises those of
the lower zones, and of a part of the highest zone of each node. The others follow in
``page_alloc_init_late()``, by a thread for each node.

Pages that are reserved by then are initialised at once, above the mark, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from drgn import Program
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.kernel.nodes import NOTHING_DEFERRED, Node, Nodes
from drgn_zonedev.kernel.zones import Zone, Zones

__all__ = ("DeferredMemmap", "deferred_memmaps", "deferred_pages_enabled", "nodes_to_initialize")


@dataclass(frozen=True)
class DeferredMemmap:
    """
    PFNs whose struct pages may not be initialised yet. ``node`` has them, and ``undone`` nodes
    have a thread that is not through (``pgdat_init_n_undone``).
    """

    node: Node
    start_pfn: int
    end_pfn: int
    undone: int

    @property
    def running(self) -> bool:
        """Whether the thread of the node has begun with them, and may be anywhere."""
        return self.node.first_deferred_pfn == NOTHING_DEFERRED


@takes_program_or_default
def deferred_pages_enabled(prog: Program) -> bool:
    """
    Return whether the static key ``deferred_pages`` is enabled: from the start until the struct
    pages of all nodes are initialised.

    :raises LookupError: if the debugging information does not have it
    """
    return bool(prog["deferred_pages"].key.enabled.counter.value_())


@takes_program_or_default
def nodes_to_initialize(prog: Program) -> int:
    """
    Get ``pgdat_init_n_undone``, the number of nodes whose threads are not through; 0 before they
    are started. It is ``__initdata``: after boot, anything can be there.

    :raises LookupError: if the debugging information does not have it
    """
    return int(prog["pgdat_init_n_undone"].counter.value_())


@takes_program_or_default
def deferred_memmaps(
    prog: Program, nodes: Nodes, zones: Zones, zone_device: int | None
) -> tuple[DeferredMemmap, ...]:
    """
    Get the memory whose struct pages may not be initialised yet.

    ``deferred_init_memmap()`` sets ``first_deferred_pfn`` to ``ULONG_MAX`` *before* it
    initialises the struct pages: how far it is, nothing says.

    :param zone_device: The number of ZONE_DEVICE.
    :raises LookupError: if the debugging information does not say whether there are any
    """
    if all(node.first_deferred_pfn is None for node in nodes.found):
        # CONFIG_DEFERRED_STRUCT_PAGE_INIT=n
        return ()
    # A node that was added later may have 0 for first_deferred_pfn, which means nothing then.
    if not deferred_pages_enabled(prog):
        return ()
    return tuple(_of_nodes(prog, nodes, [z for z in zones.found if z.number != zone_device]))


def _of_nodes(prog: Program, nodes: Nodes, zones: list[Zone]) -> Iterator[DeferredMemmap]:
    undone = nodes_to_initialize(prog)
    for node in nodes.found:
        # Only the highest zone is deferred.
        last = max((z for z in zones if z.nid == node.nid), key=_end, default=None)
        mark = node.first_deferred_pfn
        if last is None or mark is None:
            continue
        if mark != NOTHING_DEFERRED:
            if mark < last.end_pfn:
                yield DeferredMemmap(node, mark, last.end_pfn, undone)
        elif undone > 0:
            yield DeferredMemmap(node, last.start_pfn, last.end_pfn, undone)


def _end(zone: Zone) -> int:
    return zone.end_pfn
