# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Scenarios of memory that changes hands, between devices and RAM, or loses pages.
"""

from __future__ import annotations

from drgn_zonedev.lab.scenarios.arithmetic import (
    MIB,
    MemoryArea,
    block_number,
    blocks,
    expect,
    stored_memmap,
)
from drgn_zonedev.lab.scenarios.arithmetic import namespace_ranges as ranges
from drgn_zonedev.lab.scenarios.arithmetic import section_head as head
from drgn_zonedev.lab.scenarios.arithmetic import section_tail as tail
from drgn_zonedev.lab.scenarios.hardware import (
    DEVICE_MEMORY,
    nvdimm,
    plug_dimm,
    resize_virtio_mem,
    virtio_mem,
)
from drgn_zonedev.lab.scenarios.scenario import Scenario
from drgn_zonedev.lab.scenarios.steps import block, device_map, hotplug, namespace

__all__ = ("CHANGING_MEMORY",)

_NFIT = ("nfit", "nd_pmem", "device_dax", "dax_pmem")

# Boot RAM that the firmware sets aside for a special purpose. One memory block of it is whole.
_SOFT_RESERVED = MemoryArea(0x24000000, 192 * MIB)
# Some kernels give it to the system at once: not online, so that it can be taken back.
_SOFT_RESERVED_ARGS = ("memmap=192M%0x24000000-1+0xefffffff", "memhp_default_state=offline")
_HMEM_MODULES = ("dax_hmem", "device_dax", "kmem")
_HMEM_HEAD = head(_SOFT_RESERVED.start, "online")
_HMEM_BLOCK = blocks(_SOFT_RESERVED)
_HMEM_AS_RAM = (
    ("kmem", "dax0.0", str(block_number(_HMEM_BLOCK.start))),
    block(_HMEM_BLOCK.start, "online_movable"),
)

_DEVICE = MemoryArea(DEVICE_MEMORY, 512 * MIB)
_BLOCKS = blocks(MemoryArea(_DEVICE.start + 2 * MIB, _DEVICE.size - 2 * MIB))
_BLOCK = tuple(MemoryArea(_BLOCKS.start + i * 128 * MIB, 128 * MIB) for i in range(3))

# virtio-mem gives back what is last first: a memory block, and half of another one.
_OFFERED, _LEFT = MemoryArea(DEVICE_MEMORY, 512 * MIB), 320 * MIB

_POISONED = MemoryArea(DEVICE_MEMORY, 256 * MIB)
# In memory that the kernel itself does not use.
_POISONED_RAM_PFN = 0x39123
# The head of the first compound page that the device hands out, and a tail of the next one.
_POISONED_PFNS = (_POISONED_RAM_PFN, 0x100200, 0x100434)

_DIMM = MemoryArea(DEVICE_MEMORY, 256 * MIB)
_REUSED = MemoryArea(DEVICE_MEMORY, 192 * MIB)

_NO_KMEM_MEMMAP = "devdax can be RAM that stores its own memmap only since v6.8"
_NO_MEMORY_FAILURE = "Debian builds it without CONFIG_MEMORY_FAILURE: 6.1-amd64 has it"

CHANGING_MEMORY: tuple[Scenario, ...] = (
    Scenario(
        name="hmem",
        summary="soft-reserved memory (PFNs 0x24000-0x30000) as devdax, beside RAM",
        kernel_args=_SOFT_RESERVED_ARGS,
        modules=_HMEM_MODULES,
        steps=(("dax_device", "dax0.0", "device_dax"),),
        expected=_HMEM_HEAD + ranges(_SOFT_RESERVED, "mem"),
        proofs=("compound_2m",),
    ),
    Scenario(
        name="hmem-ram",
        summary="hmem given to the system as RAM, except what does not fill a memory block",
        kernel_args=_SOFT_RESERVED_ARGS,
        modules=_HMEM_MODULES,
        steps=(("dax_device", "dax0.0", "device_dax"), *_HMEM_AS_RAM),
        expected=_HMEM_HEAD
        + expect(_SOFT_RESERVED.start, _HMEM_BLOCK.start, "ghost")
        + expect(_HMEM_BLOCK.start, _HMEM_BLOCK.end, "online"),
        proofs=("no_pgmap",),
    ),
    Scenario(
        name="hmem-back",
        summary="hmem-ram taken from the system again, and devdax as before",
        kernel_args=_SOFT_RESERVED_ARGS,
        modules=_HMEM_MODULES,
        steps=(
            ("dax_device", "dax0.0", "device_dax"),
            *_HMEM_AS_RAM,
            block(_HMEM_BLOCK.start, "offline"),
            ("dax_device", "dax0.0", "device_dax"),
        ),
        expected=_HMEM_HEAD + ranges(_SOFT_RESERVED, "mem"),
        proofs=("compound_2m",),
    ),
    Scenario(
        name="kmem-memmap",
        summary="devdax as RAM that stores its own memmap: online_movable, online_kernel, offline",
        kernel_args=("memory_hotplug.memmap_on_memory=1",),
        devices=nvdimm(1, _DEVICE),
        modules=(*_NFIT, "kmem"),
        steps=(
            namespace("devdax", "mem"),
            ("kmem_memmap", "dax0.0"),
            ("kmem", "dax0.0", str(block_number(_BLOCKS.end - 1))),
            block(_BLOCK[0].start, "online_movable"),
            block(_BLOCK[1].start, "online_kernel"),
        ),
        of_ram=True,
        expected=stored_memmap(_BLOCK[0], "online")
        + stored_memmap(_BLOCK[1], "online")
        + stored_memmap(_BLOCK[2], "offline"),
        proofs=("self_hosted",),
        declares=("struct dev_dax.memmap_on_memory",),
        impossible=dict.fromkeys(("5.10", "6.1", "6.1-amd64"), _NO_KMEM_MEMMAP),
    ),
    Scenario(
        name="virtio-shrunk",
        summary="virtio-mem that gave four memory blocks and took one and a half back; one offline",
        devices=virtio_mem(_OFFERED, _OFFERED.size),
        qmp=resize_virtio_mem(_LEFT),
        kernel_args=("memhp_default_state=online_movable",),
        modules=("virtio_pci", "virtio_mem"),
        steps=(
            ("settle", str(block_number(_OFFERED.end - 1))),
            ("host",),
            ("gone", str(block_number(_OFFERED.end - 1))),
            ("settle", str(block_number(_OFFERED.start + _LEFT))),
            block(_OFFERED.start + 128 * MIB, "offline"),
        ),
        of_ram=True,
        expected=expect(_OFFERED.start, _OFFERED.start + 128 * MIB, "online")
        + expect(_OFFERED.start + 128 * MIB, _OFFERED.start + 256 * MIB, "offline")
        + expect(_OFFERED.start + 256 * MIB, _OFFERED.start + 384 * MIB, "online"),
        proofs=("logically_offline",),
        needs=("VIRTIO_MEM",),
    ),
    Scenario(
        name="hwpoison",
        summary="memory failure of a page of RAM, and of a head and a tail of devdax in use",
        kernel_args=("movablecore=256M",),
        devices=nvdimm(1, _POISONED),
        modules=_NFIT,
        steps=(
            namespace("devdax", "mem"),
            ("map", "/dev/dax0.0", str(8 * MIB)),
            ("hard_offline", *(f"{pfn:x}" for pfn in _POISONED_PFNS)),
        ),
        programs=("busy",),
        expected=ranges(_POISONED, "mem"),
        proofs=("poisoned",),
        needs=("MEMORY_FAILURE",),
        impossible=dict.fromkeys(("5.10", "6.1"), _NO_MEMORY_FAILURE),
    ),
    Scenario(
        name="removed-reused",
        summary="a DIMM that was in use and was removed, and a device at its PFNs",
        steps=(
            hotplug(_DIMM),
            block(_DIMM.start, "online_movable"),
            block(_DIMM.start + 128 * MIB, "online_movable"),
            ("anonymous", str(64 * MIB)),
            block(_DIMM.start, "offline"),
            block(_DIMM.start + 128 * MIB, "offline"),
            ("eject", str(block_number(_DIMM.end - 1))),
            device_map("generic", _REUSED),
        ),
        qmp=plug_dimm(_DIMM),
        programs=("busy",),
        guest_modules=("zonedev_device",),
        expected=expect(_REUSED.start, _REUSED.end, "device") + tail(_REUSED.end, "partial"),
        proofs=("one_pgmap",),
    ),
)
