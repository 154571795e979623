# SPDX-License-Identifier: LGPL-2.1-or-later

"""Memory blocks, whose states were renumbered."""

from __future__ import annotations

import pytest
from drgn import Program
from support.fakekernel import FakeKernel, collision
from support.kernels import each_layout
from support.structures import Structures

from drgn_zonedev.kernel.memory_blocks import (
    MEMMAP_UNREADABLE,
    mem_hotplug_in_progress,
    memory_block_states,
    memory_blocks,
    section_memory_block,
    sections_per_block,
)

STATES = (
    "MEM_ONLINE",
    "MEM_GOING_OFFLINE",
    "MEM_OFFLINE",
    "MEM_GOING_ONLINE",
    "MEM_CANCEL_ONLINE",
    "MEM_CANCEL_OFFLINE",
)


@each_layout
def test_states_have_the_same_names_in_both_numberings(layout: str) -> None:
    kernel = FakeKernel(layout)
    blocks = {nr: (kernel.memory_block(nr, state), state) for nr, state in enumerate(STATES, 70)}
    assert memory_block_states(kernel.program()) == blocks


@each_layout
def test_pages_that_store_the_memmap_of_a_block(layout: str) -> None:
    kernel = FakeKernel(layout)
    for nr, pages in ((3, 0), (4, 512), (5, 1 << 63)):
        kernel.memory_block(nr, memmap_pages=pages)
    found = memory_blocks(kernel.program()).memmap_pages.tolist()
    # No block has more than 1 << 62.
    assert found == ([0, 512, 1 << 62] if kernel.stores_block_memmaps else [0, 0, 0])


@pytest.mark.parametrize("layout", ["6.12", "7.2"])
def test_altmap_that_cannot_be_read_does_not_disturb_others(layout: str) -> None:
    kernel = FakeKernel(layout)
    blocks = [kernel.memory_block(nr, memmap_pages=512) for nr in (3, 4, 5)]
    kernel.poke_member("memory_block", blocks[1], "altmap", 0x7FFC12345678)
    offset, size = kernel.layout.locate("memory_block", "altmap")
    kernel.hide(blocks[2] + offset, size)
    found = memory_blocks(kernel.program()).memmap_pages.tolist()
    assert found == [512, MEMMAP_UNREADABLE, MEMMAP_UNREADABLE]


def test_block_by_its_id() -> None:
    kernel = FakeKernel()
    block = kernel.memory_block(3, "MEM_OFFLINE")
    found = {i: memory_blocks(kernel.program()).find(i) for i in (-1, 0, 2, 3, 4)}
    assert found == {-1: None, 0: None, 2: None, 3: (block, "MEM_OFFLINE"), 4: None}


@each_layout
@pytest.mark.parametrize("value", [77, 0x100])
def test_unknown_state_is_a_number(layout: str, value: int) -> None:
    kernel = FakeKernel(layout)
    block = kernel.memory_block(3)
    kernel.poke_member("memory_block", block, "state", value)
    assert memory_block_states(kernel.program()) == {3: (block, f"{value:#x}")}


@each_layout
def test_unreadable_block_does_not_disturb_others(layout: str) -> None:
    kernel = FakeKernel(layout)
    hidden, block = kernel.memory_block(3), kernel.memory_block(4, "MEM_OFFLINE")
    kernel.hide(hidden, 64)
    states = memory_block_states(kernel.program())
    assert states == {3: (hidden, "unreadable"), 4: (block, "MEM_OFFLINE")}


@each_layout
def test_block_of_a_section(layout: str) -> None:
    prog = collision(layout).program()
    assert section_memory_block(prog, 4).start_section_nr == 4
    assert not section_memory_block(prog, 5)
    assert not section_memory_block(prog, 1 << 19)


