# SPDX-License-Identifier: LGPL-2.1-or-later

"""Strings that nobody vouches for."""

from __future__ import annotations

import os

import pytest
from drgn import FaultError, Object, Program
from support.fakekernel import FakeKernel

from drgn_zonedev.util.strings import c_string, printable, string_at, string_or

ADDRESS = 0x10000


def program(contents: bytes) -> Program:
    kernel = FakeKernel()
    kernel.section(0)
    prog = kernel.program()
    prog.add_memory_segment(
        ADDRESS, len(contents), lambda a, count, offset, p: contents[offset : offset + count]
    )
    return prog


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"pmem0", "pmem0"),
        ("ndbus\u00e9".encode(), "ndbus\u00e9"),
        (b"\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        (b"two\nlines\r", r"two\nlines\r"),
        (b"\x9b2J", r"\x9b2J"),
        ("abc\u202egnp".encode(), r"abc\u202egnp"),
        ("zero\u200bwidth\u2066".encode(), r"zero\u200bwidth\u2066"),
        ("line\u2028separator".encode(), r"line\u2028separator"),
        (b"\xff\xfe", r"\xff\xfe"),
        (b"\xed\xa0\x80", r"\xed\xa0\x80"),
    ],
)
def test_strings_hold_nothing_but_text(raw: bytes, text: str) -> None:
    assert string_at(program(raw + b"\0"), ADDRESS) == text
    assert printable(text) == text


def test_string_without_an_end_is_cut_off() -> None:
    assert string_at(program(b"x" * 10000), ADDRESS) == "x" * 512


def test_string_that_cannot_be_read() -> None:
    prog = program(b"no end")
    with pytest.raises(FaultError):
        string_at(prog, ADDRESS)
    pointer = Object(prog, "char *", ADDRESS)
    assert string_or(pointer, "?") == "?"


def test_pointers_and_arrays() -> None:
    prog = program(b"pmem0\0more")
    char = prog.int_type("char", 1, True)
    assert c_string(Object(prog, prog.pointer_type(char), ADDRESS)) == "pmem0"
    assert c_string(Object(prog, prog.pointer_type(char), 0)) == ""
    assert c_string(Object(prog, prog.array_type(char, 10), address=ADDRESS)) == "pmem0"
    assert c_string(Object(prog, prog.array_type(char, 3), address=ADDRESS)) == "pme"


@pytest.mark.parametrize("address", [-8, 1 << 64, (1 << 64) + 8])
def test_addresses_that_no_machine_has_cannot_be_read(address: int) -> None:
    with pytest.raises(FaultError):
        string_at(FakeKernel("6.1").program(), address)


def test_bytes_that_are_no_utf8_are_escaped_as_such() -> None:
    assert printable(os.fsdecode(b"a\xff\xe9\n")) == r"a\xff\xe9\n"
