# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The same answer, whatever way struct pages are gone through: in chunks of any size,
in pieces, with or without the fast path; on machines with random defects.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from drgn import Program
from support.fakekernel import Altmap, FakeKernel
from support.kernels import Device, each_layout, put_device

from drgn_zonedev.classification.classify import classify
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.kernel import memmap
from drgn_zonedev.kernel.memmap import PageLayout, UnreadablePages, page_layout
from drgn_zonedev.verification.fastpath import FastPath, cached_fast_path, make_fast_path
from drgn_zonedev.verification.promises import Promise, RamPages
from drgn_zonedev.verification.scan import pieces, scan
from drgn_zonedev.verification.verify import Verification, verify_snapshot
from drgn_zonedev.verification.work import Scanned, Work

# A section with a hole, fsdax with metadata, devdax in compound pages, and one
# whose memmap is being initialised.
FSDAX, DATA, DEVDAX, NEW, END = 0x46000, 0x46200, 0x47800, 0x48400, 0x48800
SIZES = (64, 56 + 24, 72)


def mixed_sections(layout: str, sizeof_page: int = 64) -> FakeKernel:
    kernel = FakeKernel(layout, sizeof_page=sizeof_page)
    kernel.memory_block(8)
    kernel.ram_pages(0x40000, 0x45000)
    kernel.hole_pages(0x45000, FSDAX)
    kernel.section(8, online=True, early=True, taint=True, subsections=[*range(40), *range(48, 64)])
    kernel.section(9, taint=True, subsections=range(4))
    kernel.map_memmap(FSDAX, END)
    altmap = Altmap(FSDAX, DEVDAX - 1, reserve=2, free=DATA - FSDAX - 2)
    put_device(kernel, Device(FSDAX, DEVDAX, altmap=altmap))
    devdax = put_device(kernel, Device(DEVDAX, NEW, "MEMORY_DEVICE_GENERIC", shift=9))
    kernel.pgmap((NEW, END), in_flight=True)
    kernel.device_pages(NEW, NEW + 100, devdax)
    return kernel


def use(kernel: FakeKernel, rng: random.Random) -> None:
    """What users of pages may do, to many of them."""
    for pfn in rng.sample(range(DATA, DEVDAX), 400):
        for word in (2, 3, 4, 5, 7):
            kernel.poke_page_word(pfn, word, rng.getrandbits(64))
        kernel.poke_page_word(pfn, 6, rng.randrange(1, 100) << 32 | rng.randrange(5))


def spoil(kernel: FakeKernel, rng: random.Random) -> None:
    """Defects of all kinds: single words, bits, whole pages, runs, gaps."""
    for _ in range(rng.randrange(1, 12)):
        pfn = rng.randrange(FSDAX, END)
        word = rng.choice([0, 0, 1, 1, 2, 3, 6])
        bit = kernel.page_word(pfn, word) ^ 1 << rng.randrange(64)
        kernel.poke_page_word(pfn, word, rng.choice([bit, 0, rng.getrandbits(64)]))
    for _ in range(rng.randrange(4)):
        start = rng.randrange(FSDAX, END)
        end = min(start + rng.choice([1, 2, 70, 600]), END)
        kernel.fill_pages(start, end, rng.choice([0, 0xA5, 0xFF]))
    if rng.random() < 0.3:
        start = rng.randrange(FSDAX, END - 200)
        for pfn in range(start, start + 200, 2):
            kernel.poke_page_word(pfn, 1, 0)
    for _ in range(rng.randrange(3)):
        # By whole pages of memory, as memory is.
        size = kernel.sizeof_page
        start = rng.randrange(FSDAX * size >> 12, END * size >> 12)
        end = start + rng.choice([1, 2, 20])
        kernel.hide(kernel.vmemmap + (start << 12), end - start << 12)


Paths = Callable[[], Callable[[PageLayout, Promise], FastPath]]


def always_no() -> Callable[[PageLayout, Promise], FastPath]:
    return lambda layout, promise: lambda starts, count, raw: False


def new_paths() -> Callable[[PageLayout, Promise], FastPath]:
    return make_fast_path


def cut(chunk: int | None, paths: Paths, pages: int) -> Any:
    """Scan piece by piece, with what was asked for."""

    def scan_all(
        prog: Program, task: Any, works: Sequence[Work], progress: Callable[[int], None]
    ) -> Iterator[Scanned]:
        layout, path_of = page_layout(prog), paths()
        for work in works:
            whole = Scanned()
            for piece in pieces(work, pages):
                # Those of RAM are of whole spans, so that no free block is cut.
                assert 0 < piece.pages <= pages or isinstance(piece.promise, RamPages)
                path = path_of(layout, piece.promise)
                whole.extend(scan(prog, layout, piece, progress, chunk=chunk, fast_path=path))
            yield whole

    return scan_all


def verified(prog: Program, scan_all: Any = None) -> Verification:
    snapshot, ranges = take_snapshot(prog), classify(prog)
    if scan_all is None:
        return verify_snapshot(prog, snapshot, ranges)
    return verify_snapshot(prog, snapshot, ranges, scan_all=scan_all)


WAYS = [
    (None, always_no, 1 << 40),
    (37, new_paths, 1 << 40),
    (64, cached_fast_path, 4096),
    (100, always_no, 333),
    (511, cached_fast_path, 513),
    (512, new_paths, 1 << 40),
    (1 << 40, new_paths, 77),
]


