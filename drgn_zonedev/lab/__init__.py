# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lab: boots real kernels in QEMU and makes them set up ZONE_DEVICE memory.

::

    kernel = fetch_kernel("6.1", progress=print)
    with boot(kernel, SCENARIOS["fsdax-collision"]) as guest:
        prog.set_qemu_qmp(guest.qmp_socket)
"""

from __future__ import annotations

from .errors import LabError
from .guest import Guest, boot
from .kernels import ALL_KERNELS, KERNELS, UNFIXED_KERNELS, Kernel, fetch_kernel
from .scenarios import SCENARIOS, Scenario
from .tools import DEBIAN_PACKAGES, missing_tools

__all__ = [
    "ALL_KERNELS",
    "DEBIAN_PACKAGES",
    "KERNELS",
    "SCENARIOS",
    "UNFIXED_KERNELS",
    "Guest",
    "Kernel",
    "LabError",
    "Scenario",
    "boot",
    "fetch_kernel",
    "missing_tools",
]
