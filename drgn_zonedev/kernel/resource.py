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

from drgn import FaultError, Object, Program
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.util.strings import string_or
from drgn_zonedev.vmcore.reads import need_object

__all__ = ("Resource", "Resources", "for_each_resource_below", "iomem_resources")

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


@dataclass(frozen=True)
class Resources:
    """
    A tree of resources, parents first; ``unread`` are the addresses of those that
    could not be read, with whatever is behind and below them.
    """

    found: tuple[Resource, ...]
    unread: tuple[int, ...] = ()


def for_each_resource_below(root: Object, unread: list[int] | None = None) -> Iterator[Object]:
    """
    Iterate over a tree of resources, parents first, without its root. drgn's
    :func:`~drgn.helpers.linux.ioport.for_each_resource()` goes round in circles
    where a damaged tree does; this comes to no resource twice, and goes on with the
    rest where one cannot be read.

    :param root: ``struct resource *``
    :param unread: Gets the addresses of those that cannot be read.
    :return: Iterator of ``struct resource *``
    """
    prog, unread = root.prog_, [] if unread is None else unread
    seen, pending = {0}, [root.value_()]
    while pending:
        resource = Object(prog, root.type_, pending.pop())
        if resource.value_() in seen:
            continue
        if len(seen) > _MAX_RESOURCES:
            unread.append(resource.value_())
            return
        is_root = len(seen) == 1
        seen.add(resource.value_())
        try:
            need_object(resource[0])
            links = [resource.child.value_()]
            if not is_root:
                links.insert(0, resource.sibling.value_())
        except FaultError:
            unread.append(resource.value_())
            continue
        if not is_root:
            yield resource
        pending += links


@takes_program_or_default
def iomem_resources(prog: Program) -> Resources:
    """
    Get everything in the tree of I/O memory, without its root.

    :raises LookupError: if the debugging information lacks it
    """
    unread: list[int] = []
    found: list[Resource] = []
    for resource in for_each_resource_below(prog["iomem_resource"].address_of_(), unread):
        try:
            found.append(_resource(resource))
        except FaultError:
            unread.append(resource.value_())
    return Resources(tuple(found), tuple(unread))


def _resource(resource: Object) -> Resource:
    return Resource(
        start=resource.start.value_(),
        end=resource.end.value_() + 1,
        name=string_or(resource.name, "?"),
        address=resource.value_(),
        is_ram=resource.flags.value_() & _SYSTEM_RAM == _SYSTEM_RAM,
    )
