# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Resources
---------

The ``drgn_zonedev.kernel.resource`` module reads the resource tree of
``/proc/iomem`` as plain data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from drgn import FaultError, Object, Program
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.util.strings import string_or
from drgn_zonedev.vmcore.reads import read_object

__all__ = (
    "Resource",
    "Resources",
    "for_each_resource_below",
    "iomem_resources",
    "resource_name",
    "unnamed_iomem_resources",
    "with_names",
)

# IORESOURCE_SYSTEM_RAM: IORESOURCE_MEM and IORESOURCE_SYSRAM, which are macros.
_SYSTEM_RAM = 0x00000200 | 0x01000000

# Limits how much of a damaged tree is read.
_MAX_RESOURCES = 1 << 16


@dataclass(frozen=True)
class Resource:
    """
    One ``struct resource`` below ``iomem_resource``, in bytes, half-open; ``name``
    is untrusted text from the kernel, escaped, and empty until :func:`with_names()`.
    """

    start: int
    end: int
    name: str
    address: int
    is_ram: bool


@dataclass(frozen=True)
class Resources:
    """
    A tree of resources, parents first. ``unreadable`` are the addresses of resources that
    could not be read; their children and later siblings are missing, too.
    """

    found: tuple[Resource, ...]
    unreadable: tuple[int, ...] = ()


def for_each_resource_below(root: Object, unreadable: list[int] | None = None) -> Iterator[Object]:
    """
    Iterate over a tree of resources, parents first, without its root. drgn's
    :func:`~drgn.helpers.linux.ioport.for_each_resource()` never ends on a damaged tree that
    has a cycle; this yields each resource once, and skips resources that cannot be read.

    :param root: ``struct resource *``
    :param unreadable: Receives the addresses of resources that cannot be read.
    :return: Iterator of ``struct resource *``
    """
    for address, _ in _resources_below(root, [] if unreadable is None else unreadable):
        yield Object(root.prog_, root.type_, address)


def _resources_below(root: Object, unreadable: list[int]) -> Iterator[tuple[int, Object]]:
    # With their values, which are one read each.
    seen, pending = {0}, [root.value_()]
    while pending:
        address = pending.pop()
        if address in seen:
            continue
        if len(seen) > _MAX_RESOURCES:
            unreadable.append(address)
            return
        is_root = len(seen) == 1
        seen.add(address)
        try:
            resource = read_object(Object(root.prog_, root.type_, address)[0])
        except FaultError:
            unreadable.append(address)
            continue
        if not is_root:
            yield address, resource
            pending.append(resource.sibling.value_())
        pending.append(resource.child.value_())


@takes_program_or_default
def iomem_resources(prog: Program) -> Resources:
    """
    Get all resources below ``iomem_resource``.

    :raises LookupError: if the debugging information does not have it
    """
    return with_names(prog, unnamed_iomem_resources(prog))


@takes_program_or_default
def unnamed_iomem_resources(prog: Program) -> Resources:
    """Like :func:`iomem_resources()`, for one read each."""
    unreadable: list[int] = []
    found = tuple(
        Resource(
            start=resource.start.value_(),
            end=resource.end.value_() + 1,
            name="",
            address=address,
            is_ram=resource.flags.value_() & _SYSTEM_RAM == _SYSTEM_RAM,
        )
        for address, resource in _resources_below(prog["iomem_resource"].address_of_(), unreadable)
    )
    return Resources(found, tuple(unreadable))


def with_names(prog: Program, resources: Resources) -> Resources:
    """Read the names of resources."""
    found = (dataclasses.replace(r, name=resource_name(prog, r)) for r in resources.found)
    return dataclasses.replace(resources, found=tuple(found))


def resource_name(prog: Program, resource: Resource) -> str:
    """Read the name of a resource; ``?`` if it cannot be read."""
    return string_or(Object(prog, "struct resource *", resource.address).name, "?")
