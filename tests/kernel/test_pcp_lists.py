# SPDX-License-Identifier: LGPL-2.1-or-later

"""Per-CPU lists: which blocks are on them, and that damaged ones end."""

from __future__ import annotations

import pytest
from drgn import Program, Type, TypeKind, TypeKindSet, TypeMember
from support.fakekernel import FakeKernel
from support.fakekernel.ram import busy_ram

from drgn_zonedev.kernel.pcp_lists import pcp_free_blocks, unaccepted_blocks
from drgn_zonedev.kernel.zones import zones

NODE, ZONE = 0, 1
# struct per_cpu_pages: the number of pages, and NR_PCP_LISTS of 6.1 and later.
COUNT, LISTS, NR_LISTS = 4, 40, 14
SIZE = LISTS + 16 * NR_LISTS
LRU = 8
PFNS = range(0x42000, 0x42100)


def with_type(prog: Program) -> Program:
    lists = prog.array_type(prog.type("struct list_head"), NR_LISTS)
    members = (
        TypeMember(prog.type("int"), "count", 8 * COUNT),
        TypeMember(lists, "lists", 8 * LISTS),
    )
    pages = prog.struct_type("per_cpu_pages", SIZE, members)

    def find(prog: Program, kinds: TypeKindSet, name: str, filename: str | None) -> Type | None:
        return pages if name == "per_cpu_pages" and TypeKind.STRUCT in kinds else None

    prog.register_type_finder("pcp", find, enable_index=0)
    return prog


def put(kernel: FakeKernel, head: int, pfns: list[int]) -> None:
    """A list of pages: head->next, and so on, back to the head."""
    at = head
    for pfn in pfns:
        kernel.poke(at, (kernel.page(pfn) + LRU).to_bytes(8, "little"))
        at = kernel.page(pfn) + LRU
    kernel.poke(at, head.to_bytes(8, "little"))


@pytest.fixture
def kernel() -> FakeKernel:
    return busy_ram("6.12")


def lists_of(kernel: FakeKernel, count: int) -> list[int]:
    """Empty lists of the last CPU, which counts so many pages."""
    pointer, addresses = kernel.per_cpu(SIZE)
    kernel.poke_member("zone", kernel.zone(NODE, ZONE), "per_cpu_pageset", pointer)
    kernel.poke(addresses[-1] + COUNT, count.to_bytes(4, "little"))
    for address in addresses:
        heads = [address + LISTS + 16 * i for i in range(NR_LISTS)]
        for head in heads:
            put(kernel, head, [])
    return heads


def blocks(kernel: FakeKernel) -> list[tuple[int, int]]:
    prog = with_type(kernel.program())
    return [tuple(row) for row in pcp_free_blocks(prog, zones(prog).found).tolist()]


def test_order_is_that_of_the_list(kernel: FakeKernel) -> None:
    heads = lists_of(kernel, 3 + 2 + 8 + 512)
    put(kernel, heads[0], [PFNS[0], PFNS[7]])
    put(kernel, heads[2], [PFNS[3]])
    # MIGRATE_PCPTYPES is 3.
    put(kernel, heads[3], [PFNS[8]])
    put(kernel, heads[11], [PFNS[16]])
    put(kernel, heads[13], [0x42200])
    wanted = [(PFNS[0], 0), (PFNS[7], 0), (PFNS[3], 0), (PFNS[8], 1), (PFNS[16], 3), (0x42200, 9)]
    assert blocks(kernel) == wanted


def test_list_goes_no_further_than_it_counts(kernel: FakeKernel) -> None:
    heads = lists_of(kernel, 2)
    put(kernel, heads[0], list(PFNS[:5]))
    assert blocks(kernel) == [(PFNS[0], 0), (PFNS[1], 0)]


def test_damaged_list_ends(kernel: FakeKernel) -> None:
    heads = lists_of(kernel, 1000)
    put(kernel, heads[0], [PFNS[0], PFNS[1]])
    for garbage in (kernel.page(PFNS[0]) + LRU, 0xDEAD000000000100, kernel.page(0) + 3, 0):
        kernel.poke(kernel.page(PFNS[1]) + LRU, garbage.to_bytes(8, "little"))
        assert blocks(kernel) == [(PFNS[0], 0), (PFNS[1], 0)]


def test_kernel_without_unaccepted_memory_has_none() -> None:
    prog = busy_ram("5.10").program()
    assert len(unaccepted_blocks(prog, zones(prog).found, 10)) == 0


def test_unaccepted_blocks_are_on_a_list(kernel: FakeKernel) -> None:
    prog = kernel.program()
    offset = prog.type("struct zone").member("unaccepted_pages").offset
    put(kernel, kernel.zone(NODE, ZONE) + offset, [0x42400, 0x42800])
    assert unaccepted_blocks(prog, zones(prog).found[:1], 10).tolist() == [
        [0x42400, 10],
        [0x42800, 10],
    ]
