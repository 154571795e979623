# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Processes
---------

Starts and ends the processes that :mod:`~drgn_zonedev.verification.pool.scheduler` gives work
to.

They start while nothing is known but the dump, so nothing else is imported here:
numpy would take as long as the rest.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from drgn import Program

from drgn_zonedev.opening.core import Dump, dump_of

if TYPE_CHECKING:
    import subprocess
    from multiprocessing.connection import Connection

__all__ = ("Worker", "end", "end_all", "start_workers", "team")

_logger = logging.getLogger("drgn_zonedev")

_SECONDS_TO_END = 5

# A worker must not run the main module again, nor import from the working directory.
_START = (
    "import sys; fd = int(sys.argv[1]); sys.path[:] = sys.argv[2:]; "
    "from drgn_zonedev.verification.pool.worker import main; main(fd)"
)


@dataclass
class Worker:
    """A process, and what it was given and has not answered."""

    process: subprocess.Popen[bytes]
    connection: Connection
    ready: bool = False
    begun: dict[int, Any] = field(default_factory=dict)


@contextlib.contextmanager
def team() -> Iterator[list[Worker]]:
    """Get room for workers, which :func:`start_workers()` starts, and end them all afterwards."""
    workers: list[Worker] = []
    try:
        yield workers
    finally:
        end_all(workers)


def start_workers(prog: Program, workers: list[Worker], number: int) -> None:
    """
    Start workers until there are this many, or no more can start. It takes them some
    tenths of a second to be of use, and *prog* need not have its debugging symbols yet.
    """
    while len(workers) < number:
        try:
            workers.append(_start(dump_of(prog)))
        except OSError as e:
            count, wanted, why = len(workers) + 1, number + 1, e.strerror or e
            _logger.warning("there are only %d of %d processes: %s", count, wanted, why)
            return


def _start(dump: Dump) -> Worker:
    # Imported here, because most checks do not start processes.
    import socket
    import subprocess
    from multiprocessing.connection import Connection

    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", _START, str(theirs.fileno()), *sys.path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            # A terminal's Ctrl-C is for us; we end them.
            start_new_session=True,
            # Workers only read memory, and do not need plugins.
            env={**os.environ, "DRGN_DISABLE_PLUGINS": "*", "DRGN_PLUGINS": ""},
        )
        connection = Connection(ours.detach())
    with contextlib.suppress(ConnectionError):
        connection.send(dump)
    return Worker(process, connection)


def end_all(workers: list[Worker]) -> None:
    """End workers; they have nothing to lose, and may be in the middle of something."""
    for worker in workers:
        worker.process.kill()
    while workers:
        end(workers.pop())


def end(worker: Worker) -> None:
    """End a worker that has ended, or is about to."""
    import subprocess

    worker.connection.close()
    try:
        worker.process.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        worker.process.kill()
        worker.process.wait()
