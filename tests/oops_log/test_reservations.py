# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

from drgn_zonedev.oops_log.lines import LogLine
from drgn_zonedev.oops_log.reservations import reserved_outside_ram


def found(*texts: str) -> tuple[tuple[int, int], ...]:
    lines = [LogLine(text, ((0, i),)) for i, text in enumerate(texts, 1)]
    return reserved_outside_ram(lines, 4096)


RAM = "BIOS-e820: [mem 0x0000000000100000-0x000000003ffdefff] usable"


def test_tables_behind_ram_are_holes() -> None:
    tables = (
        "ACPI: Reserving DSDT table memory at [mem 0x3ffdf040-0x3ffe167a]",
        "ACPI: Reserving FACP table memory at [mem 0x3ffe167b-0x3ffe220a]",
    )
    assert found(RAM, *tables) == ((0x3FFDF, 0x3FFE3),)
    assert found(RAM.replace("usable", " System RAM"), *tables) == ((0x3FFDF, 0x3FFE3),)


def test_tables_in_ram_are_none() -> None:
    table = "ACPI: Reserving DSDT table memory at [mem 0x3ffd0000-0x3ffd1fff]"
    assert found(RAM, table) == ()
    over = "ACPI: Reserving DSDT table memory at [mem 0x3ffde000-0x3ffe0fff]"
    assert found(RAM, over) == ((0x3FFDF, 0x3FFE1),)


def test_without_a_memory_map_nothing_is_known() -> None:
    assert found("ACPI: Reserving DSDT table memory at [mem 0x3ffdf040-0x3ffe167a]") == ()
