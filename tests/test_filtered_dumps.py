# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Real dumps without one page of the kernel's structures at a time: missing, so that
reading it faults, and left out of an ELF dump, so that it reads as zeros. Every range
keeps its case or is unknown for a reason with an address, and nobody is accused.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from drgn import FaultError, Program
from drgn.helpers.linux.mmzone import pfn_to_section

from drgn_zonedev.explanation.kernel_answers import predicates
from drgn_zonedev.explanation.resolve import resolve_pfn
from drgn_zonedev.export.store import StoredDump
from drgn_zonedev.kernel.memmap import UnreadablePages, page_layout
from drgn_zonedev.kernel.mmzone import pfn_section_valid, pfn_to_online_page, pfn_valid
from drgn_zonedev.kernel.zone_device import pfn_zone_device, pfn_zone_device_reserved
from drgn_zonedev.model import Case, Report, Severity
from drgn_zonedev.report import check
from drgn_zonedev.verification.pool import piece

PAGE = 4096
VMCORES = Path(__file__).parent.parent / "vmcores"
_PHDR = struct.Struct("<IIQQQQQQ")
_PT_LOAD = 1
# The kernel's image is never filtered: its page frames are reserved.
_IMAGE = 0xFFFFFFFF80000000

UNREAD = UnreadablePages(0, 1, 0, "not asked")

Segment = tuple[int, int, int, int, int, int, int, int]


def program_headers(dump: bytes) -> list[Segment]:
    (offset,) = struct.unpack_from("<Q", dump, 32)
    (count,) = struct.unpack_from("<H", dump, 56)
    table = dump[offset : offset + count * _PHDR.size]
    return list(_PHDR.iter_unpack(table))


