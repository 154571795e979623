# SPDX-License-Identifier: LGPL-2.1-or-later

"""A machine that has everything in little."""

from __future__ import annotations

import random
from collections.abc import Iterator

from support.defects import Pages
from support.fakekernel import Altmap, FakeKernel
from support.kernels import Device, put_device

# fsdax that shares its first section with
# RAM and its second one with devdax, and ends with it in mid-section.
FSDAX, DATA, DEVDAX, END = 0x47800, 0x47A00, 0x48400, 0x48C00
SHARED, OWN = 8, 9


def little_machine(layout: str) -> FakeKernel:
    kernel = FakeKernel(layout)
    kernel.section(SHARED, online=True, early=True, taint=True)
    kernel.memory_block(SHARED)
    kernel.ram_pages(0x40000, FSDAX)
    kernel.section(OWN, taint=True, subsections=range(6))
    kernel.map_memmap(FSDAX, END)
    altmap = Altmap(FSDAX, DEVDAX - 1, reserve=2, free=DATA - FSDAX - 2)
    put_device(kernel, Device(FSDAX, DEVDAX, altmap=altmap))
    put_device(kernel, Device(DEVDAX, END, "MEMORY_DEVICE_GENERIC", shift=9))
    return kernel


def areas(layout: str) -> list[Pages]:
    order = 0 if layout == "5.10" else 9
    return [
        Pages(FSDAX + 2, DATA, metadata=True),
        Pages(DATA, DEVDAX),
        Pages(DEVDAX, END, "MEMORY_DEVICE_GENERIC", order),
    ]


def places(pages: Pages, rng: random.Random, count: int) -> Iterator[int]:
    """The corners of an area, and random PFNs between them."""
    size = 1 << pages.order
    yield pages.start_pfn
    yield pages.end_pfn - 1
    if pages.order:
        last = pages.end_pfn - size
        yield from (last, last + 1, last + 2, last + 3, last + 4, last + 64, last + 128)
    for _ in range(count):
        yield rng.randrange(pages.start_pfn, pages.end_pfn)
