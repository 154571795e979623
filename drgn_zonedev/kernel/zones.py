# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Zones
-----

The ``drgn_zonedev.kernel.zones`` module reads the spans of the zones of all nodes, and
how many pages they have.
"""

from __future__ import annotations

from dataclasses import dataclass

from drgn import FaultError, Object, Program
from drgn.helpers.common.prog import takes_program_or_default
from drgn.helpers.linux.mmzone import NODE_DATA

from drgn_zonedev.kernel.masks import online_nodes
from drgn_zonedev.kernel.memremap import has_zone_device
from drgn_zonedev.kernel.mmzone import sparsemem_geometry
from drgn_zonedev.kernel.records import read_words

__all__ = (
    "UnreadableZone",
    "Zone",
    "Zones",
    "read_zone_device_spans",
    "spans_of_zone",
    "zone_device_number",
    "zone_device_spans",
    "zone_type_name",
    "zones",
)


@dataclass(frozen=True)
class Zone:
    """
    One ``struct zone`` at ``address``; PFNs are half-open. Walks with
    ``for_each_populated_zone()`` skip zones without ``present_pages``: ZONE_DEVICE never
    has any.

    ``spanned_pages``, ``present_pages`` and ``managed_pages`` are as the kernel has them.
    The PFNs are limited to where memory can be.
    """

    nid: int
    number: int
    start_pfn: int
    end_pfn: int
    present_pages: int
    spanned_pages: int
    managed_pages: int
    address: int


@dataclass(frozen=True)
class UnreadableZone:
    """A ``struct zone`` that cannot be read, with the address that faulted."""

    nid: int
    number: int
    address: int


@dataclass(frozen=True)
class Zones:
    """
    Zones with a span that is not empty, and zones that cannot be read, by node and number.
    ``spanless`` are zones without a span that have pages nevertheless.
    """

    found: tuple[Zone, ...]
    unreadable: tuple[UnreadableZone, ...]
    spanless: tuple[Zone, ...] = ()


@takes_program_or_default
def zones(prog: Program) -> Zones:
    """
    Get the zones of all nodes that are online.

    :raises FaultError: if the mask of online nodes cannot be read
    :raises LookupError: if the debugging information does not have the types
    """
    numbers = range(prog.type("struct pglist_data").member("node_zones").type.length or 0)
    read = [zone for nid in online_nodes(prog) for zone in _zones_of(prog, nid, numbers)]
    whole = [z for z in read if isinstance(z, Zone)]
    return Zones(
        found=tuple(z for z in whole if z.spanned_pages),
        unreadable=tuple(z for z in read if isinstance(z, UnreadableZone)),
        spanless=tuple(
            z for z in whole if not z.spanned_pages and (z.present_pages or z.managed_pages)
        ),
    )


def _zones_of(prog: Program, nid: int, numbers: range) -> list[Zone | UnreadableZone]:
    try:
        found = NODE_DATA(prog, nid).node_zones
    except FaultError as e:
        return [UnreadableZone(nid, number, e.address) for number in numbers]
    return [_read_zone(prog, nid, number, found[number]) for number in numbers]


def _read_zone(prog: Program, nid: int, number: int, zone: Object) -> Zone | UnreadableZone:
    start = zone.zone_start_pfn
    try:
        first, spanned, present, managed = read_words(
            prog, (start, zone.spanned_pages, zone.present_pages, zone.managed_pages)
        )
    except FaultError:
        # A fault may be at a physical address.
        return UnreadableZone(nid, number, start.address_ or 0)
    # A damaged zone may claim PFNs beyond max_pfn, where no memory can be.
    max_pfn = sparsemem_geometry(prog).max_pfn
    return Zone(
        nid,
        number,
        min(first, max_pfn),
        min(first + spanned, max_pfn),
        present,
        spanned,
        managed,
        zone.address_ or 0,
    )


@takes_program_or_default
def zone_type_name(prog: Program, number: int) -> str:
    """
    Get the name of a zone in ``enum zone_type``, e.g., ``ZONE_NORMAL``, or its number if it has
    none.
    """
    for name, value in prog.type("enum zone_type").enumerators or ():
        if value == number and name.startswith("ZONE_"):
            return str(name)
    return str(number)


@takes_program_or_default
def zone_device_number(prog: Program) -> int | None:
    """
    Get the number of ``ZONE_DEVICE`` in ``enum zone_type``.

    :return: ``None`` if the kernel was built without ``CONFIG_ZONE_DEVICE``
    :raises LookupError: if the debugging information does not say
    """
    return int(prog.constant("ZONE_DEVICE").value_()) if has_zone_device(prog) else None


@takes_program_or_default
def zone_device_spans(prog: Program) -> dict[int, tuple[int, int]]:
    """
    Get the span of each node's ZONE_DEVICE.

    The span grows when memory is added and never shrinks
    (``remove_pfn_range_from_zone()`` does not change ZONE_DEVICE), so it covers
    all device memory that a node has ever had.

    :return: Mapping from node ID to half-open PFN range. Nodes that never had
        device memory, or whose zones cannot be read, are missing.
    """
    return read_zone_device_spans(prog)[0]


@takes_program_or_default
def read_zone_device_spans(
    prog: Program,
) -> tuple[dict[int, tuple[int, int]], tuple[tuple[int, int], ...]]:
    """
    Like :func:`zone_device_spans()`, but also return the nodes whose zones cannot
    be read, each with the address that faulted.
    """
    try:
        zone_device = prog.constant("ZONE_DEVICE").value_()
    except LookupError:
        return {}, ()
    return spans_of_zone(zones(prog), zone_device)


def spans_of_zone(
    read: Zones, number: int | None
) -> tuple[dict[int, tuple[int, int]], tuple[tuple[int, int], ...]]:
    """
    Get the span of one zone of each node, and the nodes whose zone cannot be read, each
    with the address that faulted. A zone that the kernel does not have is ``None``.
    """
    spans = {z.nid: (z.start_pfn, z.end_pfn) for z in read.found if z.number == number}
    return spans, tuple((z.nid, z.address) for z in read.unreadable if z.number == number)
