# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Classification of made-up machines.

Expected ranges are arithmetic on what each scene builds. Section 8 starts at PFN
0x40000; a section has 0x8000 pages, a subsection 0x200.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from drgn import Object, Program, TypeKind, cast
from drgn.helpers.linux.mmzone import (
    NODE_DATA,
    early_section,
    nr_to_section,
    online_section,
    present_section,
    valid_section,
)
from drgn.helpers.linux.nodemask import for_each_online_node
from drgn.helpers.linux.xarray import xa_load
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.fakekernel import LAYOUTS, Altmap, FakeKernel, collision, in_flight, partial
from support.kernels import each_layout, since_taint

from drgn_zonedev.classification.classify import classify
from drgn_zonedev.model import Case, Memmap, Range

Cut = tuple[int, int, str]


def cut(kernel: FakeKernel, start: int = 0, end: int = 1 << 40) -> list[Cut]:
    """Ranges that touch [start, end), as (start PFN, end PFN, name of the case)."""
    ranges = classify(kernel.program())
    return [
        (r.start_pfn, r.end_pfn, r.case.value)
        for r in ranges
        if r.start_pfn < end and start < r.end_pfn
    ]


def only(kernel: FakeKernel) -> Range:
    """The one range of a kernel."""
    (range_,) = classify(kernel.program())
    return range_


# Ready-made scenes.


@each_layout
def test_collision_of_ram_and_a_device_with_altmap(layout: str) -> None:
    assert cut(collision(layout)) == [
        (0, 0x24000, "online"),
        (0x24000, 0x24002, "reserved"),
        (0x24002, 0x24400, "metadata"),
        (0x24400, 0x30000, "device"),
        (0x30000, 0x40000, "online"),
    ]


@each_layout
def test_initialisation_in_flight(layout: str) -> None:
    assert cut(in_flight(layout)) == [
        (0, 0x24000, "online"),
        (0x24000, 0x24002, "reserved"),
        (0x24002, 0x24400, "metadata"),
        (0x24400, 0x30000, "initializing"),
        (0x30000, 0x40000, "online"),
    ]


@each_layout
def test_partially_covered_section(layout: str) -> None:
    kernel = partial(layout)
    assert cut(kernel) == [
        (0, 0x10000, "online"),
        (0x100000, 0x100002, "reserved"),
        (0x100002, 0x100600, "metadata"),
        (0x100600, 0x114000, "device"),
        (0x114000, 0x118000, "partial"),
    ]
    memmaps = {r.case: r.memmap for r in classify(kernel.program())}
    assert memmaps.pop(Case.PARTIAL) is Memmap.UNMAPPED
    assert set(memmaps.values()) == {Memmap.MAPPED}


# RAM.


