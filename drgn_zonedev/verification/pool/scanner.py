# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Scanner
-------

How many processes the struct pages of a program are worth.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from drgn import Program, ProgramFlags

from drgn_zonedev.verification.pool.piece import number_of_pieces
from drgn_zonedev.verification.pool.process import Worker, end_all, start_workers, team
from drgn_zonedev.vmcore.core_path import core_dump_path

if TYPE_CHECKING:
    from drgn_zonedev.verification.task import ResultT, ScanAll, ScanTask, WorkT

__all__ = ("scanner", "why_alone")

_logger = logging.getLogger("drgn_zonedev")

_MAX_JOBS = 8
_JOBS_PER_CORE = 4
# What a worker must be given to be worth its start, which takes some tenths of a
# second: a compressed dump yields about 600 MB/s, others several GB/s.
_WORTH_A_WORKER = {True: 256 << 20, False: 2 << 30}
# Size of a compressed dump.
_PROBABLY_WORTH_A_WORKER = 256 << 20


@contextlib.contextmanager
def scanner(prog: Program, jobs: int | None) -> Iterator[ScanAll]:
    """
    Get the function that scans struct pages in *jobs* processes, all of which are ended
    afterwards. They start now, while *prog* may still be without its debugging symbols.

    :param jobs: No more than there are pieces of work, and four for each core.
        ``None`` for as many as there are cores, and as pay off;
        until the amount of work is known, no more than one is started.
    :raises ValueError: if *jobs* is less than 1
    """
    if jobs is not None and jobs < 1:
        raise ValueError(f"expected 1 process or more, got {jobs}")
    with team() as workers:
        start_workers(prog, workers, _number_of_early_workers(prog, jobs))

        def scan_all(
            prog: Program,
            task: ScanTask[WorkT, ResultT],
            works: Sequence[WorkT],
            progress: Callable[[int], None],
        ) -> Iterator[ResultT]:
            # Both take a while to be imported, and symbols may not be loaded yet.
            from drgn_zonedev.verification.pool.scheduler import scan_in_processes
            from drgn_zonedev.verification.task import scan_here

            number = _number_of_jobs(prog, works, jobs)
            # We are one of them, and begin while the others start.
            _end_surplus(workers, number - 1)
            if number < 2:
                return scan_here(prog, task, works, progress)
            start_workers(prog, workers, number - 1)
            return scan_in_processes(prog, task, works, progress, workers)

        yield scan_all


def _end_surplus(workers: list[Worker], number: int) -> None:
    surplus = workers[number:]
    del workers[number:]
    end_all(surplus)


def why_alone(prog: Program) -> str | None:
    """Say why a program cannot be opened once more, or nothing if it can."""
    if prog.flags & ProgramFlags.IS_LIVE:
        return "what is running is read by one process"
    if not core_dump_path(prog):
        return "only a core dump can be opened by more than one process"
    if _leaves_something_out(prog) and not _walks_in_bulk(prog):
        return "what this dump leaves out is only known with its debugging symbols"
    return None


def _leaves_something_out(prog: Program) -> bool:
    # Imports numpy.
    from drgn_zonedev.vmcore.left_out import leaves_something_out

    return leaves_something_out(prog)


def _walks_in_bulk(prog: Program) -> bool:
    from drgn_zonedev.vmcore.pagetables import walks_in_bulk

    return walks_in_bulk(prog)


def _number_of_early_workers(prog: Program, jobs: int | None) -> int:
    # Asking why it should be alone may import numpy.
    if jobs == 1 or not (jobs or _pays_off(prog)) or why_alone(prog):
        return 0
    return min(_clamped(jobs), _most_pieces(prog)) - 1 if jobs else 1


def _pays_off(prog: Program) -> bool:
    several = _number_of_cores() > 1 and core_dump_path(prog) is not None
    return several and _is_compressed(prog) and _is_large(prog)


def _number_of_jobs(prog: Program, works: Sequence[WorkT], jobs: int | None) -> int:
    if jobs == 1:
        return 1
    alone = why_alone(prog)
    if alone:
        if jobs:
            _logger.warning("one process instead of %d: %s", jobs, alone)
        return 1
    if not works:
        return _as_asked(jobs, 0) if jobs else 1
    from drgn_zonedev.kernel.memmap import page_layout

    size = page_layout(prog).size * sum(work.pages for work in works)
    if jobs:
        return _as_asked(jobs, number_of_pieces(size))
    return min(_number_of_cores(), size // _WORTH_A_WORKER[_is_compressed(prog)])


def _as_asked(jobs: int, pieces: int) -> int:
    number = max(1, min(_clamped(jobs), pieces))
    if number < jobs:
        why = "4 for each core" if number < pieces else f"pieces of work: {pieces}"
        _logger.warning(
            "%s instead of %d: %s",
            "one process" if number == 1 else f"{number} processes",
            jobs,
            why,
        )
    return number


def _most_pieces(prog: Program) -> int:
    # A plain dump has no more struct pages than bytes, zeros that it leaves out aside.
    core = core_dump_path(prog)
    if core is None or _is_compressed(prog):
        return sys.maxsize
    try:
        return max(1, number_of_pieces(os.path.getsize(core)))
    except OSError:
        return sys.maxsize


def _clamped(jobs: int) -> int:
    # More only stand in each other's way, and take memory.
    return min(jobs, _JOBS_PER_CORE * len(os.sched_getaffinity(0)))


def _number_of_cores() -> int:
    return min(len(os.sched_getaffinity(0)), _MAX_JOBS)


def _is_large(prog: Program) -> bool:
    core = core_dump_path(prog)
    assert core is not None
    try:
        return os.path.getsize(core) >= _PROBABLY_WORTH_A_WORKER
    except OSError:
        return False


def _is_compressed(prog: Program) -> bool:
    core = core_dump_path(prog)
    assert core is not None
    try:
        with open(core, "rb") as file:
            return file.read(4) != b"\x7fELF"
    except OSError:
        return False
