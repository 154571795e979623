# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Several processes say what one says, byte for byte: on stored dumps, on one with a
defect, and when processes die.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from drgn import Program
from drgn.helpers.linux.mm import follow_phys
from support.fakekernel import collision

from drgn_zonedev.classification.classify import classify_snapshot
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.export.store import StoredDump, default_directory
from drgn_zonedev.opening.core import Dump, open_dump
from drgn_zonedev.opening.types import TypeChoice, load_types
from drgn_zonedev.render import as_json
from drgn_zonedev.report import check
from drgn_zonedev.shell import cli
from drgn_zonedev.verification.context import no_progress
from drgn_zonedev.verification.pool import piece
from drgn_zonedev.verification.pool import process as team
from drgn_zonedev.verification.pool import scanner as jobs
from drgn_zonedev.verification.pool.process import Worker
from drgn_zonedev.verification.verify import (
    begin_verification,
    finish_verification,
    verify_snapshot,
)

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
    monkeypatch.setattr(piece, "PIECE_BYTES", 64 * 4099)


def said(prog: Program, jobs: int) -> str:
    return as_json.render(as_json.report_document(check(prog, jobs=jobs)))


def test_number_of_processes_does_not_matter(files: Path, small_pieces: None) -> None:
    prog = open_dump(files / "vmcore", files / "vmlinux")
    expected = said(prog, 1)
    for number in (2, 3):
        assert said(prog, number) == expected


def spoiled(files: Path, target: Path) -> Program:
    """A dump in which the zones of some device pages are wrong, in runs and scattered."""
    shutil.copyfile(files / "vmcore", target)
    prog = open_dump(files / "vmcore", files / "vmlinux")
    (range_, *_) = (r for r in check(prog).ranges if r.case.value == "device")
    start = range_.start_pfn
    wrong = [*range(start + 4000, start + 4300), *range(start + 9000, start + 9040, 2)]
    with target.open("r+b") as core:
        for pfn in wrong:
            address = prog["vmemmap"].value_() + 64 * pfn
            physical = follow_phys(prog["init_mm"].address_of_(), address).value_()
            core.seek(file_offset(target, physical))
            core.write(bytes(8))
    return open_dump(target, files / "vmlinux")


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
    prog = open_dump(files / "vmcore", files / "vmlinux")
    expected = said(prog, 1)
    start = team._start

    def doomed(dump: Dump) -> Worker:
        worker = start(dump)
        worker.process.kill()
        worker.process.wait()
        return worker

    monkeypatch.setattr(team, "_start", doomed)
    with caplog.at_level(logging.WARNING):
        assert said(prog, 2) == expected
    assert "a worker process is lost" in caplog.text


def answering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing else done before a worker has opened the dump, or could not."""
    start = team._start

    def slowly(dump: Dump) -> Worker:
        worker = start(dump)
        assert worker.connection.poll(60)
        return worker

    monkeypatch.setattr(team, "_start", slowly)


def test_worker_that_cannot_open_the_dump_is_said_and_replaced(
    tmp_path: Path,
    small_pieces: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    answering(monkeypatch)
    assert DIRECTORY is not None
    with StoredDump(DIRECTORY / DUMPS[0]).files() as files:
        shutil.copyfile(files / "vmcore", tmp_path / "vmcore")
        prog = open_dump(tmp_path / "vmcore", files / "vmlinux")
        expected = said(prog, 1)
        (tmp_path / "vmcore").unlink()
        with caplog.at_level(logging.WARNING):
            assert said(prog, 2) == expected
    assert "a worker process is lost: " in caplog.text
    assert "vmcore" in caplog.text


def test_workers_go_on_while_this_process_does_something_else(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that half of a share is more than two pieces.
    monkeypatch.setattr(piece, "PIECE_BYTES", 64 * 257)
    answering(monkeypatch)
    start, workers = team._start, list[Worker]()

    def kept(dump: Dump) -> Worker:
        workers.append(start(dump))
        return workers[-1]

    monkeypatch.setattr(team, "_start", kept)
    prog = open_dump(files / "vmcore", files / "vmlinux")
    snapshot = take_snapshot(prog)
    ranges = classify_snapshot(prog, snapshot)
    alone = verify_snapshot(prog, snapshot, ranges)
    with jobs.scanner(prog, 2) as scan_all:
        (worker,) = workers
        begun = begin_verification(prog, snapshot, ranges, no_progress, scan_all)
        # More than the piece that it works on and the next one, without being asked again.
        assert len(worker.begun) > 2
        assert worker.connection.poll(60)
        assert finish_verification(begun) == alone


def children() -> set[int]:
    """Our child processes, also those that ended and were not waited for."""
    me, found = os.getpid(), set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == me:
                found.add(int(stat.parent.name))
    return found


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Workers that were started; none may be left."""
    before, started = children(), list[int]()
    start = team._start

    def watched(dump: Dump) -> Worker:
        worker = start(dump)
        started.append(worker.process.pid)
        assert worker.process.pid in children()
        return worker

    monkeypatch.setattr(team, "_start", watched)
    yield started
    assert children() <= before


