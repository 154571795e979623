# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Damaged dumps, asked about as a user would ask, in a process of their own.

The process is a fork of one that has everything imported. Each dump has a limit
of processor time, and one of memory; what kills the process is a failure like any
other.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .answer import ask, judge, opens
from .image import Image
from .mutation import Recipe, apply

__all__ = ("LIMITS", "Limits", "Outcome", "try_recipes")


@dataclass(frozen=True)
class Limits:
    """Of processor time (seconds) and of resident memory (bytes)."""

    seconds: float = 5.0
    memory: int = 300 << 20


LIMITS = Limits()

# On a busy machine, processor time is not what a clock on the wall shows.
_WALL_FACTOR = 30


@dataclass(frozen=True)
class Outcome:
    """
    What came of it. ``failures`` is empty if everything held; ``statuses`` are the
    exit statuses; ``memory`` is the most that was resident, in bytes.
    """

    statuses: tuple[int, ...]
    failures: tuple[str, ...]
    seconds: float
    memory: int
    opened: bool


Recipes = Sequence[Recipe]


def try_recipes(image: Image, recipes: Recipes, limits: Limits = LIMITS) -> list[Outcome]:
    """Damage a dump as each recipe says, and ask about it."""
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="zonedev-fuzz-", dir=_scratch()) as work:
        while len(outcomes) < len(recipes):
            left = recipes[len(outcomes) :]
            outcomes += _in_child(Path(work) / "vmcore", image, left, limits)
    return outcomes


def _scratch() -> Path | None:
    # Where files that live for a moment cost least.
    shm = Path("/dev/shm")
    return shm if os.access(shm, os.W_OK) else None


def _in_child(vmcore: Path, image: Image, recipes: Recipes, limits: Limits) -> Iterator[Outcome]:
    # A fork costs more than an input, so one process tries them all, if it lives.
    with tempfile.TemporaryFile() as answers:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            try:
                fcntl.fcntl(answers, fcntl.F_SETFL, os.O_APPEND)
                _child(vmcore, image, recipes, limits, answers.fileno())
            except BaseException:
                os.write(answers.fileno(), traceback.format_exc().encode())
            finally:
                os._exit(99)
        _, status = os.waitpid(pid, 0)
        answers.seek(0)
        lines = answers.read().decode(errors="replace").splitlines(keepends=True)
    done = [line for line in lines if line.startswith("{")]
    for line in done:
        answer = json.loads(line)
        yield Outcome(
            tuple(answer["statuses"]),
            tuple(answer["failures"]),
            answer["seconds"],
            answer["memory"],
            answer["opened"],
        )
    if not os.WIFEXITED(status) or os.WEXITSTATUS(status):
        rest = "".join(line for line in lines if not line.startswith("{"))
        yield Outcome((), (_death(status, rest),), limits.seconds, 0, opened=True)


def _death(status: int, raw: str) -> str:
    if not os.WIFSIGNALED(status):
        return f"died with status {os.WEXITSTATUS(status)}: {raw[-2000:]}"
    name = signal.Signals(os.WTERMSIG(status)).name
    kind = "hang" if name in ("SIGPROF", "SIGALRM") else "crash"
    return f"{kind}: {name}\n{raw[-3000:]}"


def _child(vmcore: Path, image: Image, recipes: Recipes, limits: Limits, answers: int) -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable(answers)
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
        faulthandler.register(number, answers, all_threads=False, chain=True)
    contents, files = image.contents(), vmcore.parent / "files"
    shutil.rmtree(files, ignore_errors=True)
    for recipe in recipes:
        files.mkdir()
        vmcore.write_bytes(apply(contents, recipe))
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (size + limits.memory, hard))
        _forget_peak()
        signal.setitimer(signal.ITIMER_PROF, limits.seconds)
        signal.setitimer(signal.ITIMER_REAL, limits.seconds * _WALL_FACTOR)
        before = time.process_time()
        asked = [ask(vmcore, image.vmlinux, command, files) for command in recipe.commands]
        seconds = time.process_time() - before
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        # Looking at the answers is no part of the limits.
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        memory = _peak()
        opened = all(a.status != 2 for a in asked) or opens(vmcore)
        pairs = zip(recipe.commands, asked)
        failures = [problem for c, a in pairs for problem in judge(image, c, a, opened)]
        if memory > limits.memory:
            failures.append(f"memory: {memory >> 20} MiB")
        document = {
            "statuses": [a.status for a in asked],
            "failures": failures,
            "seconds": seconds,
            "memory": memory,
            "opened": opened,
        }
        os.write(answers, json.dumps(document).encode() + b"\n")
        shutil.rmtree(files)
    os._exit(0)


def _forget_peak() -> None:
    # proc(5): makes VmHWM what is resident now.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return (
        int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) << 10
    )
