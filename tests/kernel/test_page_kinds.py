# SPDX-License-Identifier: LGPL-2.1-or-later

"""What pages of RAM say of themselves, in each kernel."""

from __future__ import annotations

import numpy as np
import pytest
from drgn import FindObjectFlags, Object, Program
from support.fakekernel import LAYOUTS, FakeKernel
from support.fakekernel.ram import page_type
from support.kernels import each_layout

from drgn_zonedev.kernel.page_kinds import PageKinds, kinds_of_ram


def mapcounts(*values: int) -> np.ndarray:
    return np.array([value % (1 << 32) for value in values], "<u4").view("<i4")


def with_exported(prog: Program, lines: bytes) -> PageKinds:
    """The kinds of a kernel whose VMCOREINFO says what pages of some types hold."""
    info: bytes = prog["VMCOREINFO"].string_()

    def find(prog: Program, name: str, flags: FindObjectFlags, filename: str | None) -> Object:
        array = prog.array_type(prog.type("char"), len(info + lines) + 1)
        return Object(prog, array, (info + lines + b"\0"))

    def find_vmcoreinfo(
        prog: Program, name: str, flags: FindObjectFlags, filename: str | None
    ) -> Object | None:
        return find(prog, name, flags, filename) if name == "VMCOREINFO" else None

    prog.register_object_finder("exported", find_vmcoreinfo, enable_index=0)
    return kinds_of_ram(prog)


@each_layout
def test_free_blocks_are_told_by_their_type(layout: str) -> None:
    kinds = kinds_of_ram(FakeKernel(layout).program())
    others = (-1, 0, page_type(layout, "table"), page_type(layout, "offline"))
    found = kinds.buddy.matches(mapcounts(page_type(layout, "buddy"), *others))
    assert found.tolist() == [True, False, False, False, False]


@each_layout
def test_types_are_those_that_the_kernel_has(layout: str) -> None:
    kinds = kinds_of_ram(FakeKernel(layout).program())
    types = [page_type(layout, name) for name in ("buddy", "offline", "table")]
    assert kinds.has_type(mapcounts(*types)).all()
    assert not kinds.has_type(mapcounts(-1, 0, 1, 4095, -2, -128, -(1 << 31))).any()


def test_type_of_another_release_is_none() -> None:
    kinds = kinds_of_ram(FakeKernel("7.2").program())
    # PGTY_mapcount_underflow, and one behind the last; two bits that are clear.
    assert not kinds.has_type(mapcounts(0xFF000000, 0xF9000000)).any()
    kinds = kinds_of_ram(FakeKernel("6.1").program())
    assert not kinds.has_type(mapcounts(0xFFFFFE7F)).any()


def test_page_table_is_charged_to_a_memory_cgroup_up_to_v5_10() -> None:
    # PG_kmemcg 0x200 and PG_table 0x400; in v6.1, 0x200 is PG_table and 0x400 PG_guard.
    both, kmemcg = 0xFFFFF9FF, 0xFFFFFDFF
    kinds = kinds_of_ram(FakeKernel("5.10").program())
    assert kinds.has_type(mapcounts(both, kmemcg, 0xFFFFFBFF)).all()
    assert not kinds.has_type(mapcounts(-1, 0, 0xFFFFF97F, -2)).any()
    kinds = kinds_of_ram(FakeKernel("6.1").program())
    assert kinds.has_type(mapcounts(both, kmemcg)).tolist() == [False, True]


def test_bits_of_v6_11_are_what_vmcoreinfo_says() -> None:
    # PAGE_TYPE_BASE 0x80000000, PG_buddy 0x40000000.
    lines = b"NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-1073741825\n"
    kinds = with_exported(FakeKernel("6.1").program(), lines)
    assert kinds.buddy.matches(mapcounts(0xBFFFFFFF, 0xFFFFFF7F, -1)).tolist() == [1, 0, 0]
    # PG_table 0x10000000 is a type there, and less than 0x10000 is none.
    assert kinds.has_type(mapcounts(0xEFFFFFFF, 0xFFFFFF7F)).tolist() == [True, False]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_kinds_are_plain_data_for_other_processes(layout: str) -> None:
    kinds = kinds_of_ram(FakeKernel(layout).program())
    assert kinds == kinds_of_ram(FakeKernel(layout).program())
    assert hash(kinds) == hash(kinds_of_ram(FakeKernel(layout).program()))
    assert kinds.max_order == 10
