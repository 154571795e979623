# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Count what lookups of a PFN execute in kernels that have pfn_zone_device() or a variant of it.

::

    python -m drgn_zonedev.lab.targets.executed 7.3-proposal

The guest's module ``zonedev_cost`` calls each lookup for every PFN of some ranges, and reads a
clock that counts instructions. A plugin of QEMU counts the same calls on its own: instructions,
loads, stores, and the cache lines that these are in. Instructions that the two do not count alike
are an error. Nothing is timed: the machine is emulated.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from drgn_zonedev.lab.host.errors import LabError, StepProgress
from drgn_zonedev.lab.host.tools import find_tool, run_tool
from drgn_zonedev.lab.kernels.fetch import fetch_kernel
from drgn_zonedev.lab.kernels.known import Kernel
from drgn_zonedev.lab.machine.boot import boot
from drgn_zonedev.lab.scenarios.arithmetic import MIB, PAGE, MemoryArea
from drgn_zonedev.lab.scenarios.hardware import DEVICE_MEMORY, nvdimm
from drgn_zonedev.lab.scenarios.scenario import Scenario
from drgn_zonedev.lab.scenarios.steps import namespace_at

__all__ = (
    "CONTROLS",
    "COST",
    "COUNTED_KERNELS",
    "Cost",
    "costs_of",
    "count_costs",
    "main",
    "plugin_records",
)

COUNTED_KERNELS = ("7.3-proposal", "7.3-series", "7.3-section-flag", "7.3-taint")
"""The kernels that have a variant each, or two."""

CONTROLS = {
    "nops_1": (1, 0, 0, 0),
    "nops_100": (100, 0, 0, 0),
    "accesses": (4, 3, 1, 3),
}
"""Instructions, loads, stores and lines of sequences that are known: see ``zonedev_cost.c``."""

_SHARING = MemoryArea(0x24000000, 192 * MIB)
_ALONE = MemoryArea(DEVICE_MEMORY, 320 * MIB)

# Name, first PFN, and the end. A section is 0x8000 PFNs.
_RANGES = (
    ("ram", 0x10000, 0x18000),
    ("shared-ram", 0x20000, 0x24000),
    ("shared-altmap", 0x24000, 0x24400),
    ("shared-device", 0x24400, 0x28000),
    ("device", 0x108000, 0x110000),
    ("partial", _ALONE.end // PAGE, _ALONE.end // PAGE + 0x4000),
    ("absent", 0x118000, 0x120000),
)

COST = Scenario(
    name="cost",
    summary="fsdax that shares a section with RAM, and devdax of two sections and a half",
    kernel_args=(f"memmap={_SHARING.size // MIB}M!{_SHARING.start:#x}",),
    devices=nvdimm(1, _ALONE),
    modules=("nfit", "nd_pmem", "nd_e820", "device_dax", "dax_pmem"),
    steps=(
        namespace_at(_SHARING, "fsdax"),
        namespace_at(_ALONE, "devdax"),
        ("cost", *(word for name, *pfns in _RANGES for word in (name, *(f"{p:x}" for p in pfns)))),
    ),
    guest_modules=("zonedev_cost",),
    icount=True,
)

_SECONDS = 280
_PLUGIN = Path(__file__).parents[1] / "machine" / "count_accesses.c"
# struct record of the plugin.
_RECORD = np.dtype(
    [
        (name, "<u4")
        for name in ("instructions", "loads", "stores", "lines", "stack_loads", "stack_stores")
    ]
)
_BASELINE = "nothing"


@dataclass(frozen=True)
class Cost:
    """
    What a lookup executes for the PFNs of a range, besides its call and its return.

    Each column is a pair: the least and the most of any PFN. ``lines`` of 64 bytes are those that
    loads and stores are in; the stack is apart.
    """

    lookup: str
    range: str
    pfns: int
    yes: int
    """For how many of them the answer is yes."""
    instructions: tuple[int, int]
    loads: tuple[int, int]
    stores: tuple[int, int]
    lines: tuple[int, int]
    stack: tuple[int, int]
    """Loads and stores of the stack."""


def plugin_records(path: Path) -> np.ndarray:
    """Return the plugin's records, a row per call."""
    return np.fromfile(path, _RECORD)


def costs_of(rows: Sequence[Mapping[str, object]], records: np.ndarray) -> Iterator[Cost]:
    """
    Put together what the guest's module and the plugin counted.

    :param rows: what /proc/zonedev_cost said
    :raises LabError: if they do not agree
    """
    ends = np.cumsum([int(str(row["pfns"])) for row in rows])
    if not len(ends) or ends[-1] != len(records):
        raise LabError(f"the plugin counted {len(records)} calls, the guest {ends[-1:]}")
    # Between the marks, there are also the two readings of the clock.
    around = records[: ends[0]][0]
    clock = int(str(rows[0]["least"]))
    for row, part in zip(rows, np.split(records, ends[:-1])):
        by_clock = [int(str(row[name])) - clock for name in ("least", "most")]
        cost = _cost(row, part, around)
        if tuple(by_clock) != cost.instructions:
            raise LabError(
                f"{row['lookup']} of {row['range']}: {by_clock} instructions by the clock, "
                f"{list(cost.instructions)} by the plugin"
            )
        if row["lookup"] != _BASELINE:
            yield cost


def _cost(row: Mapping[str, object], part: np.ndarray, around: np.void) -> Cost:
    def spread(*names: str) -> tuple[int, int]:
        column = sum(part[name].astype(np.int64) - int(around[name]) for name in names)
        return int(np.min(column)), int(np.max(column))

    return Cost(
        lookup=str(row["lookup"]),
        range=str(row["range"]),
        pfns=int(str(row["pfns"])),
        yes=int(str(row["yes"])),
        instructions=spread("instructions"),
        loads=spread("loads"),
        stores=spread("stores"),
        lines=spread("lines"),
        stack=spread("stack_loads", "stack_stores"),
    )


def _build_plugin(directory: Path) -> Path:
    plugin = directory / "count_accesses.so"
    flags = ("-shared", "-fPIC", "-fvisibility=hidden", "-O2")
    run_tool("gcc", *flags, "-o", str(plugin), str(_PLUGIN))
    return plugin


def count_costs(kernel: Kernel, progress: StepProgress = None) -> list[Cost]:
    """Boot a kernel, and count what its lookups execute."""
    find_tool("gcc")
    with tempfile.TemporaryDirectory(prefix="zonedev-cost-") as directory:
        records = Path(directory) / "records"
        plugin = f"{_build_plugin(Path(directory))},records={records}"
        scenario = dataclasses.replace(COST, devices=(*COST.devices, "-plugin", plugin))
        with boot(kernel, scenario, timeout=_SECONDS, attempts=1, progress=progress) as guest:
            rows = guest.facts["cost"]
        # It is written out when QEMU ends.
        return list(costs_of(rows, plugin_records(records)))


def main() -> None:
    """Count what the lookups of kernels of the cache execute, and print it as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("kernels", metavar="KERNEL", nargs="*", default=COUNTED_KERNELS)
    args = parser.parse_args()
    found = {name: count_costs(fetch_kernel(name)) for name in args.kernels}
    print(json.dumps({name: [asdict(c) for c in costs] for name, costs in found.items()}, indent=1))


if __name__ == "__main__":
    main()
