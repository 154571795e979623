# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Several processes say what one says, byte for byte: on stored dumps, on one with a
defect, and when processes die.
"""

from __future__ import annotations

import logging
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from drgn import Program
from drgn.helpers.linux.mm import follow_phys
from fakekernel import collision

from drgn_zonedev import workers
from drgn_zonedev.render import as_json
from drgn_zonedev.report import check
from drgn_zonedev.stored import StoredDump, default_directory
from drgn_zonedev.worker import Dump

DIRECTORY = default_directory()
assert DIRECTORY is not None
# Base pages with metadata; compound pages; compound pages that share vmemmap.
DUMPS = ["6.1-fsdax-collision", "7.2-nvdimm-partial", "6.12-devdax-2m"]


@pytest.fixture(scope="module", params=DUMPS)
def files(request: pytest.FixtureRequest) -> Iterator[Path]:
    assert DIRECTORY is not None
    with StoredDump(DIRECTORY / request.param).files() as path:
        yield path


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    # An odd number of struct pages, so that there are dozens of pieces.
    monkeypatch.setattr(workers, "PIECE_BYTES", 64 * 4099)


def opened(core: Path, vmlinux: Path) -> Program:
    prog = Program()
    prog.set_core_dump(core)
    prog.load_debug_info([vmlinux])
    return prog


def said(prog: Program, jobs: int) -> str:
    return as_json.render(as_json.report_document(check(prog, jobs=jobs)))


def test_number_of_processes_does_not_matter(files: Path, small_pieces: None) -> None:
    prog = opened(files / "vmcore", files / "vmlinux")
    expected = said(prog, 1)
    for jobs in (2, 3):
        assert said(prog, jobs) == expected


def spoiled(files: Path, target: Path) -> Program:
    """A dump in which the zones of some device pages are wrong, in runs and scattered."""
    shutil.copyfile(files / "vmcore", target)
    prog = opened(files / "vmcore", files / "vmlinux")
    (range_, *_) = (r for r in check(prog).ranges if r.case.value == "device")
    start = range_.start_pfn
    wrong = [*range(start + 4000, start + 4300), *range(start + 9000, start + 9040, 2)]
    with target.open("r+b") as core:
        for pfn in wrong:
            address = prog["vmemmap"].value_() + 64 * pfn
            physical = follow_phys(prog["init_mm"].address_of_(), address).value_()
            core.seek(file_offset(target, physical))
            core.write(bytes(8))
    return opened(target, files / "vmlinux")


def file_offset(core: Path, physical: int) -> int:
    header = core.read_bytes()[: 1 << 20]
    phoff, phnum = struct.unpack_from("<Q", header, 32)[0], struct.unpack_from("<H", header, 56)[0]
    for i in range(phnum):
        kind, _, offset, _, paddr, filesz = struct.unpack_from("<IIQQQQ", header, phoff + 56 * i)
        if kind == 1 and paddr <= physical < paddr + filesz:
            return int(offset + physical - paddr)
    raise AssertionError(f"{physical:#x} is not in the dump")


def test_findings_are_coalesced_over_the_seams(tmp_path: Path, small_pieces: None) -> None:
    assert DIRECTORY is not None
    with StoredDump(DIRECTORY / "6.1-fsdax-collision").files() as files:
        prog = spoiled(files, tmp_path / "vmcore")
        expected = check(prog)
        run, *scattered = (f for f in expected.findings if f.slug == "device-page-zone")
        start = expected.pgmaps[0].ranges[0].start_pfn + 0x400
        assert (run.start_pfn, run.end_pfn, run.count) == (start + 4000, start + 4300, 300)
        assert [f.count for f in scattered] == [1] * 20
        assert said(prog, 3) == said(prog, 1)


def test_worker_that_dies_is_said_and_replaced(
    files: Path,
    small_pieces: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    prog = opened(files / "vmcore", files / "vmlinux")
    expected = said(prog, 1)
    start = workers._start

    def doomed(dump: Dump) -> workers._Worker:
        worker = start(dump)
        worker.process.kill()
        return worker

    monkeypatch.setattr(workers, "_start", doomed)
    with caplog.at_level(logging.WARNING):
        assert said(prog, 2) == expected
    assert "a worker process is lost" in caplog.text


def test_worker_that_cannot_open_the_dump_is_said_and_replaced(
    tmp_path: Path, small_pieces: None, caplog: pytest.LogCaptureFixture
) -> None:
    assert DIRECTORY is not None
    with StoredDump(DIRECTORY / DUMPS[0]).files() as files:
        shutil.copyfile(files / "vmcore", tmp_path / "vmcore")
        prog = opened(tmp_path / "vmcore", files / "vmlinux")
        expected = said(prog, 1)
        (tmp_path / "vmcore").unlink()
        with caplog.at_level(logging.WARNING):
            assert said(prog, 2) == expected
    assert "a worker process is lost: " in caplog.text
    assert "vmcore" in caplog.text


def test_no_process_is_left(files: Path, small_pieces: None) -> None:
    prog = opened(files / "vmcore", files / "vmlinux")
    seen: list[subprocess.Popen[bytes]] = []
    start = workers._start

    def watched(dump: Dump) -> workers._Worker:
        worker = start(dump)
        seen.append(worker.process)
        return worker

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "_start", watched)

        def interrupt(done: int, total: int) -> None:
            if seen:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            check(prog, jobs=2, progress=interrupt)
    assert len(seen) == 1
    assert all(process.poll() is not None for process in seen)


def test_what_cannot_be_opened_again_is_read_by_one_process(
    caplog: pytest.LogCaptureFixture,
) -> None:
    prog = collision("6.1").program()
    with caplog.at_level(logging.WARNING):
        report = check(prog, jobs=4)
    assert report.coverage.pages_verified > 0
    assert "one process instead of 4: only a core dump" in caplog.text
    caplog.clear()
    assert check(prog, jobs=None) == report
    assert caplog.text == ""


def test_little_work_is_done_by_one_process(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(dump: Dump) -> workers._Worker:
        raise AssertionError("a process was started")

    monkeypatch.setattr(workers, "_start", start)
    prog = opened(files / "vmcore", files / "vmlinux")
    assert check(prog, jobs=None).coverage.pages_verified > 0
