# SPDX-License-Identifier: LGPL-2.1-or-later

"""
What a Dump Leaves Out
----------------------

An ELF dump can leave out memory that it has a segment for (``p_filesz`` less
than ``p_memsz``). That is how makedumpfile filters ELF dumps, and drgn reads
zeros there, as it should in a process's core.
"""

from __future__ import annotations

import bisect
import struct
from pathlib import Path

from drgn import FaultError, IntegerLike, Program, ProgramFlags
from drgn.helpers.common.prog import takes_program_or_default
from drgn.helpers.linux.mm import follow_phys

__all__ = ("leaves_something_out", "left_out", "left_out_of_elf")

_EHDR, _PHDR = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ")
_SHDR_INFO = struct.Struct("<I")
_ELF64_LSB = b"\x7fELF\x02\x01"
_PT_LOAD, _PN_XNUM, _SH_INFO_OFFSET = 1, 0xFFFF, 44
# makedumpfile starts a segment for every gap of a MiB: this is terabytes of it.
_MAX_PROGRAM_HEADERS = 1 << 22

_Spans = tuple[tuple[int, int], ...]


@takes_program_or_default
def leaves_something_out(prog: Program) -> bool:
    """Tell whether some of what reads as zeros may just not be in the dump."""
    return bool(_spans(prog))


@takes_program_or_default
def left_out(prog: Program, address: IntegerLike) -> bool:
    """
    Tell whether a byte that reads as zero is not in the dump at all.

    :param address: Virtual address in the kernel.
    """
    spans = _spans(prog)
    if not spans:
        return False
    try:
        phys = follow_phys(prog["init_mm"].address_of_(), address).value_()
    except (FaultError, LookupError, NotImplementedError):
        return False
    i = bisect.bisect_right(spans, (phys, 1 << 64)) - 1
    return i >= 0 and spans[i][0] <= phys < spans[i][1]


def _spans(prog: Program) -> _Spans:
    if prog.flags & ProgramFlags.IS_LIVE or not prog.core_dump_path:
        return ()
    try:
        return prog.cache["zonedev_left_out"]
    except KeyError:
        spans = left_out_of_elf(Path(prog.core_dump_path))
        return prog.cache.setdefault("zonedev_left_out", spans)


def left_out_of_elf(path: Path) -> _Spans:
    """
    Get the physical memory that an ELF dump has segments for, but not the contents.

    :return: Half-open ranges of addresses in ascending order; none for any other file.
    """
    try:
        with path.open("rb") as file:
            header = file.read(_EHDR.size)
            if len(header) < _EHDR.size or not header.startswith(_ELF64_LSB):
                return ()
            fields = _EHDR.unpack(header)
            phoff, shoff, phentsize, phnum = fields[5], fields[6], fields[9], fields[10]
            if phentsize != _PHDR.size:
                return ()
            if phnum == _PN_XNUM:
                file.seek(shoff + _SH_INFO_OFFSET)
                (phnum,) = _SHDR_INFO.unpack(file.read(_SHDR_INFO.size))
            file.seek(phoff)
            table = file.read(min(phnum, _MAX_PROGRAM_HEADERS) * _PHDR.size)
    except (OSError, struct.error):
        return ()
    table = table[: len(table) // _PHDR.size * _PHDR.size]
    return tuple(
        sorted(
            (paddr + filesz, paddr + memsz)
            for kind, _, _, _, paddr, filesz, memsz, _ in _PHDR.iter_unpack(table)
            if kind == _PT_LOAD and filesz < memsz
        )
    )
