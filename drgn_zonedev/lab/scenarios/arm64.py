# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The scenarios of arm64, for pages of 4K or 16K. The device tree describes persistent memory behind
RAM.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

from drgn_zonedev.lab.scenarios.arithmetic import (
    KIB,
    MIB,
    PAGE,
    MemoryArea,
    expect,
    namespace_ranges,
    section_head,
    section_tail,
)
from drgn_zonedev.lab.scenarios.scenario import Scenario
from drgn_zonedev.lab.scenarios.steps import namespace

__all__ = ("arm64_scenarios",)

# RAM of the guest begins at 1 GiB, and ends in the middle of a section.
_RAM = ("mem=448M",)
_COLLIDING = MemoryArea(0x5C000000, 192 * MIB)
_PARTIAL = MemoryArea(0x60000000, 320 * MIB)
_SMALL = MemoryArea(0x60000000, 64 * MIB)
# With pages of 16K, the struct pages of 4 MiB lie in one page: here, half of it is of either.
_FIRST = MemoryArea(0x60000000, 66 * MIB)
_SECOND = MemoryArea(_FIRST.end, 62 * MIB)
_PMEM = ("of_pmem", "nd_pmem")
_DEVDAX = (*_PMEM, "device_dax", "dax_pmem")
_LARGE_ENOUGH = "with pages of 16K, the altmap is large enough"
_OWN_PAGES = "with pages of 4K, no two subsections share a page of vmemmap"


@cache
def arm64_scenarios(page: int) -> dict[str, Scenario]:
    """
    Return the scenarios of kernels with pages of a size.

    :param page: in bytes: 4096 or 16384
    """
    scenarios = (*_of_collision(page), *_of_parts(page), *_of_neighbours(page), _EMPTY)
    return {scenario.name: scenario for scenario in scenarios}


_EMPTY = Scenario(name="empty", summary="no ZONE_DEVICE memory at all", proofs=("no_pgmap",))


def _align(page: int) -> int:
    # The kernel takes the size of a page, of a PMD and of a PUD: 2 MiB with pages of 4K only.
    return 2 * MIB if page == PAGE else page


def _of_collision(page: int) -> tuple[Scenario, ...]:
    align = _align(page)
    ranges = partial(namespace_ranges, _COLLIDING, align=align, page=page)
    made = partial(namespace, "fsdax", align=align)
    head = section_head(_COLLIDING.start, "online", page=page)
    reserve_end = _COLLIDING.start + max(8 * KIB, page)
    collision = Scenario(
        name="fsdax-collision",
        summary="fsdax behind the end of RAM, sharing its first section with it",
        kernel_args=_RAM,
        device_tree=(_COLLIDING,),
        modules=_PMEM,
        steps=(made(),),
        expected=head + ranges(),
    )
    unbound = (made(), ("unbind", "nd", "nd_pmem", "pfn0.0"))
    return (
        collision,
        replace(
            collision,
            name="fsdax-mem",
            summary="fsdax-collision with the memmap in RAM: no altmap, so nothing is reserved",
            steps=(made("mem"),),
            expected=head + ranges("mem"),
        ),
        replace(
            collision,
            name="init-in-flight",
            summary="fsdax-collision, frozen on entry to memmap_init_zone_device()",
            breakpoint="memmap_init_zone_device",
            expected=head + ranges(data="initializing"),
            proofs=("nothing_done",),
        ),
        replace(
            collision,
            name="teardown",
            summary="fsdax-collision unbound again, frozen before its memory is removed",
            steps=unbound,
            breakpoint="arch_remove_memory",
            expected=head + expect(_COLLIDING.start, _COLLIDING.end, "teardown", page=page),
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
        ),
    )


def _of_parts(page: int) -> tuple[Scenario, ...]:
    align = _align(page)
    ranges = partial(namespace_ranges, align=align, page=page)
    small_tail = section_tail(_SMALL.end, "partial", page=page)
    return (
        Scenario(
            name="fsdax-partial",
            summary="fsdax of half a section, with the memmap on it",
            kernel_args=_RAM,
            device_tree=(_SMALL,),
            modules=_PMEM,
            steps=(namespace("fsdax", align=align),),
            expected=ranges(_SMALL) + small_tail,
        ),
        Scenario(
            name="devdax-partial",
            summary="devdax of 320 MiB, ending in mid-section; its memmap is in RAM",
            kernel_args=_RAM,
            device_tree=(_PARTIAL,),
            modules=_DEVDAX,
            steps=(namespace("devdax", "mem", align=align),),
            expected=ranges(_PARTIAL, "mem") + section_tail(_PARTIAL.end, "partial", page=page),
        ),
        Scenario(
            name="orphan",
            summary="fsdax of 320 MiB: its altmap is too small for aligned pages of vmemmap",
            kernel_args=_RAM,
            device_tree=(_PARTIAL,),
            modules=_PMEM,
            steps=(("refused", *namespace("fsdax", align=align)),),
            expected=expect(_PARTIAL.start, _PARTIAL.start + 256 * MIB, "orphan", page=page),
            proofs=("no_pgmap",),
            impossible={f"{release}-arm64-16k": _LARGE_ENOUGH for release in ("6.12", "7.3")},
        ),
    )


def _of_neighbours(page: int) -> tuple[Scenario, ...]:
    align = _align(page)
    ranges = partial(namespace_ranges, align=align, page=page)
    steps = (
        namespace("fsdax", region=0, align=align),
        namespace("fsdax", "mem", region=1, align=align),
    )
    neighbours = Scenario(
        name="neighbours",
        summary="two fsdax devices in one section: with 16K, they share a page of vmemmap",
        kernel_args=_RAM,
        device_tree=(_FIRST, _SECOND),
        modules=_PMEM,
        steps=steps,
        expected=ranges(_FIRST) + ranges(_SECOND, "mem"),
    )
    taken_along = expect(_SECOND.start, _SECOND.start + 2 * MIB, "device", page=page)
    gone = replace(
        neighbours,
        name="neighbour-gone",
        summary="neighbours, the first unbound: 128 struct pages of the other are not mapped",
        steps=(*steps, ("unbind", "nd", "nd_pmem", "pfn0.0")),
        expected=expect(_FIRST.start, _FIRST.end, "partial", page=page) + ranges(_SECOND, "mem"),
        # Those in the page of vmemmap that the first one had from its altmap.
        errors=(("vmemmap-unmapped", *taken_along[0][:2]),),
        unmapped=taken_along,
        impossible={f"{release}-arm64": _OWN_PAGES for release in ("6.12", "7.3")},
    )
    return neighbours, gone