@each_layout
@pytest.mark.parametrize("sizeof_page", SIZES)
@pytest.mark.parametrize("seed", range(2))
def test_every_way_gives_the_same_answer(
    layout: str, sizeof_page: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(f"{layout} {sizeof_page} {seed}")
    kernel = mixed_sections(layout, sizeof_page)
    use(kernel, rng)
    spoil(kernel, rng)
    prog = kernel.program()
    expected = verified(prog, cut(None, always_no, 1 << 40))
    assert expected.findings
    # What shares no promise is read in chunks, too.
    for chunk, paths, pages in WAYS:
        if chunk:
            monkeypatch.setattr(memmap, "_CHUNK_BYTES", min(chunk, 1 << 20) * sizeof_page)
        assert verified(prog, cut(chunk, paths, pages)) == expected
    monkeypatch.undo()
    assert verified(prog) == expected


@each_layout
@pytest.mark.parametrize("sizeof_page", SIZES)
def test_nothing_is_wrong_with_pages_that_are_used(layout: str, sizeof_page: int) -> None:
    kernel = mixed_sections(layout, sizeof_page)
    use(kernel, random.Random(layout))
    verification = verified(kernel.program())
    assert {f.slug for f in verification.findings} == {
        "case4-initializing",
        "case5-reserved",
        "case3-partial",
    }
    assert verification.unjudged == ()
    assert verification.coverage.pages_unreadable == 0


def test_pieces_are_the_whole_in_order() -> None:
    works = _works(mixed_sections("6.1").program())
    works = [w for w in works if not isinstance(w.promise, RamPages)]
    assert [w.spans.tolist() for w in works] == [
        [[FSDAX + 2, DATA]],
        [[DATA, DEVDAX]],
        [[DEVDAX, NEW]],
    ]
    spans = np.array([[1, 5], [7, 8], [9, 30], [31, 32]])
    work = dataclasses.replace(works[0], spans=spans)
    for pages in (1, 2, 3, 7, 26, 27, 28, 100):
        parts = list(pieces(work, pages))
        assert all(0 < part.pages <= pages for part in parts)
        pfns = [pfn for part in parts for span in part.spans.tolist() for pfn in range(*span)]
        assert pfns == [pfn for span in spans.tolist() for pfn in range(*span)]


def test_scattered_defects_take_no_memory_each() -> None:
    kernel = mixed_sections("6.1")
    for pfn in range(DATA, DEVDAX, 2):
        kernel.poke_page_word(pfn, 1, 0)
    prog = kernel.program()
    (work,) = (Work(w.promise, w.spans) for w in _works(prog) if w.spans[0, 0] == DATA)
    done = scan(prog, page_layout(prog), work)
    (runs,) = done.runs.values()
    assert (runs.number, runs.pages, runs.end_pfn) == (0xB00, 0xB00, DEVDAX - 1)
    assert len(runs.kept) <= 32
    (run,) = runs.reported()
    assert (run.start_pfn, run.end_pfn, run.count) == (DATA, DEVDAX - 1, 0xB00)


def _works(prog: Program) -> list[Work]:
    works: list[Work] = []

    def scan_all(
        prog: Program, task: Any, given: Sequence[Work], progress: Callable[[int], None]
    ) -> Iterator[Scanned]:
        works.extend(given)
        return iter([Scanned() for _ in given])

    verified(prog, scan_all)
    return works


def gap(start: int, end: int, reason: str = "") -> UnreadablePages:
    return UnreadablePages(start, end, start * 64, reason)


def test_gaps_that_touch_are_one_wherever_work_was_cut() -> None:
    gaps = [gap(1, 2), gap(4, 6), gap(6, 9), gap(9, 10), gap(12, 13)]
    expected = [gap(1, 2), dataclasses.replace(gap(4, 6), end_pfn=10), gap(12, 13)]
    for cut in range(len(gaps) + 1):
        first, second = Scanned(), Scanned()
        first.append_gaps(gaps[:cut])
        second.append_gaps(gaps[cut:])
        first.extend(second)
        assert first.gaps == expected
    done = Scanned()
    done.append_gaps(gaps[::2])
    done.insert_gaps(reversed(gaps[1::2]))
    assert done.gaps == expected


def test_gap_is_compared_with_the_last_one_only() -> None:
    class Untouched(list[UnreadablePages]):
        """Gaps that nobody goes through."""

        def __iter__(self) -> Iterator[UnreadablePages]:
            raise AssertionError("all gaps are looked at for one more")

    done = Scanned(gaps=Untouched())
    for start in range(0, 200, 4):
        done.append_gaps([gap(start, start + 1)])
        done.extend(Scanned(gaps=[gap(start + 2, start + 3)]))
    assert len(done.gaps) == 100


def test_every_second_page_of_memmap_is_a_gap_however_work_is_cut() -> None:
    # A page of memmap is there, the next one is not.
    kernel = mixed_sections("6.1")
    for page in range(DATA * 64, DEVDAX * 64, 2 << 12):
        kernel.hide(kernel.vmemmap + page, 1 << 12)
    prog = kernel.program()
    (work,) = (w for w in _works(prog) if w.spans[0, 0] == DATA)
    expected = [(pfn, pfn + 64) for pfn in range(DATA, DEVDAX, 128)]
    for pages in (1 << 40, 1000, 64):
        whole = Scanned()
        for piece in pieces(work, pages):
            whole.extend(scan(prog, page_layout(prog), piece))
        assert [(g.start_pfn, g.end_pfn) for g in whole.gaps] == expected
