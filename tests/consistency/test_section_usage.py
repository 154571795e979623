# SPDX-License-Identifier: LGPL-2.1-or-later

"""Usages of sections, which must be memory that somebody allocated."""

from __future__ import annotations

import numpy as np
import pytest
from drgn import FaultError, Object, Program
from support.compared import compared
from support.fakekernel import FakeKernel
from support.kernels import Device, add_device, each_layout
from support.memmapmachine import DEVDAX, SECTION, memmap_machine

from drgn_zonedev.classification.classify import classify_snapshot
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.consistency import section_usage
from drgn_zonedev.consistency.claims import Scene
from drgn_zonedev.kernel.slab import SlabObject
from drgn_zonedev.model import Finding

DEVICE, RAM = 8, 1


def machine(layout: str) -> FakeKernel:
    kernel = FakeKernel(layout)
    kernel.section(RAM, online=True, early=True)
    kernel.memory_block(RAM)
    kernel.ram_pages(RAM * SECTION, (RAM + 1) * SECTION)
    add_device(kernel, Device(DEVICE * SECTION, (DEVICE + 1) * SECTION))
    kernel.set_variable("max_pfn", (RAM + 1) * SECTION)
    return kernel


def spots(kernel: FakeKernel) -> set[tuple[str, int, int]]:
    return {(f.slug, f.start_pfn, f.end_pfn) for f in compared(kernel).findings}


def dead(nr: int) -> set[tuple[str, int, int]]:
    return {("section-usage-dead", nr * SECTION, (nr + 1) * SECTION)}


@each_layout
@pytest.mark.parametrize("nr", [DEVICE, RAM])
@pytest.mark.parametrize("usage", [0x1000, 0x7FFF12345678, 0xFFFF888001000001, 1])
def test_address_that_no_object_has(layout: str, nr: int, usage: int) -> None:
    kernel = machine(layout)
    assert dead(nr) & spots(kernel) == set()
    kernel.poke_member("mem_section", kernel._section_slot(nr), "usage", usage)
    assert dead(nr) <= spots(kernel)


def slab_says(
    monkeypatch: pytest.MonkeyPatch, answer: SlabObject | Exception | None, reserved: bool = False
) -> None:
    def slab_object(prog: Program, address: int) -> SlabObject | None:
        if isinstance(answer, Exception):
            raise answer
        if answer is not None and answer.address == 0:
            return SlabObject(answer.cache, address, answer.allocated)
        return answer

    monkeypatch.setattr(section_usage, "slab_object", slab_object)
    monkeypatch.setattr(section_usage, "_is_reserved", lambda prog, address: reserved)


