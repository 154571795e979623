# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Checking One Dump
-----------------

Runs ``zonedev check`` on a dump in a process of its own, with limits of time and memory. A
dump that hangs it, crashes it or makes it take all memory is a result, too.
"""

from __future__ import annotations

import contextlib
import enum
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from drgn_zonedev.fleet.sameness import quick_key
from drgn_zonedev.util.directories import temporary_directory
from drgn_zonedev.util.strings import printable

__all__ = ("LIMITED", "Checked", "Ending", "Limits", "Task", "check_alone")


class Ending(enum.Enum):
    """How the check of a dump ended."""

    JUDGED = "judged"
    NOT_JUDGED = "not judged"
    """It can be opened, but not judged; for example, debugging symbols are missing."""
    NOT_OPENED = "not opened"
    TIMEOUT = "timeout"
    """It took longer than its limit."""
    MEMORY = "memory"
    """It took more memory than its limit."""
    CRASHED = "crashed"
    """A signal ended it."""
    CHANGED = "changed"
    """The file was written, or went away, while it was read."""


LIMITED = (Ending.TIMEOUT, Ending.MEMORY)
"""Endings that other limits may change."""


@dataclass(frozen=True)
class Limits:
    """
    The limits for the check of one dump.

    :ivar seconds: Wall-clock time.
    :ivar memory: Of all its processes together, in bytes; 0 for no limit.
    """

    seconds: float
    memory: int


@dataclass(frozen=True)
class Task:
    """
    A dump to check.

    :ivar arguments: Of ``zonedev``, before the command.
    :ivar options: Of ``check``.
    """

    path: str
    arguments: tuple[str, ...]
    options: tuple[str, ...]
    limits: Limits


@dataclass(frozen=True)
class Checked:
    """
    The result of a check.

    :ivar reason: One line: why it was not judged, or what the check warns of.
    :ivar report: What ``check --format json`` prints, if it got that far.
    :ivar seconds: How long it took.
    :ivar peak: The most memory that was seen in use, in bytes.
    """

    ending: Ending
    reason: str
    report: bytes | None
    seconds: float
    peak: int


_REPORT, _ERRORS, _TEMPORARY = "report.json", "errors", "tmp"
# Of ``zonedev check``.
_STATUS_USAGE, _STATUS_NOT_JUDGED, _STATUSES = 2, 3, (0, 1, 3)
_MAX_REPORT, _MAX_ERRORS = 64 << 20, 1 << 16
_CHILD = str(Path(__file__).with_name("child.py"))
_TICK = 0.02
_PAGE = os.sysconf("SC_PAGE_SIZE")


def _never() -> bool:
    return False


def check_alone(task: Task, is_stopping: Callable[[], bool] = _never) -> Checked:
    """
    Check one dump in a process of its own.

    :param is_stopping: If it returns true, the process is ended; the result is of no use.
    """
    start = time.monotonic()
    try:
        before = quick_key(task.path)
    except OSError as e:
        return Checked(Ending.CHANGED, f"it is gone: {e.strerror or e}", None, 0, 0)
    with temporary_directory("zonedev-survey-") as directory:
        watched = _run(task, directory, is_stopping)
        ending, reason, report = _outcome(task, watched, directory)
    if _key_or_none(task.path) != before:
        ending, report = Ending.CHANGED, None
        reason = "it was written while it was read: check it again when it is complete"
    return Checked(ending, reason, report, time.monotonic() - start, watched.peak)


def _key_or_none(path: str) -> str | None:
    with contextlib.suppress(OSError):
        return quick_key(path)
    return None


@dataclass(frozen=True)
class _Watched:
    """How a process ended: ``limit`` is the one that it broke."""

    status: int
    peak: int
    limit: Ending | None


def _run(task: Task, directory: Path, is_stopping: Callable[[], bool]) -> _Watched:
    (directory / _TEMPORARY).mkdir()
    environment = {**os.environ, "TMPDIR": str(directory / _TEMPORARY)}
    with (directory / _ERRORS).open("wb") as errors:
        process = subprocess.Popen(
            _command(task, directory),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=environment,
            start_new_session=True,
        )
    try:
        return _watch(process, task.limits, is_stopping)
    finally:
        # The processes that it has started end, too.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _command(task: Task, directory: Path) -> list[str]:
    return [
        *(sys.executable, _CHILD, str(task.limits.memory), str(os.getpid())),
        *task.arguments,
        *("-c", task.path, "check", "-j", "1", *task.options),
        *("--format", "json", "-o", str(directory / _REPORT)),
    ]


def _watch(
    process: subprocess.Popen[bytes], limits: Limits, is_stopping: Callable[[], bool]
) -> _Watched:
    end, peak = time.monotonic() + limits.seconds, 0
    while True:
        _wait_a_tick(process)
        status = process.poll()
        if status is not None:
            return _Watched(status, peak, None)
        peak = max(peak, sum(map(_resident, _family(process.pid))))
        if limits.memory and peak > limits.memory:
            return _Watched(0, peak, Ending.MEMORY)
        if time.monotonic() >= end or is_stopping():
            return _Watched(0, peak, Ending.TIMEOUT)


def _wait_a_tick(process: subprocess.Popen[bytes]) -> None:
    # Popen.wait() with a timeout wakes up again and again.
    try:
        fd = os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        # New in Linux 5.3; Python may have been built without it.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_TICK)
        return
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.poll(1000 * _TICK)
    finally:
        os.close(fd)


def _family(pid: int) -> Iterator[int]:
    yield pid
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as f:
                for child in f.read().split():
                    yield from _family(int(child))
    except OSError:
        # It has ended in the meantime.
        return


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as f:
            return int(f.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _outcome(task: Task, watched: _Watched, directory: Path) -> tuple[Ending, str, bytes | None]:
    if watched.limit is Ending.TIMEOUT:
        return Ending.TIMEOUT, f"it took more than {task.limits.seconds:g} s", None
    if watched.limit is Ending.MEMORY:
        return Ending.MEMORY, f"it took more than {task.limits.memory >> 20} MiB of memory", None
    if watched.status < 0:
        return Ending.CRASHED, f"{_signal_name(-watched.status)} ended it", None
    if watched.status == _STATUS_USAGE:
        return Ending.NOT_OPENED, _error(directory), None
    report = _report(directory)
    if report is None or watched.status not in _STATUSES:
        return Ending.NOT_JUDGED, _error(directory), None
    if watched.status == _STATUS_NOT_JUDGED:
        return Ending.NOT_JUDGED, "none of its struct pages could be read", report
    return Ending.JUDGED, _last_line(directory), report


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _report(directory: Path) -> bytes | None:
    try:
        with (directory / _REPORT).open("rb") as f:
            text = f.read(_MAX_REPORT + 1)
    except OSError:
        return None
    return text if 0 < len(text) <= _MAX_REPORT else None


def _error(directory: Path) -> str:
    return _last_line(directory) or "it said nothing"


def _last_line(directory: Path) -> str:
    # Warnings come before the error.
    with (directory / _ERRORS).open("rb") as f:
        lines = f.read(_MAX_ERRORS).decode(errors="backslashreplace").splitlines()
    last = next((line for line in reversed(lines) if line.strip()), "")
    return printable(last.removeprefix("zonedev: ").removeprefix("error: "))
