# SPDX-License-Identifier: LGPL-2.1-or-later

"""Real guests for tests: each kernel is booted into each scenario once per session."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drgn_zonedev.lab import SCENARIOS, Guest, Kernel, boot, fetch_kernel

KIB, MIB = 1 << 10, 1 << 20
PAGE = 4 * KIB
SUBSECTION_PAGES = 2 * MIB // PAGE
SECTION_PAGES = 128 * MIB // PAGE


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
        """Standard output as JSON."""
        document: dict[str, Any] = json.loads(self.stdout)
        return document


def zonedev(*args: str) -> Result:
    """Run ``zonedev`` as a user would, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "drgn_zonedev", *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


@contextmanager
def sources(kernel_name: str, scenario: str, directory: Path) -> Iterator[list[Source]]:
    """Boot a guest, dump it, and hand out both while it runs."""
    kernel = fetch_kernel(kernel_name, progress=_show)
    with boot(kernel, SCENARIOS[scenario], progress=_show) as guest:
        yield _sources(guest, directory)


def _show(message: str) -> None:
    # A second start of a guest must not go unseen.
    if "once more" in message:
        warnings.warn(message, stacklevel=2)


def _sources(guest: Guest, directory: Path) -> list[Source]:
    dump = guest.dump(directory / f"{guest.kernel.name}-{guest.scenario.name}.elf")
    symbols = ("-s", str(guest.kernel.vmlinux))
    return [
        Source("dump", ("-c", str(dump), *symbols), guest.kernel),
        Source("qmp", ("--qemu", guest.qmp_socket, *symbols), guest.kernel),
    ]


def data_offset(pages: int, align: int = 2 * MIB) -> int:
    """
    Bytes in front of the first data page of a map=dev namespace: 8 KiB for the
    information block, a struct page of 64 bytes for each page behind that,
    rounded up to the namespace's alignment (``nd_pfn_init()``).
    """
    struct_pages = 64 * (pages - 8 * KIB // PAGE)
    return -(-(8 * KIB + struct_pages) // align) * align
