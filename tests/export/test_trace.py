# SPDX-License-Identifier: LGPL-2.1-or-later

"""What is exported of memory that moves is what the analysis saw of it."""

from __future__ import annotations

import errno
import os
import time

import pytest
from drgn import Architecture, FaultError, Platform, Program

from drgn_zonedev.export.trace import MemoryRun, Recorder

START = 0xFFFF888000000000
SIZE = 1 << 20


def moving_program(*, is_live: bool) -> Program:
    """Every byte of a read is the number of the read."""
    prog = Program(Platform(Architecture.X86_64))
    prog.set_linux_kernel_custom(_VMCOREINFO, is_live)
    reads = iter(range(1, 1 << 20))

    def read(address: int, count: int, offset: int, physical: bool) -> bytes:
        return bytes([next(reads) & 0xFF]) * count

    prog.add_memory_segment(START, SIZE, read)
    return prog


_VMCOREINFO = (
    b"OSRELEASE=6.1.0-test\nPAGESIZE=4096\nKERNELOFFSET=0\n"
    b"SYMBOL(swapper_pg_dir)=ffffffff82a0c000\n"
)


def said(recorder: Recorder, vaddr: int, size: int) -> bytes:
    recorder.sort_first_reads()
    return recorder.read_run(MemoryRun(vaddr, None, size))


def test_running_kernel_is_exported_as_it_was_read_first() -> None:
    recorder = Recorder(moving_program(is_live=True), _VMCOREINFO)
    assert [recorder.prog.read(START + at, 8)[0] for at in (0x100, 0x208, 0x100)] == [1, 2, 1]
    data = said(recorder, START + 0x100, 0x110)
    # The rest is of the read that the export makes.
    assert data == b"\1" * 8 + b"\3" * 0x100 + b"\2" * 8


def test_what_was_read_in_another_run_is_left_there() -> None:
    recorder = Recorder(moving_program(is_live=True), _VMCOREINFO)
    for at in (0x0F8, 0x100, 0x140):
        recorder.prog.read(START + at, 0x10)
    assert said(recorder, START + 0x100, 0x48) == b"\2" * 0x10 + b"\4" * 0x38


def test_dump_is_read_again() -> None:
    recorder = Recorder(moving_program(is_live=False), _VMCOREINFO)
    recorder.prog.read(START, 8)
    assert said(recorder, START, 8) == b"\2" * 8


def test_helper_that_goes_on_for_ever_is_stopped() -> None:
    recorder = Recorder(moving_program(is_live=False), _VMCOREINFO)
    with recorder.at_most(2):
        recorder.prog.read(START, 1)
        recorder.prog.read(START, 1)
        with pytest.raises(FaultError, match="reached the limit of reads"):
            recorder.prog.read(START, 1)
    assert recorder.prog.read(START, 1) == b"\3"


@pytest.mark.parametrize(("address", "physical"), [(START, False), (0x1000, True)])
def test_what_no_file_has_faults(address: int, physical: bool) -> None:
    def read(address: int, count: int, offset: int, physical: bool) -> bytes:
        # As of a segment whose place in the file is garbage.
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    prog = Program(Platform(Architecture.X86_64))
    prog.set_linux_kernel_custom(_VMCOREINFO, False)
    prog.add_memory_segment(address, SIZE, read, physical)
    recorder = Recorder(prog, _VMCOREINFO)
    with pytest.raises(FaultError, match="Invalid argument"):
        recorder.prog.read(address, 8, physical)


def test_time_does_not_grow_with_the_square_of_what_was_read() -> None:
    def seconds(reads: int) -> float:
        recorder = Recorder(moving_program(is_live=True), _VMCOREINFO)
        starts = range(START, START + 32 * reads, 32)
        for start in starts:
            recorder.prog.read(start, 8)
        recorder.sort_first_reads()
        begin = time.process_time()
        for start in starts:
            recorder.read_run(MemoryRun(start, None, 16))
        return time.process_time() - begin

    # Thirty-two times the reads; their square is a thousand.
    assert seconds(32000) < 200 * max(seconds(1000), 0.001)
