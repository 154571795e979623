# SPDX-License-Identifier: LGPL-2.1-or-later
"""What only whole processes show: start, memory, decompression, other debuggers."""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Callable

from drgn_zonedev.lab.host.tools import find_tool

from .errors import BenchError
from .guest import Dumps, Image
from .measure import Measurement, interleave

__all__ = (
    "measure_crash",
    "measure_jobs",
    "measure_memory",
    "measure_start",
    "measure_survey",
    "measure_types",
    "peaks",
)

ZONEDEV = (sys.executable, "-m", "drgn_zonedev")
DRGN = (sys.executable, "-m", "drgn")
_FEW, _MANY = 1000, 11000
# Kernels have bugs, and what is not in a dump cannot be judged.
_CHECKED, _SURVEYED = (0, 1), (0, 1, 3)


def run(
    command: Sequence[str],
    *,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    statuses: Sequence[int] = (0,),
) -> float:
    """Run a command whose output nobody wants, and return how many seconds it took."""
    start = time.perf_counter()
    done = subprocess.run(
        command,
        input=stdin,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **(env or {})},
        text=True,
    )
    taken = time.perf_counter() - start
    if done.returncode not in statuses:
        raise BenchError(f"exit status {done.returncode} of: {shlex.join(command)}")
    return taken


def processor_time(
    command: Sequence[str],
    *,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    statuses: Sequence[int] = (0,),
) -> float:
    """Like :func:`run()`, but return the seconds of all processors, which waits do not change."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(command, stdin=stdin, env=env, statuses=statuses)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# A process counts what its parent had in memory as its own peak, so the parent has
# to be a small one.
_PEAK = (
    "import resource, subprocess, sys\n"
    "done = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL,"
    " stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    "sys.exit(done.returncode)\n"
)


def peak_mib(command: Sequence[str], env: Mapping[str, str] | None = None) -> float:
    """Run a command, and return how much memory it had at most."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", _PEAK, *command],
        capture_output=True,
        env={**os.environ, **(env or {})},
        text=True,
    )
    if done.returncode not in _CHECKED:
        raise BenchError(f"exit status {done.returncode} of: {shlex.join(command)}")
    return int(done.stdout) / 1024


def _drgn(image: Image, *more: str) -> list[str]:
    return [*DRGN, "-q", "--no-default-symbols", *image.options, *more]


def _check(image: Image, *more: str) -> list[str]:
    return [*ZONEDEV, *image.options, "check", *more]


def measure_start(small: Image, rounds: int) -> list[Measurement]:
    """What commands that do little cost from their start to their end."""
    without = {"DRGN_DISABLE_PLUGINS": "zonedev"}
    contenders: dict[str, Callable[[], float]] = {
        "drgn -e pass": lambda: processor_time(_drgn(small, "-e", "pass"), env=without),
        "zonedev check": lambda: processor_time(_check(small), statuses=_CHECKED),
        "zonedev check --only devices": lambda: processor_time(
            _check(small, "--only", "devices"), statuses=_CHECKED
        ),
        "REPL without the plugin": lambda: run(_drgn(small), env=without),
        "REPL with the plugin": lambda: run(_drgn(small)),
        "REPL that imports drgn_zonedev": lambda: run(_drgn(small), stdin="import drgn_zonedev\n"),
    }
    return interleave(contenders, rounds, "s")


def measure_memory(images: Mapping[str, Image], rounds: int) -> list[Measurement]:
    """Peak memory of a check, and of a drgn that only loads the same symbols."""
    contenders: dict[str, Callable[[], float]] = {}
    for name, image in images.items():
        contenders.update(peaks(image, name, "check"))
    return interleave(contenders, rounds, "MiB")


def peaks(image: Image, name: str, command: str) -> dict[str, Callable[[], float]]:
    """Peak memory of a command on an image of a name, and of a drgn that loads the symbols."""
    bare = partial(peak_mib, _drgn(image, "-e", "pass"), {"DRGN_DISABLE_PLUGINS": "zonedev"})
    ours = partial(peak_mib, [*ZONEDEV, *image.options, command])
    return {
        f"memory of drgn -e pass, {name}": bare,
        f"memory of zonedev {command}, {name}": ours,
    }


