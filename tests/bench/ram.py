# SPDX-License-Identifier: LGPL-2.1-or-later
"""The struct pages of RAM: of a real guest, and of a TiB that nobody here has."""

from __future__ import annotations

import json
import sys
from functools import partial

from drgn import Program
from support.largedevice import LargeRam

from drgn_zonedev.classification.classify import classify, classify_snapshot
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.model import Case
from drgn_zonedev.opening.core import open_dump
from drgn_zonedev.verification.verify import verify, verify_snapshot

from .guest import Image
from .measure import Measurement, interleave, seconds
from .memory import growth_of, in_child

__all__ = ("SMALLER", "measure_large_ram", "measure_ram")

SMALLER = 16
"""How many times smaller the RAM is that a TiB is compared with."""

_CHUNK = 256 << 10
_GIB_PER_TIB = 1024


def measure_ram(image: Image, rounds: int) -> list[Measurement]:
    """Verify the struct pages of a guest's RAM, and read the same bytes."""
    prog = open_dump(image.core, image.vmlinux)
    snapshot = take_snapshot(prog)
    ranges = [r for r in classify_snapshot(prog, snapshot) if r.case is Case.ONLINE]
    pages = sum(r.pages for r in ranges)
    layout = page_layout(prog)

    def read() -> None:
        for range_ in ranges:
            start, end = map(layout.page_address, (range_.start_pfn, range_.end_pfn))
            for address in range(start, end, _CHUNK):
                prog.read(address, min(_CHUNK, end - address))

    def verify_all() -> None:
        verified = verify_snapshot(prog, snapshot, ranges)
        assert verified.coverage.pages_verified == pages

    contenders = {
        "raw read, RAM": lambda: seconds(read) / pages * 1e9,
        "verify, RAM": lambda: seconds(verify_all) / pages * 1e9,
    }
    return interleave(contenders, rounds, "ns/page")


def measure_large_ram(gib: int, rounds: int) -> list[Measurement]:
    """
    Verify so many GiB of synthetic RAM, and a part of it.

    The raw read of the same is how much of the time the memory takes that answers.
    """
    whole, part = LargeRam(gib), LargeRam(gib // SMALLER)
    program = whole.program()
    scale = _GIB_PER_TIB / gib
    contenders = {
        "verify, a TiB of RAM": lambda: scale * seconds(partial(_verify, program, whole)),
        "raw read of the same, RAM": lambda: scale * seconds(partial(_read, program, whole)),
    }
    contenders["verify, a part of that"] = lambda: (
        scale * seconds(partial(_verify, part_program, part))
    )
    part_program = part.program()
    found = interleave(contenders, rounds, "s")
    peak = in_child("bench.ram", str(gib))
    return [*found, Measurement("memory of verify, a TiB of RAM", "MiB", (peak,))]


def _verify(prog: Program, ram: LargeRam) -> None:
    verified = verify(prog, classify(prog))
    assert verified.findings == ()
    assert verified.unjudged == ()
    assert verified.coverage.pages_verified == ram.pages


def _read(prog: Program, ram: LargeRam) -> None:
    for address, size in ram.memory():
        prog.read(address, size)


def peak_of(gib: int) -> float:
    """
    Verify RAM.

    :return: MiB that the process grew by at most.
    """
    # What is imported and allocated once and for all is drgn's and numpy's.
    small = LargeRam(1)
    _verify(small.program(), small)
    ram = LargeRam(gib)
    return growth_of(partial(_verify, ram.program(), ram))


if __name__ == "__main__":
    print(json.dumps(peak_of(int(sys.argv[1]))))
