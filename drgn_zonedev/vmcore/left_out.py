# SPDX-License-Identifier: LGPL-2.1-or-later

"""
What a Dump Does Not Hold
-------------------------

Finds the memory that a core dump does not contain, by the program headers of an ELF dump or
the bitmap of a kdump one. Memory itself is not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Union

import numpy as np
from drgn import Program, ProgramFlags
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.util.once import once_per_program
from drgn_zonedev.vmcore.core_path import core_dump_path
from drgn_zonedev.vmcore.elf import ElfDump, read_elf_dump
from drgn_zonedev.vmcore.kdump import KdumpFile, read_kdump_header

__all__ = (
    "LEFT_OUT",
    "absent_frames",
    "end_of_dump",
    "filtered_frames",
    "frames_in_other_parts",
    "leaves_something_out",
    "next_segment_page",
    "segment_pages",
    "tells_what_is_absent",
)

# The reason for a fault on memory that has a segment without contents in an ELF dump.
LEFT_OUT = "left out of the dump"

_SMALLEST_PAGE = 4096

_DumpFile = Union[ElfDump, KdumpFile, None]


@takes_program_or_default
def tells_what_is_absent(prog: Program) -> bool:
    """Return whether a program is a core dump whose file says what it does not contain."""
    return _dump_file(prog) is not None


@takes_program_or_default
def leaves_something_out(prog: Program) -> bool:
    """Return whether memory that reads as zeros may be missing from the dump."""
    file = _dump_file(prog)
    return isinstance(file, ElfDump) and file.reads_zeros


@takes_program_or_default
def end_of_dump(prog: Program) -> tuple[int, int] | None:
    """
    Get the size of the program's core dump and the size that its headers claim, in bytes, if it is
    an ELF dump.
    """
    file = _dump_file(prog)
    return file.ends if isinstance(file, ElfDump) else None


@takes_program_or_default
def frames_in_other_parts(prog: Program, frames: np.ndarray) -> np.ndarray:
    """
    Return which page frames are in another part of a dump that ``makedumpfile --split``
    wrote.

    :param frames: PFNs, as for :func:`absent_frames()`.
    """
    file = _dump_file(prog)
    if not isinstance(file, KdumpFile):
        return np.zeros(len(frames), bool)
    return file.frames_in_other_parts(frames)


@takes_program_or_default
def absent_frames(prog: Program, frames: np.ndarray) -> np.ndarray:
    """
    Return which page frames the core dump certainly does not contain: reading one faults,
    or returns zeros that were not in memory.

    :param frames: PFNs that may be anything but negative, ``np.int64``.
    :return: Column of ``bool``; all false if the file does not say, or if the program is
        not a dump.
    """
    file = _dump_file(prog)
    if file is None or not len(frames):
        return np.zeros(len(frames), bool)
    return file.absent_frames(frames, prog["PAGE_SIZE"].value_())


@takes_program_or_default
def filtered_frames(prog: Program, frames: np.ndarray) -> np.ndarray:
    """
    Return which page frames were left out on purpose: the file has a bit or a segment for
    them, and no contents.

    :param frames: PFNs, as for :func:`absent_frames()`.
    :return: Column of ``bool``; each is absent, too.
    """
    file = _dump_file(prog)
    if file is None or not len(frames):
        return np.zeros(len(frames), bool)
    return file.filtered_frames(frames, prog["PAGE_SIZE"].value_())


@takes_program_or_default
def segment_pages(prog: Program, first: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """
    Return which pages an ELF dump contains by their virtual addresses. drgn prefers these
    to page tables.

    :param first: Virtual page number.
    :param end: One more than the last.
    :return: Two columns of ``bool``: which pages have contents, at least in part, and
        which have a segment without.
    """
    file = _dump_file(prog)
    if not isinstance(file, ElfDump):
        return np.zeros(end - first, bool), np.zeros(end - first, bool)
    page_size = np.uint64(prog["PAGE_SIZE"].value_())
    start = np.arange(first, end, dtype=np.uint64) * page_size
    # The page after the last one would begin at 0.
    behind = start + (page_size - np.uint64(1))
    filled = file.virtual.touch(start, behind)
    return filled, file.promised.touch(start, behind) & ~filled


@takes_program_or_default
def next_segment_page(prog: Program, first: int, end: int) -> int:
    """
    Find the first page that an ELF dump contains by its virtual address.

    :param first: Virtual page number.
    :param end: One more than the last.
    :return: Virtual page number; *end* if there is none.
    """
    file = _dump_file(prog)
    if not isinstance(file, ElfDump):
        return end
    page_size = prog["PAGE_SIZE"].value_()
    address = file.virtual.first(first * page_size)
    return end if address is None else min(address // page_size, end)


def is_in_scraps(prog: Program) -> bool:
    """
    Return whether most contents of an ELF dump end within pages: then no kernel or hypervisor wrote
    it, but a program that kept only what it had read.
    """
    file = _dump_file(prog)
    if not isinstance(file, ElfDump) or not len(file.virtual.furthest):
        return False
    within = file.virtual.furthest % np.uint64(_SMALLEST_PAGE) != 0
    return bool(2 * within.sum() > len(within))


@once_per_program
def _dump_file(prog: Program) -> _DumpFile:
    core = core_dump_path(prog)
    if prog.flags & ProgramFlags.IS_LIVE or not core:
        return None
    path = Path(core)
    return read_kdump_header(path) or read_elf_dump(path)
