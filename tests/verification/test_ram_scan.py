# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Going through RAM: the same answer with and without the fast path, in pieces of any size,
with gaps; what moves is torn, and what stays wrong is found.
"""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from drgn import Program
from support.fakekernel import FakeKernel, RamBuilder, busy_ram
from support.kernels import each_layout

from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.kernel.zones import zones
from drgn_zonedev.model import Case, PageCounts
from drgn_zonedev.report import check
from drgn_zonedev.verification import ram_scan
from drgn_zonedev.verification.ram_aliases import find_ram_aliases, own_spans
from drgn_zonedev.verification.ram_fastpath import FastRam, Glance
from drgn_zonedev.verification.ram_zones import ram_promises
from drgn_zonedev.verification.scan import pieces, scan
from drgn_zonedev.verification.work import Scanned, Work

START, END = 0x40000, 0x48000


def works(prog: Program, start: int = START, end: int = END) -> list[Work]:
    aliases = find_ram_aliases(prog, start, end)
    return [
        Work(p, own_spans(prog, p.kinds, aliases, p.start_pfn, p.end_pfn, 1024).own)
        for p in ram_promises(prog, zones(prog), start, end)
    ]


def scanned(prog: Program, pages: int = 1 << 40) -> Scanned:
    whole = Scanned()
    for work in works(prog):
        for piece in pieces(work, pages):
            whole.extend(scan(prog, page_layout(prog), piece))
    return whole


def spots(done: Scanned) -> set[tuple[str, int, int]]:
    return {
        (slug, run.start_pfn, run.end_pfn)
        for slug, runs in done.runs.items()
        for run in runs.reported()
    }


class Suspicious(FastRam):
    """Suspects all pages."""

    def glance(self, starts: np.ndarray, raw: bytes) -> Glance:
        found = super().glance(starts, raw)
        return dataclasses.replace(found, suspects=np.arange(len(raw) // self.layout.size))


def spoil(kernel: FakeKernel, rng: random.Random) -> None:
    """Defects of all kinds: bits, words, pages, runs."""
    for _ in range(rng.randrange(1, 20)):
        pfn, word = rng.randrange(START, END), rng.choice([0, 0, 1, 1, 2, 3, 5, 6, 6, 7])
        bit = kernel.page_word(pfn, word) ^ 1 << rng.randrange(64)
        kernel.poke_page_word(pfn, word, rng.choice([bit, bit, 0, rng.getrandbits(64)]))
    for _ in range(rng.randrange(3)):
        start = rng.randrange(START, END)
        end = min(start + rng.choice([1, 3, 70, 1500]), END)
        kernel.fill_pages(start, end, rng.choice([0, 0x21, 0xA5, 0xFD, 0xFF]))


@each_layout
@pytest.mark.parametrize("seed", range(6))
def test_fast_path_passes_over_nothing_that_deviates(
    layout: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(f"{layout} {seed}")
    kernel = busy_ram(layout)
    spoil(kernel, rng)
    prog = kernel.program()
    fast = spots(scanned(prog))
    monkeypatch.setattr(ram_scan, "FastRam", Suspicious)
    assert fast == spots(scanned(prog))


@each_layout
def test_pieces_are_the_whole(layout: str) -> None:
    rng = random.Random(layout)
    kernel = busy_ram(layout)
    spoil(kernel, rng)
    prog = kernel.program()
    whole = scanned(prog)
    assert spots(whole)
    for pages in (1, 0x4000, 0x10000):
        cut = scanned(prog, pages)
        assert (spots(cut), cut.free, cut.pages_read) == (
            spots(whole),
            whole.free,
            whole.pages_read,
        )


def ram(kernel: FakeKernel) -> RamBuilder:
    return RamBuilder(kernel, "ZONE_DMA32", 0, random.Random(1))


@each_layout
def test_free_blocks_are_counted_by_zone_and_order(layout: str) -> None:
    # busy_ram() has two of order 10, one of each order up to 8; 1 is DMA32 of node 0.
    done = scanned(busy_ram(layout).program())
    assert done.free == Counter({(1, order): 1 for order in range(9)} | {(1, 10): 2})
    report = check(busy_ram(layout).program())
    assert report.findings == ()


@each_layout
def test_what_cannot_be_read_is_a_gap_and_no_defect(layout: str) -> None:
    kernel = busy_ram(layout)
    # A part of a free block, of compound pages, and of slabs.
    for pfn in (START + 0x440, START + 0x840, START + 0xA00, START + 0xC40, START + 0x1000):
        kernel.hide(kernel.page(pfn), 64 * 64)
    report = check(kernel.program())
    assert report.findings == ()
    assert report.coverage.by_case[Case.ONLINE] == PageCounts(0x10000 - 320, unreadable=320)
    spans = sorted((u.start_pfn - START, u.end_pfn - START) for u in report.unjudged)
    assert spans == [(p, p + 64) for p in (0x440, 0x840, 0xA00, 0xC40, 0x1000)]


# What moves.

PFN = START + 0x2345


def live(kernel: FakeKernel, on_read: Callable[[int], None]) -> Scanned:
    """Scan a running kernel, which does something before each read of PFN's struct page."""
    reads = 0

    def called(address: int, size: int) -> None:
        nonlocal reads
        if address <= kernel.page(PFN) < address + size:
            reads += 1
            on_read(reads)

    prog = kernel.program(is_live=True)
    everything = works(prog)
    kernel.on_read = called
    whole = Scanned()
    for work in everything:
        whole.extend(scan(prog, page_layout(prog), work))
    return whole


