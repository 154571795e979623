# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Fetch a kernel, or take it from the cache.
"""

from __future__ import annotations

from drgn_zonedev.lab.host.errors import LabError, StepProgress
from drgn_zonedev.lab.kernels.build import built_kernel
from drgn_zonedev.lab.kernels.debian import install_kernel
from drgn_zonedev.lab.kernels.known import (
    ALL_KERNELS,
    BUILT_KERNELS,
    KERNELS,
    Kernel,
    kernel_dir,
    load_kernel,
)

__all__ = ("fetch_kernel",)


def fetch_kernel(name: str, *, refresh: bool = False, progress: StepProgress = None) -> Kernel:
    """
    Return the kernel called `name`, downloading it if it is not in the cache.

    :param refresh: ask the mirror again, and replace the cached kernel if there is a newer one.
    :raises LabError: if it is one of BUILT_KERNELS, and not built yet
    """
    if name in BUILT_KERNELS:
        return built_kernel(name)
    suite = ALL_KERNELS.get(name)
    if suite is None:
        raise LabError(f"unknown kernel {name!r}: choose one of {', '.join(KERNELS)}")
    cached = load_kernel(name, kernel_dir(name))
    if cached is not None and not refresh:
        return cached
    return install_kernel(name, suite, progress)
