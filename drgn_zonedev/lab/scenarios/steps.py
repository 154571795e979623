# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Commands of the guest script that take more than a word.
"""

from __future__ import annotations

from drgn_zonedev.lab.scenarios.arithmetic import MIB, MemoryArea, block_number
from drgn_zonedev.lab.scenarios.scenario import GuestCommand

__all__ = ("block", "device_map", "device_pages", "hotplug", "namespace", "namespace_at")


def namespace(
    kind: str, memmap: str = "dev", *, region: int = 0, align: int = 2 * MIB
) -> GuestCommand:
    """Turn a region into one ``fsdax`` or ``devdax`` namespace; its memmap goes to dev or mem."""
    return ("namespace", f"region{region}", kind, memmap, str(align))


def namespace_at(
    memory: MemoryArea, kind: str, memmap: str = "dev", *, align: int = 2 * MIB
) -> GuestCommand:
    """Like :func:`namespace()`, for the region that some memory is."""
    return ("namespace_at", f"{memory.start:#x}", kind, memmap, str(align))


def hotplug(memory: MemoryArea) -> GuestCommand:
    """Have the host run the scenario's QMP commands, and wait for the last memory block of it."""
    return ("hotplug", str(block_number(memory.end - 1)))


def block(address: int, state: str) -> GuestCommand:
    """Set a memory block ``online``, ``online_movable`` or ``offline``."""
    return ("block", str(block_number(address)), state)


def device_map(kind: str, *areas: MemoryArea, shift: int = 0) -> GuestCommand:
    """
    Have the module ``zonedev_device`` map memory of a type: see its source.

    :param areas: Those that start at 0 go where the kernel finds room.
    :param shift: the pgmap's vmemmap_shift
    """
    ranges = (f"{area.size:#x}@{area.start:#x}" for area in areas)
    return ("device", "map", kind, str(shift), *ranges)


def device_pages(*commands: str) -> tuple[GuestCommand, ...]:
    """Have the module ``zonedev_device`` take, put or hold pages: see its source."""
    return tuple(("device", *command.split()) for command in commands)
