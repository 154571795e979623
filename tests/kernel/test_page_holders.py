# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import pytest
from support.usedpages import FIRST, Machine, machine

from drgn_zonedev.kernel.page_holders import HolderKind, held_pages, page_holders
from drgn_zonedev.kernel.tasks import Process, for_each_process

BOTH = pytest.mark.parametrize("layout", ["6.1", "7.2"])


def held(made: Machine) -> list[tuple[int, HolderKind, list[int]]]:
    prog = made.kernel.program()
    first: Process = next(iter(for_each_process(prog)))
    return [
        (fd, holder.kind, list(held_pages(prog, holder)))
        for fd, holder in page_holders(prog, first)
    ]


@BOTH
def test_a_pipe_holds_what_was_not_read(layout: str) -> None:
    made = machine(layout)
    pipe = made.users.pipe(made.first, [FIRST, FIRST + 1, FIRST + 2])
    buffers = made.kernel.member("pipe_inode_info", pipe, "bufs")
    made.kernel.poke_member("pipe_buffer", buffers, "ops", 0)
    pages = [FIRST + i for i in (1, 2)]
    assert held(made) == [(3, HolderKind.PIPE, pages)]


@BOTH
def test_a_ring_pins_what_is_registered(layout: str) -> None:
    made = machine(layout)
    made.users.ring(made.first, [FIRST, FIRST + 7])
    pages = [FIRST + i for i in (0, 7)]
    assert held(made) == [(3, HolderKind.IO_URING, pages)]


@BOTH
def test_files_of_other_kinds_hold_nothing(layout: str) -> None:
    made = machine(layout)
    made.kernel.add_variable("socket_fops", "unsigned long")
    made.users.open(made.first, "socket_fops", 0)
    assert held(made) == []


@BOTH
def test_damaged_numbers_are_bounded(layout: str) -> None:
    made = machine(layout)
    pipe = made.users.pipe(made.first, [])
    made.kernel.poke_member("pipe_inode_info", pipe, "ring_size", 0xFFFFFFFF)
    made.kernel.poke_member("pipe_inode_info", pipe, "bufs", made.kernel.allocate(1 << 25))
    ((_, _, pages),) = held(made)
    assert pages == []
