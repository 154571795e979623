# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The scenarios of arm64, for pages of 4K, 16K or 64K. The device tree describes persistent memory
after RAM, or ACPI tables do, with firmware. A module of the lab is the driver of memory of other
types.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

from drgn_zonedev.lab.scenarios.arithmetic import (
    GIB,
    KIB,
    MIB,
    PAGE,
    STRUCT_PAGE,
    Expected,
    MemoryArea,
    expect,
    namespace_ranges,
    section_head,
    section_size,
    section_tail,
)
from drgn_zonedev.lab.scenarios.device_types import (
    HANDED_OUT,
    NOT_P2PDMA,
    NOT_PRIVATE,
    migrated_pages,
)
from drgn_zonedev.lab.scenarios.hardware import nvdimm, nvme_with_memory
from drgn_zonedev.lab.scenarios.scenario import Scenario
from drgn_zonedev.lab.scenarios.steps import device_map, device_pages, namespace
from drgn_zonedev.util.alignment import align_up

__all__ = ("arm64_scenarios",)

# RAM of the guest begins at 1 GiB, and ends in the middle of a section.
_RAM = ("mem=448M",)
_COLLIDING = MemoryArea(0x5C000000, 192 * MIB)
_PARTIAL = MemoryArea(0x60000000, 320 * MIB)
_SMALL = MemoryArea(0x60000000, 64 * MIB)
# With pages of 16K, the struct pages of 4 MiB lie in one page: here, half of it is of either. With
# pages of 64K, those of 64 MiB do: 62 MiB of them are the second one's.
_FIRST = MemoryArea(0x60000000, 66 * MIB)
_SECOND = MemoryArea(_FIRST.end, 62 * MIB)
# Firmware gets all the RAM, which ends at 2 GiB.
_NVDIMM = MemoryArea(2 * GIB, 320 * MIB)
# QEMU has memory there, which the kernel must leave alone.
_COHERENT = MemoryArea(0x60000000, 192 * MIB)
_PRIVATE = MemoryArea(0x60000000, 256 * MIB)
_RANGES = (MemoryArea(0x60000000, 64 * MIB), MemoryArea(0x70000000, 192 * MIB))
# Where the kernel puts the memory of the controller: first in PCI's window for large areas. That
# below RAM will not do, because arm64's vmemmap begins with RAM.
_CONTROLLER = MemoryArea(512 * GIB, 64 * MIB)
_PMEM = ("of_pmem", "nd_pmem")
_NFIT = ("nfit", "nd_pmem")
_DRIVER = ("zonedev_device",)
_DEVDAX = (*_PMEM, "device_dax", "dax_pmem")
_LARGE_ENOUGH = "with larger pages, the altmap is large enough"
_LARGER_PAGES = ("6.12-arm64-16k", "7.3-arm64-16k", "7.3-arm64-64k")
_6_12 = ("6.12-arm64", "6.12-arm64-16k")
_NO_ZONE_DEVICE = "Debian builds it without CONFIG_ZONE_DEVICE"
_OWN_PAGES = "with pages of 4K, no two subsections share a page of vmemmap"

_BOARD = "virt,gic-version=max"
_scenario = partial(Scenario, machine=_BOARD)
_EMPTY = _scenario(name="empty", summary="no ZONE_DEVICE memory at all", proofs=("no_pgmap",))


@cache
def arm64_scenarios(page: int) -> dict[str, Scenario]:
    """
    Return the scenarios of kernels with pages of a size.

    :param page: in bytes: 4096, 16384 or 65536
    """
    of_devices = (
        *_of_collision(page),
        *_of_parts(page),
        *_of_neighbours(page),
        *_of_hardware(page),
        *_of_driver(page),
    )
    scenarios = (*(_with_zone_device(scenario) for scenario in of_devices), _EMPTY)
    return {scenario.name: scenario for scenario in scenarios}


def _with_zone_device(scenario: Scenario) -> Scenario:
    return replace(scenario, impossible={"6.1-arm64": _NO_ZONE_DEVICE, **scenario.impossible})


def _align(page: int) -> int:
    # The kernel takes the size of a page, of a PMD and of a PUD: 2 MiB with pages of 4K only.
    return 2 * MIB if page == PAGE else page


