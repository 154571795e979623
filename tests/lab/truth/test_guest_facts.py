# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from drgn_zonedev.lab.truth.guest_facts import (
    IomemEntry,
    failure,
    inability,
    is_ready,
    parse_facts,
    waits_for_host,
)

TOLD = """\
== begin uname\r
6.1.0-56-cloud-amd64\r
== end uname\r
== begin iomem\r
24000000-2fffffff : Persistent Memory (legacy)\r
  24000000-2fffffff : namespace0.0\r
== end iomem\r
== begin vmcoreinfo\r
0x0000000003b38000 1024\r
== end vmcoreinfo\r
== begin zoneinfo\r
Node 0, zone    DMA32\r
  per-node stats\r
        spanned  258015\r
        present  208863\r
  start_pfn:           4096\r
Node 0, zone   Device\r
        spanned  49152\r
        present  0\r
== end zoneinfo\r
== begin memory_block_size\r
8000000\r
== end memory_block_size\r
== begin memory_blocks\r
/sys/devices/system/memory/memory0/state\tonline\r
/sys/devices/system/memory/memory32/state\toffline\r
== end memory_blocks\r
== begin nd\r
/sys/bus/nd/devices/pfn0.0/resource\t0x24400000\r
/sys/bus/nd/devices/pfn0.0/size\t197132288\r
/sys/bus/nd/devices/pfn0.0/mode\tpmem\r
/sys/bus/nd/devices/pfn0.1/size\t\r
/sys/bus/nd/devices/pfn0.0/driver\tnd_pmem\r
== end nd\r
== begin dax\r
== end dax\r
"""


def test_every_fact_is_parsed() -> None:
    facts = parse_facts(TOLD)
    assert facts["uname"] == "6.1.0-56-cloud-amd64"
    assert facts["iomem"] == (
        IomemEntry(0, 0x24000000, 0x30000000, "Persistent Memory (legacy)"),
        IomemEntry(1, 0x24000000, 0x30000000, "namespace0.0"),
    )
    # %pa and %x of vmcoreinfo_show().
    assert facts["vmcoreinfo"] == (0x3B38000, 0x1024)
    assert facts["zoneinfo"] == {
        (0, "DMA32"): {"spanned": 258015, "present": 208863, "start_pfn": 4096},
        (0, "Device"): {"spanned": 49152, "present": 0},
    }
    assert facts["memory_block_size"] == 0x8000000
    assert facts["memory_blocks"] == {0: "online", 32: "offline"}
    assert facts["nd"]["pfn0.0"] == {
        "resource": 0x24400000,
        "size": 197132288,
        "mode": "pmem",
        "driver": "nd_pmem",
    }
    assert facts["nd"]["pfn0.1"] == {"size": ""}
    assert facts["dax"] == {}


def test_a_fact_that_is_still_being_told_is_not_a_fact() -> None:
    assert parse_facts("== begin uname\n6.1") == {}


def test_of_two_reports_the_later_counts() -> None:
    old = "== begin uname\nold\n== end uname\n"
    assert parse_facts(old + old.replace("old", "new")) == {"uname": "new"}


def test_an_unknown_fact_stays_text() -> None:
    assert parse_facts("== begin later\na\n== end later\n") == {"later": "a\n"}


def test_a_guest_is_ready_when_it_says_so_on_a_line_of_its_own() -> None:
    assert is_ready("== steps\r\n== ready\r\n")
    assert not is_ready("== steps\r\n")


def test_a_guest_that_gave_up_says_why() -> None:
    assert failure("== failed bind pfn0.0 to nd_pmem\r\n") == "bind pfn0.0 to nd_pmem"
    assert failure("== ready\n") is None


def test_what_a_kernel_lacks_is_told_apart_from_a_failure() -> None:
    text = "== steps\r\n== cannot this kernel has no module nfit\r\n"
    assert inability(text) == "this kernel has no module nfit"
    assert failure(text) is None
    assert inability("== failed bind region0\n") is None


def test_the_guest_waits_for_the_host_once_it_says_so() -> None:
    assert waits_for_host("== steps\r\n== host\r\n")
    assert not waits_for_host("== steps\r\n")
