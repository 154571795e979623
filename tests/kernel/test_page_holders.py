# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import pytest
from support.fakekernel.layoutfile import Member, Struct
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


def test_a_ring_has_a_table_of_structures_up_to_v5_12() -> None:
    made = machine("6.1")
    structs = made.kernel.layout.structs
    structs["io_mapped_ubuf"] = Struct(
        16, False, {"nr_bvecs": Member("unsigned int", 0), "bvec": Member("struct bio_vec *", 8)}
    )
    user_bufs = structs["io_ring_ctx"].members["user_bufs"]
    structs["io_ring_ctx"].members["user_bufs"] = Member(
        "struct io_mapped_ubuf *", user_bufs.offset
    )
    size = structs["bio_vec"].size
    table, vectors = made.kernel.allocate(3 * 16), made.kernel.allocate(3 * size)
    for i, pfn in enumerate((FIRST, FIRST + 7, FIRST + 2)):
        made.kernel.poke_member("bio_vec", vectors + i * size, "bv_page", made.kernel.page(pfn))
    # The buffer between them is not registered.
    for i, (first, count) in enumerate(((0, 2), (0, 0), (2, 1))):
        made.kernel.poke_member("io_mapped_ubuf", table + 16 * i, "nr_bvecs", count)
        at = vectors + first * size if count else 0
        made.kernel.poke_member("io_mapped_ubuf", table + 16 * i, "bvec", at)
    context = made.kernel.new("io_ring_ctx", nr_user_bufs=3, user_bufs=table)
    made.users.open(made.first, "io_uring_fops", context)
    pages = [FIRST, FIRST + 7, FIRST + 2]
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
