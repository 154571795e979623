# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ready-made kernels."""

from __future__ import annotations

from .kernel import Altmap, FakeKernel

_SECTIONS_END = 0x40000
_RAM_PAGES_END = 0x3FFE0


def _collided_machine(layout: str) -> FakeKernel:
    """1 GiB of RAM with a hole for persistent memory at 0x24000-0x30000, after boot."""
    kernel = FakeKernel(layout)
    for nr in (0, 1, 2, 3, 6, 7):
        kernel.section(nr, online=True, early=True)
        kernel.memory_block(nr)
    kernel.section(4, online=True, early=True, taint=True)
    kernel.memory_block(4)
    kernel.section(5)
    kernel.ram_pages(0, 0x24000)
    kernel.hole_pages(0x24000, 0x28000, "ZONE_DMA32")
    kernel.ram_pages(0x30000, _RAM_PAGES_END)
    kernel.hole_pages(_RAM_PAGES_END, _SECTIONS_END)
    # The memmap of section 5 is on the device, which was never written to.
    kernel.map_memmap(0x28000, 0x30000)
    kernel.metadata_pages(0x24002, 0x24400)
    kernel.set_variable("max_pfn", _RAM_PAGES_END)
    kernel.set_variable("highest_memmap_pfn", _SECTIONS_END - 1)
    return kernel


_COLLISION_ALTMAP = Altmap(0x24000, 0x2FFFF, reserve=2, free=1022, align=510, alloc=512)


def collision(layout: str) -> FakeKernel:
    """
    An fsdax namespace, map=dev, at PFNs 0x24000-0x30000, shares section 4 with RAM.

    0x24000-0x24002 is the reserve (stale boot-time hole pages), then metadata
    up to 0x24400, then device pages.
    """
    kernel = _collided_machine(layout)
    pgmap = kernel.pgmap((0x24000, 0x30000), altmap=_COLLISION_ALTMAP, ops="fsdax_pagemap_ops")
    kernel.device_pages(0x24400, 0x30000, pgmap)
    return kernel


def in_flight(layout: str) -> FakeKernel:
    """collision(), frozen at the entry of memmap_init_zone_device()."""
    kernel = _collided_machine(layout)
    kernel.pgmap(
        (0x24000, 0x30000), altmap=_COLLISION_ALTMAP, in_flight=True, ops="fsdax_pagemap_ops"
    )
    return kernel


def teardown(layout: str) -> FakeKernel:
    """collision(), frozen at the entry of arch_remove_memory() while the device leaves."""
    kernel = _collided_machine(layout)
    pgmap = kernel.pgmap(
        (0x24000, 0x30000), altmap=_COLLISION_ALTMAP, ref="dead", ops="fsdax_pagemap_ops"
    )
    kernel.device_pages(0x24400, 0x30000, pgmap)
    return kernel


def partial(layout: str) -> FakeKernel:
    """
    A device-dax device, map=dev, at PFNs 0x100000-0x114000: 2.5 sections.

    0x100000-0x100002 is the reserve (zeros), then metadata up to 0x100600, then
    device pages, compound ones of 2 MiB where the layout has vmemmap_shift. The
    memmap of the second half of section 0x22 does not exist. RAM is below 0x10000.
    """
    kernel = FakeKernel(layout)
    for nr in (0, 1):
        kernel.section(nr, online=True, early=True)
        kernel.memory_block(nr)
    kernel.ram_pages(0, 0x10000)
    kernel.section(0x20)
    kernel.section(0x21)
    kernel.section(0x22, taint=True, subsections=range(32))
    kernel.map_memmap(0x100000, 0x114000)
    altmap = Altmap(0x100000, 0x113FFF, reserve=2, free=1534, align=510, alloc=1024)
    pgmap = kernel.pgmap(
        (0x100000, 0x114000),
        type="MEMORY_DEVICE_GENERIC",
        altmap=altmap,
        vmemmap_shift=9,
    )
    kernel.metadata_pages(0x100002, 0x100600)
    kernel.device_pages(0x100600, 0x114000, pgmap)
    kernel.set_variable("max_pfn", 0x10000)
    return kernel


def far(layout: str) -> FakeKernel:
    """Sections in three roots, with all kinds of subsection maps."""
    kernel = FakeKernel(layout)
    kernel.section(0, online=True, early=True, subsections=range(7, 60))
    kernel.section(5, has_mem_map=False, usage=False)
    kernel.section(6, present=False, has_mem_map=False, usage=False)
    kernel.section(255, subsections=[0, 2, 63])
    kernel.section(256, subsections=None)
    kernel.section(300000, online=True)
    return kernel


def without_usage(layout: str) -> FakeKernel:
    """far(), and a section with a memmap but no usage, on which drgn's helpers stumble."""
    kernel = far(layout)
    kernel.section(257, usage=False)
    return kernel