def _of_collision(page: int) -> tuple[Scenario, ...]:
    align = _align(page)
    ranges = partial(namespace_ranges, _COLLIDING, align=align, page=page)
    made = partial(namespace, "fsdax", align=align)
    head = section_head(_COLLIDING.start, "online", page=page)
    # With pages of 64K, the device ends in the middle of a section, too.
    tail = section_tail(_COLLIDING.end, "partial", page=page)
    reserve_end = _COLLIDING.start + max(8 * KIB, page)
    collision = _scenario(
        name="fsdax-collision",
        summary="fsdax after the end of RAM, sharing its first section with it",
        kernel_args=_RAM,
        device_tree=(_COLLIDING,),
        modules=_PMEM,
        steps=(made(),),
        expected=head + ranges() + tail,
    )
    unbound = (made(), ("unbind", "nd", "nd_pmem", "pfn0.0"))
    return (
        collision,
        replace(
            collision,
            name="fsdax-mem",
            summary="fsdax-collision with the memmap in RAM: no altmap, so nothing is reserved",
            steps=(made("mem"),),
            expected=head + ranges("mem") + tail,
        ),
        replace(
            collision,
            name="init-in-flight",
            summary="fsdax-collision, frozen on entry to memmap_init_zone_device()",
            breakpoint="memmap_init_zone_device",
            expected=head + ranges(data="initializing") + tail,
            proofs=("nothing_done",),
        ),
        replace(
            collision,
            name="teardown",
            summary="fsdax-collision unbound again, frozen before its memory is removed",
            steps=unbound,
            breakpoint="arch_remove_memory",
            expected=head + _device(_COLLIDING, "teardown", page=page),
            was=ranges(),
        ),
        replace(
            collision,
            name="ghost",
            summary="fsdax-collision unbound: its struct pages stay in the section of the RAM",
            steps=unbound,
            # The reserve was never written, so it is still the hole of boot. After the section,
            # everything was removed.
            expected=head
            + expect(_COLLIDING.start, reserve_end, "partial", page=page)
            + section_tail(reserve_end, "ghost", page=page),
            # page_init_poison() wrote them all.
            poisoned=head + section_tail(_COLLIDING.start, "ghost", page=page),
        ),
    )


def _of_parts(page: int) -> tuple[Scenario, ...]:
    align = _align(page)
    ranges = partial(namespace_ranges, align=align, page=page)
    small_tail = section_tail(_SMALL.end, "partial", page=page)
    return (
        _scenario(
            name="fsdax-partial",
            summary="fsdax of half a section, with the memmap on it",
            kernel_args=_RAM,
            device_tree=(_SMALL,),
            modules=_PMEM,
            steps=(namespace("fsdax", align=align),),
            expected=ranges(_SMALL) + small_tail,
        ),
        _scenario(
            name="devdax-partial",
            summary="devdax of 320 MiB, ending in mid-section; its memmap is in RAM",
            kernel_args=_RAM,
            device_tree=(_PARTIAL,),
            modules=_DEVDAX,
            steps=(namespace("devdax", "mem", align=align),),
            expected=ranges(_PARTIAL, "mem") + section_tail(_PARTIAL.end, "partial", page=page),
        ),
        _scenario(
            name="orphan",
            summary="fsdax of 320 MiB: its altmap is too small for aligned pages of vmemmap",
            kernel_args=_RAM,
            device_tree=(_PARTIAL,),
            modules=_PMEM,
            steps=(("refused", *namespace("fsdax", align=align)),),
            expected=expect(_PARTIAL.start, _PARTIAL.start + 256 * MIB, "orphan", page=page),
            proofs=("no_pgmap",),
            impossible=dict.fromkeys(_LARGER_PAGES, _LARGE_ENOUGH),
        ),
    )


def _of_neighbours(page: int) -> tuple[Scenario, ...]:
    align = _align(page)
    ranges = partial(namespace_ranges, align=align, page=page)
    steps = (
        namespace("fsdax", region=0, align=align),
        namespace("fsdax", "mem", region=1, align=align),
    )
    second = ranges(_SECOND, "mem") + section_tail(_SECOND.end, "partial", page=page)
    neighbours = _scenario(
        name="neighbours",
        summary="two fsdax devices in one section: with 16K, they share a page of vmemmap",
        kernel_args=_RAM,
        device_tree=(_FIRST, _SECOND),
        modules=_PMEM,
        steps=steps,
        expected=ranges(_FIRST) + second,
    )
    taken_along = expect(
        _SECOND.start, align_up(_SECOND.start, _in_one_page(page)), "device", page=page
    )
    gone = replace(
        neighbours,
        name="neighbour-gone",
        summary="neighbours, the first unbound: struct pages of the other are not mapped",
        steps=(*steps, ("unbind", "nd", "nd_pmem", "pfn0.0")),
        expected=expect(_FIRST.start, _FIRST.end, "partial", page=page) + second,
        # Those in the page of vmemmap that the first one had from its altmap.
        errors=tuple(("vmemmap-unmapped", start, end) for start, end, _ in taken_along),
        unmapped=taken_along,
        impossible={f"{release}-arm64": _OWN_PAGES for release in ("6.12", "7.3")},
    )
    return neighbours, gone


