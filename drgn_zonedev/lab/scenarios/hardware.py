# SPDX-License-Identifier: LGPL-2.1-or-later

"""
QEMU arguments for memory that is not boot RAM.
"""

from __future__ import annotations

from drgn_zonedev.lab.scenarios.arithmetic import GIB, MIB, MemoryArea
from drgn_zonedev.lab.scenarios.scenario import QmpCommand
from drgn_zonedev.util.alignment import align_up

__all__ = (
    "CONTROLLER_MEMORY",
    "CXL_MACHINE",
    "CXL_WINDOW",
    "DEVICE_MEMORY",
    "PHYSICAL_END",
    "cxl_memory",
    "numa",
    "numa_ram",
    "nvdimm",
    "nvme_with_memory",
    "plug_dimm",
    "resize_virtio_mem",
    "slow_disk",
    "virtio_mem",
    "virtio_pmem",
)

DEVICE_MEMORY = 4 * GIB
"""Where QEMU's memory slots begin in a guest that has less than 3 GiB of RAM."""


def nvdimm(number: int, memory: MemoryArea, *, node: int = 0) -> tuple[str, ...]:
    """Return an NVDIMM without labels, backed by the host's RAM."""
    backend = f"nvdimm{number}-memory"
    device = f"nvdimm,id=nvdimm{number},memdev={backend},addr={memory.start:#x}"
    return (
        *("-object", f"memory-backend-ram,id={backend},size={memory.size // MIB}M"),
        *("-device", f"{device},node={node}" if node else device),
    )


def virtio_pmem(memory: MemoryArea) -> tuple[str, ...]:
    """Return a virtio-pmem device. Flushing it needs a file; an anonymous one will do."""
    size = f"size={memory.size // MIB}M"
    return (
        *("-object", f"memory-backend-memfd,id=pmem-memory,{size},share=on"),
        *("-device", f"virtio-pmem-pci,memdev=pmem-memory,memaddr={memory.start:#x}"),
    )


def slow_disk() -> tuple[str, ...]:
    """Return a virtio disk of 64 MiB that takes one write at once, and then a byte a second."""
    drive = "if=none,id=slow,driver=null-co,size=64M,read-zeroes=on,throttling.bps-write=1"
    return ("-drive", drive, "-device", "virtio-blk-pci,drive=slow")


CXL_WINDOW = align_up(DEVICE_MEMORY + 15 * GIB + 4 * GIB + MIB, 256 * MIB)
"""Where a guest of 1 GiB has CXL memory: after the memory slots, for which QEMU sets aside what is
between RAM and ``maxmem`` and 1 GiB for each slot, and the registers of the host bridges."""

CXL_MACHINE = "q35,nvdimm=on,cxl=on,cxl-fmw.0.targets.0=cxl.1,cxl-fmw.0.size=4G"


def cxl_memory(size: int) -> tuple[str, ...]:
    """Return a CXL type-3 device with an empty label area, on a host bridge of its own."""
    backend = "memory-backend-ram,share=on"
    return (
        *("-object", f"{backend},id=cxl-memory,size={size // MIB}M"),
        *("-object", f"{backend},id=cxl-labels,size=1M"),
        *("-device", "pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl.1"),
        *("-device", "cxl-rp,port=0,bus=cxl.1,id=cxl-port,chassis=0,slot=2"),
        *("-device", "cxl-type3,bus=cxl-port,memdev=cxl-memory,lsa=cxl-labels,id=cxl-device,sn=1"),
    )


CONTROLLER_MEMORY = MemoryArea(0xF8000000, 64 * MIB)
"""Where the firmware of QEMU 7.2 puts the memory of :func:`nvme_with_memory()`."""

PHYSICAL_END = (1 << 40) - 12 * GIB
"""Emulated processors have 40 physical address bits, and are AMD's: what is up there is theirs."""


def nvme_with_memory(memory: MemoryArea) -> tuple[str, ...]:
    """Return an NVMe controller, without a disk worth the name, that has memory of its own."""
    return (
        *("-blockdev", f"driver=null-co,node-name=disk,size={MIB}"),
        *("-device", f"nvme,drive=disk,serial=1,cmb_size_mb={memory.size // MIB}"),
    )


def numa(memory_mib: int, nodes: int) -> tuple[str, ...]:
    """Return NUMA nodes; the first one has all the RAM."""
    arguments = ["-object", f"memory-backend-ram,id=ram,size={memory_mib}M"]
    arguments += ["-numa", "node,nodeid=0,memdev=ram"]
    for node in range(1, nodes):
        arguments += ["-numa", f"node,nodeid={node}"]
    return tuple(arguments)


def numa_ram(*nodes_mib: int) -> tuple[str, ...]:
    """Return NUMA nodes that have RAM each, one after the other."""
    arguments: list[str] = []
    for node, mib in enumerate(nodes_mib):
        arguments += ["-object", f"memory-backend-ram,id=ram{node},size={mib}M"]
        arguments += ["-numa", f"node,nodeid={node},memdev=ram{node}"]
    return tuple(arguments)


def virtio_mem(memory: MemoryArea, requested: int) -> tuple[str, ...]:
    """Return a virtio-mem device, which gives the guest as much of its memory as is requested."""
    device = f"virtio-mem-pci,id=virtio-mem,memdev=virtio-memory,memaddr={memory.start:#x}"
    return (
        *("-object", f"memory-backend-ram,id=virtio-memory,size={memory.size // MIB}M"),
        *("-device", f"{device},requested-size={requested // MIB}M"),
    )


def resize_virtio_mem(requested: int) -> tuple[QmpCommand, ...]:
    """Return what makes :func:`virtio_mem()` request another size from a running guest."""
    arguments = {"path": "virtio-mem", "property": "requested-size", "value": requested}
    return (("qom-set", arguments),)


def plug_dimm(memory: MemoryArea, name: str = "dimm") -> tuple[QmpCommand, ...]:
    """Return what plugs a DIMM of ordinary RAM into a running guest."""
    backend = {"qom-type": "memory-backend-ram", "id": f"{name}-memory", "size": memory.size}
    device = {"driver": "pc-dimm", "id": name, "memdev": f"{name}-memory", "addr": memory.start}
    return (("object-add", backend), ("device_add", device))
