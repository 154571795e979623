# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Scheduler
---------

Goes through the struct pages of a core dump in several processes. A compressed dump
takes its time to decompress, and each process does that for its part.

A worker is a new Python that opens the dump itself: a handle of libkdumpfile does not
survive fork(), and its cache is not safe for threads. Results are put together in
order, so the answer is that of one process. If a worker dies or cannot open the dump, the others or
this process, which also works, do its work.

:class:`concurrent.futures.ProcessPoolExecutor` and loky start their workers for a task,
with all that its function imports, and fail every task that is not done when one worker
dies. Here, workers open the dump before there is any task, while this process still loads
symbols; the death of one costs its pieces only; and this process is a worker, too.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Generic

from drgn import Program

from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.verification.pool.piece import piece_pages
from drgn_zonedev.verification.pool.process import Worker, end, end_all
from drgn_zonedev.verification.task import Begin, ResultT, ScanTask, WorkT

__all__ = ("scan_in_processes",)

_logger = logging.getLogger("drgn_zonedev")

# The piece that a worker works on, and the next one.
_AT_ONCE = 2
# What a worker is given at first, while this process does something else: a second's work, and
# less than fits into a socket.
_AT_FIRST = 64


def scan_in_processes(
    prog: Program,
    task: ScanTask[WorkT, ResultT],
    works: Sequence[WorkT],
    progress: Callable[[int], None],
    workers: list[Worker],
) -> Iterator[ResultT]:
    """
    Do a task in this process and in *workers*, and end the workers. Workers that are ready begin at
    once; this process begins when it is asked for the first result.
    """
    pages = piece_pages(page_layout(prog).size)
    pieces = ((nr, piece) for nr, work in enumerate(works) for piece in task.cut(work, pages))
    scan = _Scan(task.begin, _Queue(pieces), workers, progress)
    share = sum(work.pages for work in works) // pages // (len(workers) + 1)
    _listen(scan, 0)
    # Some workers may be slow: half of a share is held back, so that all end at the same time.
    _feed(scan, max(_AT_ONCE, min(_AT_FIRST, share // 2)))
    return _whole(_in_order(prog, scan), task, len(works), workers)


def _whole(
    results: Iterator[tuple[int, ResultT]],
    task: ScanTask[WorkT, ResultT],
    number: int,
    workers: list[Worker],
) -> Iterator[ResultT]:
    # Puts the pieces of each work together.
    try:
        done: tuple[int, ResultT] | None = next(results, None)
        for nr in range(number):
            whole = task.nothing()
            while done and done[0] == nr:
                whole.extend(done[1])
                done = next(results, None)
            yield whole
    finally:
        end_all(workers)


def _in_order(prog: Program, scan: _Scan[WorkT, ResultT]) -> Iterator[tuple[int, ResultT]]:
    # Yields the number of the work that a piece belongs to, and the result of the piece.
    do = scan.begin()
    yielded = 0
    while True:
        while yielded in scan.finished:
            yield scan.queue.of_work.popleft(), scan.finished.pop(yielded)
            yielded += 1
        _feed(scan, _AT_ONCE)
        own = scan.queue.take()
        if own is None and not any(w.begun for w in scan.workers):
            return
        if own is not None:
            number, work = own
            scan.finished[number] = do(prog, work, scan.progress)
        _listen(scan, 0 if own else None)


def _feed(scan: _Scan[WorkT, ResultT], at_once: int) -> None:
    for worker in scan.workers:
        while worker.ready and len(worker.begun) < at_once:
            following = scan.queue.take()
            if following is None:
                return
            worker.begun.update([following])
            with contextlib.suppress(ConnectionError):
                worker.connection.send(following)


def _listen(scan: _Scan[WorkT, ResultT], timeout: float | None) -> None:
    for connection in wait([w.connection for w in scan.workers], timeout):
        worker = next(w for w in scan.workers if w.connection is connection)
        try:
            _receive(worker, scan)
            # An answer that is left there counts as work that the worker still has.
            while worker.connection.poll():
                _receive(worker, scan)
        except (EOFError, ConnectionError, _CannotOpenError) as e:
            scan.workers.remove(worker)
            scan.queue.again.update(worker.begun)
            end(worker)
            why = str(e) or f"it ended with status {worker.process.returncode}"
            _logger.warning("a worker process is lost: %s", why)


@dataclass
class _Queue(Generic[WorkT]):
    """Pieces, by number, and what was given to a worker that is lost."""

    pieces: Iterator[tuple[int, WorkT]]
    again: dict[int, WorkT] = field(default_factory=dict)
    of_work: deque[int] = field(default_factory=deque)
    given: int = 0

    def take(self) -> tuple[int, WorkT] | None:
        if self.again:
            number = min(self.again)
            return number, self.again.pop(number)
        following = next(self.pieces, None)
        if following is None:
            return None
        self.of_work.append(following[0])
        self.given += 1
        return self.given - 1, following[1]


@dataclass
class _Scan(Generic[WorkT, ResultT]):
    """The work to do, who does it, and the results that were not yielded yet."""

    begin: Begin[WorkT, ResultT]
    queue: _Queue[WorkT]
    workers: list[Worker]
    progress: Callable[[int], None]
    finished: dict[int, ResultT] = field(default_factory=dict)


class _CannotOpenError(Exception):
    """A worker could not open the dump."""


def _receive(worker: Worker, scan: _Scan[WorkT, ResultT]) -> None:
    answer = worker.connection.recv()
    if not worker.ready:
        if answer:
            raise _CannotOpenError(answer)
        worker.ready = True
        with contextlib.suppress(ConnectionError):
            worker.connection.send(scan.begin)
        return
    number, result = answer
    scan.finished[number] = result
    scan.progress(worker.begun.pop(number).pages)
