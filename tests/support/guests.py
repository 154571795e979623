# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Real Guests for Tests
---------------------

A test names the guest that it asks about by :func:`each_guest()`, and takes the
fixture ``booted``. Tests of one guest run one after the other, in one process
(see ``tests/conftest.py``), so that each kernel boots once into each scenario, and
its dump is written once.

What these tests find, they leave as it is. Who changes a guest boots one of his own,
with :func:`boot_alone()`.
"""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from _pytest.mark.structures import ParameterSet
from drgn import Program
from support.elfheader import without_sections

from drgn_zonedev.lab import KERNELS, SCENARIOS, Guest, Kernel, Scenario, boot
from drgn_zonedev.lab.verdict.matrix import debug_guest, scenarios_on
from drgn_zonedev.opening.core import open_dump
from drgn_zonedev.opening.guest import connect

KIB, MIB = 1 << 10, 1 << 20
PAGE = 4 * KIB
SUBSECTION_PAGES = 2 * MIB // PAGE
SECTION_PAGES = 128 * MIB // PAGE

# At least ten times what it takes on a machine that has nothing else to do.
BOOT_SECONDS = 180
COMMAND_SECONDS = 120


@dataclass(frozen=True)
class Source:
    """A way to get at a guest's memory, as ``zonedev`` options."""

    name: str
    options: tuple[str, ...]
    kernel: Kernel


@dataclass(frozen=True)
class Result:
    """What ``zonedev`` did."""

    status: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        """Standard output as JSON, but for where it comes from: what is said is compared."""
        document: dict[str, Any] = json.loads(self.stdout)
        document.pop("provenance", None)
        return document


def zonedev(*args: str) -> Result:
    """Run ``zonedev`` as a user would, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "drgn_zonedev", *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


# --- guests ---


def each_guest(guests: Iterable[tuple[str, str] | ParameterSet]) -> pytest.MarkDecorator:
    """
    Run a test with the fixture ``booted`` for each kernel and scenario (names of the lab), or
    :func:`long_guest`.
    """
    # By the colon, tests/conftest.py tells that it is a guest's.
    return pytest.mark.parametrize("booted", list(guests), ids=":".join, indirect=True)


def long_guest(kernel: str, scenario: str, reason: str) -> ParameterSet:
    """A guest for :func:`each_guest` that is booted only for ``./scripts/test --all``."""
    return pytest.param((kernel, scenario), marks=pytest.mark.long(reason))


def on_kernels(
    scenario: str, always: Collection[str], kernels: Iterable[str] = KERNELS
) -> Iterator[tuple[str, str] | ParameterSet]:
    """Name guests of one scenario: those of *always* are in every run, the others are long."""
    where = f"on {', '.join(always)}" if always else "with a simpler user or device"
    for kernel in kernels:
        if kernel in SCENARIOS[scenario].impossible:
            continue
        if kernel in always:
            yield kernel, scenario
        else:
            yield long_guest(kernel, scenario, f"{scenario} {where} is in every run")


def boot_alone(
    kernel: Kernel, scenario: Scenario, *, truth: bool = False
) -> AbstractContextManager[Guest]:
    """Boot a guest for one test, or for several that know of each other."""
    return boot(kernel, scenario, timeout=BOOT_SECONDS, progress=_show, truth=truth)


@contextmanager
def boot_shared(kernel: Kernel, scenario: str, directory: Path) -> Iterator[Booted]:
    """
    Boot a guest for all who ask about it.

    :param directory: Where its dump is put; gone after the context.
    """
    chosen = scenarios_on(kernel)[scenario]
    try:
        with boot_alone(kernel, chosen, truth=chosen.answers) as guest:
            yield Booted(guest, directory)
    finally:
        shutil.rmtree(directory)


def _show(message: str) -> None:
    # A second start of a guest must not go unseen.
    if "once more" in message:
        warnings.warn(message, stacklevel=2)


@dataclass(frozen=True)
class Booted:
    """A guest that runs, and its dump."""

    guest: Guest
    _directory: Path

    @property
    def kernel(self) -> Kernel:
        """What was booted."""
        return self.guest.kernel

    @property
    def symbols(self) -> tuple[str, str]:
        """``zonedev`` options."""
        return ("-s", str(self.kernel.vmlinux))

    @property
    def live(self) -> Source:
        """The running guest. One client at a time: see :func:`require_free()`."""
        return Source("qmp", ("--qemu", self.guest.qmp_socket, *self.symbols), self.kernel)

    @property
    def dumped(self) -> Source:
        """Its dump."""
        return Source("dump", ("-c", str(self.dump), *self.symbols), self.kernel)

    @cached_property
    def dump(self) -> Path:
        """An ELF dump that QEMU wrote, which is not to be changed."""
        return self.guest.dump(self._directory / "dump")

    def program(self) -> Program:
        """Open the dump."""
        return open_dump(self.dump, self.kernel.vmlinux)

    @cached_property
    def for_makedumpfile(self) -> Path:
        """The dump with headers that makedumpfile takes; not to be changed either."""
        copy = self._directory / "for-makedumpfile"
        shutil.copyfile(self.dump, copy)
        without_sections(copy)
        return copy


def require_free(guest: Guest) -> None:
    """
    Raise an error if another client is connected to a running guest.

    drgn itself would wait for that client without a limit.
    """
    # A program that has been let go of may be part of a cycle.
    gc.collect()
    connect(guest.qmp_socket).close()


def debug_live(guest: Guest) -> Program:
    """Debug a running guest, as its only client."""
    require_free(guest)
    return debug_guest(guest)


def data_offset(pages: int, align: int = 2 * MIB) -> int:
    """
    Bytes in front of the first data page of a map=dev namespace: 8 KiB for the
    information block, a struct page of 64 bytes for each page behind that,
    rounded up to the namespace's alignment (``nd_pfn_init()``).
    """
    struct_pages = 64 * (pages - 8 * KIB // PAGE)
    return -(-(8 * KIB + struct_pages) // align) * align
