# SPDX-License-Identifier: LGPL-2.1-or-later

"""The list of the page tables of all tasks."""

from __future__ import annotations

import pytest
from support.fakekernel import FakeKernel
from support.kernels import each_layout
from support.memmapmachine import PGDS, memmap_machine

from drgn_zonedev.kernel.pgd_list import copies_kernel_entries, task_page_tables


@each_layout
def test_page_tables_in_the_order_of_the_list(layout: str) -> None:
    prog = memmap_machine(layout).kernel.program()
    assert copies_kernel_entries(prog)
    assert tuple(task_page_tables(prog)) == PGDS


def test_architecture_without_such_a_list() -> None:
    prog = FakeKernel("6.1").program()
    assert not copies_kernel_entries(prog)
    with pytest.raises(LookupError):
        list(task_page_tables(prog))


def test_list_that_leads_to_no_struct_page_ends() -> None:
    kernel = memmap_machine("6.1").kernel
    kernel.poke(kernel.page(PGDS[1]) + 8, (kernel.page(PGDS[2]) + 24).to_bytes(8, "little"))
    assert tuple(task_page_tables(kernel.program())) == PGDS[:2]
