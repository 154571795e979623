# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import pytest
from drgn import Architecture, FaultError, Platform, Program
from support.fakekernel import FakeKernel

from drgn_zonedev.vmcore.reads import first_unreadable, read_memory


def test_first_unreadable_is_where_the_first_page_that_is_missing_begins() -> None:
    kernel = FakeKernel()
    start = kernel.allocate(4 * 4096)
    kernel.hide(start + 2 * 4096, 4096)
    prog = kernel.program()
    assert first_unreadable(prog, start + 4000, 3 * 4096) == start + 2 * 4096
    assert first_unreadable(prog, start + 2 * 4096 + 8, 8) == start + 2 * 4096 + 8
    assert first_unreadable(prog, start + 4000, 2 * 4096 - 4000) is None
    assert first_unreadable(prog, start + 3 * 4096, 4096) is None


def test_first_unreadable_of_nothing_is_none() -> None:
    assert first_unreadable(FakeKernel().program(), 0x1000, 0) is None


@pytest.mark.parametrize(("address", "size"), [((1 << 64) - 8, 16), (-8, 8), (8, -8)])
def test_what_is_beyond_the_address_space_faults(address: int, size: int) -> None:
    with pytest.raises(FaultError, match="beyond the end"):
        read_memory(FakeKernel().program(), address, size)


def test_first_unreadable_behind_the_last_address_is_the_first() -> None:
    last = (1 << 64) - 4096
    prog = Program(Platform(Architecture.X86_64))
    prog.add_memory_segment(last, 4096, lambda address, count, offset, physical: bytes(count))
    assert first_unreadable(prog, last, 4096) is None
    assert first_unreadable(prog, last + 8, 4096) == 0
