# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A guest under load, with damaged struct pages, and the results of checking it.

::

    python -m drgn_zonedev.lab.targets.load 6.1 --seconds 600 --how paused
"""

from __future__ import annotations

import argparse
import dataclasses
import enum
import json
from dataclasses import dataclass
from typing import Any

from drgn_zonedev.lab.host.errors import StepProgress
from drgn_zonedev.lab.kernels.fetch import fetch_kernel
from drgn_zonedev.lab.kernels.known import Kernel
from drgn_zonedev.lab.machine.boot import Guest, boot
from drgn_zonedev.lab.machine.gdbstub import write_memory
from drgn_zonedev.lab.scenarios import SCENARIOS, Scenario
from drgn_zonedev.lab.scenarios.arithmetic import STRUCT_PAGE, struct_page
from drgn_zonedev.lab.targets.inside import boot_observed
from drgn_zonedev.lab.targets.watching import last_tally, observer_words, watch_outside

__all__ = ("DEFECTS", "LOAD", "Defect", "How", "inject", "main", "run_load")

# A gdb server writes through the page tables that are in use, which may be a process's.
_ARGS = ("nopti",)
_INSIDE_MIB = 2048
_BOOT_SECONDS = 180

LOAD: Scenario = dataclasses.replace(
    SCENARIOS["kernel-load"],
    debugged=True,
    kernel_args=(*SCENARIOS["kernel-load"].kernel_args, *_ARGS),
)


class How(enum.Enum):
    """From where the guest is checked."""

    LIVE = "live"
    """Over QMP, while it runs."""
    PAUSED = "paused"
    """Over QMP; it is stopped during each check."""
    INSIDE = "inside"
    """By itself."""


@dataclass(frozen=True)
class Defect:
    """What is written to the struct page of a PFN, and the finding that must come of it."""

    pfn: int
    offset: int
    data: bytes
    slug: str


# In the hole after the last RAM of 1 GiB: nothing but a defect changes there.
DEFECTS = (
    Defect(0x3FFF0, 0, b"\xff" * STRUCT_PAGE, "ram-page-uninitialized"),
    Defect(0x3FFF4, 0, b"\xfd" * STRUCT_PAGE, "ram-page-uninitialized"),
    Defect(0x3FFF8, 52, (-7).to_bytes(4, "little", signed=True), "ram-page-refcount"),
)


def inject(guest: Guest, defects: tuple[Defect, ...] = DEFECTS) -> None:
    """Damage struct pages of a guest that runs, and was booted into :data:`LOAD`."""
    socket = guest.monitor_socket.with_name("gdb.sock")
    for defect in defects:
        address = struct_page(defect.pfn) + defect.offset
        write_memory(socket, address, defect.data, lambda: None)


def run_load(
    kernel: Kernel, seconds: float, how: How = How.LIVE, progress: StepProgress = None
) -> dict[str, Any]:
    """
    Check a guest under load, and return the tally (see ``watch.Tally``).

    If it is checked from the outside, struct pages are damaged before the first check.
    """
    if how is How.INSIDE:
        larger = dataclasses.replace(LOAD, memory_mib=_INSIDE_MIB)
        with boot_observed(kernel, larger, observer_words(seconds), progress) as guest:
            return last_tally(guest, seconds)
    with boot(kernel, LOAD, timeout=_BOOT_SECONDS, progress=progress) as guest:
        inject(guest)
        return watch_outside(guest, seconds, pause=how is How.PAUSED)


def main() -> None:
    """Put a kernel of the cache under load, and print the results of the checks."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("kernel")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--how", type=How, default=How.LIVE, help="live, paused or inside")
    args = parser.parse_args()
    print(json.dumps(run_load(fetch_kernel(args.kernel), args.seconds, args.how)))


if __name__ == "__main__":
    main()
