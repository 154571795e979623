# SPDX-License-Identifier: LGPL-2.1-or-later

"""Where pages are in the memmap of a device, and what depends on its type and the release."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.fakekernel import LAYOUTS, FakeKernel

from drgn_zonedev.kernel.memmap import PageLayout, page_layout
from drgn_zonedev.verification.promises import (
    Area,
    DevicePages,
    MetadataPages,
    Place,
    area_of,
    builds_folios,
    is_idle_at_one,
    periodic_areas,
)

each_layout = pytest.mark.parametrize("layout", LAYOUTS)
PROMISE = DevicePages(0xFFFF888000001000, "MEMORY_DEVICE_GENERIC", 0x40200, 0x41000, (0,), 9)
# How many struct pages lie under a struct folio.
UNDER_FOLIO = {"5.10": 1, "6.1": 2, "6.12": 3, "7.2": 4}


def layout_of(name: str) -> PageLayout:
    kernel = FakeKernel(name)
    kernel.section(8)
    return page_layout(kernel.program())


@each_layout
@pytest.mark.parametrize(
    ("type", "before", "after"),
    [
        ("MEMORY_DEVICE_GENERIC", True, True),
        ("MEMORY_DEVICE_FS_DAX", True, False),
        ("MEMORY_DEVICE_PRIVATE", False, False),
        ("MEMORY_DEVICE_PCI_P2PDMA", False, False),
    ],
)
def test_last_reference_is_kept_by_type(layout: str, type: str, before: bool, after: bool) -> None:
    promise = dataclasses.replace(PROMISE, type=type)
    assert is_idle_at_one(layout_of(layout), promise) == (after if layout == "7.2" else before)


@each_layout
def test_drivers_build_folios_since_they_hold_the_pgmap(layout: str) -> None:
    types = ("GENERIC", "FS_DAX", "PRIVATE", "COHERENT", "PCI_P2PDMA")
    promises = [dataclasses.replace(PROMISE, type=f"MEMORY_DEVICE_{type}") for type in types]
    found = [builds_folios(layout_of(layout), promise) for promise in promises]
    since = layout == "7.2"
    assert found == [False, since, since, since, False]
    assert not builds_folios(layout_of(layout), MetadataPages((0,)))


@each_layout
@pytest.mark.parametrize("shift", [1, 2, 9, 18])
def test_areas_of_a_compound_page_are_all_of_it_once(layout: str, shift: int) -> None:
    period, areas = periodic_areas(
        layout_of(layout), dataclasses.replace(PROMISE, vmemmap_shift=shift)
    )
    assert period == 1 << shift
    assert [i for indices in areas.values() for i in indices] == list(range(1 << shift))


@each_layout
def test_pages_are_named_by_their_distance_from_the_first_one(layout: str) -> None:
    names, under_folio = layout_of(layout), UNDER_FOLIO[layout]
    for head in (0x40200, 0x40E00):
        assert area_of(names, PROMISE, head) is Area.HEAD
        assert area_of(names, PROMISE, head + 1) is Area.FIRST_TAIL
        for index in (2, 3, 4, 511):
            wanted = Area.FOLIO_TAIL if index < under_folio else Area.TAIL
            assert area_of(names, PROMISE, head + index) is wanted
    base = dataclasses.replace(PROMISE, vmemmap_shift=0)
    assert area_of(names, base, 0x40201) is Area.BASE
    assert area_of(names, MetadataPages((0,)), 0x40201) is Area.METADATA


@each_layout
def test_place_of_pages_of_any_shape(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    pfn = np.array([[0x40200, 0x40201], [0x403FF, 0x40400]])
    place = Place(page_layout(kernel.program()), PROMISE, pfn)
    assert place.index.tolist() == [[0, 1], [511, 0]]
    assert place.address.tolist() == [[kernel.page(p) for p in row] for row in pfn.tolist()]
    heads = [[0x40200, 0x40200], [0x40200, 0x40400]]
    assert place.head_address.tolist() == [[kernel.page(p) for p in row] for row in heads]
