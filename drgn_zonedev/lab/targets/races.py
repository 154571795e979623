# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Walk the struct pages of a device that is bound and unbound all the time, and count bad touches.

::

    python -m drgn_zonedev.lab.targets.races 7.3-raced --processors 2 --seconds 180

The kernel fills struct pages with ones when it adds and removes them, so that ``zonedev_race`` in
the guest can tell that it touched one that is not initialised. It walks at several points of the
kernel's own way, by kprobes, and in threads that wait between the answer and the touch.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass

from drgn_zonedev.lab.host.errors import StepProgress
from drgn_zonedev.lab.kernels.fetch import fetch_kernel
from drgn_zonedev.lab.kernels.known import Kernel
from drgn_zonedev.lab.machine.boot import boot
from drgn_zonedev.lab.scenarios.arithmetic import MIB, PAGE, MemoryArea
from drgn_zonedev.lab.scenarios.scenario import Scenario
from drgn_zonedev.lab.scenarios.steps import namespace

__all__ = ("RACE_KERNELS", "Race", "Raced", "main", "race_scenario", "run_races")

RACE_KERNELS = ("7.3-raced", "7.3-raced-series", "7.3-raced-taint")
"""The kernels that tell, with two bits, with one, and without any."""

# As in fsdax-collision: the first half of it is in a section of RAM, whose struct pages stay.
_DEVICE = MemoryArea(0x24000000, 192 * MIB)
_BOOT_SECONDS = 120


@dataclass(frozen=True)
class Race:
    """What the walkers with one lookup met at one place."""

    where: str
    """A function of the kernel at whose entry they walked, or ``threads``."""
    times: int
    """How often the kernel was there."""
    lookup: str
    touched: int
    poisoned: int
    """Touches of struct pages that are not initialised."""
    unmapped: int
    """Touches of struct pages that do not exist any more."""
    example: int
    """The last PFN of these, 0 if there is none."""


@dataclass(frozen=True)
class Raced:
    """The result of a run."""

    kernel: str
    processors: int
    seconds: int
    rebound: int
    """How often the device was unbound and bound."""
    races: tuple[Race, ...]


def race_scenario(seconds: int, processors: int, usecs: int) -> Scenario:
    """Return a guest that binds and unbinds for some seconds of its own clock."""
    pfns = (f"{_DEVICE.start // PAGE:x}", f"{_DEVICE.end // PAGE:x}")
    return Scenario(
        name="races",
        summary="a device that is bound and unbound while its PFNs are walked",
        kernel_args=(f"memmap={_DEVICE.size // MIB}M!{_DEVICE.start:#x}", "loglevel=3"),
        modules=("nd_pmem", "nd_e820"),
        steps=(
            namespace("fsdax"),
            ("races", str(seconds), "nd_pmem", "pfn0.0", *pfns, str(usecs)),
        ),
        guest_modules=("zonedev_race",),
        processors=processors,
    )


def run_races(
    kernel: Kernel,
    seconds: int,
    *,
    processors: int = 1,
    usecs: int = 200,
    progress: StepProgress = None,
) -> Raced:
    """
    Walk while a device comes and goes.

    :param usecs: how long a walker in a thread waits between the answer and the touch
    """
    scenario = race_scenario(seconds, processors, usecs)
    timeout = seconds + _BOOT_SECONDS
    with boot(kernel, scenario, timeout=timeout, attempts=1, progress=progress) as guest:
        races = tuple(Race(**row) for row in guest.facts["races"])
        return Raced(kernel.name, processors, seconds, guest.facts["rebound"], races)


def main() -> None:
    """Walk on kernels of the cache while a device comes and goes, and print what was touched."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("kernels", metavar="KERNEL", nargs="*", default=RACE_KERNELS)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--processors", type=int, default=1)
    args = parser.parse_args()
    for name in args.kernels:
        raced = run_races(fetch_kernel(name), args.seconds, processors=args.processors)
        print(json.dumps(asdict(raced)), flush=True)


if __name__ == "__main__":
    main()