def measure_types(image: Image, rounds: int) -> list[Measurement]:
    """A check with vmlinux, and one without it, whose types come from the kernel in the dump."""
    core = ("-c", str(image.core))
    builtin = [*ZONEDEV, "--types", "btf", *core, "check"]
    repl, without = [*DRGN, "-q", *core], {"DRGN_DISABLE_PLUGINS": "zonedev"}
    contenders: dict[str, Callable[[], float]] = {
        "check with vmlinux": lambda: run(_check(image), statuses=_CHECKED),
        "check without vmlinux": lambda: run(builtin, statuses=_CHECKED),
        "REPL without vmlinux, without the plugin": lambda: run(repl, env=without),
        "REPL without vmlinux, with the plugin": lambda: run(repl),
    }
    memory = {"memory of check without vmlinux": lambda: peak_mib(builtin)}
    return [*interleave(contenders, rounds, "s"), *interleave(memory, min(rounds, 3), "MiB")]


def measure_jobs(dumps: Dumps, rounds: int) -> list[Measurement]:
    """
    Compressed dumps with one process, with two, and with as many as the tool takes
    by itself, which is what must not be slower on a small dump.
    """
    large, small = dumps.kdump(), dumps.small_kdump()
    contenders: dict[str, Callable[[], float]] = {}
    for jobs in ("1", "2"):
        work = partial(run, _check(large, "--jobs", jobs), statuses=_CHECKED)
        contenders[f"check --jobs {jobs}, large kdump"] = work
    alone = partial(run, _check(small, "--jobs", "1"), statuses=_CHECKED)
    contenders["check --jobs 1, small kdump"] = alone
    contenders["check, small kdump"] = partial(run, _check(small), statuses=_CHECKED)
    return interleave(contenders, rounds, "s")


def measure_survey(dumps: Sequence[Path], rounds: int) -> list[Measurement]:
    """A survey of some dumps, each checked in a process of its own, one or two at a time."""
    paths = [str(path) for path in dumps]

    def survey(jobs: str) -> float:
        with tempfile.TemporaryDirectory(prefix="zonedev-bench-") as directory:
            store = ["--store", str(Path(directory) / "survey.db"), "-j", jobs]
            return run([*ZONEDEV, "survey", *paths, *store], statuses=_SURVEYED)

    contenders = {f"survey -j {jobs}": partial(survey, jobs) for jobs in ("1", "2")}
    return interleave(contenders, rounds, "s")


def measure_crash(image: Image, rounds: int) -> list[Measurement]:
    """``kmem -p`` of drgn and of crash, per page, without their start."""
    pages = _crash_pages(image)
    contenders: dict[str, Callable[[], float]] = {
        "drgn's crash kmem -p": lambda: _drgn_kmem(image),
        "crash kmem -p": lambda: _crash_kmem(image, pages),
    }
    return interleave(contenders, rounds, "ns/page")


def _drgn_kmem(image: Image) -> float:
    # head ends the command: the difference is what the lines in between took.
    def until(lines: int) -> float:
        code = (
            "from drgn.commands import run_command\n"
            f"run_command(prog, 'crash kmem -p | head -n {lines} > {os.devnull}')"
        )
        return run(_drgn(image, "-e", code))

    few, many = until(_FEW), until(_MANY)
    return (many - few) / (_MANY - _FEW) * 1e9


def _crash(image: Image, commands: str) -> list[str]:
    return [find_tool("crash"), "-s", "-i", commands, str(image.vmlinux), str(image.core)]


def _crash_pages(image: Image) -> int:
    commands = image.core.with_suffix(".crash")
    lines = image.core.with_suffix(".lines")
    lines.unlink(missing_ok=True)
    commands.write_text(f"kmem -p | wc -l > {lines}\nquit\n")
    run(_crash(image, str(commands)))
    pages = int(lines.read_text())
    if not pages:
        raise BenchError(f"crash printed no page of {image.core.name}")
    return pages


def _crash_kmem(image: Image, pages: int) -> float:
    directory = image.core.parent
    start, whole = directory / "start.crash", directory / "kmem.crash"
    start.write_text("quit\n")
    whole.write_text(f"kmem -p > {Path(os.devnull)}\nquit\n")
    before = run(_crash(image, str(start)))
    return (run(_crash(image, str(whole))) - before) / pages * 1e9
