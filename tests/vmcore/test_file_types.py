# SPDX-License-Identifier: LGPL-2.1-or-later

"""What a file is that is neither a dump nor symbols, for the message that says so."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import struct
import sys
from pathlib import Path
from typing import Callable

import pytest
from support.dumpfiles import Machine, write_elf, write_kdump

from drgn_zonedev.vmcore.file_types import no_dump, no_symbols

Compress = Callable[[bytes], bytes]
PACKERS: dict[str, Compress] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    # RFC 8878: the magic number of a frame.
    "zstd": lambda data: struct.pack("<I", 0xFD2FB528) + data,
}


@pytest.mark.parametrize("packer", PACKERS)
def test_compressed_dump_is_to_be_unpacked(packer: str, tmp_path: Path) -> None:
    path = write_elf(Machine(), tmp_path / "vmcore")
    path.write_bytes(PACKERS[packer](path.read_bytes()))
    assert no_dump(str(path)) == f"it is compressed with {packer}: unpack it first"


def test_program_is_no_dump() -> None:
    reason = no_dump(sys.executable)
    assert reason is not None
    assert "ELF file, but not a dump" in reason


def test_relocatable_big_endian_file_is_no_dump_and_its_core_may_be(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for type_, is_core in ((1, False), (4, True)):
        path.write_bytes(b"\x7fELF\x02\x02".ljust(16, b"\0") + struct.pack(">H", type_))
        assert (no_dump(str(path)) is None) is is_core


def test_dumps_and_unknown_files_are_left_to_drgn(tmp_path: Path) -> None:
    elf, kdump = tmp_path / "elf", tmp_path / "kdump"
    write_elf(Machine(), elf)
    write_kdump(Machine(), kdump)
    noise, empty = tmp_path / "noise", tmp_path / "empty"
    noise.write_bytes(bytes(range(256)))
    empty.touch()
    for path in (elf, kdump, noise, empty, tmp_path, tmp_path / "missing", Path("/dev/zero")):
        assert no_dump(str(path)) is None


def bzimage(path: Path) -> Path:
    # Linux kernel Documentation/arch/x86/boot.rst
    path.write_bytes(bytes(0x202) + b"HdrS" + bytes(64))
    return path


def test_symbols_that_are_something_else_are_said(tmp_path: Path) -> None:
    core = write_elf(Machine(), tmp_path / "vmcore")
    assert no_symbols(str(core), None) == "a dump, which -c takes"
    image = bzimage(tmp_path / "vmlinuz")
    assert no_symbols(str(image), None) == "a compressed kernel without symbols"
    text = tmp_path / "System.map"
    text.write_text("ffffffff81000000 T _text\n")
    assert no_symbols(str(text), None) == "no ELF file"
    assert no_symbols(str(tmp_path), None) == "no ELF file"


# n_namesz, n_descsz, n_type (NT_GNU_BUILD_ID) and the name of the note with a build ID.
BUILD_ID_NOTE = struct.pack("<III4s", 4, 20, 3, b"GNU\0")


def stripped_program() -> tuple[str, bytes]:
    """A program of this machine's distribution, and its build ID."""
    path = shutil.which("ls")
    assert path is not None
    contents = Path(path).read_bytes()
    start = contents.index(BUILD_ID_NOTE) + len(BUILD_ID_NOTE)
    return path, contents[start : start + 20]


def test_file_of_the_right_build_may_still_lack_its_symbols() -> None:
    path, build_id = stripped_program()
    assert no_symbols(path, build_id) == "of the right build, but stripped or cut off"
    assert no_symbols(path, bytes(20)) == f"build ID {build_id.hex()}, no DWARF"


def test_elf_file_that_is_cut_off_is_said(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(Path(sys.executable).resolve().read_bytes()[:80])
    assert no_symbols(str(path), None) in (
        "an ELF file that cannot be read",
        "no build ID, no DWARF",
    )
