# SPDX-License-Identifier: LGPL-2.1-or-later

"""What the kernel counts as memory of struct pages."""

from __future__ import annotations

from support.fakekernel import FakeKernel
from support.kernels import each_layout

from drgn_zonedev.kernel.vmstat import counts_page_ext, nr_memmap, shared_tail_pages


@each_layout
def test_kernel_without_counters(layout: str) -> None:
    assert nr_memmap(FakeKernel(layout).program()) is None


def test_both_counters() -> None:
    kernel = FakeKernel("6.12")
    kernel.add_variable("nr_memmap_pages", "atomic_long_t", 100)
    assert nr_memmap(kernel.program()) is None
    kernel.add_variable("nr_memmap_boot_pages", "atomic_long_t", 11488)
    assert nr_memmap(kernel.program()) == 11588
    kernel.hide(kernel.variables["nr_memmap_pages"][1], 8)
    assert nr_memmap(kernel.program()) is None


@each_layout
def test_debian_cloud_kernels_have_no_page_ext(layout: str) -> None:
    assert not counts_page_ext(FakeKernel(layout).program())


@each_layout
def test_no_hugetlb_page_shares_its_tails(layout: str) -> None:
    kernel = FakeKernel(layout)
    assert shared_tail_pages(kernel.program(), [kernel.zone(0, zone) for zone in range(3)]) == 0


def test_tails_that_a_zone_has() -> None:
    kernel = FakeKernel("7.2")
    zone, member = kernel.zone(0, 2), kernel.layout.structs["zone"].members["vmemmap_tails"]
    kernel.poke(zone + member.offset, kernel.page(0x1000).to_bytes(8, "little"))
    assert shared_tail_pages(kernel.program(), [kernel.zone(0, 1), zone]) == 1
