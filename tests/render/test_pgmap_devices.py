# SPDX-License-Identifier: LGPL-2.1-or-later

"""What is known of the devices behind pgmaps, where text shows it."""

from __future__ import annotations

import dataclasses

import pytest
from support import machines

from drgn_zonedev.model import Case, Pgmap, PgmapDevice
from drgn_zonedev.render.as_text import pgmaps_text, ranges_text
from drgn_zonedev.render.pgmap_devices import device_line
from drgn_zonedev.render.screen import Screen

START, END = 0x100000, 0x110000


def named(number: int, device: PgmapDevice | None, resource: str | None = None) -> Pgmap:
    """A pgmap with such a device."""
    pgmap = machines.pgmap(number, START, END)
    return dataclasses.replace(pgmap, device=device, resource=resource)


PMEM = PgmapDevice("pfn0.0", "nd", 1, "pmem0", "nd_pmem", "nd_pmem", 1, 0, "region0")
DAX = PgmapDevice("dax1.0", "dax", 2, driver="device_dax", region=1)
NVME = PgmapDevice("0000:00:01.0", "pci", 3, driver="nvme", module="nvme_pci", node=0)
BARE = PgmapDevice("gpu0", "platform", 4)
PROVIDER = dataclasses.replace(named(3, NVME), type="MEMORY_DEVICE_PCI_P2PDMA")
EVERY = (named(1, PMEM), named(2, DAX), PROVIDER, named(4, BARE), named(5, None, "gpu memory"))


@pytest.mark.parametrize(
    ("pgmap", "line"),
    [
        (EVERY[0], "device: pfn0.0 (pmem0) on nd, driver nd_pmem, region0, node 1"),
        (EVERY[1], "device: dax1.0 on dax, driver device_dax, region 1"),
        (EVERY[2], "provider: 0000:00:01.0 on pci, driver nvme [nvme_pci], node 0"),
        (EVERY[3], "device: gpu0 on platform"),
        (EVERY[4], "device: not known, resource gpu memory"),
    ],
)
def test_line_of_a_device(pgmap: Pgmap, line: str) -> None:
    assert device_line(pgmap) == f"    {line}"


def test_nothing_known_is_no_line() -> None:
    assert device_line(named(1, None)) == ""


def test_line_is_escaped() -> None:
    device = PgmapDevice("dax\x1b[2J", "da\nx", 1, driver="\r", region_device="region0\x00")
    assert device_line(named(1, device, "\u202e")).isprintable()


def test_table_has_a_row_per_device_of_which_more_is_known() -> None:
    twice = dataclasses.replace(PROVIDER, address=9)
    table = pgmaps_text(machines.kernel(), [*EVERY, twice]).split("\n\n")[1].splitlines()
    assert [line.split() for line in table] == [
        ["DEVICE", "BUS", "DRIVER", "REGION", "NODE", "RESOURCE"],
        ["pfn0.0", "(pmem0)", "nd", "nd_pmem", "region0", "1"],
        ["dax1.0", "dax", "device_dax", "1"],
        ["0000:00:01.0", "pci", "nvme", "[nvme_pci]", "0"],
        ["gpu", "memory", "gpu", "memory"],
    ]
    assert max(map(len, table)) <= 80


def test_columns_without_anything_are_left_out() -> None:
    table = pgmaps_text(machines.kernel(), [EVERY[4]]).split("\n\n")[1].splitlines()
    assert table[0].split() == ["DEVICE", "RESOURCE"]


def test_names_alone_are_no_table() -> None:
    assert "\n\n" not in pgmaps_text(machines.kernel(), [EVERY[3], named(6, None)])


@pytest.mark.parametrize("lines", range(1, 40))
def test_both_tables_fit_a_screen(lines: int) -> None:
    many = [named(i, dataclasses.replace(DAX, name=f"dax1.{i}")) for i in range(1, 60)]
    text = pgmaps_text(machines.kernel(), many, screen=Screen(lines, 80)).splitlines()
    assert len(text) <= lines
    assert all(len(line) <= 80 for line in text)
    assert ("DEVICE  " in "\n".join(text[1:])) == (lines > 6)


def test_verbose_ranges_name_the_device() -> None:
    ranges = [
        machines.range_(0, 0x1000, Case.ONLINE),
        machines.range_(START, END, Case.DEVICE, PROVIDER.address),
    ]
    lines = ranges_text(machines.kernel(), ranges, verbose=True, pgmaps=EVERY).splitlines()
    assert lines[-1] == device_line(PROVIDER)
    assert sum("provider:" in line or "device:" in line for line in lines) == 1
    assert "provider:" not in ranges_text(machines.kernel(), ranges, pgmaps=EVERY)
