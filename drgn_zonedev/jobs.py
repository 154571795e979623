# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Jobs
----

How many processes the struct pages of a program are worth.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence

from drgn import Program, ProgramFlags

from drgn_zonedev.kernel.dump import leaves_something_out
from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.promised import ScanAll, Scanned, Work, scan_here

__all__ = ("scan_with", "why_alone")

_logger = logging.getLogger("drgn_zonedev")

_MAX_JOBS = 8
# What a worker must be given to be worth its start, which takes some tenths of a
# second: a compressed dump yields about 600 MB/s, others several GB/s.
_WORTH_A_WORKER = {True: 256 << 20, False: 2 << 30}


def scan_with(jobs: int | None) -> ScanAll:
    """
    Get what goes through struct pages in *jobs* processes.

    :param jobs: ``None`` for as many as there are cores for, and as the work is worth.
    """

    def scan_all(
        prog: Program, works: Sequence[Work], progress: Callable[[int], None]
    ) -> Iterator[Scanned]:
        number = _number_of_jobs(prog, works, jobs)
        if number < 2:
            return scan_here(prog, works, progress)
        from drgn_zonedev.workers import scan_in_processes

        return scan_in_processes(prog, works, progress, number)

    return scan_here if jobs == 1 else scan_all


def why_alone(prog: Program) -> str | None:
    """Say why a program cannot be opened once more, or nothing if it can."""
    if prog.flags & ProgramFlags.IS_LIVE:
        return "what is running is read by one process"
    if not prog.core_dump_path:
        return "only a core dump can be opened by more than one process"
    if leaves_something_out(prog):
        return "what this dump leaves out is only known with its debugging symbols"
    return None


def _number_of_jobs(prog: Program, works: Sequence[Work], jobs: int | None) -> int:
    alone = why_alone(prog)
    if alone:
        if jobs:
            _logger.warning("one process instead of %d: %s", jobs, alone)
        return 1
    if not works:
        return 1
    size = page_layout(prog).size * sum(work.pages for work in works)
    if jobs:
        return jobs
    cores = min(len(os.sched_getaffinity(0)), _MAX_JOBS)
    return min(cores, size // _WORTH_A_WORKER[_is_compressed(prog)])


def _is_compressed(prog: Program) -> bool:
    assert prog.core_dump_path is not None
    try:
        with open(prog.core_dump_path, "rb") as file:
            return file.read(4) != b"\x7fELF"
    except OSError:
        return False
