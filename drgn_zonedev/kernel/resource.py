# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Resources
---------

The ``drgn_zonedev.kernel.resource`` module reads the tree that ``/proc/iomem``
shows, as plain data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from drgn import FaultError, Object, ObjectNotFoundError, Program
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.kernel.strings import string_or

__all__ = ("Resource", "for_each_resource_below", "iomem_resources")

# IORESOURCE_SYSTEM_RAM: IORESOURCE_MEM and IORESOURCE_SYSRAM, which are macros.
_SYSTEM_RAM = 0x00000200 | 0x01000000

# A damaged tree can be endless.
_MAX_RESOURCES = 1 << 16


@dataclass(frozen=True)
class Resource:
    """
    One ``struct resource`` below ``iomem_resource``, in bytes, half-open; ``name``
    is untrusted text from the kernel, escaped.
    """

    start: int
    end: int
    name: str
    address: int
    is_ram: bool


def for_each_resource_below(root: Object) -> Iterator[Object]:
    """
    Iterate over a tree of resources, parents first, without its root. drgn's
    :func:`~drgn.helpers.linux.ioport.for_each_resource()` goes round in circles
    where a damaged tree does; this comes to no resource twice.

    :param root: ``struct resource *``
    :return: Iterator of ``struct resource *``
    """
    seen = {0, root.value_()}
    pending = [root.child.read_()]
    while pending and len(seen) <= _MAX_RESOURCES:
        resource = pending.pop()
        if resource.value_() in seen:
            continue
        seen.add(resource.value_())
        yield resource
        pending += [resource.sibling.read_(), resource.child.read_()]


@takes_program_or_default
def iomem_resources(prog: Program) -> tuple[Resource, ...] | None:
    """
    Get everything in the tree of I/O memory, without its root.

    :return: ``None`` if the tree cannot be read.
    """
    try:
        root = prog["iomem_resource"].address_of_()
        return tuple(_resource(found) for found in for_each_resource_below(root))
    except (ObjectNotFoundError, FaultError):
        return None


def _resource(resource: Object) -> Resource:
    return Resource(
        start=resource.start.value_(),
        end=resource.end.value_() + 1,
        name=string_or(resource.name, "?"),
        address=resource.value_(),
        is_ram=resource.flags.value_() & _SYSTEM_RAM == _SYSTEM_RAM,
    )
