# SPDX-License-Identifier: LGPL-2.1-or-later
"""The metadata pass on machines of tens of TiB."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from typing import Callable

from drgn import Program
from support.fakekernel import FakeKernel

from drgn_zonedev.classification.classify import classify
from drgn_zonedev.model import Case, Range

from .machines import SECTIONS_PER_TIB, large_machine
from .measure import Measurement, interleave, seconds
from .memory import growth_of, in_child
from .objects import section_cases

__all__ = ("measure_metadata", "peak_of")

_SAMPLE = 1024


def measure_metadata(
    sizes: Sequence[int], rounds: int, sections: int = _SAMPLE
) -> list[Measurement]:
    """
    Classify machines of so many TiB; of the largest one, also read the same bytes and
    do nothing with them, and classify it with drgn's objects.

    :param sections: How many sections are enough for the latter.
    """
    machines = {size: large_machine(size) for size in sizes}
    programs = {size: machine.program() for size, machine in machines.items()}
    largest = max(sizes)
    sample = _sample(largest, sections)
    ranges = classify(programs[largest])
    for nr in sample:
        assert section_cases(programs[largest], nr) == _ours(ranges, nr), f"section {nr}"
    contenders: dict[str, Callable[[], float]] = {
        f"classify, {size} TiB": partial(_seconds_to_classify, programs[size]) for size in sizes
    }
    reads = _reads_of(machines[largest], programs[largest])
    contenders[f"raw read of the metadata, {largest} TiB"] = lambda: seconds(
        lambda: _repeat(programs[largest], reads)
    )
    scale = largest * SECTIONS_PER_TIB / len(sample)
    contenders[f"drgn objects, {largest} TiB"] = lambda: (
        scale * seconds(lambda: _section_by_section(programs[largest], sample))
    )
    found = interleave(contenders, rounds, "s")
    peak = in_child("bench.metadata", str(largest))
    return [*found, Measurement(f"memory of classify, {largest} TiB", "MiB", (peak,))]


def _sample(tebibytes: int, sections: int) -> range:
    # An odd step, so that every part of the machine and its sections is met.
    count = tebibytes * SECTIONS_PER_TIB
    return range(0, count, max(count // sections, 1) | 1)


def _seconds_to_classify(prog: Program) -> float:
    return seconds(lambda: classify(prog))


def _reads_of(machine: FakeKernel, prog: Program) -> list[tuple[int, int]]:
    # Addresses and sizes of all that classifying reads.
    reads: list[tuple[int, int]] = []
    machine.on_read = lambda address, size: reads.append((address, size))
    classify(prog)
    machine.on_read = None
    return reads


def _repeat(prog: Program, reads: Sequence[tuple[int, int]]) -> None:
    for address, size in reads:
        prog.read(address, size)


def _section_by_section(prog: Program, sample: Sequence[int]) -> None:
    for nr in sample:
        section_cases(prog, nr)


def _ours(ranges: list[Range], nr: int) -> list[tuple[int, int, Case]]:
    start, end = nr << 15, nr + 1 << 15
    return [
        (max(r.start_pfn, start), min(r.end_pfn, end), r.case)
        for r in ranges
        if r.start_pfn < end and start < r.end_pfn
    ]


def peak_of(tebibytes: int) -> float:
    """
    Build a machine and classify it.

    :return: MiB that the process grew by at most, on top of the machine.
    """
    prog = large_machine(tebibytes).program()
    return growth_of(lambda: classify(prog))


if __name__ == "__main__":
    print(json.dumps(peak_of(int(sys.argv[1]))))
