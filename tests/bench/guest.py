# SPDX-License-Identifier: LGPL-2.1-or-later
"""Dumps of a real kernel that has more device memory than this machine has RAM."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from support.elfheader import without_sections

from drgn_zonedev.lab import SCENARIOS, boot, fetch_kernel
from drgn_zonedev.lab.host.tools import find_tool
from drgn_zonedev.lab.scenarios.arithmetic import GIB, MIB, MemoryArea
from drgn_zonedev.lab.scenarios.hardware import DEVICE_MEMORY
from drgn_zonedev.lab.scenarios.scenario import Scenario
from drgn_zonedev.lab.scenarios.steps import namespace_at

__all__ = ("Dumps", "Image", "affordable_gib", "dumps_in")

KERNEL = "6.1"
_STRUCT_PAGE, _PAGE = 64, 4096
_COMPOUND_GIB = 4
_MEMINFO = Path("/proc/meminfo")
# What a dump may take of the disk, and its guest of RAM.
_SHARE_OF_ROOM = 0.7
# QEMU's q35 keeps all RAM below 4 GiB if it is less than 2.75 GiB, and 2 GiB of it
# otherwise; device memory begins behind the rest.
_LOW_RAM_MIB, _LOW_PART_MIB = 2816, 2048


@dataclass(frozen=True)
class Image:
    """A dump and the symbols for it."""

    core: Path
    vmlinux: Path

    @property
    def options(self) -> list[str]:
        """For drgn and zonedev alike."""
        return ["-c", str(self.core), "-s", str(self.vmlinux)]


@dataclass(frozen=True)
class Dumps:
    """
    Real ones, which are made when they are first asked for.

    ``large`` and ``small`` are ELF dumps: ``large`` has device memory with pages of 4
    KiB, 2 MiB and 1 GiB; ``small`` is a guest of 1 GiB with 192 MiB of it. ``kdump``
    is one like ``large`` in makedumpfile's compressed format, but larger, and
    ``small_kdump`` is ``small`` in that. ``ram`` is a guest of 4 GiB whose RAM is in use.
    """

    large: Callable[[], Image]
    small: Callable[[], Image]
    kdump: Callable[[], Image]
    small_kdump: Callable[[], Image]
    ram: Callable[[], Image]


_BUSY_RAM = Scenario(
    name="bench-ram",
    summary="4 GiB of RAM with files, huge pages and many processes in it",
    memory_mib=4096,
    kernel_args=("transparent_hugepage=always", "hugepages=64"),
    steps=(
        ("mkdir", "-p", "/ram"),
        ("mount", "-t", "tmpfs", "none", "/ram"),
        ("sh", "-c", "for i in 1 2 3 4; do dd if=/dev/zero of=/ram/$i bs=64k count=2000; done"),
        ("sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 600 & done; rm /ram/2"),
    ),
)


def dumps_in(directory: Path, base_gib: int, kdump_gib: int) -> Dumps:
    """
    Boot guests when their dumps are asked for; what is there stays.

    :param base_gib: Device memory in 4 KiB pages: 16 MiB of memmap for each GiB.
    :param kdump_gib: The same of the compressed dump.
    """
    large, kdump, small = _large(base_gib), _large(kdump_gib), SCENARIOS["fsdax-mem"]
    return Dumps(
        large=lambda: _dump(large, directory),
        small=lambda: _dump(small, directory),
        kdump=lambda: _compressed(kdump, directory, keep=kdump == large),
        small_kdump=lambda: _compressed(small, directory, keep=True),
        ram=lambda: _dump(_BUSY_RAM, directory),
    )


def affordable_gib(directory: Path, wanted: int, least: int) -> int:
    """Half as much device memory as is wanted, and so on, until disk and RAM hold its memmap."""
    room = min(_available_memory(), shutil.disk_usage(directory).free)
    while wanted > least and _memory_mib(wanted) * MIB > room * _SHARE_OF_ROOM:
        wanted = max(wanted // 2, least)
    return wanted


def _available_memory() -> int:
    found = re.search(r"^MemAvailable:\s*(\d+) kB$", _MEMINFO.read_text(), re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def _memory_mib(base_gib: int) -> int:
    return 1024 + (base_gib + 2 * _COMPOUND_GIB) * GIB // _PAGE * _STRUCT_PAGE // MIB


def _large(base_gib: int) -> Scenario:
    ram = _memory_mib(base_gib)
    start = max(DEVICE_MEMORY, -(-_ram_end(ram) // GIB) * GIB)
    base = MemoryArea(start, base_gib * GIB)
    pages_2m = MemoryArea(base.end, _COMPOUND_GIB * GIB)
    pages_1g = MemoryArea(pages_2m.end, _COMPOUND_GIB * GIB)
    return Scenario(
        name=f"bench-{base_gib}g",
        summary="device memory in pages of 4 KiB, 2 MiB and 1 GiB, memmap in RAM",
        devices=_nvdimm(1, base) + _nvdimm(2, pages_2m) + _nvdimm(3, pages_1g),
        modules=("nfit", "nd_pmem", "device_dax", "dax_pmem"),
        steps=(
            namespace_at(base, "fsdax", "mem"),
            namespace_at(pages_2m, "devdax", "mem"),
            namespace_at(pages_1g, "devdax", "mem", align=GIB),
        ),
        memory_mib=ram,
        max_memory_gib=base_gib + 3 * _COMPOUND_GIB + 8 + ram // 1024,
    )


def _ram_end(mib: int) -> int:
    if mib < _LOW_RAM_MIB:
        return mib * MIB
    return 4 * GIB + (mib - _LOW_PART_MIB) * MIB


def _nvdimm(number: int, memory: MemoryArea) -> tuple[str, ...]:
    # Nobody touches its contents, so that it need not fit into this machine.
    size = f"size={memory.size // MIB}M"
    return (
        *("-object", f"memory-backend-ram,id=m{number},{size},reserve=off"),
        *("-device", f"nvdimm,id=n{number},memdev=m{number},addr={memory.start:#x}"),
    )


def _dump(scenario: Scenario, directory: Path) -> Image:
    kernel = fetch_kernel(KERNEL, progress=_say)
    core = directory / f"{scenario.name}.elf"
    if not core.exists():
        _say(f"booting {scenario.name}")
        with boot(kernel, scenario, timeout=300, progress=_say) as guest:
            # Only RAM, as a kdump has it: what is on the devices is never read.
            whole = {"begin": 0, "length": _ram_end(scenario.memory_mib)}
            guest.qmp("dump-guest-memory", 600, paging=False, protocol=f"file:{core}", **whole)
        without_sections(core)
    return Image(core, kernel.vmlinux)


def _compressed(scenario: Scenario, directory: Path, keep: bool) -> Image:
    kdump = directory / f"{scenario.name}.kdump"
    if kdump.exists():
        return Image(kdump, fetch_kernel(KERNEL, progress=_say).vmlinux)
    image = _dump(scenario, directory)
    _say(f"compressing {image.core.name}")
    command = [find_tool("makedumpfile"), "-c", "-d", "1", str(image.core), str(kdump)]
    subprocess.run(command, check=True, capture_output=True)
    if not keep:
        image.core.unlink()
    return Image(kdump, image.vmlinux)


def _say(message: str) -> None:
    print(f"bench: {message}", file=sys.stderr, flush=True)