def test_page_that_is_wrong_for_a_moment_is_torn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ram_scan, "_LIVE_SECONDS", 0)
    kernel = busy_ram("6.1")
    good = kernel.page_word(PFN, 6)

    def flip(reads: int) -> None:
        # It is read for the fast path, looked at, and looked at again.
        kernel.poke_page_word(PFN, 6, good if reads > 2 else 0xFFFFFFF0 << 32)

    done = live(kernel, flip)
    assert spots(done) == set()
    assert done.torn == 1


def test_page_that_is_wrong_in_another_way_each_time_is_torn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ram_scan, "_LIVE_SECONDS", 0)
    kernel = busy_ram("6.1")
    done = live(kernel, lambda reads: kernel.poke_page_word(PFN, 6, 0xFFFFFF00 + reads << 32))
    assert (spots(done), done.torn) == (set(), 1)


def test_page_that_stays_wrong_is_found_among_those_that_move(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ram_scan, "_LIVE_SECONDS", 0)
    kernel = busy_ram("6.1")
    kernel.poke_page_word(PFN + 1, 6, 0xFFFFFFF0 << 32)
    done = live(kernel, lambda reads: kernel.poke_page_word(PFN, 6, 0xFFFFFF00 + reads << 32))
    assert spots(done) == {("ram-page-refcount", PFN + 1, PFN + 2)}
    assert done.torn == 1


@pytest.mark.parametrize(
    ("zone", "nid", "slug"),
    [
        ("ZONE_NORMAL", 0, "ram-page-zone"),
        ("ZONE_DEVICE", 0, "ram-page-device"),
        ("ZONE_DMA32", 5, "ram-page-node"),
    ],
)
def test_wrong_zone_is_found_while_its_page_is_used(
    monkeypatch: pytest.MonkeyPatch, zone: str, nid: int, slug: str
) -> None:
    monkeypatch.setattr(ram_scan, "_LIVE_SECONDS", 0)
    kernel = busy_ram("6.1")
    links = kernel.page_links("ZONE_DMA32", 0) ^ kernel.page_links(zone, nid)

    def use(reads: int) -> None:
        # Someone takes a reference, and touches it.
        referenced = 1 << kernel.layout.constant("PG_referenced")
        flags = kernel.page_word(PFN + 1, 0) & ~referenced | referenced * (reads % 2)
        kernel.poke_page_word(PFN, 0, flags ^ links)
        kernel.poke_page_word(PFN, 6, reads << 32 | 0xFFFFFFFF)

    done = live(kernel, use)
    assert spots(done) == {(slug, PFN, PFN + 1)}
    assert done.torn == 0
