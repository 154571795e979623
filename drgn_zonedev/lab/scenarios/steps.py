# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Commands of the guest script that take more than a word.
"""

from __future__ import annotations

from drgn_zonedev.lab.scenarios.arithmetic import MIB, MemoryArea, block_number
from drgn_zonedev.lab.scenarios.scenario import GuestCommand

__all__ = ("block", "hotplug", "namespace", "namespace_at")


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
