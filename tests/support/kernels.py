# SPDX-License-Identifier: LGPL-2.1-or-later

"""Fake kernels that many tests begin with, and the layouts that they are built for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from support.fakekernel import LAYOUTS, Altmap, FakeKernel, collision

PAGES_PER_SECTION = 0x8000

each_layout = pytest.mark.parametrize("layout", LAYOUTS)
WITHOUT_ZONE_DEVICE = "6.1-no-zone-device"
# Of what is about RAM alone.
each_layout_with_ram = pytest.mark.parametrize("layout", [*LAYOUTS, WITHOUT_ZONE_DEVICE])
# Of what takes seconds, the first and the last differ most.
ends_of_layouts = pytest.mark.parametrize(
    "layout",
    [
        LAYOUTS[0],
        *(
            pytest.param(layout, marks=pytest.mark.long("the first and the last are in every run"))
            for layout in LAYOUTS[1:-1]
        ),
        LAYOUTS[-1],
    ],
)
# 5.10 has neither compound pages in the memmap of devices nor a flag for sections that
# a device shares.
since_compounds = since_taint = pytest.mark.parametrize("layout", LAYOUTS[1:])


@dataclass(frozen=True)
class Device:
    """A device's PFNs, and how its struct pages are to be initialised."""

    start_pfn: int
    end_pfn: int
    type: str = "MEMORY_DEVICE_FS_DAX"
    shift: int = 0
    altmap: Altmap | None = None
    nid: int = 0


def put_device(kernel: FakeKernel, device: Device) -> int:
    """
    Initialise the struct pages of a device, whose sections there are: those of the
    altmap's reserve stay zero, metadata and data follow.

    :return: Address of its pgmap.
    """
    start_pfn, first, nid = device.start_pfn, device.start_pfn, device.nid
    pgmap = kernel.pgmap(
        (start_pfn, device.end_pfn),
        type=device.type,
        altmap=device.altmap,
        vmemmap_shift=device.shift,
        nid=nid,
    )
    if device.altmap:
        first += device.altmap.offset
        kernel.map_memmap(start_pfn, first)
        kernel.metadata_pages(start_pfn + device.altmap.reserve, first, nid=nid)
    kernel.device_pages(first, device.end_pfn, pgmap, nid=nid)
    return pgmap


def add_device(kernel: FakeKernel, device: Device) -> int:
    """
    put_device() in sections of its own. Those that it covers in part are tainted, as
    move_pfn_range_to_zone() does.
    """
    first = device.start_pfn // PAGES_PER_SECTION * PAGES_PER_SECTION
    for section in range(first, device.end_pfn, PAGES_PER_SECTION):
        start = max(section, device.start_pfn)
        end = min(section + PAGES_PER_SECTION, device.end_pfn)
        kernel.sections(start, end, taint=end - start < PAGES_PER_SECTION)
    return put_device(kernel, device)


def device(layout: str, of: Device) -> FakeKernel:
    """A kernel that has nothing but a device."""
    kernel = FakeKernel(layout)
    add_device(kernel, of)
    return kernel


def machine(layout: str, *, devices: Sequence[Device], offline: int | None = None) -> FakeKernel:
    """
    collision(), and more devices in sections of their own.

    :param offline: Number of a section of RAM that was never onlined.
    """
    kernel = collision(layout)
    for more in devices:
        add_device(kernel, more)
    if offline is not None:
        kernel.section(offline)
        kernel.memory_block(offline, "MEM_OFFLINE")
        first = offline * PAGES_PER_SECTION
        kernel.system_ram(first, first + PAGES_PER_SECTION)
    return kernel
