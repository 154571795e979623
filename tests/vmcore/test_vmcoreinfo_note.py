# SPDX-License-Identifier: LGPL-2.1-or-later

"""The headers of dumps in all formats, and of what is none."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest
from support.cellar import unpack_stored
from support.dumpfiles import Machine, write_elf, write_kdump

from drgn_zonedev.vmcore.vmcoreinfo_note import (
    FileFormat,
    file_format,
    opened_reader,
    vmcoreinfo_note,
)

TEXT = b"OSRELEASE=6.1.0-imagined\n"


def flatten(path: Path) -> Path:
    """Write a dump as ``makedumpfile -F`` does: the headers once more at the end."""
    data, target = path.read_bytes(), path.with_suffix(".flat")
    pieces = [(at, data[at : at + 5000]) for at in range(0, len(data), 5000)]
    pieces[0] = 0, bytes(5000)
    pieces = [(0, data[:64]), *pieces[1:], (64, data[64:5000])]
    head = struct.pack(">16sqq", b"makedumpfile", 1, 1).ljust(4096, b"\0")
    body = b"".join(struct.pack(">qq", at, len(piece)) + piece for at, piece in pieces)
    target.write_bytes(head + body + struct.pack(">qq", -1, -1))
    return target


def elf(order: str, bits: int, name: bytes = b"VMCOREINFO") -> bytes:
    """A header, one program header and one note."""
    note = struct.pack(f"{order}III", len(name) + 1, len(TEXT), 0) + name.ljust(
        len(name) + 4 & ~3, b"\0"
    ) + TEXT  # fmt: skip
    ident = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]).ljust(12, b"\0")
    if bits == 64:
        head = struct.pack(f"{order}HHIQQQIHHHHHH", 4, 21, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
        program = struct.pack(f"{order}IIQQQQQQ", 4, 0, 120, 0, 0, len(note), 0, 4)
    else:
        head = struct.pack(f"{order}HHIIIIIHHHHHH", 4, 3, 1, 0, 52, 0, 0, 52, 32, 1, 0, 0, 0)
        program = struct.pack(f"{order}IIIIIIII", 4, 84, 0, 0, len(note), 0, 0, 4)
    return ident + head + program + note


def read_all(path: Path) -> tuple[FileFormat | None, bytes | None]:
    with opened_reader(str(path)) as (read, is_flattened):
        return file_format(read, is_flattened), vmcoreinfo_note(read)


def test_dumps_of_a_machine(tmp_path: Path) -> None:
    for write, plain, flat in (
        (write_elf, FileFormat.ELF, FileFormat.FLATTENED_ELF),
        (write_kdump, FileFormat.KDUMP, FileFormat.FLATTENED_KDUMP),
    ):
        path = write(Machine(), tmp_path / "vmcore")
        for file, expected in ((path, plain), (flatten(path), flat)):
            found, note = read_all(file)
            assert found is expected
            assert note is not None
            assert note.startswith(TEXT)
            assert note.rstrip(b"\0").endswith(b"KERNELOFFSET=0\n")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [32, 64])
def test_byte_orders_and_classes(tmp_path: Path, order: str, bits: int) -> None:
    path = tmp_path / "vmcore"
    path.write_bytes(elf(order, bits))
    assert read_all(path) == (FileFormat.ELF, TEXT)


def test_stored_dump_says_what_drgn_reads(tmp_path: Path) -> None:
    import drgn

    path = unpack_stored("7.3-ghost", tmp_path / "d")
    prog = drgn.Program()
    prog.set_core_dump(path)
    found, note = read_all(path)
    assert found is FileFormat.ELF
    assert note == prog["VMCOREINFO"].string_()


def test_other_files_have_no_format(tmp_path: Path) -> None:
    path = tmp_path / "x"
    executable = bytearray(elf("<", 64))
    executable[16] = 2
    for contents in (b"", b"#!/bin/sh\n", bytes(5000), bytes(executable), b"\x1f\x8b"):
        path.write_bytes(contents)
        assert read_all(path)[0] is None


def test_dump_that_is_cut_off_anywhere_is_still_one(tmp_path: Path) -> None:
    path = tmp_path / "vmcore"
    whole = elf("<", 64)
    for size in range(4, len(whole)):
        path.write_bytes(whole[:size])
        found, note = read_all(path)
        assert found is FileFormat.ELF, size
        assert note is None or TEXT.startswith(note)


def test_damage_costs_neither_time_nor_memory(tmp_path: Path) -> None:
    rng = random.Random(23)
    path = tmp_path / "vmcore"
    kdump = write_kdump(Machine(), tmp_path / "k").read_bytes()[:20_000]
    for original in (
        elf("<", 64),
        elf(">", 32),
        kdump,
        flatten(tmp_path / "k").read_bytes()[:9000],
    ):
        for _ in range(300):
            data = bytearray(original)
            for _ in range(rng.randrange(1, 8)):
                at = rng.randrange(min(len(data), 600))
                data[at : at + 4] = rng.choice([b"\xff" * 4, bytes(4), rng.randbytes(4)])
            path.write_bytes(data)
            found, note = read_all(path)
            assert found is None or isinstance(found, FileFormat)
            assert note is None or len(note) <= 16 << 20


def test_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="regular"), opened_reader(str(tmp_path / "fifo")):
        pass
