# SPDX-License-Identifier: LGPL-2.1-or-later

"""What an export takes along of a fake kernel, and what it leaves where it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from drgn import Program, sizeof
from support.fakekernel import FakeKernel, collision

from drgn_zonedev.export.kept_names import MissingNames
from drgn_zonedev.export.select import ExportOptions, select
from drgn_zonedev.export.trace import Recorder
from drgn_zonedev.export.vmlinux import build_vmlinux
from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.model import Case, Report
from drgn_zonedev.report import check
from drgn_zonedev.util.intervals import Span, intersection, union
from drgn_zonedev.vmcore.exported import with_memmap_line

# collision() has a device here, and RAM on both sides.
DEVICE = (0x24000, 0x30000)
RAM_END = 0x3FFE0
STRUCT_PAGE = 64


class Selection:
    """What was selected of a kernel."""

    def __init__(self, kernel: FakeKernel, tmp_path: Path, **options: int) -> None:
        self.source = kernel.program()
        # The options are numbers here, bool included.
        wanted = ExportOptions(**options)  # type: ignore[arg-type]
        missing = MissingNames()
        # What is asked for besides, the next vmlinux has.
        while True:
            recorder, asked = self._recorder(missing, tmp_path / "vmlinux")
            self.report: Report = select(recorder, wanted, lambda *progress: None)
            more = asked.present_in(self.source)
            if not more:
                break
            missing |= more
        memory, _ = recorder.runs()
        self.kept = union((run.vaddr, run.vaddr + run.size) for run in memory)

    def _recorder(self, missing: MissingNames, path: Path) -> tuple[Recorder, MissingNames]:
        file = build_vmlinux(self.source, missing)
        path.write_bytes(file.contents)
        info = self.source["VMCOREINFO"].string_()
        info += f"BUILD-ID={file.build_id.hex()}\n".encode()
        recorder = Recorder(self.source, with_memmap_line(info, all_memmap=False))
        recorder.prog.load_debug_info([path])
        asked = MissingNames()
        asked.watch(recorder.prog)
        return recorder, asked

    def holds(self, address: int, size: int) -> bool:
        """Whether all of it was selected."""
        part = [(start, end) for start, end in intersection((address, address + size), self.kept)]
        return part == [(address, address + size)]

    def touches(self, address: int, size: int) -> bool:
        """Whether any of it was selected."""
        return any(True for _ in intersection((address, address + size), self.kept))

    def pfns(self) -> list[Span]:
        """The struct pages that were selected as a whole."""
        vmemmap = page_layout(self.source).vmemmap
        found = []
        for start, end in self.kept:
            first = -(-(start - vmemmap) // STRUCT_PAGE)
            last = (end - vmemmap) // STRUCT_PAGE
            if 0 <= first < last:
                found.append((first, last))
        return found


def inside(spans: Sequence[Span], pfn: int) -> bool:
    return any(start <= pfn < end for start, end in spans)


def assert_alike(report: Report, source: Report) -> None:
    """A report says what the source's does, but for the struct pages of RAM."""
    assert (report.kernel, report.pgmaps, report.ranges) == (
        source.kernel,
        source.pgmaps,
        source.ranges,
    )
    findings = [f for f in source.findings if not f.slug.startswith("ram-page-")]
    assert list(report.findings) == findings
    assert report.coverage.by_case[Case.ONLINE].not_exported > 0


def test_report_is_that_of_the_source(tmp_path: Path) -> None:
    found = Selection(collision("6.1"), tmp_path)
    assert_alike(found.report, check(found.source))


@pytest.mark.parametrize("margin", [0, 1, 512, 0x1000])
def test_memmap_is_that_of_devices_and_a_margin(margin: int, tmp_path: Path) -> None:
    pfns = Selection(collision("6.1"), tmp_path, margin=margin).pfns()
    start, end = DEVICE[0] - margin, DEVICE[1] + margin
    assert any(a <= start and end <= b for a, b in pfns)
    # What is beyond is only what single PFNs were explained by: the ends of ranges.
    beyond = union((max(a, 0), min(b, start)) for a, b in pfns if a < start)
    assert sum(b - a for a, b in beyond) < 64
    if margin:
        assert not inside(pfns, start - 1)
        assert not inside(pfns, end)


