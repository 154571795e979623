# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import dataclasses
import re

import pytest
from support import machines
from support.fakekernel import FakeKernel, collision, in_flight

from drgn_zonedev.classification.facts import kernel_facts
from drgn_zonedev.classification.section_rows import section_rows
from drgn_zonedev.model import PgmapDevice
from drgn_zonedev.render import as_text
from drgn_zonedev.report import check
from drgn_zonedev.util.strings import printable


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (4096, "4 KiB"),
        (1536, "1.5 KiB"),
        (192 << 20, "192 MiB"),
        (3 << 40, "3 TiB"),
        (1 << 52, "4096 TiB"),
    ],
)
def test_sizes_are_in_binary_units(size: int, text: str) -> None:
    assert as_text.size_text(size) == text


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\r", "\x00", "\u202e"])
def test_nothing_unprintable_reaches_the_terminal(text: str) -> None:
    assert printable(text).isprintable()


def test_readable_names_stay_readable() -> None:
    assert printable("pmem0 dax0.0 é") == "pmem0 dax0.0 é"


def test_device_names_from_a_dump_are_escaped() -> None:
    report = check(collision("6.1").program())
    device = PgmapDevice(name="pmem0\x1b[31m", kind="nd", address=1, disk="\n")
    pgmaps = [dataclasses.replace(p, device=device) for p in report.pgmaps]
    text = as_text.pgmaps_text(report.kernel, pgmaps)
    assert "\x1b" not in text
    assert len(text.splitlines()) == 2


def test_ranges_show_their_case_with_its_number() -> None:
    text = as_text.report_text(check(in_flight("6.1").program()))
    assert re.search(r"\[0x24000, 0x24002\) +2 +8 KiB +reserved \(5\)", text)
    assert re.search(r"\[0x24400, 0x30000\) +48128 +188 MiB +initializing \(4\)", text)


def test_summary_counts_findings() -> None:
    assert as_text.report_text(check(collision("6.1").program())).endswith(
        "0 errors, 1 warning, 0 info"
    )


def test_error_shows_what_was_found_and_expected() -> None:
    kernel = collision("6.1")
    pgmap = kernel.page_word(0x24400, 1)
    kernel.poke_page_word(0x25000, 1, 0xDEAD)
    text = as_text.report_text(check(kernel.program()))
    assert f"@ {kernel.page(0x25000) + 8:#x} = 0xdead, expected {pgmap:#x}" in text


def test_verbose_ranges_keep_each_range_with_its_evidence() -> None:
    prog = collision("6.1").program()
    report = check(prog)
    lines = as_text.ranges_text(report.kernel, report.ranges, verbose=True).splitlines()
    for range_ in report.ranges:
        start = next(
            i for i, line in enumerate(lines) if line.startswith(f"[{range_.start_pfn:#x}, ")
        )
        below = lines[start + 1 : start + 1 + len(range_.evidence)]
        assert all(e.what in line for e, line in zip(range_.evidence, below))


def test_subsection_bar_reads_from_low_to_high() -> None:
    kernel = FakeKernel("6.1")
    # The first four subsections, and one of the next four.
    kernel.section(8, subsections=[0, 1, 2, 3, 5])
    prog = kernel.program()
    text = as_text.sections_text(kernel_facts(prog), list(section_rows(prog)))
    assert text.splitlines()[1].endswith("#+" + "." * 14)


def test_machine_without_device_memory_says_so() -> None:
    kernel = FakeKernel("6.1")
    kernel.section(0, online=True, early=True)
    kernel.memory_block(0)
    prog = kernel.program()
    assert "no ZONE_DEVICE memory" in as_text.pgmaps_text(kernel_facts(prog), ())
    assert "0 errors, 0 warnings, 0 info" in as_text.report_text(check(prog))


def test_struct_pages_are_counted_in_decimal() -> None:
    # Section 5 of the scene was never written; the rest of section 4 is from boot.
    text = as_text.report_text(check(in_flight("6.1").program()))
    assert "struct pages: all zero = 32768\n" in text
    assert (
        f"struct pages: a reserved page from boot, linked to itself = {0x28000 - 0x24400}\n" in text
    )
    assert "initializing, 1 ref " in text


@pytest.mark.parametrize(
    ("alloc", "where"),
    [
        (0, "in RAM (altmap unused): "),
        (1, "partly on device: "),
        # 64 bytes for each of 0x10000 pages.
        (1023, "partly on device: "),
        (1024, "on device: "),
    ],
)
def test_memmap_is_where_the_altmap_was_used(alloc: int, where: str) -> None:
    pgmap = machines.pgmap(1, 0x100000, 0x110000)
    assert pgmap.altmap is not None
    pgmap = dataclasses.replace(pgmap, altmap=dataclasses.replace(pgmap.altmap, alloc=alloc))
    text = as_text.pgmaps_text(machines.kernel(), [pgmap])
    assert f"  {where}reserve 2, free 510, alloc {alloc}  " in text


def test_source_of_types_is_named_if_it_is_not_vmlinux() -> None:
    kernel = machines.kernel()
    assert as_text.kernel_name(kernel) == "Linux 6.1.0-test x86_64"
    builtin = dataclasses.replace(kernel, types_from_btf=True)
    assert as_text.kernel_name(builtin) == "Linux 6.1.0-test x86_64, types from BTF"
