# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

from pathlib import Path

import pytest
from drgn import Object
from support.fakekernel import FakeKernel, Users
from support.usedpages import FIRST, machine

from drgn_zonedev.export.store import StoredDump
from drgn_zonedev.kernel.memremap import for_each_dev_pagemap
from drgn_zonedev.kernel.waiters import page_waiters, removal_waiters

VMCORES = Path(__file__).parents[2] / "vmcores"


@pytest.mark.parametrize("layout", ["5.10", "7.2"])
def test_a_task_in_memunmap_pages_waits_for_a_completion(layout: str) -> None:
    made = machine(layout)
    prog = made.kernel.program()
    pgmap = Object(prog, "struct dev_pagemap *", made.pgmap)
    assert list(removal_waiters(pgmap)) == []
    made.users.wait_for_removal(made.second, made.pgmap)
    assert [task.value_() for task in removal_waiters(pgmap)] == [made.second.task]


def test_nobody_waits_in_an_export_whose_queue_is_empty() -> None:
    # It has no type of an entry: no task is in it.
    dump = StoredDump(VMCORES / "7.3-two-in-one")
    with dump.program() as prog:
        pgmaps = [pgmap for _, pgmap in for_each_dev_pagemap(prog)]
        assert pgmaps
        assert [list(removal_waiters(pgmap)) for pgmap in pgmaps] == [[]] * len(pgmaps)


def test_up_to_5_16_a_task_waits_until_the_queue_of_pmem_is_frozen() -> None:
    kernel = FakeKernel("5.10", users=True)
    users = Users(kernel)
    task = users.process(7, "unbind").task
    queue = kernel.new("request_queue")
    head = users.at("request_queue", queue, "mq_freeze_wq.head")
    entry = kernel.new("wait_queue_entry", private=task)
    link = users.at("wait_queue_entry", entry, "entry")
    for a, b in ((head, link), (link, head)):
        kernel.poke_member("list_head", a, "next", b)
    pgmap = kernel.pgmap((0x40000, 0x48000))
    ref = users.at("request_queue", queue, "q_usage_counter")
    kernel.poke_member("dev_pagemap", pgmap, "ref", ref)
    found = removal_waiters(Object(kernel.program(), "struct dev_pagemap *", pgmap))
    assert [waiter.value_() for waiter in found] == [task]


@pytest.mark.parametrize("offset", [0, 52])
def test_a_task_waits_for_a_page_or_its_reference_count(offset: int) -> None:
    made = machine("7.2")
    prog = made.kernel.program()
    assert list(page_waiters(prog)) == []
    made.users.wait_for_page(made.first, FIRST, offset)
    ((pfn, task),) = page_waiters(prog)
    assert (pfn, task.value_()) == (FIRST, made.first.task)