@each_layout
def test_block_of_several_sections(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.set_variable("sections_per_block", 16)
    block = kernel.memory_block(2)  # by ID
    prog = kernel.program()
    assert sections_per_block(prog) == 16
    found = [nr for nr in range(64) if section_memory_block(prog, nr)]
    assert found == list(range(32, 48))
    assert section_memory_block(prog, 40).value_() == block


def test_kernel_without_memory_hotplug() -> None:
    kernel = FakeKernel()
    del kernel.variables["memory_blocks"]
    del kernel.variables["sections_per_block"]
    del kernel.variables["mem_hotplug_lock"]
    prog = kernel.program()
    assert memory_block_states(prog) == {}
    assert not section_memory_block(prog, 0)
    assert section_memory_block(prog, 0).type_.type_name() == "struct memory_block *"
    bare = kernel.program(hidden=frozenset(["struct memory_block"]))
    assert section_memory_block(bare, 0).type_.type_name() == "void *"
    assert not mem_hotplug_in_progress(prog)


@each_layout
@pytest.mark.parametrize("block", [0, 1])
def test_hotplug_is_in_progress_while_its_lock_blocks_readers(layout: str, block: int) -> None:
    kernel = FakeKernel(layout)
    lock = kernel.variables["mem_hotplug_lock"][1]
    kernel.poke_member("percpu_rw_semaphore", lock, "block.counter", block)
    assert mem_hotplug_in_progress(kernel.program()) == bool(block)


# Before v5.8, they are found on the bus of that name.

_OLD = {
    "kobject": (("name", "const char *"), ("entry", "struct list_head")),
    "kset": (("list", "struct list_head"),),
    "subsys_kset": (("kobj", "struct kobject"),),
    "klist": (("k_list", "struct list_head"),),
    "klist_node": (("n_node", "struct list_head"),),
    "subsys_private": (("subsys", "struct subsys_kset"), ("klist_devices", "struct klist")),
    "device": (("p", "struct device_private *"),),
    "device_private": (("knode_bus", "struct klist_node"), ("device", "struct device *")),
    "memory_block": (
        ("start_section_nr", "unsigned long"),
        ("state", "unsigned long"),
        ("dev", "struct device"),
    ),
}


def old_machine(states: dict[int, int]) -> tuple[Program, dict[int, int]]:
    """Memory blocks of two sections each, with their states, and their addresses."""
    made = Structures(_OLD)
    per_block = made.variable("sections_per_block", "int")
    made.poke(per_block, (2).to_bytes(4, "little"))
    kset, bus = made.new("kset"), made.new("subsys_private")
    made.poke(made.variable("bus_kset", "struct kset *"), kset.to_bytes(8, "little"))
    made.poke(bus, made.string("memory").to_bytes(8, "little"))
    made.empty_list(kset)
    made.append(kset, bus + made.offset("kobject", "entry"))
    devices = bus + made.offset("subsys_private", "klist_devices")
    made.empty_list(devices)
    blocks = {}
    for block_id, state in states.items():
        block = made.new("memory_block", start_section_nr=2 * block_id, state=state)
        dev = block + made.offset("memory_block", "dev")
        private = made.new("device_private", device=dev)
        made.append(devices, private)
        blocks[block_id] = block
    return made.program(), blocks


def test_blocks_of_a_kernel_without_an_xarray_of_them_are_on_their_bus() -> None:
    prog, blocks = old_machine({5: 1, 0: 4, 9: 2})
    names = {0: "MEM_OFFLINE", 5: "MEM_ONLINE", 9: "MEM_GOING_OFFLINE"}
    assert memory_block_states(prog) == {i: (blocks[i], names[i]) for i in (0, 5, 9)}
    assert section_memory_block(prog, 11).value_() == blocks[5]
    assert not section_memory_block(prog, 12)


@pytest.mark.parametrize("readers_block", [0, 1])
def test_hotplug_lock_of_a_kernel_that_blocks_readers_by_another_member(
    readers_block: int,
) -> None:
    made = Structures({"percpu_rw_semaphore": (("readers_block", "int"),)})
    lock = made.variable("mem_hotplug_lock", "struct percpu_rw_semaphore")
    made.poke(lock, readers_block.to_bytes(4, "little"))
    assert mem_hotplug_in_progress(made.program()) == bool(readers_block)
