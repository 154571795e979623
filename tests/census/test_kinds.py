# SPDX-License-Identifier: LGPL-2.1-or-later

"""The kinds and their order, and which words decide them in each kernel."""

from __future__ import annotations

import pickle

import pytest
from support.fakekernel import FakeKernel
from support.kernels import each_layout

from drgn_zonedev.census.kinds import PAGE_KINDS, PageKind, kind_words

# The order in which a page is asked what it is.
NAMES = (
    *("not-in-dump", "unmapped", "uninitialised", "offline-section", "device", "metadata"),
    *("vmemmap", "self-hosted-vmemmap", "free", "pcp-free", "unaccepted", "offline"),
    *("hwpoison", "reserved", "slab", "page-table", "hugetlb", "thp", "anon", "file", "shmem"),
    *("ksm", "zero", "kernel"),
)


def machine(layout: str) -> FakeKernel:
    kernel = FakeKernel(layout)
    kernel.section(8)
    return kernel


def test_kinds_are_in_order_of_precedence() -> None:
    assert tuple(kind.value for kind in PAGE_KINDS) == NAMES
    assert [kind.code for kind in PageKind] == list(range(len(NAMES)))


@each_layout
def test_what_decides_is_plain_data(layout: str) -> None:
    words = kind_words(machine(layout).program())
    assert pickle.loads(pickle.dumps(words)) == words


@pytest.mark.parametrize(("layout", "typed"), [("6.1", False), ("7.2", True)])
def test_slabs_and_hugetlb_pages_have_a_type_or_a_flag(layout: str, typed: bool) -> None:
    words = kind_words(machine(layout).program())
    assert (words.slab is not None) is typed
    assert (words.ram.slab_flag == 0) is typed
    assert (words.ram.hugetlb is not None) is typed
    assert (words.huge_mark is None) is typed