def test_margin_ends_where_memory_does(tmp_path: Path) -> None:
    kernel = FakeKernel("6.1")
    kernel.section(0)
    kernel.map_memmap(0, 0x8000)
    pgmap = kernel.pgmap((0x200, 0x7E00))
    kernel.device_pages(0x200, 0x7E00, pgmap)
    found = Selection(kernel, tmp_path, margin=0x4000)
    assert (0, 0x8000) in found.pfns()


def test_all_of_the_memmap_is_selected_on_demand(tmp_path: Path) -> None:
    kernel = collision("6.1")
    kernel.unmap_memmap(0x8000, 0x10000)
    pfns = Selection(kernel, tmp_path, all_memmap=True).pfns()
    assert (0, 0x8000) in pfns
    assert any(a == 0x10000 and b >= RAM_END for a, b in pfns)
    assert not inside(pfns, 0x8000)


@pytest.mark.parametrize("stored", [True, False])
def test_pgmap_is_selected_whole_if_it_is_in_pgmap_array(stored: bool, tmp_path: Path) -> None:
    kernel = collision("6.1")
    kernel.section(0x20)
    kernel.map_memmap(0x100000, 0x108000)
    other = kernel.pgmap((0x100000, 0x108000), stored=stored)
    # What lies behind it in memory belongs to somebody else.
    neighbour = kernel.pgmap((0x900000, 0x908000), stored=False)
    found = Selection(kernel, tmp_path)
    size = sizeof(found.source.type("struct dev_pagemap"))
    assert found.holds(other, size) is stored
    assert not found.touches(neighbour, size)


def test_what_lies_between_usages_is_left(tmp_path: Path) -> None:
    # They are read together, as a slab has them.
    kernel = FakeKernel("6.1")
    kernel.section(8)
    stranger = kernel.pgmap((0x900000, 0x908000), stored=False)
    kernel.section(9)
    kernel.map_memmap(0x40000, 0x50000)
    pgmap = kernel.pgmap((0x40000, 0x50000))
    kernel.device_pages(0x40000, 0x50000, pgmap)
    found = Selection(kernel, tmp_path)
    usages = [
        kernel.member("mem_section", section_address(found.source, nr), "usage") for nr in (8, 9)
    ]
    size = sizeof(found.source.type("struct mem_section_usage"))
    assert usages[0] < stranger < usages[1]
    assert all(found.holds(usage, size) for usage in usages)
    assert not found.touches(stranger, 64)


def section_address(prog: Program, nr: int) -> int:
    per_root = prog["SECTIONS_PER_ROOT"].value_()
    return int(prog["mem_section"][nr // per_root][nr % per_root].address_of_().value_())


def test_nodes_of_pgmap_array_are_selected_whole(tmp_path: Path) -> None:
    found = Selection(collision("6.1"), tmp_path)
    entry, nodes = found.source["pgmap_array"].xa_head.value_(), 0
    size = sizeof(found.source.type("struct xa_node"))
    # The way down to the first PFN of the device.
    while entry & 3 == 2 and entry > 4096:
        assert found.holds(entry - 2, size)
        shift = found.source.read_u8(entry - 2)
        slots = entry - 2 + found.source.type("struct xa_node").member("slots").bit_offset // 8
        entry = found.source.read_u64(slots + 8 * (DEVICE[0] >> shift & 63))
        nodes += 1
    assert nodes


@pytest.mark.parametrize("value", [0, 0xDEADBE00, (1 << 64) - 1, 0xFFFF888001000002])
def test_damaged_array_stops_no_export(value: int, tmp_path: Path) -> None:
    kernel = collision("6.1")
    kernel.poke_member("xarray", kernel.pgmap_array.address, "xa_head", value)
    found = Selection(kernel, tmp_path)
    assert_alike(found.report, check(found.source))


def test_node_that_leads_to_itself_ends(tmp_path: Path) -> None:
    kernel = collision("6.1")
    head = kernel.member("xarray", kernel.pgmap_array.address, "xa_head")
    slots = kernel.layout.structs["xa_node"].members["slots"].offset
    kernel.poke(head - 2 + slots, head.to_bytes(8, "little") * 64)
    found = Selection(kernel, tmp_path)
    assert found.holds(head - 2, kernel.layout.structs["xa_node"].size)
