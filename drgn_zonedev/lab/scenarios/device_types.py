# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Scenarios of device memory that file systems do not use: of GPUs, of PCI devices, of drivers with
several ranges.
"""

from __future__ import annotations

from drgn_zonedev.lab.scenarios.arithmetic import MIB, PAGE, Expected, MemoryArea, expect
from drgn_zonedev.lab.scenarios.arithmetic import namespace_ranges as ranges
from drgn_zonedev.lab.scenarios.arithmetic import section_tail as tail
from drgn_zonedev.lab.scenarios.hardware import (
    CONTROLLER_MEMORY,
    DEVICE_MEMORY,
    PHYSICAL_END,
    numa_ram,
    nvdimm,
    nvme_with_memory,
)
from drgn_zonedev.lab.scenarios.scenario import GuestCommand, Scenario
from drgn_zonedev.lab.scenarios.steps import device_map, device_pages, namespace

__all__ = ("DEVICE_TYPES", "HANDED_OUT", "NOT_P2PDMA", "NOT_PRIVATE", "migrated_pages")

_DRIVER = ("zonedev_device",)
_NFIT = ("nfit", "nd_pmem", "device_dax", "dax_pmem")

_BEFORE_7 = ("5.10", "6.1", "6.1-amd64", "6.12")
NOT_PRIVATE = "Debian builds it without CONFIG_DEVICE_PRIVATE"
NOT_P2PDMA = "Debian builds it without CONFIG_PCI_P2PDMA"
_NO_FSDEV = "devdax devices can be FS_DAX, by the driver fsdev_dax, only since v7.0"
_NO_SHIFT = "devices have had compound pages only since v5.17"
_NO_COHERENT = "MEMORY_DEVICE_COHERENT exists only since v6.0"

_PRIVATE = MemoryArea(PHYSICAL_END - 256 * MIB, 256 * MIB)
_COHERENT = MemoryArea(DEVICE_MEMORY, 192 * MIB)
_WHOLE = MemoryArea(DEVICE_MEMORY, 256 * MIB)
# Between them, there is nothing.
_FIRST = MemoryArea(DEVICE_MEMORY, 192 * MIB)
_SECOND = MemoryArea(DEVICE_MEMORY + 512 * MIB, 320 * MIB)
_TWO = nvdimm(1, _FIRST) + nvdimm(2, _SECOND)

# Handed out: three single pages of which one is given back, folios of 64 KiB and of 2 MiB that are
# in use, others that are free again, and single pages where a folio was.
HANDED_OUT = device_pages(
    "take 0 0",
    "take 1 0",
    "take 2 0",
    "put 1 0",
    "take 0x10 4",
    "take 0x200 9",
    "take 0x400 9",
    "put 0x400 9",
    "take 0x600 4",
    "put 0x600 4",
    "take 0x600 0",
    "take 0x605 0",
)


def migrated_pages(page: int) -> tuple[GuestCommand, ...]:
    """Have a process map private memory: 16 pages that were never handed out."""
    return ("anonymous", str(16 * page)), ("migrate", "0x7fa", "16")


def _device(area: MemoryArea, case: str = "device") -> tuple[Expected, ...]:
    return expect(area.start, area.end, case) + tail(area.end, "partial")


DEVICE_TYPES: tuple[Scenario, ...] = (
    Scenario(
        name="p2pdma",
        summary="the memory of an NVMe controller, for peer-to-peer DMA; a process maps half",
        devices=nvme_with_memory(CONTROLLER_MEMORY),
        modules=("nvme",),
        steps=(("map_p2pmem", str(CONTROLLER_MEMORY.size // 2)),),
        programs=("busy",),
        expected=_device(CONTROLLER_MEMORY),
        proofs=("p2pdma_in_use",),
        needs=("PCI_P2PDMA",),
        impossible=dict.fromkeys(_BEFORE_7, NOT_P2PDMA),
    ),
    Scenario(
        name="device-private",
        summary="memory that no CPU can address, in pages and folios, used, mapped and freed",
        guest_modules=_DRIVER,
        steps=(
            device_map("private", MemoryArea(0, _PRIVATE.size)),
            *HANDED_OUT,
            *migrated_pages(PAGE),
        ),
        programs=("busy",),
        expected=_device(_PRIVATE),
        proofs=("handed_out",),
        needs=("DEVICE_PRIVATE",),
        impossible=dict.fromkeys(_BEFORE_7, NOT_PRIVATE),
    ),
    Scenario(
        name="device-coherent",
        summary="memory of a GPU that CPUs can address, in single pages and folios, used and freed",
        devices=nvdimm(1, _COHERENT),
        guest_modules=_DRIVER,
        steps=(device_map("coherent", _COHERENT), *HANDED_OUT),
        expected=_device(_COHERENT),
        proofs=("handed_out",),
        declares=("MEMORY_DEVICE_COHERENT",),
        impossible={"5.10": _NO_COHERENT},
    ),
    Scenario(
        name="two-ranges",
        summary="a pgmap of two ranges, and nothing between them",
        devices=_TWO,
        guest_modules=_DRIVER,
        steps=(device_map("generic", _FIRST, _SECOND),),
        expected=_device(_FIRST) + _device(_SECOND),
        proofs=("one_pgmap",),
    ),
    Scenario(
        name="two-ranges-2m",
        summary="a pgmap of two ranges, in compound pages of 2 MiB",
        devices=_TWO,
        guest_modules=_DRIVER,
        steps=(device_map("generic", _FIRST, _SECOND, shift=9),),
        expected=_device(_FIRST) + _device(_SECOND),
        proofs=("one_pgmap", "compound_2m"),
        declares=("struct dev_pagemap.vmemmap_shift",),
        impossible={"5.10": _NO_SHIFT},
    ),
    Scenario(
        name="second-in-flight",
        summary="two-ranges, frozen before the struct pages of the second range are initialised",
        devices=_TWO,
        guest_modules=_DRIVER,
        steps=(device_map("generic", _FIRST, _SECOND),),
        breakpoint="memmap_init_zone_device",
        breakpoint_argument=_SECOND.start // PAGE,
        expected=_device(_FIRST) + _device(_SECOND, "initializing"),
        proofs=("one_pgmap", "nothing_done"),
    ),
    Scenario(
        name="in-use-teardown",
        summary="a device unbound, which waits for its memory: two of the pages are in use",
        devices=nvdimm(1, _COHERENT),
        guest_modules=_DRIVER,
        steps=(
            device_map("generic", _COHERENT),
            *device_pages("hold 0", "hold 0x1234"),
            ("unmapping",),
        ),
        expected=_device(_COHERENT, "teardown"),
        was=_device(_COHERENT)[:1],
        proofs=("pages_held",),
    ),
    Scenario(
        name="numa-device",
        summary="devdax on an NVDIMM of the second of two nodes",
        devices=numa_ram(512, 512) + nvdimm(1, _WHOLE, node=1),
        modules=_NFIT,
        steps=(namespace("devdax"),),
        expected=ranges(_WHOLE),
        proofs=("device_on_node_1",),
    ),
    Scenario(
        name="fsdev",
        summary="devdax that was given to the driver fsdev_dax: FS_DAX without any file system",
        devices=nvdimm(1, _WHOLE),
        modules=(*_NFIT, "fsdev_dax"),
        steps=(
            namespace("devdax", "mem"),
            ("dax_device", "dax0.0", "fsdev_dax"),
        ),
        expected=ranges(_WHOLE, "mem"),
        proofs=("fs_dax",),
        needs=("DEV_DAX_FSDEV",),
        impossible=dict.fromkeys(_BEFORE_7, _NO_FSDEV),
    ),
    Scenario(
        name="fsdev-back",
        summary="fsdev that was given back to the driver device_dax",
        devices=nvdimm(1, _WHOLE),
        modules=(*_NFIT, "fsdev_dax"),
        steps=(
            namespace("devdax", "mem"),
            ("dax_device", "dax0.0", "fsdev_dax"),
            ("dax_device", "dax0.0", "device_dax"),
        ),
        expected=ranges(_WHOLE, "mem"),
        proofs=("compound_2m",),
        needs=("DEV_DAX_FSDEV",),
        impossible=dict.fromkeys(_BEFORE_7, _NO_FSDEV),
    ),
)
