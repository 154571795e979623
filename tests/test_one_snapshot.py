# SPDX-License-Identifier: LGPL-2.1-or-later

"""A command takes one snapshot, and reads a structure once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from drgn import Program, sizeof
from support.counting import CountedReads
from support.fakekernel import FakeKernel, collision, in_flight, partial
from support.kernels import each_layout
from support.opening import open_instead

from drgn_zonedev.classification import reading
from drgn_zonedev.classification.classify import classify_snapshot
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.consistency import claims, inconsistencies, inconsistencies_at
from drgn_zonedev.export.store import StoredDump, default_directory
from drgn_zonedev.kernel.devices import device_links
from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.kernel.resource import iomem_resources
from drgn_zonedev.report import check
from drgn_zonedev.shell.cli import main
from drgn_zonedev.vmcore import elf


@pytest.fixture
def counted() -> Iterator[CountedReads]:
    directory = default_directory()
    assert directory is not None
    dump = StoredDump(directory / "7.3-fsdax-collision")
    with dump.files() as files, dump.program() as source:
        yield CountedReads(source, files / "vmlinux")


def test_check_reads_metadata_and_names_in_few_reads(counted: CountedReads) -> None:
    report = check(counted.prog)
    (pgmap,) = report.pgmaps
    assert pgmap.device is not None
    assert (pgmap.device.name, pgmap.device.kind, pgmap.device.disk) == ("pfn0.0", "nd", "pmem0")
    vmemmap = page_layout(counted.prog).vmemmap
    metadata = [r for r in counted.strings_once() if not vmemmap <= r.address < vmemmap + (1 << 44)]
    # 892 before devices were found by the memory of their pgmaps. Three are for the driver, the
    # node and the region of the device, and one is for page tables where no memory is.
    assert len(metadata) <= 164


def test_check_does_not_walk_over_all_devices(counted: CountedReads) -> None:
    kset = counted.prog["devices_kset"].value_()
    counted.reads.clear()
    check(counted.prog)
    entry, resources = device_links(counted.prog)
    first = int.from_bytes(counted.prog.read(kset, 8), "little") - entry
    assert not counted.of(first + resources, first + resources + 8)


@pytest.mark.parametrize("command", [["check"], ["pfn", "0x24000"], ["pfn", "System RAM"]])
def test_structures_are_read_once(
    counted: CountedReads, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prog = counted.prog
    addresses = [r.address for r in iomem_resources(prog).found]
    zone = prog["node_data"][0].node_zones[0].zone_start_pfn.address_
    root = prog["mem_section"][0].read_()
    assert zone is not None
    counted.reads.clear()
    open_instead(monkeypatch, lambda: prog)
    assert main(command) in (0, 1)
    whole = sizeof(prog.type("struct resource"))
    for address in addresses:
        assert len([r for r in counted.of(address, address + whole) if r.size == whole]) == 1
    assert len(counted.of(zone, zone + 8)) == 1
    assert len([r for r in counted.of(root.value_(), root.value_() + 8) if r.size > 16]) == 1


@pytest.mark.parametrize(
    "command",
    [
        ["ranges"],
        ["ranges", "--map"],
        ["ranges", "--format", "html"],
        ["pgmaps"],
        ["check"],
        ["check", "--format", "html"],
    ],
)
def test_command_takes_one_snapshot(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    read = reading._read

    def count(prog: Program) -> object:
        taken.append(prog)
        return read(prog)

    monkeypatch.setattr(reading, "_read", count)
    open_instead(monkeypatch, lambda: collision("6.12").program())
    assert main(command) in (0, 1)
    assert len(taken) == 1


def test_headers_of_a_dump_are_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    directory = default_directory()
    assert directory is not None
    parsed = []
    load = elf._load_headers

    def count(path: Path) -> object:
        parsed.append(path)
        return load(path)

    monkeypatch.setattr(elf, "_load_headers", count)
    assert main(["-c", str(directory / "7.3-fsdax-collision"), "check"]) == 0
    assert len(parsed) == 1


def unhealthy(layout: str) -> FakeKernel:
    """Two devices in a subsection, one that nothing was added for, and a bare section."""
    kernel = FakeKernel(layout)
    kernel.section(8, online=True)
    kernel.section(9)
    kernel.pgmap((0x40000, 0x48100))
    kernel.pgmap((0x48100, 0x50000))
    kernel.pgmap((0x90000, 0x98200))
    kernel.section(30, has_mem_map=False)
    return kernel


@each_layout
@pytest.mark.parametrize("scene", [collision, in_flight, partial, unhealthy])
def test_what_is_held_against_a_page_is_what_is_held_against_all(
    layout: str, scene: Callable[[str], FakeKernel]
) -> None:
    prog = scene(layout).program()
    snapshot = take_snapshot(prog)
    ranges = classify_snapshot(prog, snapshot)
    everything = inconsistencies(prog, snapshot, ranges).findings
    assert everything or scene is not unhealthy
    borders = {border for r in ranges for border in (r.start_pfn, r.end_pfn)}
    borders |= {border for f in everything for border in (f.start_pfn, f.end_pfn)}
    for pfn in sorted({b + d for b in borders for d in (-1, 0, 1)} - {-1}):
        expected = tuple(f for f in everything if f.start_pfn <= pfn < f.end_pfn)
        assert inconsistencies_at(prog, snapshot, ranges, pfn) == expected, hex(pfn)


def test_page_is_not_compared_with_all_devices() -> None:
    kernel = FakeKernel("7.2")
    pgmaps = [kernel.pgmap((nr << 15, nr + 1 << 15)) for nr in range(8, 16)]
    prog = kernel.program()
    snapshot = take_snapshot(prog)
    scene = claims.Scene(prog, snapshot, (), (9 << 15, 10 << 15))
    assert [claim.pgmap.address for claim in scene.claims] == [pgmaps[1]]
    assert [claim.pgmap.address for claim in claims.Scene(prog, snapshot, ()).claims] == pgmaps
