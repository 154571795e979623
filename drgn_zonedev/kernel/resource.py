# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Resources
---------

The ``drgn_zonedev.kernel.resource`` module reads the tree that ``/proc/iomem``
shows, as plain data.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from drgn import FaultError, ObjectNotFoundError, Program
from drgn.helpers.common.prog import takes_program_or_default
from drgn.helpers.linux.ioport import for_each_resource

__all__ = ("Resource", "iomem_resources")

# IORESOURCE_SYSTEM_RAM: IORESOURCE_MEM and IORESOURCE_SYSRAM, which are macros.
_SYSTEM_RAM = 0x00000200 | 0x01000000

# A damaged tree can be endless.
_MAX_RESOURCES = 1 << 16


@dataclass(frozen=True)
class Resource:
    """
    One ``struct resource`` below ``iomem_resource``, in bytes, half-open; ``name``
    is untrusted text from the kernel.
    """

    start: int
    end: int
    name: str
    address: int
    is_ram: bool


@takes_program_or_default
def iomem_resources(prog: Program) -> tuple[Resource, ...] | None:
    """
    Get everything in the tree of I/O memory, without its root.

    :return: ``None`` if the tree cannot be read.
    """
    try:
        root = prog["iomem_resource"].address_of_()
        found = itertools.islice(for_each_resource(root), _MAX_RESOURCES)
        return tuple(
            Resource(
                start=resource.start.value_(),
                end=resource.end.value_() + 1,
                name=resource.name.string_().decode(errors="backslashreplace")
                if resource.name
                else "",
                address=resource.value_(),
                is_ram=resource.flags.value_() & _SYSTEM_RAM == _SYSTEM_RAM,
            )
            for resource in found
            if resource.value_() != root.value_()
        )
    except (ObjectNotFoundError, FaultError):
        return None
