# SPDX-License-Identifier: LGPL-2.1-or-later

"""What is said of the kernel at hand: as the fake kernel was built."""

from __future__ import annotations

import pytest
from support.fakekernel import FakeKernel, collision
from support.kernels import each_layout

from drgn_zonedev.classification.facts import kernel_facts

# The layouts that have each of them.
FEATURES = {
    "section_taint_zone_device": ("6.1", "6.12", "7.2"),
    "vmemmap_shift": ("6.1", "6.12", "7.2"),
    "section_is_vmemmap_preinit": ("7.2",),
    "pgmap_in_folio": ("7.2",),
    "compound_info_is_mask": ("7.2",),
}


@each_layout
def test_features_are_those_of_the_layout(layout: str) -> None:
    features = kernel_facts(collision(layout).program()).features
    assert features == {name: layout in layouts for name, layouts in FEATURES.items()}


def test_sizes_are_those_of_x86_64() -> None:
    facts = kernel_facts(collision("6.1").program())
    assert (facts.architecture, facts.page_size) == ("x86_64", 4096)
    assert (facts.section_size, facts.subsection_size) == (128 << 20, 2 << 20)
    assert facts.release == "6.1.192-fake"


@pytest.mark.parametrize("is_live", [False, True])
def test_running_kernel_is_said(is_live: bool) -> None:
    assert kernel_facts(collision("6.1").program(is_live=is_live)).live is is_live


@pytest.mark.parametrize("size", [64, 80])
def test_struct_page_has_the_size_that_it_has(size: int) -> None:
    kernel = FakeKernel("6.1", sizeof_page=size, vmemmap=0xFFFFEB0000000000)
    kernel.section(8)
    facts = kernel_facts(kernel.program())
    assert (facts.sizeof_page, facts.vmemmap) == (size, 0xFFFFEB0000000000)


def test_without_struct_page_nothing_is_said_of_it() -> None:
    facts = kernel_facts(collision("6.1").program(hidden=frozenset({"struct page"})))
    assert (facts.sizeof_page, facts.vmemmap) == (0, 0)
    assert not facts.features["pgmap_in_folio"]


def test_highest_section_is_that_of_the_kernel() -> None:
    kernel = FakeKernel("6.1")
    kernel.section(8)
    kernel.section(300)
    assert kernel_facts(kernel.program()).highest_present_section_nr == 300
