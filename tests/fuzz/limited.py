# SPDX-License-Identifier: LGPL-2.1-or-later

"""
One command line in a process of its own, with limits, and what every answer has to be.

The process is a fork of one that has everything imported and has never loaded debugging
symbols: drgn's threads survive no fork.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from drgn_zonedev import report
from drgn_zonedev.__main__ import run
from drgn_zonedev.render import as_text
from drgn_zonedev.shell import cli

__all__ = ("MEMORY", "Tried", "try_command")

_IMPORTED = (report, as_text, cli)

MEMORY = 300 << 20
_DISK = 257 << 20
# On a busy machine, processor time is not what a clock on the wall shows.
_WALL_FACTOR = 6


@dataclass(frozen=True)
class Tried:
    """What came of a command: ``failures`` is empty if everything held."""

    status: int
    failures: tuple[str, ...]
    seconds: float
    memory: int


def try_command(
    argv: Sequence[str],
    seconds: float,
    memory: int = MEMORY,
    before: Callable[[], None] = lambda: None,
) -> Tried:
    """
    Run a command line, with limits of processor time, memory and disk.

    :param before: What else its process does first.
    """
    with tempfile.TemporaryDirectory(prefix="zonedev-fuzz-") as work:
        # Of a pipe, no limit of disk space takes anything away.
        said, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(_run(argv, work, write, seconds, before))
            except BaseException:
                os.write(write, traceback.format_exc().encode())
            finally:
                os._exit(99)
        os.close(write)
        _, status, used = os.wait4(pid, 0)
        with open(said, "rb") as file:
            lines = file.read().decode(errors="replace").splitlines()
        left = os.listdir(work)
    code = os.waitstatus_to_exitcode(status)
    taken, largest = used.ru_utime + used.ru_stime, used.ru_maxrss << 10
    failures = [*_failures(code, lines)]
    failures += [f"not the user's file: {line}" for line in lines if work in line]
    failures += [f"left behind: {left}"] * bool(left and code >= 0)
    failures += [f"memory: {largest >> 20} MiB"] * (largest > memory)
    return Tried(code, tuple(failures), taken, largest)


def _run(
    argv: Sequence[str], work: str, said: int, seconds: float, before: Callable[[], None]
) -> int:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_DISK, _DISK))
    for number, timer, factor in (
        (signal.SIGPROF, signal.ITIMER_PROF, 1),
        (signal.SIGALRM, signal.ITIMER_REAL, _WALL_FACTOR),
    ):
        signal.signal(number, signal.SIG_DFL)
        signal.setitimer(timer, seconds * factor)
    tempfile.tempdir = work
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(said, 2)
    before()
    sys.argv = ["zonedev", *argv]
    return run()


def _failures(code: int, lines: list[str]) -> list[str]:
    if code < 0:
        return [f"killed by {signal.Signals(-code).name}"]
    errors = [line for line in lines if line.startswith("zonedev: error: ")]
    if code not in (0, 1, 2, 3) or "this is a bug" in "".join(errors):
        return [f"status {code}: {' | '.join(lines[-5:])}"]
    if len(errors) > 1 or (errors and len(lines) > 1) or (code == 2 and not errors):
        return [f"status {code} without one line: {' | '.join(lines[-5:])}"]
    return []
