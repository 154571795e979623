# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import pytest

from drgn_zonedev.oops_log.architectures import ARCHITECTURES
from drgn_zonedev.oops_log.poison import Pattern, from_kasan_shadow, poison_at, wrapped_member

X86, PPC = ARCHITECTURES["x86-64"], ARCHITECTURES["ppc64"]


@pytest.mark.parametrize(
    ("address", "pattern"),
    [
        (0xFFFFFFFFFFFFFFFE, Pattern.ALL_ONES),
        (0xFDFDFDFDFDFDFDFC, Pattern.UNUSED_FILL),
        (0xFDFDFDFDFDFDFE30, Pattern.UNUSED_FILL),
        (0xDEAD000000000100, Pattern.LIST_POISON),
        (0xDEAD000000000122, Pattern.LIST_POISON),
        (0xDEAD000000000200, Pattern.LIST_POISON),
        (0xDEAD0000000000F8, Pattern.LIST_POISON),
        (0xDEAD000000000400, Pattern.TAIL_MAPPING),
        (0xDEAD000000000468, Pattern.TAIL_MAPPING),
        (0xAAAAAAAAAAAAAAAA, Pattern.PAGE_POISON),
        (0x6B6B6B6B6B6B6B9B, Pattern.SLAB_POISON),
        (0xFFFFEA0000000040, None),
        (0xDEAD000000001000, None),
        (0x0000000000000000, None),
        (0xFFFFFFFFFFFFFFF4, None),
    ],
)
def test_poison(address: int, pattern: Pattern | None) -> None:
    assert poison_at(address, X86, faulted=True) is pattern
    if pattern is not Pattern.ALL_ONES:
        assert poison_at(address, X86, faulted=False) is pattern


def test_enoent_is_not_poison() -> None:
    assert poison_at(-2 & (1 << 64) - 1, X86, faulted=False) is None


def test_ppc64_has_an_illegal_pointer_of_its_own() -> None:
    assert poison_at(0x5DEADBEEF0000108, PPC, faulted=True) is Pattern.LIST_POISON
    assert poison_at(0xDEAD000000000100, PPC, faulted=True) is None
    assert poison_at(0x5DEADBEEF0000100, X86, faulted=True) is None


def test_a_member_of_the_head_of_all_ones_wraps() -> None:
    # compound_head() of all ones is -2, and _refcount is at 0x34.
    assert wrapped_member(0x32) == 0x34
    assert wrapped_member(0x6) == 0x8
    assert wrapped_member(0x34) is None
    assert wrapped_member(0xFFFFFFFFFFFFFFFE) is None


def test_kasan_reads_the_shadow() -> None:
    shadow = (0xDEAD000000000100 >> 3) + 0xDFFFFC0000000000 & (1 << 64) - 1
    assert shadow == 0xFBD59C0000000020
    assert from_kasan_shadow(shadow) == 0xDEAD000000000100
    assert from_kasan_shadow(0xFFFFFBFFFFFFFFFF) == 0xFFFFFFFFFFFFFFF8
    # NULL, and an address that the kernel has.
    assert from_kasan_shadow(0xDFFFFC0000000000) is None
    assert from_kasan_shadow((0xFFFF888000000000 >> 3) + 0xDFFFFC0000000000 - (1 << 64)) is None


@pytest.mark.parametrize("pattern", Pattern)
def test_every_pattern_has_a_meaning(pattern: Pattern) -> None:
    assert pattern.meaning
