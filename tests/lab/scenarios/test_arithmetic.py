# SPDX-License-Identifier: LGPL-2.1-or-later

"""Where things must be, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from drgn_zonedev.lab.scenarios import arithmetic
from drgn_zonedev.lab.scenarios.arithmetic import GIB, KIB, MIB, Expected, MemoryArea


@pytest.mark.parametrize(
    ("size", "memmap", "align", "offset"),
    [
        # 192 MiB are 49150 pages behind the information block: 3 MiB of struct pages and 8 KiB.
        (192 * MIB, "dev", 2 * MIB, 4 * MIB),
        # 5 MiB of struct pages and 8 KiB.
        (320 * MIB, "dev", 2 * MIB, 6 * MIB),
        # A namespace of 32766 struct pages less 8 KiB would fill 2 MiB: it is the 8 KiB that do not
        # fit beside them.
        (128 * MIB, "dev", 2 * MIB, 4 * MIB),
        (192 * MIB, "mem", 2 * MIB, 2 * MIB),
        (2 * GIB, "mem", GIB, GIB),
    ],
)
def test_data_of_a_namespace_begins_behind_its_struct_pages(
    size: int, memmap: str, align: int, offset: int
) -> None:
    assert arithmetic.data_offset(MemoryArea(4 * GIB, size), memmap, align) == offset


def test_a_namespace_that_starts_unaligned_has_aligned_data() -> None:
    memory = MemoryArea(4 * GIB + MIB, 31 * MIB)
    assert arithmetic.data_offset(memory, "mem", 2 * MIB) == MIB


def test_an_altmap_reserves_two_pages() -> None:
    assert arithmetic.namespace_ranges(MemoryArea(0x24000000, 192 * MIB)) == (
        Expected(0x24000, 0x24002, "reserved"),
        Expected(0x24002, 0x24400, "metadata"),
        Expected(0x24400, 0x30000, "device"),
    )


def test_with_pages_of_16k_an_altmap_reserves_one() -> None:
    # 12287 struct pages fill less than 2 MiB, which is what the data is aligned to.
    area = MemoryArea(0x5C000000, 192 * MIB)
    assert arithmetic.namespace_ranges(area, align=16 * KIB, page=16 * KIB) == (
        Expected(0x17000, 0x17001, "reserved"),
        Expected(0x17001, 0x17080, "metadata"),
        Expected(0x17080, 0x1A000, "device"),
    )
    assert arithmetic.section_head(area.start, "online", page=16 * KIB) == (
        Expected(0x16000, 0x17000, "online"),
    )


def test_an_unaligned_end_is_cut_off() -> None:
    (expected,) = arithmetic.namespace_ranges(MemoryArea(4 * GIB, 33 * MIB), "mem")
    assert expected == Expected(0x100000, 0x102000, "device")


def test_only_whole_memory_blocks_become_ram() -> None:
    assert arithmetic.blocks(MemoryArea(4 * GIB + 2 * MIB, 510 * MIB)) == MemoryArea(
        4 * GIB + 128 * MIB, 384 * MIB
    )


def test_sections_are_completed() -> None:
    assert arithmetic.section_head(0x24000000, "online") == (Expected(0x20000, 0x24000, "online"),)
    assert arithmetic.section_tail(0x24000000, "online") == (Expected(0x24000, 0x28000, "online"),)
    assert arithmetic.section_tail(0x28000000, "online") == ()


def test_nothing_is_expected_of_no_memory() -> None:
    assert arithmetic.expect(4 * GIB, 4 * GIB, "device") == ()
    assert arithmetic.section_head(0x28000000, "online") == ()


def test_memory_blocks_are_numbered_from_the_first_address() -> None:
    assert [arithmetic.block_number(n * MIB) for n in (0, 127, 128, 576)] == [0, 0, 1, 4]


def test_struct_pages_are_64_bytes_each() -> None:
    assert arithmetic.struct_page(0x24000) == 0xFFFFEA0000000000 + 0x900000


def test_a_memory_block_that_stores_its_memmap_begins_with_two_mib_of_struct_pages() -> None:
    assert arithmetic.stored_memmap(MemoryArea(4 * GIB, 128 * MIB), "offline") == (
        Expected(0x100000, 0x100200, "metadata"),
        Expected(0x100200, 0x108000, "offline"),
    )
