# SPDX-License-Identifier: LGPL-2.1-or-later

"""Holes in early sections, however large; what is in them is in test_verify.py."""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from support.fakekernel import FakeKernel

from drgn_zonedev.classification.classify import classify_snapshot
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.kernel.memmap import Pages, page_layout
from drgn_zonedev.model import Case, Range
from drgn_zonedev.verification import holes
from drgn_zonedev.verification.context import Context
from drgn_zonedev.verification.verify import divide_holes

CHUNK = 1 << 16


def test_large_hole_takes_the_memory_of_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = FakeKernel("6.1")
    kernel.section(8, online=True, early=True, subsections=range(32))
    kernel.memory_block(8)
    kernel.ram_pages(0x40000, 0x44000)
    prog = kernel.program()
    snapshot, layout = take_snapshot(prog), page_layout(prog)
    hole = classify_snapshot(prog, snapshot)[-1]
    assert (hole.start_pfn, hole.end_pfn, hole.case) == (0x44000, 0x48000, Case.PARTIAL)
    large = dataclasses.replace(hole, end_pfn=hole.start_pfn + 256 * CHUNK)

    def read(context: Context, range_: Range) -> Iterator[Pages]:
        for start in range(range_.start_pfn, range_.end_pfn, CHUNK):
            yield Pages(start, start + CHUNK, np.broadcast_to(np.uint64(0), (CHUNK, 8)), layout)

    monkeypatch.setattr(holes, "read_range", read)
    tracemalloc.start()
    parts = divide_holes(prog, snapshot, [large])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [(p.start_pfn, p.end_pfn) for p in parts] == [(large.start_pfn, large.end_pfn)]
    assert peak < 64 * CHUNK