def _in_one_page(page: int) -> int:
    # The size of the memory whose struct pages fill a page of vmemmap.
    return page // STRUCT_PAGE * page


def _of_hardware(page: int) -> tuple[Scenario, ...]:
    align = _align(page)
    return (
        _scenario(
            name="nvdimm",
            summary="devdax on an NVDIMM of 320 MiB that ACPI describes; its memmap is in RAM",
            devices=nvdimm(1, _NVDIMM),
            # NVDIMMs are in ACPI tables, which only firmware passes on.
            machine=f"{_BOARD},nvdimm=on",
            firmware="qemu-efi-aarch64",
            modules=(*_NFIT, "device_dax", "dax_pmem"),
            steps=(namespace("devdax", "mem", align=align),),
            expected=namespace_ranges(_NVDIMM, "mem", align=align, page=page)
            + section_tail(_NVDIMM.end, "partial", page=page),
        ),
        _scenario(
            name="p2pdma",
            summary="the memory of an NVMe controller, for peer-to-peer DMA; a process maps half",
            devices=nvme_with_memory(_CONTROLLER),
            modules=("nvme",),
            steps=(("map_p2pmem", str(_CONTROLLER.size // 2)),),
            programs=("busy",),
            expected=_device(_CONTROLLER, page=page),
            proofs=("p2pdma_in_use",),
            needs=("PCI_P2PDMA",),
            impossible=dict.fromkeys(_6_12, NOT_P2PDMA),
        ),
    )


def _of_driver(page: int) -> tuple[Scenario, ...]:
    device = partial(_device, page=page)
    map_ranges = device_map("generic", *_RANGES)
    first, second = _RANGES
    # With pages of 64K, both are in one section.
    first_end = min(align_up(first.end, section_size(page)), second.start)
    between = expect(first.start, first.end, "device", page=page)
    between += expect(first.end, first_end, "partial", page=page)
    two_ranges = _scenario(
        name="two-ranges",
        summary="a pgmap of two ranges, and nothing between them",
        kernel_args=_RAM,
        guest_modules=_DRIVER,
        steps=(map_ranges,),
        expected=between + device(second),
        proofs=("one_pgmap",),
    )
    return (
        _scenario(
            name="device-private",
            summary="memory that no CPU can address, in pages and folios, used, mapped and freed",
            kernel_args=_RAM,
            guest_modules=_DRIVER,
            steps=(
                device_map("private", _PRIVATE),
                *HANDED_OUT,
                *migrated_pages(page),
            ),
            programs=("busy",),
            expected=device(_PRIVATE),
            proofs=("handed_out",),
            needs=("DEVICE_PRIVATE",),
            impossible=dict.fromkeys(_6_12, NOT_PRIVATE),
        ),
        _scenario(
            name="device-coherent",
            summary="memory of a GPU that CPUs can address, in single pages and folios",
            kernel_args=_RAM,
            guest_modules=_DRIVER,
            steps=(device_map("coherent", _COHERENT), *HANDED_OUT),
            expected=device(_COHERENT),
            proofs=("handed_out",),
        ),
        two_ranges,
        replace(
            two_ranges,
            name="second-in-flight",
            summary="two-ranges, frozen before the second range's struct pages are initialised",
            breakpoint="memmap_init_zone_device",
            breakpoint_argument=second.start // page,
            expected=between + device(second, "initializing"),
            proofs=("one_pgmap", "nothing_done"),
        ),
        _scenario(
            name="in-use-teardown",
            summary="a device unbound, which waits for its memory: two of the pages are in use",
            kernel_args=_RAM,
            guest_modules=_DRIVER,
            steps=(
                device_map("generic", _COHERENT),
                *device_pages("hold 0", "hold 0x234"),
                ("unmapping",),
            ),
            expected=device(_COHERENT, "teardown"),
            was=device(_COHERENT)[:1],
            proofs=("pages_held",),
        ),
    )


def _device(area: MemoryArea, case: str = "device", *, page: int) -> tuple[Expected, ...]:
    tail = section_tail(area.end, "partial", page=page)
    return expect(area.start, area.end, case, page=page) + tail
