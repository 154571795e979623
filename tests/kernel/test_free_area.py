# SPDX-License-Identifier: LGPL-2.1-or-later

"""Free blocks, as zones count them and as struct pages say."""

from __future__ import annotations

import numpy as np
import pytest
from drgn import FaultError, Object
from support.fakekernel import FakeKernel
from support.kernels import each_layout
from support.structures import Structures

from drgn_zonedev.kernel.free_area import (
    count_free_blocks,
    free_frames,
    spin_is_locked,
    zone_nr_free,
)
from drgn_zonedev.kernel.memmap import Pages, read_pages

NORMAL = 2


@each_layout
def test_numbers_by_order(layout: str) -> None:
    kernel = FakeKernel(layout)
    numbers = tuple(range(7, 18))
    for order, number in enumerate(numbers):
        kernel.set_nr_free(0, NORMAL, order, number)
    kernel.set_nr_free(0, NORMAL, 10, (1 << 64) - 1)
    zone = kernel.zone(0, NORMAL)
    assert zone_nr_free(kernel.program(), zone) == (*numbers[:10], (1 << 64) - 1)
    kernel.hide(zone + kernel.layout.structs["zone"].members["free_area"].offset + 500, 1)
    with pytest.raises(FaultError):
        zone_nr_free(kernel.program(), zone)


@each_layout
@pytest.mark.parametrize(("word", "held"), [(0, False), (1, True), (0x100, True), (0x40000, True)])
def test_queued_spinlock(layout: str, word: int, held: bool) -> None:
    # Held; somebody waits for it; and somebody queues.
    kernel = FakeKernel(layout)
    zone = kernel.zone(0, NORMAL)
    kernel.poke_member("zone", zone, "lock.rlock.raw_lock.val.counter", word)
    assert spin_is_locked(Object(kernel.program(), "struct zone", address=zone).lock) == held


@pytest.mark.parametrize(("word", "held"), [(0, False), (1, True), (0x10000, True), (6, True)])
def test_queued_spinlock_of_ppc64(word: int, held: bool) -> None:
    # queued_spin_is_locked() in arch/powerpc/include/asm/qspinlock.h: any bit.
    made = Structures(
        {
            "qspinlock": (("val", "unsigned int"),),
            "raw_spinlock": (("raw_lock", "struct qspinlock"),),
            "spinlock": (("rlock", "struct raw_spinlock"),),
        }
    )
    address = made.new("spinlock")
    made.set("qspinlock", address, val=word)
    assert spin_is_locked(Object(made.program(), "struct spinlock", address=address)) == held


@pytest.mark.parametrize(
    ("word", "held"), [(0, False), (0x00070007, False), (0xFFFFFFFF, False), (0x00080007, True)]
)
def test_ticket_lock(word: int, held: bool) -> None:
    made = Structures(
        {
            "ticket": (("counter", "int"),),
            "raw_spinlock": (("raw_lock", "struct ticket"),),
            "spinlock": (("rlock", "struct raw_spinlock"),),
        }
    )
    address = made.new("spinlock")
    made.set("ticket", address, counter=word)
    assert spin_is_locked(Object(made.program(), "struct spinlock", address=address)) == held


def test_lock_of_another_kind_is_not_known() -> None:
    made = Structures(
        {
            "other": (("slock", "int"),),
            "raw_spinlock": (("raw_lock", "struct other"),),
            "spinlock": (("rlock", "struct raw_spinlock"),),
        }
    )
    address = made.new("spinlock")
    prog = made.program()
    assert spin_is_locked(Object(prog, "struct spinlock", address=address)) is None
    assert spin_is_locked(Object(prog, "int", address=address)) is None


@pytest.mark.parametrize("owner", [0, 0xFFFF888001234501])
def test_lock_of_a_real_time_kernel_has_an_owner(owner: int) -> None:
    made = Structures(
        {
            "rt_mutex_base": (("wait_lock", "unsigned int"), ("owner", "void *")),
            "spinlock": (("lock", "struct rt_mutex_base"),),
        }
    )
    address = made.new("spinlock")
    made.set("rt_mutex_base", address, owner=owner)
    assert spin_is_locked(Object(made.program(), "struct spinlock", address=address)) == bool(owner)


def test_lock_of_a_kernel_for_one_processor_is_never_held() -> None:
    made = Structures(
        {
            "arch_spinlock": (),
            "raw_spinlock": (("raw_lock", "struct arch_spinlock"), ("magic", "unsigned int")),
            "spinlock": (("rlock", "struct raw_spinlock"),),
        }
    )
    address = made.new("spinlock")
    assert not spin_is_locked(Object(made.program(), "struct spinlock", address=address))


@each_layout
def test_blocks_among_struct_pages(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(0, online=True, early=True)
    kernel.ram_pages(0x1000, 0x2000)
    kernel.ram_pages(0x2000, 0x2100, nid=1)
    for pfn, order in ((0x1000, 3), (0x1008, 3), (0x1400, 10), (0x2000, 0)):
        kernel.free_block(pfn, order)
    (pages,) = read_pages(kernel.program(), 0x1000, 0x2100)
    assert isinstance(pages, Pages)
    assert dict(count_free_blocks(kernel.program(), pages)) == {
        (0, 1, 3): 2,
        (0, 1, 10): 1,
        (1, 1, 0): 1,
    }


@each_layout
def test_page_frames_in_free_blocks(layout: str) -> None:
    kernel = FakeKernel(layout)
    kernel.section(1, online=True, early=True)
    kernel.ram_pages(0x8000, 0x10000)
    blocks = {0x8000: 0, 0x8004: 2, 0x8800: 10, 0xA002: 1}
    for pfn, order in blocks.items():
        kernel.free_block(pfn, order)
    # A tail holds anything where others have their type.
    kernel.poke_page_word(0x8004, 1, kernel.page(0x8000) | 1)
    del blocks[0x8004]
    free = {p for pfn, order in blocks.items() for p in range(pfn, pfn + (1 << order))}
    frames = np.arange(0x8000, 0xB000)
    found = free_frames(kernel.program(), frames)
    assert set(frames[found].tolist()) == free
    kernel.hide(kernel.page(0x8800), 64)
    assert not free_frames(kernel.program(), np.array([0x8801, 0x8BFF, 1 << 30])).any()