def write_without(dump: bytes, frame: int, path: Path, *, hole: bool) -> None:
    """Write a dump without a page frame: in no segment, or in one without contents."""
    headers = b"".join(
        _PHDR.pack(*part)
        for header in program_headers(dump)
        for part in _without(header, frame * PAGE, (frame + 1) * PAGE, hole)
    )
    new = bytearray(dump)
    struct.pack_into("<Q", new, 32, len(dump))
    struct.pack_into("<H", new, 56, len(headers) // _PHDR.size)
    path.write_bytes(bytes(new) + headers)


def _without(header: Segment, start: int, end: int, hole: bool) -> Iterator[Segment]:
    kind, flags, offset, vaddr, paddr, size, _, align = header
    cuts = sorted({0, size, *(min(max(at - paddr, 0), size) for at in (start, end))})
    if kind != _PT_LOAD or size == 0:
        yield header
        return
    for first, last in zip(cuts, cuts[1:]):
        place = kind, flags, offset + first, vaddr + first, paddr + first
        if not start <= paddr + first < end:
            yield (*place, last - first, last - first, align)
        elif hole:
            yield (*place, 0, last - first, align)


def open_program(directory: Path, vmcore: Path) -> Program:
    prog = Program()
    prog.set_core_dump(vmcore)
    prog.load_debug_info([directory / "vmlinux"])
    return prog


def structure_frames(prog: Program, dump: bytes) -> list[int]:
    """The page frames of a dump that hold structures other than struct pages."""
    layout = page_layout(prog)
    memmap = range(layout.page_address(0), layout.page_address(1 << 34))
    frames: set[int] = set()
    for kind, _, _, vaddr, paddr, size, _, _ in program_headers(dump):
        if kind == _PT_LOAD and vaddr not in memmap and vaddr < _IMAGE:
            frames.update(range(paddr // PAGE, (paddr + size - 1) // PAGE + 1))
    return sorted(frames)


def frame_of(dump: bytes, address: int) -> int:
    """The page frame that an address is in."""
    return next(
        (paddr + address - vaddr) // PAGE
        for kind, _, _, vaddr, paddr, size, _, _ in program_headers(dump)
        if kind == _PT_LOAD and vaddr <= address < vaddr + size
    )


def differences(expected: Report, found: Report) -> list[str]:
    """What is said otherwise, and has no excuse."""
    errors = {(f.slug, f.start_pfn) for f in expected.findings if f.severity is Severity.ERROR}
    wrong = [
        f"accuses {f.slug} at {f.start_pfn:#x}"
        for f in found.findings
        if f.severity is Severity.ERROR and (f.slug, f.start_pfn) not in errors
    ]
    borders = {pfn for r in (*expected.ranges, *found.ranges) for pfn in (r.start_pfn, r.end_pfn)}
    for pfn in sorted(borders):
        before, after = (_case(report, pfn) for report in (expected, found))
        excused = after is Case.UNKNOWN or after is None
        if before != after and not (excused and _unjudged(found, pfn)):
            wrong.append(f"{pfn:#x} is {before}, not {after}")
    return wrong


def _case(report: Report, pfn: int) -> Case | None:
    return next((r.case for r in report.ranges if r.start_pfn <= pfn < r.end_pfn), None)


def _unjudged(report: Report, pfn: int) -> bool:
    return any(u.start_pfn <= pfn < u.end_pfn and u.address for u in report.unjudged)


def check_without_each(name: str, path: Path, number: int | None) -> dict[str, list[str]]:
    """Check a stored dump without each of some page frames."""
    wrong = {}
    with StoredDump(VMCORES / name).files() as directory:
        dump = (directory / "vmcore").read_bytes()
        prog = open_program(directory, directory / "vmcore")
        expected = check(prog)
        frames = structure_frames(prog, dump)
        if number is not None:
            frames = random.Random(name).sample(frames, number)
        judged = 0
        for frame in frames:
            for hole in (False, True):
                write_without(dump, frame, path, hole=hole)
                try:
                    found = check(open_program(directory, path))
                except FaultError:
                    # Nothing can be judged, which is said in one line.
                    continue
                judged += 1
                worse = differences(expected, found)
                if worse:
                    wrong[f"{frame:#x} {'hole' if hole else 'fault'}"] = worse
    assert judged > len(frames), "most pages are not what everything else depends on"
    return wrong


# Base pages with metadata, compound pages, ranges in flight, and dangling ones.
DUMPS = ["7.3-two-in-one", "6.1-fsdax-collision", "5.10-two-in-one", "6.12-init-in-flight"]


@pytest.mark.parametrize("name", [*DUMPS, "6.1-ghost", "7.3-hotplug-offline"])
def test_a_missing_page_changes_no_case_silently(name: str, tmp_path: Path) -> None:
    assert check_without_each(name, tmp_path / "vmcore", 15) == {}


@pytest.mark.long("every page of six dumps; fifteen pages of each are in every run")
@pytest.mark.parametrize("name", [*DUMPS, "6.1-ghost", "7.3-hotplug-offline"])
def test_no_missing_page_changes_a_case_silently(name: str, tmp_path: Path) -> None:
    assert check_without_each(name, tmp_path / "vmcore", None) == {}


PREDICATES: list[Callable[[Program, int], object]] = [
    pfn_valid,
    pfn_section_valid,
    pfn_to_online_page,
    pfn_zone_device,
    pfn_zone_device_reserved,
]


@pytest.mark.parametrize("name", ["6.1-fsdax-collision", "7.3-two-in-one"])
@pytest.mark.parametrize("structure", ["section", "root"])
def test_section_that_was_left_out_is_not_taken_for_none(
    name: str, structure: str, tmp_path: Path
) -> None:
    path, pfn = tmp_path / "vmcore", 0x24400
    with StoredDump(VMCORES / name).files() as directory:
        dump = (directory / "vmcore").read_bytes()
        prog = open_program(directory, directory / "vmcore")
        layout = page_layout(prog)
        assert pfn_zone_device(prog, pfn)
        address = pfn_to_section(prog, pfn).value_()
        if structure == "root":
            address = prog["mem_section"].value_()
        write_without(dump, frame_of(dump, address), path, hole=True)
        prog = open_program(directory, path)
        for predicate in PREDICATES:
            with pytest.raises(FaultError, match="left out of the dump"):
                predicate(prog, pfn)
        # Behind the last section, nobody needs to ask.
        assert not any(predicate(prog, 1 << 33) for predicate in PREDICATES)
        # Stored dumps lack vmemmap_base.
        prog.cache["drgn_zonedev.kernel.memmap.page_layout"] = layout
        assert resolve_pfn(prog, pfn) == (pfn, "PFN")
        answers = {p.name: p.answer for p in predicates(prog, pfn, UNREAD)}
        for name in ("present_section", "valid_section", "pfn_section_valid", "pfn_zone_device"):
            assert str(answers[name]).startswith("cannot be read: left out of the dump"), name
        assert str(answers["get_dev_pagemap"]).startswith("0x")


@pytest.mark.parametrize("name", ["6.1-fsdax-collision", "7.2-devdax-2m"])
def test_struct_pages_that_were_left_out_are_told_by_any_number_of_jobs(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that there are enough pieces for two.
    monkeypatch.setattr(piece, "PIECE_BYTES", 64 * 4099)
    path = tmp_path / "vmcore"
    with StoredDump(VMCORES / name).files() as directory:
        dump = (directory / "vmcore").read_bytes()
        prog = open_program(directory, directory / "vmcore")
        layout, whole = page_layout(prog), check(prog)
        device = next(r for r in whole.ranges if r.case is Case.DEVICE)
        # Not the first: tails may share their memory from the second page on.
        address = layout.page_address(device.start_pfn) + PAGE
        write_without(dump, frame_of(dump, address), path, hole=True)
        alone = check(open_program(directory, path))
        together = check(open_program(directory, path), jobs=2)
    # Nobody refused to be two.
    assert not [r for r in caplog.records if "one process" in r.getMessage()]
    assert together == alone
    assert differences(whole, alone) == []
    assert alone.coverage.pages_unreadable > 0
    (gap, *_) = [u for u in alone.unjudged if u.address == address]
    assert gap.start_pfn == device.start_pfn + PAGE // layout.size
    assert "left out of the dump" in gap.reason


@pytest.mark.parametrize(("hole", "cure"), [(True, "filter less (-d 1)"), (False, "enough space")])
def test_structure_that_was_filtered_is_told_from_one_that_is_in_no_segment(
    hole: bool, cure: str, tmp_path: Path
) -> None:
    path = tmp_path / "vmcore"
    with StoredDump(VMCORES / "6.1-fsdax-collision").files() as directory:
        dump = (directory / "vmcore").read_bytes()
        prog = open_program(directory, directory / "vmcore")
        address = check(prog).pgmaps[0].address
        frame = frame_of(dump, address)
        write_without(dump, frame, path, hole=hole)
        found = check(open_program(directory, path))
    hints = {m.hint for m in found.missing if m.holds == f"a structure at {address:#x}"}
    assert len(hints) == 1
    assert cure in hints.pop()
