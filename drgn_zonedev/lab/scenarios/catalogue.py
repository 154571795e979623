# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The scenarios: those of fsdax, devdax and RAM, and the others of this room.

Addresses are written out; the expected ranges are computed.
"""

from __future__ import annotations

from drgn_zonedev.lab.scenarios.arithmetic import (
    GIB,
    MIB,
    PAGE,
    MemoryArea,
    block_number,
    blocks,
    expect,
    stored_memmap,
)
from drgn_zonedev.lab.scenarios.arithmetic import namespace_ranges as ranges
from drgn_zonedev.lab.scenarios.arithmetic import section_head as head
from drgn_zonedev.lab.scenarios.arithmetic import section_tail as tail
from drgn_zonedev.lab.scenarios.changing_memory import CHANGING_MEMORY
from drgn_zonedev.lab.scenarios.device_types import DEVICE_TYPES
from drgn_zonedev.lab.scenarios.hardware import (
    CXL_MACHINE,
    CXL_WINDOW,
    DEVICE_MEMORY,
    cxl_memory,
    numa,
    numa_ram,
    nvdimm,
    plug_dimm,
    slow_disk,
    virtio_mem,
    virtio_pmem,
)
from drgn_zonedev.lab.scenarios.scenario import Scenario
from drgn_zonedev.lab.scenarios.steps import block, hotplug, namespace

__all__ = ("SCENARIOS",)

_E820 = ("nd_e820", "nd_pmem")
_NFIT = ("nfit", "nd_pmem", "device_dax", "dax_pmem")

# Boot RAM declared persistent. It begins in the middle of a section, which therefore has two
# owners, and ends with a section.
_COLLIDING = MemoryArea(0x24000000, 192 * MIB)
_COLLIDING_ARGS = ("memmap=192M!0x24000000",)
_COLLIDING_HEAD = head(_COLLIDING.start, "online")

_PARTIAL = MemoryArea(DEVICE_MEMORY, 320 * MIB)
_WHOLE = MemoryArea(DEVICE_MEMORY, 256 * MIB)
# Aligning the data loses one GiB of it.
_LARGE = MemoryArea(DEVICE_MEMORY, 2 * GIB)

# Two devices with RAM around them, and two in a section that has nothing else.
_FIRST, _SECOND = MemoryArea(0x20000000, 32 * MIB), MemoryArea(0x24000000, 32 * MIB)
_THIRD = MemoryArea(DEVICE_MEMORY, 32 * MIB)
_FOURTH = MemoryArea(DEVICE_MEMORY + 32 * MIB, 64 * MIB)

_CXL = MemoryArea(CXL_WINDOW, 256 * MIB)
_DIRTY = MemoryArea(DEVICE_MEMORY, 192 * MIB)
# QEMU's firmware tables list the last DIMM first: these are the regions 1 and 0.
_MAPPED = MemoryArea(DEVICE_MEMORY, 256 * MIB)
_FILES = MemoryArea(DEVICE_MEMORY + 256 * MIB, 256 * MIB)
# mkfs.xfs makes none of less than 300 MiB.
_XFS, _XFS_MIB = MemoryArea(DEVICE_MEMORY, 512 * MIB), 320
_DIMM = MemoryArea(DEVICE_MEMORY, 256 * MIB)
_MOVABLE = MemoryArea(0x30000000, 128 * MIB)
_BECOMES_RAM = MemoryArea(DEVICE_MEMORY, 512 * MIB)
_RAM_BLOCKS = blocks(MemoryArea(_BECOMES_RAM.start + 2 * MIB, _BECOMES_RAM.size - 2 * MIB))
# Up to v6.7, only DIMMs of one memory block can store their own memmap.
_DIMMS = tuple(MemoryArea(DEVICE_MEMORY + i * 128 * MIB, 128 * MIB) for i in range(3))
# Half of a memory block is left out.
_OFFERED, _REQUESTED = MemoryArea(DEVICE_MEMORY, 512 * MIB), 192 * MIB
# Where the last RAM of 1 GiB ends, and QEMU's ACPI tables begin.
_ACPI_TABLES_PFN = 0x3FFDF
# ZONE_DMA32 begins with PFN 0x1000. More than a section's pages of it are initialised, up to the
# beginning of a section (defer_init()).
_DEFERRED_PFN = 0x10000
_HALFWAY_PFN = 0x2A123
# Boot RAM has to have a whole free GiB.
_PREINIT_MIB = 2560
# So that it lies where the page allocator's part of boot initialises struct pages at once.
_TWO_ZONES_MIB = 4096
_LOST_PFN = DEVICE_MEMORY // PAGE

# Longer than anybody looks at it.
_LOAD_SECONDS = 3600
_NUMA_FAKE = "Debian builds it without CONFIG_NUMA_EMU: 6.1-amd64 has it"
_NO_FILES_IN_RINGS = "io_uring registers memory of files only since v6.5"
_NOT_BEFORE_7 = "boot hugepages get their vmemmap deduplicated from the start only since v6.15"

_ALL = (
    Scenario(
        name="fsdax-collision",
        summary="fsdax in boot RAM (PFNs 0x24000-0x30000), sharing its first section with RAM",
        kernel_args=_COLLIDING_ARGS,
        modules=_E820,
        steps=(namespace("fsdax"),),
        expected=_COLLIDING_HEAD + ranges(_COLLIDING),
    ),
    Scenario(
        name="fsdax-mem",
        summary="fsdax-collision with the memmap in RAM: no altmap, so nothing is reserved",
        kernel_args=_COLLIDING_ARGS,
        modules=_E820,
        steps=(namespace("fsdax", "mem"),),
        expected=_COLLIDING_HEAD + ranges(_COLLIDING, "mem"),
    ),
    Scenario(
        name="devdax-collision",
        summary="2 MiB devdax pages that share a section with RAM: its boot memmap is not shared",
        kernel_args=_COLLIDING_ARGS,
        modules=(*_E820, "device_dax", "dax_pmem"),
        steps=(namespace("devdax", "mem"),),
        expected=_COLLIDING_HEAD + ranges(_COLLIDING, "mem"),
    ),
    Scenario(
        name="nvdimm-partial",
        summary="devdax on a 320 MiB NVDIMM (PFNs 0x100000-0x114000), ending in mid-section",
        devices=nvdimm(1, _PARTIAL),
        modules=_NFIT,
        steps=(namespace("devdax"),),
        expected=ranges(_PARTIAL) + tail(_PARTIAL.end, "partial"),
    ),
    Scenario(
        name="devdax-2m",
        summary="devdax on whole sections, memmap in RAM: compound pages that share vmemmap",
        devices=nvdimm(1, _WHOLE),
        modules=_NFIT,
        steps=(namespace("devdax", "mem"),),
        expected=ranges(_WHOLE, "mem"),
        proofs=("compound_2m",),
    ),
    Scenario(
        name="devdax-1g",
        summary="devdax in pages of 1 GiB, memmap in RAM: compound pages of eight sections",
        devices=nvdimm(1, _LARGE),
        modules=_NFIT,
        steps=(namespace("devdax", "mem", align=GIB),),
        expected=ranges(_LARGE, "mem", GIB),
        proofs=("compound_1g",),
    ),
    Scenario(
        name="two-in-one",
        summary="two devices and RAM in one section, and two devices in another one",
        kernel_args=("memmap=32M!0x20000000", "memmap=32M!0x24000000"),
        devices=nvdimm(1, _THIRD) + nvdimm(2, _FOURTH),
        modules=(*_E820, *_NFIT),
        steps=(
            namespace("fsdax", "dev", region=0),
            namespace("fsdax", "mem", region=1),
            namespace("devdax", "dev", region=2),
            namespace("fsdax", "dev", region=3),
        ),
        expected=ranges(_FIRST)
        + expect(_FIRST.end, _SECOND.start, "online")
        + ranges(_SECOND, "mem")
        + tail(_SECOND.end, "online")
        + ranges(_THIRD)
        + ranges(_FOURTH)
        + tail(_FOURTH.end, "partial"),
        proofs=("four_pgmaps",),
    ),
    Scenario(
        name="dirty-media",
        summary="fsdax on an NVDIMM full of 0xa5: so are the struct pages that are never written",
        devices=nvdimm(1, _DIRTY),
        modules=_NFIT,
        steps=(
            ("raw", "region0"),
            ("fill", "/dev/pmem0", "245", "16"),
            ("unbind", "nd", "nd_pmem", "namespace0.0"),
            namespace("fsdax"),
        ),
        expected=ranges(_DIRTY) + tail(_DIRTY.end, "partial"),
        victims=(_DIRTY.start // PAGE,),
        proofs=("dirty_reserve",),
    ),
    Scenario(
        name="hotplug-offline",
        summary="a DIMM of 256 MiB plugged into the running guest and left offline",
        steps=(hotplug(_DIMM),),
        qmp=plug_dimm(_DIMM),
        expected=expect(_DIMM.start, _DIMM.end, "offline"),
    ),
    Scenario(
        name="offlined",
        summary="a memory block of boot RAM (PFNs 0x30000-0x38000) taken offline",
        # The kernel itself must not be there either.
        kernel_args=("movablecore=256M", "nokaslr"),
        steps=(block(_MOVABLE.start, "offline"),),
        expected=expect(_MOVABLE.start, _MOVABLE.end, "offline"),
    ),
    Scenario(
        name="kmem",
        summary="devdax given to the system as RAM: one memory block online, two offline",
        devices=numa(1024, 2) + nvdimm(1, _BECOMES_RAM, node=1),
        modules=(*_NFIT, "kmem"),
        steps=(
            namespace("devdax", "mem"),
            ("kmem", "dax0.0", str(block_number(_RAM_BLOCKS.end - 1))),
            block(_RAM_BLOCKS.start, "online_movable"),
        ),
        expected=expect(_RAM_BLOCKS.start, _RAM_BLOCKS.start + 128 * MIB, "online")
        + expect(_RAM_BLOCKS.start + 128 * MIB, _RAM_BLOCKS.end, "offline"),
    ),
    Scenario(
        name="init-in-flight",
        summary="fsdax-collision, frozen on entry to memmap_init_zone_device()",
        kernel_args=_COLLIDING_ARGS,
        modules=_E820,
        steps=(namespace("fsdax"),),
        breakpoint="memmap_init_zone_device",
        expected=_COLLIDING_HEAD + ranges(_COLLIDING, data="initializing"),
        proofs=("nothing_done",),
    ),
    Scenario(
        name="init-halfway",
        summary="fsdax-collision, frozen while it initialises the struct page of PFN 0x2a123",
        kernel_args=_COLLIDING_ARGS,
        modules=_E820,
        steps=(namespace("fsdax"),),
        breakpoint="memmap_init_zone_device",
        watch_pfn=_HALFWAY_PFN,
        expected=_COLLIDING_HEAD + ranges(_COLLIDING, data="initializing"),
        proofs=("done_up_to_watch",),
    ),
    Scenario(
        name="teardown",
        summary="fsdax-collision unbound again, frozen before its memory is removed",
        kernel_args=_COLLIDING_ARGS,
        modules=_E820,
        steps=(namespace("fsdax"), ("unbind", "nd", "nd_pmem", "pfn0.0")),
        breakpoint="arch_remove_memory",
        expected=_COLLIDING_HEAD + expect(_COLLIDING.start, _COLLIDING.end, "teardown"),
        was=ranges(_COLLIDING),
    ),
    Scenario(
        name="ghost",
        summary="fsdax-collision unbound again: its struct pages stay in the section of the RAM",
        kernel_args=_COLLIDING_ARGS,
        modules=_E820,
        steps=(namespace("fsdax"), ("unbind", "nd", "nd_pmem", "pfn0.0")),
        # The reserve was never written, so it is still the hole of boot. After the section,
        # everything was removed.
        expected=_COLLIDING_HEAD
        + expect(_COLLIDING.start, _COLLIDING.start + 2 * PAGE, "partial")
        + tail(_COLLIDING.start + 2 * PAGE, "ghost"),
        # page_init_poison() wrote them all.
        poisoned=_COLLIDING_HEAD + tail(_COLLIDING.start, "ghost"),
    ),
    Scenario(
        name="orphan",
        summary="nvdimm-partial, whose third section could not be added: two are left behind",
        devices=nvdimm(1, _PARTIAL),
        modules=_NFIT,
        steps=(("refused", *namespace("fsdax")),),
        failing_call=("sparse_add_section", (_PARTIAL.start + 256 * MIB) // PAGE),
        expected=expect(_PARTIAL.start, _PARTIAL.start + 256 * MIB, "orphan"),
        proofs=("no_pgmap",),
    ),
    Scenario(
        name="virtio-pmem",
        summary="fsdax on a virtio-pmem device of 192 MiB",
        devices=virtio_pmem(_DIRTY),
        modules=("virtio_pci", "virtio_pmem", "nd_pmem"),
        steps=(namespace("fsdax"),),
        expected=ranges(_DIRTY) + tail(_DIRTY.end, "partial"),
    ),
    Scenario(
        name="cxl",
        summary="devdax on a CXL type-3 device of 256 MiB, memmap in RAM",
        # A kernel that handles errors requests interrupts from the device (since v6.3), and does
        # not use a device without them, like that of QEMU 7.2.
        kernel_args=("pcie_ports=compat",),
        devices=cxl_memory(_CXL.size),
        modules=("cxl_port", "cxl_acpi", "cxl_pci", "cxl_mem", "cxl_pmem", *_NFIT[1:]),
        steps=(
            ("cxl_region", str(_CXL.size)),
            ("labelled", "region0", str(_CXL.size)),
            namespace("devdax", "mem"),
        ),
        expected=ranges(_CXL, "mem"),
        proofs=("compound_2m",),
        needs=("CXL_REGION",),
        impossible={"5.10": "CXL regions exist only since v6.0"},
        # The kernel refuses CXL regions where it cannot flush the caches of the host.
        hypervisor=False,
        machine=CXL_MACHINE,
    ),
    Scenario(
        name="preinit",
        summary="devdax beside a boot hugepage of 1 GiB whose vmemmap was made deduplicated",
        kernel_args=("hugepagesz=1G", "hugepages=1", "hugetlb_free_vmemmap=on"),
        devices=nvdimm(1, _PARTIAL),
        modules=_NFIT,
        steps=(namespace("devdax"),),
        expected=ranges(_PARTIAL) + tail(_PARTIAL.end, "partial"),
        proofs=("preinit_section",),
        needs=("SPARSEMEM_VMEMMAP_PREINIT",),
        impossible=dict.fromkeys(("5.10", "6.1", "6.1-amd64", "6.12"), _NOT_BEFORE_7),
        memory_mib=_PREINIT_MIB,
    ),
    Scenario(
        name="la57",
        summary="fsdax-collision with five-level page tables",
        kernel_args=_COLLIDING_ARGS,
        modules=_E820,
        steps=(namespace("fsdax"),),
        la57=True,
        declares=("__pgtable_l5_enabled",),
        impossible={"5.10": "Debian builds 5.10 without CONFIG_X86_5LEVEL"},
        expected=_COLLIDING_HEAD + ranges(_COLLIDING),
        proofs=("five_levels",),
    ),
    Scenario(
        name="busy",
        summary="fsdax and devdax, with pages of both mapped and written by processes",
        devices=nvdimm(1, _MAPPED) + nvdimm(2, _FILES),
        modules=(*_NFIT, "ext4"),
        steps=(
            namespace("fsdax", region=0),
            namespace("devdax", "mem", region=1),
            ("filesystem", "/dev/pmem0", "8"),
            ("map", "/mnt/file", str(8 * MIB)),
            ("map", "/dev/dax1.0", str(8 * MIB)),
        ),
        expected=ranges(_MAPPED, "mem") + ranges(_FILES),
        programs=("busy",),
        proofs=("pages_in_use",),
    ),
    Scenario(
        name="pinned",
        summary="fsdax and devdax, with pages mapped by two, in a pipe, and in direct I/O",
        devices=nvdimm(1, _MAPPED) + nvdimm(2, _FILES) + slow_disk(),
        modules=(*_NFIT, "ext4", "virtio_pci", "virtio_blk"),
        steps=(
            namespace("fsdax", region=0),
            namespace("devdax", "mem", region=1),
            ("filesystem", "/dev/pmem0", "4"),
            ("copy", "/mnt/piped", "1"),
            ("copy", "/mnt/written", "1"),
            ("map", "/mnt/file", str(4 * MIB)),
            ("map", "/mnt/file", str(2 * MIB)),
            ("map", "/dev/dax1.0", str(4 * MIB)),
            ("keep", "direct", "/mnt/written", str(MIB), "/dev/vda"),
            ("keep", "pipe", "/mnt/piped", str(MIB)),
            ("truncate_kept", "/mnt/piped"),
        ),
        expected=ranges(_MAPPED, "mem") + ranges(_FILES),
        programs=("busy",),
        proofs=("pages_in_use",),
    ),
    Scenario(
        name="pinned-xfs",
        summary="fsdax with XFS: a file that two processes map, and one that a pipe keeps",
        devices=nvdimm(1, _XFS),
        modules=(*_NFIT, "xfs"),
        steps=(
            namespace("fsdax", "mem"),
            ("xfs", "/dev/pmem0"),
            ("copy", "/mnt/file", "4"),
            ("copy", "/mnt/piped", "1"),
            ("map", "/mnt/file", str(4 * MIB)),
            ("map", "/mnt/file", str(2 * MIB)),
            ("keep", "pipe", "/mnt/piped", str(MIB)),
            ("truncate_kept", "/mnt/piped"),
        ),
        xfs_mib=_XFS_MIB,
        expected=ranges(_XFS, "mem"),
        programs=("busy",),
        proofs=("pages_in_use",),
    ),
    Scenario(
        name="registered",
        summary="devdax, with pages that only a buffer registered with io_uring keeps",
        devices=nvdimm(1, _MAPPED),
        modules=_NFIT,
        steps=(
            namespace("devdax", "mem"),
            ("map", "/dev/dax0.0", str(2 * MIB)),
            ("keep", "ring", "/dev/dax0.0", str(4 * MIB)),
        ),
        expected=ranges(_MAPPED, "mem"),
        programs=("busy",),
        proofs=("pages_in_use",),
        impossible=dict.fromkeys(("5.10", "6.1", "6.1-amd64"), _NO_FILES_IN_RINGS),
    ),
    Scenario(
        name="acpi-hole",
        summary="a plain guest of 1 GiB, with ACPI tables after its last RAM, where no zone is",
        victims=(_ACPI_TABLES_PFN,),
        needs=("DEFERRED_STRUCT_PAGE_INIT",),
        proofs=("no_pgmap", "reserved_without_zone"),
    ),
    Scenario(
        name="numa",
        summary="two nodes of 512 MiB",
        devices=numa_ram(512, 512),
        proofs=("two_nodes",),
    ),
    Scenario(
        name="numa-fake",
        summary="four nodes that the kernel makes of one: numa=fake=4",
        kernel_args=("numa=fake=4",),
        proofs=("four_nodes",),
        needs=("NUMA_EMU",),
        impossible=dict.fromkeys(("5.10", "6.1", "6.12", "7.2", "7.3"), _NUMA_FAKE),
    ),
    Scenario(
        name="deferred",
        summary="boot, frozen before it initialises the struct pages of most RAM",
        breakpoint="deferred_init_memmap",
        early=True,
        needs=("DEFERRED_STRUCT_PAGE_INIT",),
        of_ram=True,
        expected=expect(_DEFERRED_PFN * PAGE, _ACPI_TABLES_PFN * PAGE, "initializing"),
    ),
    Scenario(
        name="ovmf",
        summary="UEFI firmware, which leaves many holes, and 3 GiB of RAM",
        firmware="ovmf",
        memory_mib=3072,
        proofs=("efi",),
        needs=("EFI_STUB",),
    ),
    Scenario(
        name="hvo",
        summary="hugepages of 1 GiB and 2 MiB with a deduplicated memmap, and transparent ones",
        kernel_args=(
            *("hugetlb_free_vmemmap=on", "transparent_hugepage=always"),
            *("hugepagesz=1G", "hugepages=1", "hugepagesz=2M", "hugepages=16"),
        ),
        steps=(("anonymous", str(64 * MIB)),),
        programs=("busy",),
        memory_mib=_PREINIT_MIB,
        proofs=("huge_pages",),
        needs=("HUGETLB_PAGE_OPTIMIZE_VMEMMAP", "TRANSPARENT_HUGEPAGE"),
        impossible={"5.10": "the memmap of hugepages is deduplicated only since v5.14"},
    ),
    Scenario(
        name="hvo-freed",
        summary="a boot hugepage of 1 GiB whose vmemmap was made deduplicated, given back",
        kernel_args=("hugetlb_free_vmemmap=on", "hugepagesz=1G", "hugepages=1"),
        steps=(("hugepages", "1048576", "0"),),
        memory_mib=_TWO_ZONES_MIB,
        # Its first page is refused as well, with PG_head, once its tails are no longer tails.
        errors=(("ram-stray-head", _LOST_PFN, _LOST_PFN + 1),),
        proofs=("lost_hugepage",),
        needs=("SPARSEMEM_VMEMMAP_PREINIT",),
        impossible=dict.fromkeys(("5.10", "6.1", "6.1-amd64", "6.12"), _NOT_BEFORE_7),
    ),
    Scenario(
        name="memmap-on-memory",
        summary="three DIMMs that store their own memmap: online_movable, online_kernel, offline",
        kernel_args=("memory_hotplug.memmap_on_memory=1",),
        steps=(
            hotplug(_DIMMS[2]),
            block(_DIMMS[0].start, "online_movable"),
            block(_DIMMS[1].start, "online_kernel"),
        ),
        qmp=tuple(c for i, dimm in enumerate(_DIMMS) for c in plug_dimm(dimm, f"dimm{i}")),
        of_ram=True,
        expected=stored_memmap(_DIMMS[0], "online")
        + stored_memmap(_DIMMS[1], "online")
        + stored_memmap(_DIMMS[2], "offline"),
        proofs=("self_hosted",),
        needs=("MHP_MEMMAP_ON_MEMORY",),
        impossible={"5.10": "memory_hotplug.memmap_on_memory exists only since v5.13"},
    ),
    Scenario(
        name="virtio-mem",
        summary="a virtio-mem device that gives one and a half memory blocks of its four",
        devices=virtio_mem(_OFFERED, _REQUESTED),
        kernel_args=("memhp_default_state=online_movable",),
        modules=("virtio_pci", "virtio_mem"),
        steps=(("settle", str(block_number(_OFFERED.start + _REQUESTED))),),
        expected=expect(_OFFERED.start, _OFFERED.start + 256 * MIB, "online"),
        proofs=("logically_offline",),
        needs=("VIRTIO_MEM",),
    ),
    Scenario(
        name="kernel-load",
        summary="memory pressure, forks, page cache, hugepages and compaction, all at a time",
        kernel_args=("loglevel=3",),
        steps=(("load_memory", str(_LOAD_SECONDS)),),
        proofs=("no_pgmap",),
    ),
    Scenario(
        name="empty",
        summary="no ZONE_DEVICE memory at all",
        proofs=("no_pgmap",),
    ),
)

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario for scenario in (*_ALL, *DEVICE_TYPES, *CHANGING_MEMORY)
}
