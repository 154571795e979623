# SPDX-License-Identifier: LGPL-2.1-or-later

"""
vmcore
------

Writes an ELF core dump out of runs of memory.

Every run is a segment of its own, with exactly the bytes that were kept. What is left out is not in
any segment, so reading it faults. Structures are scattered, so there can be more segments than the
ELF header can count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from drgn import FaultError

from drgn_zonedev.export.elf_writer import (
    EHDR_SIZE,
    ET_CORE,
    PHDR_SIZE,
    PN_XNUM,
    PT_LOAD,
    PT_NOTE,
    SHDR_SIZE,
    Encoding,
    Segment,
)
from drgn_zonedev.export.trace import MemoryRun

__all__ = ("Read", "write_core")

Read = Callable[[MemoryRun], bytes]

_CHUNK = 1 << 20
_NO_ADDRESS = (1 << 64) - 1


def write_core(
    file: BinaryIO, encoding: Encoding, vmcoreinfo: bytes, runs: list[tuple[MemoryRun, Read]]
) -> list[MemoryRun]:
    """
    Write a core dump.

    :param runs: What to write, and how to read it.
    :return: The runs that can no longer be read, and are not in the dump.
    """
    note = encoding.note(b"VMCOREINFO", 0, vmcoreinfo)
    # The headers are written last, when it is known what could be read.
    data = EHDR_SIZE + (len(runs) + 1) * PHDR_SIZE + SHDR_SIZE
    file.seek(data)
    file.write(note)
    segments = [Segment(PT_NOTE, data, 0, 0, len(note), len(note), 4)]
    written: dict[tuple[int, int], int] = {}
    lost = []
    for run, read in runs:
        offset = _write_run(file, run, read, written)
        if offset is None:
            lost.append(run)
            continue
        paddr = _NO_ADDRESS if run.paddr is None else run.paddr
        segments.append(Segment(PT_LOAD, offset, run.vaddr, paddr, run.size, run.size))
    file.seek(0)
    file.write(_headers(encoding, segments))
    return lost


def _write_run(
    file: BinaryIO, run: MemoryRun, read: Read, written: dict[tuple[int, int], int]
) -> int | None:
    # Struct pages of compound device pages share memory, so their segments share file contents.
    if run.paddr is not None and (run.paddr, run.size) in written:
        return written[run.paddr, run.size]
    offset = file.tell()
    try:
        for start in range(0, run.size, _CHUNK):
            paddr = None if run.paddr is None else run.paddr + start
            part = MemoryRun(run.vaddr + start, paddr, min(_CHUNK, run.size - start))
            file.write(read(part))
    except FaultError:
        file.seek(offset)
        return None
    if run.paddr is not None:
        written[run.paddr, run.size] = offset
    return offset


def _headers(encoding: Encoding, segments: list[Segment]) -> bytes:
    count = len(segments)
    program_headers = b"".join(map(encoding.segment, segments))
    if count < PN_XNUM:
        return encoding.header(ET_CORE, count) + program_headers
    # The true number is in sh_info of a section header that exists only for this.
    shoff = EHDR_SIZE + len(program_headers)
    section = encoding.section(0, 0, 0, 0, 0, 0, 0, count, 0, 0)
    return encoding.header(ET_CORE, PN_XNUM, shoff, shnum=1) + program_headers + section
