# SPDX-License-Identifier: LGPL-2.1-or-later

"""Reads at addresses that may be garbage."""

from __future__ import annotations

import errno

import pytest
from drgn import Architecture, FaultError, Platform, Program

from drgn_zonedev.vmcore.raw import END, read_raw

LAST = END - 4096


def program() -> Program:
    prog = Program(Platform(Architecture.X86_64))
    prog.add_memory_segment(LAST, 4095, lambda address, count, *_: bytes(count))
    prog.add_memory_segment(0, 8, lambda address, count, *_: b"physical"[:count], True)
    return prog


def broken(error: OSError) -> Program:
    def read(address: int, count: int, offset: int, physical: bool) -> bytes:
        raise error

    prog = Program(Platform(Architecture.X86_64))
    prog.add_memory_segment(0, 4096, read)
    return prog


def test_memory_is_what_drgn_reads() -> None:
    assert read_raw(program(), LAST, 4095) == bytes(4095)
    assert read_raw(program(), 0, 8, physical=True) == b"physical"
    assert read_raw(program(), LAST, 0) == b""


@pytest.mark.parametrize(
    ("address", "size", "faults_at"),
    [
        (END - 8, 9, END - 8),
        (END, 1, 0),
        (END + 0x1234, 8, 0x1234),
        (-8, 8, END - 8),
        (1 << 80, 8, 0),
    ],
)
def test_beyond_the_address_space_is_a_fault_like_any_other(
    address: int, size: int, faults_at: int
) -> None:
    with pytest.raises(FaultError) as caught:
        read_raw(program(), address, size)
    assert caught.value.address == faults_at


def test_negative_size_is_a_fault() -> None:
    with pytest.raises(FaultError):
        read_raw(program(), LAST, -1)


def test_file_that_cannot_be_read_is_a_fault_with_its_reason() -> None:
    with pytest.raises(FaultError, match="Input/output error") as caught:
        read_raw(broken(OSError(errno.EIO, "Input/output error")), 8, 8)
    assert caught.value.address == 8
