# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import pytest

from drgn_zonedev.oops_log.architectures import ARCHITECTURES
from drgn_zonedev.oops_log.identity import LogKernel
from drgn_zonedev.oops_log.mentions import Mention, Said
from drgn_zonedev.oops_log.page_dumps import PageDump, RawWord
from drgn_zonedev.oops_log.page_fields import fields_of_release
from drgn_zonedev.oops_log.vmemmap_bases import (
    BaseSource,
    arm64_vmemmap_start,
    default_bases,
    log_bases,
    register_bases,
)

X86, ARM, PPC = (ARCHITECTURES[name] for name in ("x86-64", "arm64", "ppc64"))
FIELDS = fields_of_release("6.1")
MOVED = 0xFFFFF5C040000000
HEAP, STACK = 0xFFFF888101234000, 0xFFFFC90000D3FA48


def dump(pfn: int | None, words: list[int], address: int | None = None) -> PageDump:
    found = PageDump(1, 1, address=address, pfn=pfn)
    found.words += [RawWord(2, word) for word in words]
    return found


def test_a_page_with_its_pfn_gives_the_base() -> None:
    (base,) = log_bases([dump(0x4711, [], MOVED + 0x4711 * 64)], X86, FIELDS)
    assert (base.address, base.source) == (MOVED, BaseSource.LOG)
    assert base.split(MOVED + 0x4711 * 64 + 0x34, 64) == (0x4711, 0x34)
    assert base.split(MOVED - 64, 64) is None
    assert base.split(HEAP, 64) is None


def test_a_page_linked_to_itself_gives_the_base() -> None:
    link = MOVED + 0x4711 * 64 + 8
    (base,) = log_bases([dump(0x4711, [0x1000, link, link, 0])], X86, FIELDS)
    assert base.address == MOVED


def test_another_list_head_gives_none() -> None:
    link = 0xFFFF888101234F48
    assert list(log_bases([dump(0x4711, [0x1000, link, link, 0])], X86, FIELDS)) == []
    assert list(log_bases([dump(0x4711, [0x1000, link, link + 64, 0])], X86, FIELDS)) == []
    assert list(log_bases([dump(None, [], MOVED)], X86, FIELDS)) == []


@pytest.mark.parametrize(
    ("kernel", "addresses", "known"),
    [
        (LogKernel(), [], False),
        (LogKernel(kaslr_offset=0x1E000000), [HEAP], False),
        (LogKernel(kaslr_disabled=True), [], True),
        (LogKernel(kasan=True, kaslr_offset=0x1E000000), [], True),
        (LogKernel(), [HEAP], False),
        (LogKernel(), [HEAP, STACK], True),
    ],
)
def test_the_default_of_x86_64_is_taken_only_if_kaslr_did_not_move_it(
    kernel: LogKernel, addresses: list[int], known: bool
) -> None:
    bases = [base.address for base in default_bases(X86, kernel, addresses)]
    assert bases == ([0xFFFFEA0000000000, 0xFFD4000000000000] if known else [])


def test_ppc64_has_one_place_for_it() -> None:
    (base,) = default_bases(PPC, LogKernel(), [])
    assert base.address == 0xC00C000000000000


# VMEMMAP_START as the headers of those releases compute it, for a struct page of 64 bytes.
@pytest.mark.parametrize(
    ("release", "va_bits", "page_size", "start"),
    [
        ("5.3.0", 48, 4096, 0xFFFF7E0000000000),
        ("5.10.223", 48, 4096, 0xFFFFFDFFFFE00000),
        ("6.1.192", 48, 4096, 0xFFFFFC0000000000),
        ("6.1.192", 39, 4096, 0xFFFFFFFE00000000),
        ("6.12.107", 48, 4096, 0xFFFFFDFFC0000000),
        ("7.3.4", 48, 65536, -(1 << 30) - (1 << 37)),
        ("6.1.192", 48, 65536, -(1 << 38)),
    ],
)
def test_vmemmap_start_of_arm64(release: str, va_bits: int, page_size: int, start: int) -> None:
    kernel = LogKernel(release=release, va_bits=va_bits, page_size=page_size)
    assert arm64_vmemmap_start(kernel) == start & (1 << 64) - 1


def test_arm64_needs_where_ram_begins() -> None:
    kernel = LogKernel(release="6.12.1", va_bits=48, page_size=4096)
    assert default_bases(ARM, kernel, []) == ()
    known = LogKernel(release="6.12.1", va_bits=48, page_size=4096, phys_offset=0x40000000)
    (base,) = default_bases(ARM, known, [])
    assert base.split(0xFFFFFDFFC0000000, 64) == (0x40000, 0)
    assert base.split(0xFFFFFDFFC0000000 - 64, 64) is None
    # What a 52-bit kernel prints on a processor that has 48 bits.
    odd = LogKernel(release="6.12.1", va_bits=48, page_size=4096, phys_offset=0xFFF1000040000000)
    assert default_bases(ARM, odd, []) == ()


def registers(*values: int) -> list[Mention]:
    return [Mention(1, value, Said.REGISTER, f"R{i:02}") for i, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ((0x1B4011, MOVED + 0x1B4011 * 64), {MOVED}),
        ((0x1B4011, MOVED + 0x1B4011 * 64 + 0x34), {MOVED}),
        # A power of two is in registers for other reasons, and so is a small number.
        ((0x100000, MOVED + 0x100000 * 64), set()),
        ((0xFFF, MOVED + 0xFFF * 64), set()),
        ((0x1B4011, MOVED + 0x1B4012 * 64), set()),
        ((0x1B4011, HEAP, STACK), set()),
    ],
)
def test_a_pfn_in_a_register_gives_the_base(values: tuple[int, ...], found: set[int]) -> None:
    bases = register_bases(registers(*values), X86, LogKernel(), FIELDS)
    assert {base.address for base in bases} == found
