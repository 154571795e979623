# SPDX-License-Identifier: LGPL-2.1-or-later
"""The census of a real guest's memory."""

from __future__ import annotations

from drgn_zonedev.census.counting import COUNTING, counts
from drgn_zonedev.census.kinds import kind_words
from drgn_zonedev.census.plan import find_marks, plan
from drgn_zonedev.classification.classify import classify_snapshot
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.opening.core import open_dump
from drgn_zonedev.verification.task import scan_here

from .guest import Image
from .measure import Measurement, interleave, seconds
from .processes import peaks

__all__ = ("measure_census",)

_CHUNK = 256 << 10


def measure_census(image: Image, rounds: int) -> list[Measurement]:
    """
    Count all pages, and read the same struct pages; how much memory ``zonedev pages`` takes, and
    a drgn that only loads the same symbols.
    """
    prog = open_dump(image.core, image.vmlinux)
    snapshot = take_snapshot(prog)
    stretches = plan(prog, snapshot, classify_snapshot(prog, snapshot))
    marks, _ = find_marks(prog, snapshot)
    works = [work for work in counts(stretches, marks, kind_words(prog), None) if work.pages]
    pages, layout = sum(work.pages for work in works), page_layout(prog)

    def read() -> None:
        for stretch in (work.stretch for work in works):
            start, end = map(layout.page_address, (stretch.start_pfn, stretch.end_pfn))
            for address in range(start, end, _CHUNK):
                prog.read(address, min(_CHUNK, end - address))

    def count_all() -> None:
        done = list(scan_here(prog, COUNTING, works, lambda pages: None))
        assert sum(sum(counted.bins.values()) for counted in done) == pages

    contenders = {
        "raw read, census": lambda: seconds(read) / pages * 1e9,
        "census": lambda: seconds(count_all) / pages * 1e9,
    }
    return [
        *interleave(contenders, rounds, "ns/page"),
        *interleave(peaks(image, "RAM", "pages"), min(rounds, 3), "MiB"),
    ]
