# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The lab: boots real kernels in QEMU and makes them set up ZONE_DEVICE memory.

::

    kernel = fetch_kernel("6.1", progress=print)
    with boot(kernel, SCENARIOS["fsdax-collision"]) as guest:
        prog.set_qemu_qmp(guest.qmp_socket)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from drgn_zonedev.lab.host.errors import LabError

if TYPE_CHECKING:
    from drgn_zonedev.lab.host.tools import DEBIAN_PACKAGES, missing_tools
    from drgn_zonedev.lab.kernels.fetch import fetch_kernel
    from drgn_zonedev.lab.kernels.known import (
        ALL_KERNELS,
        BUILT_KERNELS,
        KERNELS,
        PLAIN_KERNELS,
        UNFIXED_KERNELS,
        Kernel,
    )
    from drgn_zonedev.lab.machine.boot import Guest, boot
    from drgn_zonedev.lab.scenarios import SCENARIOS, Scenario

# Checking a dump does not need the lab: import each name when it is first used.
_HOME = {
    "ALL_KERNELS": "kernels.known",
    "BUILT_KERNELS": "kernels.known",
    "DEBIAN_PACKAGES": "host.tools",
    "KERNELS": "kernels.known",
    "PLAIN_KERNELS": "kernels.known",
    "SCENARIOS": "scenarios",
    "UNFIXED_KERNELS": "kernels.known",
    "Guest": "machine.boot",
    "Kernel": "kernels.known",
    "Scenario": "scenarios",
    "boot": "machine.boot",
    "fetch_kernel": "kernels.fetch",
    "missing_tools": "host.tools",
}

__all__ = (
    "ALL_KERNELS",
    "BUILT_KERNELS",
    "DEBIAN_PACKAGES",
    "KERNELS",
    "PLAIN_KERNELS",
    "SCENARIOS",
    "UNFIXED_KERNELS",
    "Guest",
    "Kernel",
    "LabError",
    "Scenario",
    "boot",
    "fetch_kernel",
    "missing_tools",
)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