@each_layout
@pytest.mark.parametrize("state", ["MEM_OFFLINE", "MEM_GOING_ONLINE", "MEM_GOING_OFFLINE"])
def test_hot_added_ram_is_offline_until_its_block_is_online(layout: str, state: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    kernel.memory_block(8, state)
    assert cut(kernel) == [(0x40000, 0x48000, "offline")]


@each_layout
def test_boot_ram_that_was_offlined(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8, early=True)
    kernel.memory_block(8, "MEM_OFFLINE")
    assert cut(kernel) == [(0x40000, 0x48000, "offline")]


@each_layout
def test_boot_ram_without_memory_blocks_can_be_offline(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8, early=True)
    assert cut(kernel) == [(0x40000, 0x48000, "offline")]


@each_layout
def test_block_online_but_section_not_is_a_transition(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    kernel.memory_block(8, "MEM_ONLINE")
    assert cut(kernel) == [(0x40000, 0x48000, "unknown")]
    assert "one of them is changing" in only(kernel).reason


@each_layout
def test_section_online_before_its_block(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8, online=True)
    kernel.memory_block(8, "MEM_GOING_ONLINE")
    assert cut(kernel) == [(0x40000, 0x48000, "online")]


@each_layout
def test_memory_blocks_of_several_sections(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.set_variable("sections_per_block", 2)
    kernel.sections(0x40000, 0x60000)
    kernel.memory_block(4, "MEM_OFFLINE")  # by ID: sections 8 and 9
    assert cut(kernel) == [(0x40000, 0x50000, "offline"), (0x50000, 0x60000, "orphan")]


@each_layout
def test_neighbours_of_one_kind_are_one_range(layout: str) -> None:
    kernel = FakeKernel(layout)
    for nr, early in ((8, True), (9, False), (10, True)):
        kernel.section(nr, online=True, early=early)
    kernel.section(12, online=True)
    assert cut(kernel) == [(0x40000, 0x58000, "online"), (0x60000, 0x68000, "online")]


def test_sections_that_are_not_present_are_not_memory() -> None:
    kernel = FakeKernel()
    kernel.section(8, present=False, online=True)
    assert cut(kernel) == []


def test_machine_without_sections_is_empty() -> None:
    assert cut(FakeKernel()) == []


# Devices.


@each_layout
def test_two_devices_in_one_section(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8, taint=True, subsections=[0, 1, 62, 63])
    first = kernel.pgmap((0x40000, 0x40400))
    second = kernel.pgmap((0x47C00, 0x48000))
    assert cut(kernel) == [
        (0x40000, 0x40400, "device"),
        (0x40400, 0x47C00, "partial"),
        (0x47C00, 0x48000, "device"),
    ]
    pgmaps = [r.pgmap for r in classify(kernel.program())]
    assert pgmaps == [first, None, second]


@each_layout
def test_adjacent_devices_stay_apart(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    kernel.pgmap((0x40000, 0x44000))
    kernel.pgmap((0x44000, 0x48000))
    assert cut(kernel) == [(0x40000, 0x44000, "device"), (0x44000, 0x48000, "device")]


@each_layout
def test_second_range_in_progress(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.sections(0x40000, 0x50000)
    kernel.sections(0x60000, 0x68000)
    kernel.pgmap((0x40000, 0x50000), (0x60000, 0x68000), nr_range=1)
    assert cut(kernel) == [(0x40000, 0x50000, "device"), (0x60000, 0x68000, "initializing")]


@each_layout
def test_altmap_is_about_the_first_range_only(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.sections(0x40000, 0x50000)
    altmap = Altmap(0x40000, 0x47FFF, reserve=2, free=510)
    kernel.pgmap((0x40000, 0x48000), (0x48000, 0x50000), altmap=altmap)
    assert cut(kernel) == [
        (0x40000, 0x40002, "reserved"),
        (0x40002, 0x40200, "metadata"),
        (0x40200, 0x48000, "device"),
        (0x48000, 0x50000, "device"),
    ]


@each_layout
def test_altmap_without_a_reserve(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    kernel.pgmap((0x40000, 0x48000), altmap=Altmap(0x40000, 0x47FFF, reserve=0, free=512))
    assert cut(kernel) == [(0x40000, 0x40200, "metadata"), (0x40200, 0x48000, "device")]


@each_layout
def test_absurd_altmap_stays_within_its_range(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8, online=True)
    kernel.pgmap((0x40000, 0x44000), altmap=Altmap(0x40000, 0, reserve=2, free=(1 << 64) - 1))
    assert cut(kernel) == [
        (0x40000, 0x40002, "reserved"),
        (0x40002, 0x44000, "metadata"),
        (0x44000, 0x48000, "online"),
    ]


@each_layout
def test_device_beyond_what_the_kernel_can_address_is_cut_off(layout: str) -> None:
    kernel = FakeKernel(layout)
    last = (1 << 34) - 1  # MAX_PHYSMEM_BITS 46, less 12 bits of page
    kernel.pgmap((last, last + 100), in_flight=True)
    assert cut(kernel) == [(last, last + 1, "initializing")]


# memremap_pages(), step by step.


def claim(kernel: FakeKernel, start: int, end: int, altmap: Altmap | None = None) -> int:
    """A pgmap right after xa_store_range(): nothing else has happened yet."""
    pgmap = kernel.pgmap((start, end), in_flight=True, altmap=altmap, stored=False)
    kernel.pgmap_array.store_range(start, end - 1, pgmap)
    return pgmap


ALTMAP = Altmap(0x40000, 0x47FFF, reserve=2, free=510)


@each_layout
@pytest.mark.parametrize("altmap", [None, ALTMAP])
def test_claimed_before_the_section_is_there(layout: str, altmap: Altmap | None) -> None:
    kernel = FakeKernel(layout)
    claim(kernel, 0x40000, 0x48000, altmap)
    assert cut(kernel) == [(0x40000, 0x48000, "initializing")]
    assert only(kernel).memmap is Memmap.UNMAPPED


@each_layout
def test_claimed_where_an_earlier_device_has_grown_the_zone(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.grow_zone("ZONE_DEVICE", 0x40000, 0x48000)
    claim(kernel, 0x40000, 0x48000, ALTMAP)
    assert cut(kernel) == [(0x40000, 0x48000, "initializing")]


@each_layout
def test_claimed_part_of_an_early_section_has_the_memmap_of_boot(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8, early=True, online=True, subsections=range(32))
    kernel.memory_block(8)
    claim(kernel, 0x44000, 0x48000)
    assert cut(kernel) == [(0x40000, 0x44000, "online"), (0x44000, 0x48000, "initializing")]
    assert {r.memmap for r in classify(kernel.program())} == {Memmap.MAPPED}


@each_layout
def test_sections_appear_one_by_one(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.set_variable("__highest_present_section_nr", 9)
    kernel.section(8)
    claim(kernel, 0x40000, 0x50000)
    ranges = classify(kernel.program())
    assert [(r.start_pfn, r.end_pfn, r.case, r.memmap) for r in ranges] == [
        (0x40000, 0x48000, Case.INITIALIZING, Memmap.MAPPED),
        (0x48000, 0x50000, Case.INITIALIZING, Memmap.UNMAPPED),
    ]


@each_layout
def test_metadata_is_not_initialised_before_the_zone_has_grown(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    claim(kernel, 0x40000, 0x48000, ALTMAP)
    assert cut(kernel) == [(0x40000, 0x40002, "reserved"), (0x40002, 0x48000, "initializing")]


@each_layout
def test_metadata_is_not_promised_while_memory_is_hot_added_to_a_zone_grown_before(
    layout: str,
) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    kernel.grow_zone("ZONE_DEVICE", 0x40000, 0x48000)
    set_hotplug(kernel)
    claim(kernel, 0x40000, 0x48000, ALTMAP)
    assert cut(kernel) == [(0x40000, 0x40002, "reserved"), (0x40002, 0x48000, "initializing")]


@each_layout
def test_metadata_is_initialised_once_hot_add_is_over(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    kernel.grow_zone("ZONE_DEVICE", 0x40000, 0x48000)
    claim(kernel, 0x40000, 0x48000, ALTMAP)
    assert cut(kernel) == [
        (0x40000, 0x40002, "reserved"),
        (0x40002, 0x40200, "metadata"),
        (0x40200, 0x48000, "initializing"),
    ]


def set_hotplug(kernel: FakeKernel, block: int = 1) -> None:
    """mem_hotplug_begin()"""
    address = kernel.variables["mem_hotplug_lock"][1]
    kernel.poke_member("percpu_rw_semaphore", address, "block.counter", block)


@each_layout
def test_hot_add_in_flight_is_not_an_orphan(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    set_hotplug(kernel)
    assert cut(kernel) == [(0x40000, 0x48000, "unknown")]
    set_hotplug(kernel, 0)
    assert cut(kernel) == [(0x40000, 0x48000, "orphan")]


@each_layout
def test_section_left_behind_by_a_failed_memremap(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(7, online=True, early=True)
    kernel.section(8, subsections=range(16))
    assert cut(kernel) == [
        (0x38000, 0x40000, "online"),
        (0x40000, 0x42000, "orphan"),
        (0x42000, 0x48000, "partial"),
    ]


# Teardown.


@each_layout
@pytest.mark.parametrize("ref", ["dead", "exited", "null"])
def test_dying_pgmap_is_teardown_as_a_whole(layout: str, ref: str) -> None:
    if ref == "null" and layout != "5.10":
        pytest.skip("only 5.10 points to the reference")
    kernel = FakeKernel(layout)
    kernel.section(8)
    kernel.pgmap((0x40000, 0x48000), altmap=ALTMAP, ref=ref)
    assert cut(kernel) == [(0x40000, 0x48000, "teardown")]


@each_layout
def test_sections_of_a_dying_pgmap_go_one_by_one(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(9)
    kernel.pgmap((0x40000, 0x50000), ref="dead")
    ranges = classify(kernel.program())
    assert [(r.start_pfn, r.end_pfn, r.case, r.memmap) for r in ranges] == [
        (0x40000, 0x48000, Case.TEARDOWN, Memmap.UNMAPPED),
        (0x48000, 0x50000, Case.TEARDOWN, Memmap.MAPPED),
    ]


def test_external_reference_keeps_a_pgmap_alive() -> None:
    kernel = FakeKernel("5.10")
    kernel.section(8)
    kernel.pgmap((0x40000, 0x48000), ref="external")
    assert cut(kernel) == [(0x40000, 0x48000, "device")]


# Early sections.


@each_layout
def test_hole_in_an_early_section_is_mapped(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8, online=True, early=True, subsections=range(32))
    kernel.memory_block(8)
    ranges = classify(kernel.program())
    assert [(r.start_pfn, r.end_pfn, r.case, r.memmap) for r in ranges] == [
        (0x40000, 0x44000, Case.ONLINE, Memmap.MAPPED),
        (0x44000, 0x48000, Case.PARTIAL, Memmap.MAPPED),
    ]
    assert ranges[1].reason == "a boot-time hole in an early section"


@each_layout
def test_hole_beside_a_device(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8, online=True, early=True, taint=True, subsections=[0, 1, 2, 60])
    kernel.memory_block(8)
    kernel.pgmap((0x47800, 0x47A00))
    ranges = classify(kernel.program())
    assert [(r.start_pfn, r.end_pfn, r.case.value) for r in ranges] == [
        (0x40000, 0x40600, "online"),
        (0x40600, 0x47800, "partial"),
        (0x47800, 0x47A00, "device"),
        (0x47A00, 0x48000, "partial"),
    ]
    assert ranges[1].reason == ranges[3].reason
    assert "that a device shares" in ranges[1].reason


def deserted(layout: str, *, taint: bool = True) -> FakeKernel:
    """An early section whose second half a device has left."""
    kernel = FakeKernel(layout)
    kernel.section(8, online=True, early=True, taint=taint, subsections=range(32))
    kernel.memory_block(8)
    kernel.grow_zone("ZONE_DEVICE", 0x44000, 0x48000)
    return kernel


@since_taint
def test_tainted_hole_where_zone_device_was_is_a_ghost(layout: str) -> None:
    kernel = deserted(layout)
    assert cut(kernel) == [(0x40000, 0x44000, "online"), (0x44000, 0x48000, "ghost")]


def test_without_the_taint_a_ghost_looks_like_a_hole() -> None:
    expected = [(0x40000, 0x44000, "online"), (0x44000, 0x48000, "partial")]
    assert cut(deserted("5.10")) == expected
    assert cut(deserted("6.1", taint=False)) == expected


def test_what_only_struct_pages_show_is_said() -> None:
    # Without the taint, what is inside ZONE_DEVICE may be either. Where the kernel knows it,
    # an untainted section never had a device.
    shown = "only struct pages show which"
    assert shown in classify(deserted("5.10").program())[1].reason
    assert shown not in classify(deserted("6.1", taint=False).program())[1].reason
    assert "only struct pages show" in classify(deserted("6.1").program())[1].reason
    never = FakeKernel("5.10")
    never.section(8, online=True, early=True, subsections=range(32))
    never.grow_zone("ZONE_DEVICE", 0x48000, 0x50000)
    assert classify(never.program())[1].reason == "a boot-time hole in an early section"


@since_taint
def test_tainted_hole_outside_of_zone_device_is_a_hole(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8, online=True, early=True, taint=True, subsections=range(32))
    kernel.grow_zone("ZONE_DEVICE", 0x48000, 0x50000)
    assert cut(kernel) == [(0x40000, 0x44000, "online"), (0x44000, 0x48000, "partial")]


# What cannot be read.


def usage_of(kernel: FakeKernel, section: int) -> int:
    """Address of a section's struct mem_section_usage."""
    return kernel.member("mem_section", section, "usage")


@each_layout
def test_unreadable_usage_is_unknown(layout: str) -> None:
    kernel = FakeKernel(layout)
    section = kernel.section(8, online=True)
    kernel.section(9, online=True)
    kernel.hide(usage_of(kernel, section), 24)
    assert cut(kernel) == [(0x40000, 0x48000, "unknown"), (0x48000, 0x50000, "online")]
    assert classify(kernel.program())[0].memmap is Memmap.UNKNOWN


@each_layout
def test_unreadable_usage_of_an_early_section_leaves_the_memmap_mapped(layout: str) -> None:
    kernel = FakeKernel(layout)
    section = kernel.section(8, online=True, early=True)
    kernel.hide(usage_of(kernel, section), 24)
    assert (only(kernel).case, only(kernel).memmap) == (Case.UNKNOWN, Memmap.MAPPED)


def test_usage_that_points_nowhere_is_unknown() -> None:
    kernel = FakeKernel()
    section = kernel.section(8, online=True)
    kernel.section(9, online=True)
    kernel.poke_member("mem_section", section, "usage", (1 << 64) - 8)
    assert cut(kernel) == [(0x40000, 0x48000, "unknown"), (0x48000, 0x50000, "online")]


@each_layout
def test_device_with_an_unreadable_usage_is_still_the_device(layout: str) -> None:
    kernel = FakeKernel(layout)
    section = kernel.section(8)
    kernel.pgmap((0x40000, 0x48000))
    kernel.hide(usage_of(kernel, section), 24)
    assert (only(kernel).case, only(kernel).memmap) == (Case.DEVICE, Memmap.UNKNOWN)


@each_layout
def test_unreadable_sections_are_unknown(layout: str) -> None:
    kernel = FakeKernel(layout)
    section = kernel.section(8, online=True)
    kernel.section(256, online=True)  # in the second root
    kernel.hide(section, 16)
    assert cut(kernel) == [(0, 0x800000, "unknown"), (0x800000, 0x808000, "online")]


@each_layout
def test_complete_device_in_an_unreadable_section_is_unknown(layout: str) -> None:
    kernel = FakeKernel(layout)
    section = kernel.section(8)
    kernel.pgmap((0x40000, 0x48000))
    kernel.hide(section, 16)
    assert cut(kernel, 0x40000, 0x48000) == [(0x40000, 0x48000, "unknown")]


@each_layout
def test_complete_pgmap_without_populated_subsections_is_unknown(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8, subsections=range(32))
    kernel.pgmap((0x40000, 0x50000))
    assert cut(kernel) == [(0x40000, 0x44000, "device"), (0x44000, 0x50000, "unknown")]


@each_layout
@pytest.mark.parametrize("online", [False, True])
def test_section_without_memmap_is_unknown(layout: str, online: bool) -> None:
    kernel = FakeKernel(layout)
    kernel.section(7, online=True)
    kernel.section(8, has_mem_map=False, online=online)
    assert cut(kernel) == [(0x38000, 0x40000, "online"), (0x40000, 0x48000, "unknown")]
    assert classify(kernel.program())[1].memmap is Memmap.UNMAPPED


@each_layout
def test_present_section_without_usage_is_not_populated(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8, usage=False)
    assert cut(kernel) == [(0x40000, 0x48000, "partial")]


@each_layout
def test_unreadable_reference_is_unknown(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    pgmap = kernel.pgmap((0x40000, 0x48000), ref="external" if layout == "5.10" else "live")
    address = pgmap + kernel.layout.locate("dev_pagemap", "ref")[0]
    if layout == "5.10":
        address = kernel.member("dev_pagemap", pgmap, "ref")
    kernel.hide(address, 16)
    assert cut(kernel) == [(0x40000, 0x48000, "unknown")]


@each_layout
def test_unreadable_pgmap_leaves_what_it_claims_unknown(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.sections(0x40000, 0x58000)
    kernel.pgmap((0x40000, 0x44000))
    pgmap = kernel.pgmap((0x44000, 0x50200))
    kernel.pgmap((0x50200, 0x58000))
    kernel.hide(pgmap, kernel.layout.structs["dev_pagemap"].size)
    assert cut(kernel) == [
        (0x40000, 0x44000, "device"),
        (0x44000, 0x50200, "unknown"),
        (0x50200, 0x58000, "device"),
    ]


@each_layout
def test_claim_outside_of_the_ranges_of_its_pgmap_is_unknown(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.sections(0x40000, 0x58000)
    pgmap = kernel.pgmap((0x40000, 0x48000))
    kernel.pgmap_array.store_range(0x50000, 0x57FFF, pgmap)
    assert cut(kernel) == [
        (0x40000, 0x48000, "device"),
        (0x48000, 0x50000, "orphan"),
        (0x50000, 0x58000, "unknown"),
    ]


# Evidence.


@each_layout
def test_evidence_leads_to_the_words_in_memory(layout: str) -> None:
    kernel = collision(layout)
    prog = kernel.program()
    for range_ in classify(prog):
        words = [fact for fact in range_.evidence if fact.address is not None]
        assert words
        for fact in words:
            assert fact.address is not None
            size = 4 if fact.what == "pgmap->nr_range" else 8
            assert int.from_bytes(prog.read(fact.address, size), "little") == fact.value


def test_evidence_of_an_offline_block() -> None:
    kernel = FakeKernel("7.2")
    kernel.section(8)
    block = kernel.memory_block(8, "MEM_OFFLINE")
    facts = {fact.what: fact for fact in only(kernel).evidence}
    assert facts["memory_blocks[8]"].value == block
    assert facts["memory_blocks[8]"].note == "MEM_OFFLINE"
    assert facts["pgmap_array[0x40000]"].note == "no pgmap"


# Any machine at all: the invariants, and each PFN against the recipe, followed
# page by page with drgn's objects.


@dataclass(frozen=True)
class Facts:
    """What the recipe needs to know of one PFN."""

    section: Object
    populated: bool
    pgmap: Object
    block: Object


def facts_of(prog: Program, pfn: int) -> Facts:
    nr = pfn >> 15
    section = nr_to_section(prog, nr)
    populated = False
    if section and section.usage:
        populated = bool(section.usage.subsection_map[0].value_() >> (pfn % 32768 // 512) & 1)
    return Facts(
        section=section,
        populated=populated,
        pgmap=cast("struct dev_pagemap *", xa_load(prog["pgmap_array"].address_of_(), pfn)),
        block=cast("struct memory_block *", xa_load(prog["memory_blocks"].address_of_(), nr)),
    )


def recipe(prog: Program, pfn: int) -> str | None:
    """What a PFN is, or None if it is no memory."""
    facts = facts_of(prog, pfn)
    if facts.pgmap:
        return claimed(prog, pfn, facts)
    if not facts.section or not present_section(facts.section):
        return None
    if not valid_section(facts.section):
        return "unknown"
    return unclaimed(prog, pfn, facts)


def is_dead(pgmap: Object) -> bool:
    ref = pgmap.ref
    if ref.type_.kind == TypeKind.POINTER and not ref:
        return True
    return bool(ref.percpu_count_ptr.value_() & 2)


def holds(range_: Object, pfn: int) -> bool:
    return range_.start.value_() <= pfn << 12 <= range_.end.value_()


def claimed(prog: Program, pfn: int, facts: Facts) -> str:
    pgmap = facts.pgmap
    if is_dead(pgmap):
        return "teardown"
    section = facts.section
    mapped = facts.populated and present_section(section) and valid_section(section)
    nr_range = pgmap.nr_range.value_()
    index = next((i for i in range(nr_range) if holds(pgmap.ranges[i], pfn)), None)
    in_progress = index is None
    if in_progress:
        index = nr_range
        assert holds(pgmap.ranges[index], pfn)
    if not mapped:
        return "initializing" if in_progress else "unknown"
    offset = pfn - (pgmap.ranges[0].start.value_() >> 12)
    if index == 0 and pgmap.flags & 1:
        if offset < pgmap.altmap.reserve:
            return "reserved"
        if offset < pgmap.altmap.reserve + pgmap.altmap.free:
            # The fake grows the zone along with the claim.
            busy = prog["mem_hotplug_lock"].block.counter
            return "initializing" if in_progress and busy else "metadata"
    return "initializing" if in_progress else "device"


def unclaimed(prog: Program, pfn: int, facts: Facts) -> str:
    if facts.populated:
        return populated_ram(prog, facts)
    if not early_section(facts.section):
        return "partial"
    return "ghost" if is_deserted(prog, pfn, facts.section) else "partial"


def populated_ram(prog: Program, facts: Facts) -> str:
    if online_section(facts.section):
        return "online"
    if facts.block:
        online = 0 if "MEM_OFFLINE" in prog else 1
        return "unknown" if facts.block.state == online else "offline"
    if early_section(facts.section):
        return "offline"
    return "unknown" if prog["mem_hotplug_lock"].block.counter else "orphan"


def is_deserted(prog: Program, pfn: int, section: Object) -> bool:
    if "SECTION_TAINT_ZONE_DEVICE_BIT" not in prog:
        return False
    if not section.section_mem_map >> prog["SECTION_TAINT_ZONE_DEVICE_BIT"] & 1:
        return False
    first = pfn >> 15 << 15
    array = prog["pgmap_array"].address_of_()
    if any(xa_load(array, p) for p in range(first, first + 32768, 512)):
        return False
    return any(start <= pfn < end for start, end in device_spans(prog))


def device_spans(prog: Program) -> Iterator[tuple[int, int]]:
    for nid in for_each_online_node(prog):
        zone = NODE_DATA(prog, nid).node_zones[prog["ZONE_DEVICE"]]
        start = zone.zone_start_pfn.value_()
        yield start, start + zone.spanned_pages.value_()


FIRST_NR, SECTIONS = 254, 5  # on both sides of the border between two roots
FIRST_PFN = FIRST_NR << 15

section_flags: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "online": st.booleans(),
        "early": st.booleans(),
        "taint": st.booleans(),
        "has_mem_map": st.sampled_from([True, True, True, False]),
        "present": st.sampled_from([True, True, True, False]),
        "usage": st.sampled_from([True, True, True, False]),
        "subsections": st.one_of(
            st.just(range(64)),
            st.just(()),
            st.sets(st.integers(0, 63)),
            st.builds(range, st.integers(0, 32), st.integers(33, 64)),
        ),
    }
)
BLOCK_STATES = (None, "MEM_ONLINE", "MEM_OFFLINE", "MEM_GOING_ONLINE")
altmaps = st.one_of(st.none(), st.tuples(st.sampled_from([0, 2]), st.integers(0, 1500)))


@st.composite
def machines(draw: st.DrawFn) -> FakeKernel:
    kernel = FakeKernel(draw(st.sampled_from(LAYOUTS)))
    for nr in range(FIRST_NR, FIRST_NR + SECTIONS):
        if draw(st.booleans()):
            kernel.section(nr, **draw(section_flags))
        state = draw(st.sampled_from(BLOCK_STATES))
        if state:
            kernel.memory_block(nr, state)
    if draw(st.booleans()):
        set_hotplug(kernel)
    units = st.integers(0, SECTIONS * 64)
    cuts = sorted(draw(st.sets(units, max_size=8)))
    spans = [(FIRST_PFN + a * 512, FIRST_PFN + b * 512) for a, b in zip(cuts, cuts[1:])]
    while spans:
        count = draw(st.integers(1, 2))
        add_pgmap(draw, kernel, spans[:count])
        # What is skipped stays free of devices, though perhaps inside the zone.
        spans = spans[count + draw(st.integers(0, 1)) :]
    return kernel


def add_pgmap(draw: st.DrawFn, kernel: FakeKernel, ranges: list[tuple[int, int]]) -> None:
    head = draw(altmaps)
    start, end = ranges[0]
    altmap = Altmap(start, end - 1, *head) if head else None
    # The last range may be in progress; ranges behind it are not stored yet.
    nr_range = draw(st.integers(len(ranges) - 1, len(ranges)))
    refs = ["live", "live", "live", "dead", "exited"]
    refs += ["null", "external"] if kernel.layout.name == "5.10" else []
    ref = draw(st.sampled_from(refs))
    kernel.pgmap(*ranges, altmap=altmap, nr_range=nr_range, ref=ref, count=1)


def expected_at(prog: Program, pfns: set[int]) -> dict[int, str | None]:
    return {pfn: recipe(prog, pfn) for pfn in pfns}


def found_at(ranges: list[Range], pfns: set[int]) -> dict[int, str | None]:
    found: dict[int, str | None] = dict.fromkeys(pfns)
    for pfn in pfns:
        hits = [r.case.value for r in ranges if r.start_pfn <= pfn < r.end_pfn]
        assert len(hits) <= 1
        found[pfn] = hits[0] if hits else None
    return found


any_machine = given(kernel=machines(), data=st.data())
fast = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


@fast
@any_machine
def test_each_pfn_is_what_the_recipe_says(kernel: FakeKernel, data: st.DataObject) -> None:
    prog = kernel.program()
    ranges = classify(prog)
    inside = st.integers(FIRST_PFN - 2, FIRST_PFN + SECTIONS * 32768 + 2)
    pfns = data.draw(st.sets(inside, max_size=40))
    for range_ in ranges:
        pfns |= {range_.start_pfn, range_.start_pfn - 1, range_.end_pfn - 1, range_.end_pfn}
    assert found_at(ranges, pfns) == expected_at(prog, pfns)


@fast
@given(kernel=machines())
def test_ranges_are_sorted_disjoint_and_maximal(kernel: FakeKernel) -> None:
    prog = kernel.program()
    ranges = classify(prog)
    assert all(r.start_pfn < r.end_pfn and r.pages > 0 for r in ranges)
    for a, b in zip(ranges, ranges[1:]):
        assert a.end_pfn <= b.start_pfn
        if a.end_pfn == b.start_pfn and not starts_a_range(prog, b):
            assert (a.case, a.memmap, a.reason, a.pgmap) != (b.case, b.memmap, b.reason, b.pgmap)


def starts_a_range(prog: Program, range_: Range) -> bool:
    """Whether one of the ranges of the PFN's pgmap starts here: those never merge."""
    if range_.pgmap is None:
        return False
    pgmap = Object(prog, "struct dev_pagemap *", range_.pgmap)
    # Only if no complete range holds the PFN is there one more, in progress.
    complete = [pgmap.ranges[i] for i in range(pgmap.nr_range)]
    mine = [r for r in complete if holds(r, range_.start_pfn)] or [pgmap.ranges[pgmap.nr_range]]
    return mine[0].start.value_() == range_.start_pfn << 12


def merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The union of spans."""
    union: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if union and start <= union[-1][1]:
            union[-1] = (union[-1][0], max(end, union[-1][1]))
        else:
            union.append((start, end))
    return union


@fast
@given(kernel=machines(), hidden=st.sampled_from([None, 0, 256]))
def test_ranges_cover_sections_pgmaps_and_what_is_unreadable(
    kernel: FakeKernel, hidden: int | None
) -> None:
    prog = kernel.program()
    numbers = range(FIRST_NR, FIRST_NR + SECTIONS)
    present = {nr for nr in numbers if present_section(nr_to_section(prog, nr))}
    pgmaps = [
        (pfn, pfn + 512)
        for pfn in range(FIRST_PFN, FIRST_PFN + SECTIONS * 32768, 512)
        if facts_of(prog, pfn).pgmap
    ]
    if hidden is not None and nr_to_section(prog, hidden):
        kernel.hide(nr_to_section(prog, hidden).value_(), 16)
        present |= set(range(hidden, hidden + 256))
    expected = merged([(nr << 15, nr + 1 << 15) for nr in present] + pgmaps)
    ranges = classify(prog)
    assert merged([(r.start_pfn, r.end_pfn) for r in ranges]) == expected


@each_layout
@pytest.mark.parametrize("state", [77, 1 << 20])
def test_memory_block_in_a_state_without_a_name_is_unknown(layout: str, state: int) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    block = kernel.memory_block(8, "MEM_OFFLINE")
    kernel.poke_member("memory_block", block, "state", state)
    (range_,) = classify(kernel.program())
    assert range_.case is Case.UNKNOWN
    assert "state" in range_.reason


@each_layout
def test_memory_block_that_cannot_be_read_is_unknown(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(8)
    block = kernel.memory_block(8, "MEM_OFFLINE")
    kernel.hide(block, kernel.layout.structs["memory_block"].size)
    (range_,) = classify(kernel.program())
    assert range_.case is Case.UNKNOWN


@pytest.mark.parametrize("block_id", [1 << 40, (1 << 63) + 5, (1 << 64) - 1])
def test_block_of_memory_that_no_machine_has_disturbs_nothing(block_id: int) -> None:
    kernel = FakeKernel("6.1")
    kernel.section(8)
    block = kernel.memory_block(8, "MEM_OFFLINE")
    kernel.memory_blocks.store(block_id, block)
    (range_,) = classify(kernel.program())
    assert range_.case is Case.OFFLINE