def test_no_process_is_left_after_all_is_done(
    files: Path, small_pieces: None, started: list[int]
) -> None:
    check(open_dump(files / "vmcore", files / "vmlinux"), jobs=3)
    assert len(started) == 2


def test_no_process_is_left_after_an_interruption(
    files: Path, small_pieces: None, started: list[int]
) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(open_dump(files / "vmcore", files / "vmlinux"), jobs=2, progress=interrupt)
    assert len(started) == 1


@pytest.mark.usefixtures("small_pieces")
def test_no_process_is_left_if_nothing_can_be_judged(files: Path, started: list[int]) -> None:
    # Without debugging symbols.
    prog = Program()
    prog.set_core_dump(files / "vmcore")
    with pytest.raises(LookupError):
        check(prog, jobs=2)
    assert len(started) == 1


@pytest.mark.usefixtures("small_pieces")
def test_no_process_is_left_if_there_is_nothing_to_do(
    files: Path, monkeypatch: pytest.MonkeyPatch, started: list[int]
) -> None:
    monkeypatch.setattr("drgn_zonedev.report.classify_snapshot", lambda prog, snapshot: [])
    assert check(open_dump(files / "vmcore", files / "vmlinux"), jobs=2).ranges == ()
    assert len(started) == 1


def test_as_many_processes_as_can_start_do_the_work(
    files: Path,
    small_pieces: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    started: list[int],
) -> None:
    prog = open_dump(files / "vmcore", files / "vmlinux")
    expected = said(prog, 1)
    start = team._start

    def once(dump: Dump) -> Worker:
        if started:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return start(dump)

    monkeypatch.setattr(team, "_start", once)
    with caplog.at_level(logging.WARNING):
        assert said(prog, 4) == expected
    assert len(started) == 1
    assert "there are only 2 of 4 processes" in caplog.text
    assert os.strerror(errno.EAGAIN) in caplog.text


@pytest.mark.usefixtures("small_pieces")
def test_command_line_starts_processes_before_it_loads_symbols(
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    started: list[int],
) -> None:
    early: list[int] = []

    def load_later(
        prog: Program, symbols: list[str], choice: TypeChoice, names: Mapping[str, str]
    ) -> None:
        early.extend(started)
        load_types(prog, symbols, choice, names)

    monkeypatch.setattr(cli, "load_types", load_later)
    arguments = ["-c", str(files / "vmcore"), "-s", str(files / "vmlinux"), "check"]
    assert cli.main([*arguments, "--jobs", "1"]) in (0, 1)
    alone = capsys.readouterr().out
    assert started == []
    assert cli.main([*arguments, "--jobs", "3"]) in (0, 1)
    assert capsys.readouterr().out == alone
    assert len(early) == 2
    assert started == early


@pytest.mark.usefixtures("small_pieces")
def test_no_process_is_left_if_symbols_are_missing(
    files: Path, capsys: pytest.CaptureFixture[str], started: list[int]
) -> None:
    arguments = ["-c", str(files / "vmcore"), "-s", str(files / "nosuch"), "check", "--jobs", "2"]
    assert cli.main(arguments) == 2
    assert "there is no file" in capsys.readouterr().err
    assert len(started) == 1


def test_dump_that_cannot_be_opened_starts_no_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], started: list[int]
) -> None:
    (tmp_path / "vmcore").write_text("no dump\n")
    assert cli.main(["-c", str(tmp_path / "vmcore"), "check", "--jobs", "2"]) == 2
    assert "cannot open" in capsys.readouterr().err
    assert started == []


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


def test_little_work_is_done_by_one_process(files: Path, started: list[int]) -> None:
    prog = open_dump(files / "vmcore", files / "vmlinux")
    assert check(prog, jobs=None).coverage.pages_verified > 0
    assert started == []


@pytest.mark.parametrize(
    ("compressed", "size", "cores", "number"),
    [(True, 100, 8, 1), (True, 99, 8, 0), (True, 100, 1, 0), (False, 100, 8, 0)],
)
def test_one_process_starts_early_for_what_may_be_worth_it(
    compressed: bool,
    size: int,
    cores: int,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
    started: list[int],
) -> None:
    assert DIRECTORY is not None
    with StoredDump(DIRECTORY / DUMPS[0]).files() as files:
        prog = Program()
        prog.set_core_dump(files / "vmcore")
        length = (files / "vmcore").stat().st_size
        monkeypatch.setattr(jobs, "_PROBABLY_WORTH_A_WORKER", length * 100 // size)
        monkeypatch.setattr(jobs, "_is_compressed", lambda prog: compressed)
        monkeypatch.setattr(jobs, "_number_of_cores", lambda: cores)
        with jobs.scanner(prog, None):
            assert len(started) == number
