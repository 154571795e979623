# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A machine of every layout: what is on it is counted in sections and subsections, which are of
other sizes elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from support.fakekernel import Altmap, FakeKernel
from support.fakekernel.layouts import LAYOUT_FILES, TABLES, VARIANTS, Layout
from support.kernels import Device, put_device

__all__ = (
    "BIG_ENDIAN",
    "JUDGED",
    "WITHOUT_DEVICES",
    "WITH_DEVICES",
    "LayoutMachine",
    "Part",
    "layout_machine",
)

BIG_ENDIAN = sorted(n for n in LAYOUT_FILES if TABLES[n].macros.architecture == "S390X")
JUDGED = sorted({*LAYOUT_FILES, *VARIANTS} - set(BIG_ENDIAN))
WITH_DEVICES = [name for name in JUDGED if TABLES[name].has_zone_device]
WITHOUT_DEVICES = [name for name in JUDGED if not TABLES[name].has_zone_device]

RAM, SHARED, OWN, SECOND, OFFLINE, NEW = 0, 8, 9, 10, 12, 13


@dataclass(frozen=True)
class Part:
    """PFNs, and the case that they are by arithmetic."""

    start_pfn: int
    end_pfn: int
    case: str


@dataclass(frozen=True)
class LayoutMachine:
    """
    RAM with an fsdax device in the same section, which ends in another one together with
    devdax of compound pages; more devdax, offline RAM, and a device that is being added.
    """

    kernel: FakeKernel
    fsdax: tuple[int, int]
    data: int
    devdax: tuple[tuple[int, int], ...]
    order: int

    @property
    def section(self) -> int:
        """PAGES_PER_SECTION"""
        return self.kernel.macros.pages_per_section

    @property
    def layout(self) -> Layout:
        return self.kernel.layout

    def parts(self) -> Iterator[Part]:
        """What is where, by arithmetic."""
        size = self.section
        yield Part(RAM * size, (RAM + 1) * size, "online")
        if not self.layout.has_zone_device:
            yield Part(SHARED * size, (SHARED + 1) * size, "online")
        else:
            yield from self._devices()
        if self.layout.has_member("memory_block", "state"):
            yield Part(OFFLINE * size, (OFFLINE + 1) * size, "offline")
        if self.layout.has_member("dev_pagemap", "nr_range") and self.layout.has_zone_device:
            yield Part(NEW * size, (NEW + 1) * size, "initializing")

    def _devices(self) -> Iterator[Part]:
        start, end = self.fsdax
        reserve = self.kernel.altmap_reserve
        yield Part(SHARED * self.section, start, "online")
        yield Part(start, start + reserve, "reserved")
        yield Part(start + reserve, self.data, "metadata")
        yield Part(self.data, end, "device")
        for first, last in self.devdax:
            yield Part(first, last, "device")
            yield Part(last, (last // self.section + 1) * self.section, "partial")


def layout_machine(name: str) -> LayoutMachine:
    """Build it."""
    return layout_machine_of(FakeKernel(name))


def layout_machine_of(kernel: FakeKernel) -> LayoutMachine:
    """Build it in a kernel that has nothing yet."""
    size, unit = kernel.macros.pages_per_section, kernel.macros.pages_per_subsection
    half, quarter = size // 2, size // 4
    fsdax = (SHARED * size + half, OWN * size + quarter)
    devdax = ((OWN * size + quarter, OWN * size + half), (SECOND * size, SECOND * size + half))
    order = unit.bit_length() - 1 if kernel.layout.has_member("dev_pagemap", "vmemmap_shift") else 0
    made = LayoutMachine(kernel, fsdax, fsdax[0] + unit, devdax, order)
    kernel.section(RAM, online=True, early=True)
    kernel.memory_block(RAM)
    kernel.ram_pages(RAM * size, (RAM + 1) * size)
    kernel.section(SHARED, online=True, early=True, taint=True)
    kernel.memory_block(SHARED)
    kernel.ram_pages(
        SHARED * size, fsdax[0] if kernel.layout.has_zone_device else (SHARED + 1) * size
    )
    if kernel.layout.has_member("memory_block", "state"):
        kernel.section(OFFLINE)
        kernel.memory_block(OFFLINE, "MEM_OFFLINE")
        kernel.map_memmap(OFFLINE * size, (OFFLINE + 1) * size)
        kernel.system_ram(OFFLINE * size, (OFFLINE + 1) * size)
    if kernel.layout.has_zone_device:
        _add_devices(made)
    kernel.set_variable("max_pfn", (SHARED + 1) * size)
    return made


def _add_devices(made: LayoutMachine) -> None:
    kernel, size = made.kernel, made.section
    half = range(kernel.macros.subsections_per_section // 2)
    kernel.section(OWN, taint=True, subsections=half)
    kernel.section(SECOND, taint=True, subsections=half)
    start, end = made.fsdax
    kernel.map_memmap(start, (SHARED + 1) * size)
    reserve = kernel.altmap_reserve
    altmap = Altmap(start, end - 1, reserve=reserve, free=made.data - start - reserve)
    put_device(kernel, Device(start, end, altmap=altmap))
    if kernel.layout.has_member("dev_pagemap", "nr_range"):
        pgmap = kernel.pgmap(*made.devdax, type="MEMORY_DEVICE_GENERIC", vmemmap_shift=made.order)
        for first, last in made.devdax:
            kernel.device_pages(first, last, pgmap)
        kernel.section(NEW)
        kernel.map_memmap(NEW * size, (NEW + 1) * size)
        kernel.pgmap((NEW * size, (NEW + 1) * size), in_flight=True)
    else:
        for first, last in made.devdax:
            put_device(kernel, Device(first, last, "MEMORY_DEVICE_GENERIC"))
