# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A guest whose memory keeps changing, and the results of checking it.

::

    python -m drgn_zonedev.lab.targets.churn 6.1 --seconds 600
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drgn_zonedev.lab.host.errors import StepProgress
from drgn_zonedev.lab.kernels.fetch import fetch_kernel
from drgn_zonedev.lab.kernels.known import Kernel
from drgn_zonedev.lab.machine.boot import Guest
from drgn_zonedev.lab.scenarios.arithmetic import MIB, MemoryArea, block_number
from drgn_zonedev.lab.scenarios.hardware import DEVICE_MEMORY, plug_dimm
from drgn_zonedev.lab.scenarios.scenario import Scenario
from drgn_zonedev.lab.scenarios.steps import hotplug, namespace
from drgn_zonedev.lab.targets.inside import boot_observed
from drgn_zonedev.lab.targets.labels import AREA_BYTES, write_labels_command
from drgn_zonedev.lab.targets.watching import last_tally, observer_words, watch_outside

__all__ = ("CHURN", "Churned", "boot_churning", "main", "run_churn")

# The labels take the end of it.
_LABELLED = MemoryArea(DEVICE_MEMORY, 256 * MIB)
_NVDIMM = f"nvdimm,id=nvdimm,memdev=labelled,addr={_LABELLED.start:#x}"
_DIMM = MemoryArea(DEVICE_MEMORY + 512 * MIB, 256 * MIB)
_SIZES = (str(64 * MIB), str(160 * MIB))

CHURN = Scenario(
    name="churn",
    summary="namespaces that are bound, unbound and resized, blocks set online and offline",
    # Boot RAM declared persistent as in fsdax-collision; the console is for what is counted.
    kernel_args=("memmap=192M!0x24000000", "loglevel=3"),
    devices=(
        *("-object", f"memory-backend-ram,id=labelled,size={_LABELLED.size // MIB}M"),
        *("-device", f"{_NVDIMM},label-size={AREA_BYTES >> 10}K"),
    ),
    modules=("nfit", "nd_pmem", "nd_e820"),
    steps=(
        hotplug(_DIMM),
        ("labels", "nmem0"),
        ("labelled", "region0", _SIZES[0]),
        namespace("fsdax", region=0),
        namespace("fsdax", region=1),
        ("churn", "rebind", "nd_pmem", "pfn1.0"),
        ("churn", "resize", "region0", *_SIZES),
        ("churn", "flip", str(block_number(_DIMM.start))),
        ("churn", "flip", str(block_number(_DIMM.start) + 1)),
    ),
    qmp=plug_dimm(_DIMM),
    programs=("nd_labels",),
)


@dataclass(frozen=True)
class Churned:
    """The results of the checks (see ``watch.Tally``), and how often the guest did each step."""

    outside: dict[str, Any]
    inside: dict[str, Any]
    times: dict[str, int]


@contextmanager
def boot_churning(kernel: Kernel, seconds: float, progress: StepProgress = None) -> Iterator[Guest]:
    """Boot a guest that churns, and checks itself for some time from now on."""
    with tempfile.NamedTemporaryFile() as labels:
        labels.write(write_labels_command())
        labels.flush()
        scenario = dataclasses.replace(CHURN, files={"labels": Path(labels.name)})
        with boot_observed(kernel, scenario, observer_words(seconds), progress) as guest:
            yield guest


def run_churn(kernel: Kernel, seconds: float, progress: StepProgress = None) -> Churned:
    """Check a churning guest from the outside and inside at the same time."""
    with boot_churning(kernel, seconds, progress) as guest:
        outside = watch_outside(guest, seconds)
        inside = last_tally(guest, seconds)
        return Churned(outside, inside, _times(guest.log.read_text("latin-1")))


def _times(console: str) -> dict[str, int]:
    times: dict[str, int] = {}
    for what, count in re.findall(r"churn: (\w+) (\d+)", console):
        times[what] = max(times.get(what, 0), int(count))
    return times


def main() -> None:
    """Churn a kernel of the cache, and print the results of the checks."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("kernel")
    parser.add_argument("--seconds", type=float, default=600)
    args = parser.parse_args()
    found = run_churn(fetch_kernel(args.kernel), args.seconds)
    print(json.dumps({"outside": found.outside, "inside": found.inside, "times": found.times}))


if __name__ == "__main__":
    main()
