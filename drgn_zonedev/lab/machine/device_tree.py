# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Device trees with persistent memory: what firmware would tell a machine of arm64.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from drgn_zonedev.lab.host.boards import BOARDS
from drgn_zonedev.lab.host.errors import LabError
from drgn_zonedev.lab.host.tools import find_tool, run_tool
from drgn_zonedev.lab.kernels.known import Kernel
from drgn_zonedev.lab.machine.qemu import machine_arguments
from drgn_zonedev.lab.scenarios import Scenario
from drgn_zonedev.lab.scenarios.arithmetic import MemoryArea

__all__ = ("make_device_tree",)

_SECONDS = 60


def make_device_tree(kernel: Kernel, scenario: Scenario, work: Path, memory_mib: int) -> Path:
    """
    Have QEMU write the device tree of a scenario's machine, and add its persistent memory.

    :param work: where to write it
    """
    tree = work / "machine.dtb"
    machine = machine_arguments(kernel, scenario, memory_mib)
    machine["-M"] += f",dumpdtb={tree}"
    command = [find_tool(BOARDS[kernel.architecture].qemu), "-nodefaults", "-display", "none"]
    command += [word for argument in machine.items() for word in argument]
    command += ["-device", "vmcoreinfo"]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS)
    except subprocess.SubprocessError as e:
        raise LabError(f"QEMU cannot write a device tree: {e}") from e
    _add_memory(tree, scenario.device_tree)
    return tree


def _add_memory(tree: Path, areas: Sequence[MemoryArea]) -> None:
    # A new node comes first, and regions are numbered in the order of nodes.
    for area in reversed(areas):
        node = f"/pmem@{area.start:x}"
        cells = [f"{half:x}" for n in (area.start, area.size) for half in divmod(n, 1 << 32)]
        run_tool("fdtput", "-c", str(tree), node)
        run_tool("fdtput", "-t", "s", str(tree), node, "compatible", "pmem-region")
        run_tool("fdtput", "-t", "x", str(tree), node, "reg", *cells)