@pytest.mark.parametrize(
    ("answer", "reserved", "expected"),
    [
        (SlabObject("kmalloc-64", 0, True), False, set()),
        (SlabObject("kmalloc-64", 0, False), False, dead(DEVICE)),
        # It begins in front of it.
        (SlabObject("kmalloc-64", 0xFFFF888000000000, True), False, dead(DEVICE)),
        (SlabObject("kmalloc-64", None, None), False, set()),
        (None, True, set()),
        (None, False, dead(DEVICE)),
        (FaultError("not in the dump", 0), False, set()),
        (LookupError("no such type"), False, set()),
    ],
)
def test_what_the_slab_says(
    answer: SlabObject | Exception | None,
    reserved: bool,
    expected: set[tuple[str, int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slab_says(monkeypatch, answer, reserved)
    assert spots(machine("6.1")) == expected


def test_nothing_is_said_while_memory_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    slab_says(monkeypatch, SlabObject("kmalloc-64", 0, False))
    kernel = machine("6.1")
    lock = kernel.variables["mem_hotplug_lock"][1]
    kernel.poke_member("percpu_rw_semaphore", lock, "block.counter", 1)
    assert spots(kernel) == set()


def test_usage_that_is_not_mapped() -> None:
    made = memmap_machine("6.1")
    kernel, nr = made.kernel, DEVDAX // SECTION
    kernel.poke_member("mem_section", kernel._section_slot(nr), "usage", 0xFFFF8ABCDEF01000)
    prog = made.tables.program()
    snapshot = take_snapshot(prog)
    scene = Scene(prog, snapshot, classify_snapshot(prog, snapshot))
    check, _ = section_usage.USAGE_CHECKS
    (finding,) = check(scene)
    assert isinstance(finding, Finding)
    assert (finding.start_pfn, finding.end_pfn) == (DEVDAX, DEVDAX + SECTION)
    assert "not mapped" in finding.evidence[0].note


def shared(*numbers: int) -> set[tuple[str, int, int]]:
    return {("section-usage-shared", nr * SECTION, (nr + 1) * SECTION) for nr in numbers}


@each_layout
def test_two_sections_have_the_same_usage(layout: str) -> None:
    kernel = machine(layout)
    assert not [spot for spot in spots(kernel) if spot[0] == "section-usage-shared"]
    usage = kernel.member("mem_section", kernel._section_slot(RAM), "usage")
    kernel.poke_member("mem_section", kernel._section_slot(DEVICE), "usage", usage)
    found = {spot for spot in spots(kernel) if spot[0] == "section-usage-shared"}
    assert found == shared(RAM, DEVICE)


@pytest.mark.parametrize("layout", ["5.10", "7.3"])
@pytest.mark.parametrize("distance", [0, 8])
def test_usages_overlap(layout: str, distance: int) -> None:
    kernel = machine(layout)
    size = kernel.layout.structs["mem_section_usage"].size
    usage = kernel.member("mem_section", kernel._section_slot(DEVICE), "usage")
    kernel.poke_member("mem_section", kernel._section_slot(RAM), "usage", usage + distance)
    found = {spot for spot in spots(kernel) if spot[0] == "section-usage-shared"}
    assert found == (shared(RAM, DEVICE) if distance < size else set())


@pytest.mark.parametrize("linear", [True, False])
def test_usage_outside_the_linear_mapping(monkeypatch: pytest.MonkeyPatch, linear: bool) -> None:
    kernel = machine("6.1")
    slab_says(monkeypatch, None, reserved=True)
    usage = kernel.member("mem_section", kernel._section_slot(DEVICE), "usage")
    frame, base = 0x1234, usage & ~0xFFF
    monkeypatch.setattr(section_usage, "walks_in_bulk", lambda prog: True)
    monkeypatch.setattr(section_usage, "page_frames", lambda *_: np.array([frame], np.int64))
    monkeypatch.setattr(
        section_usage,
        "pfn_to_virt",
        lambda prog, pfn: Object(prog, "unsigned long", base if linear else base + 4096),
    )
    assert dead(DEVICE) & spots(kernel) == (set() if linear else dead(DEVICE))


@pytest.mark.parametrize("error", [Exception("could not find variable"), LookupError("PFN_PHYS")])
def test_where_the_linear_mapping_is_unknown_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(prog: Program, pfn: int) -> Object:
        raise error

    kernel = machine("6.1")
    slab_says(monkeypatch, None, reserved=True)
    monkeypatch.setattr(section_usage, "walks_in_bulk", lambda prog: True)
    monkeypatch.setattr(section_usage, "page_frames", lambda *_: np.array([0x1234], np.int64))
    monkeypatch.setattr(section_usage, "pfn_to_virt", fail)
    assert spots(kernel) == set()


def test_mistake_of_ours_is_not_taken_for_missing_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(prog: Program, pfn: int) -> Object:
        raise TypeError("ours")

    monkeypatch.setattr(section_usage, "walks_in_bulk", lambda prog: True)
    monkeypatch.setattr(section_usage, "page_frames", lambda *_: np.array([0x1234], np.int64))
    monkeypatch.setattr(section_usage, "pfn_to_virt", fail)
    with pytest.raises(TypeError, match="ours"):
        spots(machine("6.1"))
