# SPDX-License-Identifier: LGPL-2.1-or-later

"""Counting piece by piece, here or in other processes, is counting the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from drgn import Program
from support.fakekernel import FakeKernel, collision, partial
from support.fakekernel.ram import busy_ram
from support.kernels import Device, each_layout, put_device

from drgn_zonedev.census import counting
from drgn_zonedev.census.counting import Count, Counted, count, cut_count
from drgn_zonedev.census.grouping import By
from drgn_zonedev.census.kinds import PageKind
from drgn_zonedev.census.total import page_census, take_census
from drgn_zonedev.export.store import StoredDump, default_directory
from drgn_zonedev.opening.core import open_dump
from drgn_zonedev.shell import cli
from drgn_zonedev.verification.pool import piece, process

# The order of the largest block, in pages.
LARGEST = 1024


def works_of(prog: Program, by: By | None) -> list[Count]:
    works: list[Count] = []

    def record(
        prog: Program, task: Any, given: Sequence[Count], progress: Callable[[int], None]
    ) -> Iterator[Counted]:
        works.extend(given)
        return iter(())

    scan_all: Any = record
    take_census(prog, by, scan_all=scan_all)
    return works


def devdax() -> FakeKernel:
    """A device whose compound pages of 512 pages begin in the middle of a piece."""
    kernel = FakeKernel("6.12")
    kernel.sections(0x40000, 0x48000)
    put_device(kernel, Device(0x40200, 0x48000, "MEMORY_DEVICE_GENERIC", shift=9))
    kernel.poke_page_word(0x40600, 6, 3 << 32 | 0xFFFFFFFF)
    kernel.hide(kernel.page(0x41200), 64)
    return kernel


SCENES = [lambda: busy_ram("6.12"), lambda: collision("5.10"), devdax]


@pytest.mark.parametrize("scene", SCENES, ids=["ram", "base pages", "compound pages"])
def test_pieces_are_the_whole(
    scene: Callable[[], FakeKernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "CHUNK_PAGES", LARGEST)
    prog = scene().program()
    for work in (w for by in (None, *By) for w in works_of(prog, by)):
        pieces = list(cut_count(work, 3 * LARGEST))
        spans = [(each.stretch.start_pfn, each.stretch.end_pfn) for each in pieces]
        stretch = work.stretch
        assert [spans[0][0], *(end for _, end in spans)] == [
            *(start for start, _ in spans),
            stretch.end_pfn,
        ]
        assert spans[0][0] == stretch.start_pfn
        assert sum(each.pages for each in pieces) == work.pages
        whole = Counted()
        for each in pieces:
            whole.extend(count(prog, each))
        assert whole == count(prog, work)


@each_layout
def test_no_block_is_cut(layout: str) -> None:
    (work, *_) = (w for w in works_of(busy_ram(layout).program(), None) if w.stretch.kind is None)
    # As small as can be.
    starts = [each.stretch.start_pfn for each in cut_count(work, 1)][1:]
    assert all(start % counting.CHUNK_PAGES == 0 for start in starts)


def test_what_is_not_read_is_no_work() -> None:
    (unmapped,) = (w for w in works_of(partial("6.1").program(), None) if not w.stretch.is_read)
    assert unmapped.stretch.kind is PageKind.UNMAPPED
    assert unmapped.pages == 0
    assert list(cut_count(unmapped, 1)) == [unmapped]


DUMPS = ["6.1-fsdax-collision", "6.12-devdax-2m"]


@pytest.fixture(params=DUMPS)
def files(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # Some dozens of pieces.
    monkeypatch.setattr(piece, "PIECE_BYTES", 64 * 4096)
    monkeypatch.setattr(counting, "CHUNK_PAGES", LARGEST)
    directory = default_directory()
    assert directory is not None
    with StoredDump(directory / request.param).files() as path:
        yield path


def test_number_of_processes_does_not_matter(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = []
    start = process._start

    def watched(dump: Any) -> process.Worker:
        started.append(start(dump))
        # Have it get some of the work.
        assert started[-1].connection.poll(60)
        return started[-1]

    monkeypatch.setattr(process, "_start", watched)
    arguments = ["-c", str(files / "vmcore"), "-s", str(files / "vmlinux"), "pages"]
    arguments += ["--by", "flags", "--format", "json"]
    said = []
    for jobs in ("1", "2"):
        assert cli.main([*arguments, "--jobs", jobs]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != ""
    assert len(started) == 1


def test_helper_takes_a_number_of_processes() -> None:
    directory = default_directory()
    assert directory is not None
    with StoredDump(directory / DUMPS[0]).files() as path:
        prog = open_dump(path / "vmcore", path / "vmlinux")
        assert page_census(prog, jobs=None) == page_census(prog)
        with pytest.raises(ValueError, match="expected 1 process or more, got 0"):
            page_census(prog, jobs=0)
