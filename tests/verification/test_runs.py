# SPDX-License-Identifier: LGPL-2.1-or-later

"""Wrong pages that lie together: however they were cut, the same runs, and few of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakekernel import FakeKernel

from drgn_zonedev.kernel.memmap import PageLayout, Pages, page_layout
from drgn_zonedev.verification.deviations import Deviation
from drgn_zonedev.verification.runs import MAX_RUNS, Runs, add_deviation

START, PAGES = 0x40000, 400


def _layout() -> PageLayout:
    kernel = FakeKernel("6.1")
    kernel.section(8)
    return page_layout(kernel.program())


LAYOUT = _layout()

Spot = tuple[int, int, int]


def runs_of(wrong: Iterable[int], start: int = START, end: int = START + PAGES) -> Runs:
    """The runs of the PFNs that are wrong in a part."""
    pfn = np.arange(start, end)
    words = np.zeros((end - start, 8), np.uint64)
    words[:, 0] = pfn
    found = Runs()
    deviation = Deviation(
        slug="device-page-zone",
        wrong=np.isin(pfn, list(wrong)),
        what="zone",
        offset=8,
        found=words[:, 0],
        expected=np.uint64(4),
    )
    add_deviation(found, Pages(start, end, words, LAYOUT), deviation)
    return found


def spots(runs: Runs) -> list[Spot]:
    return [(run.start_pfn, run.end_pfn, run.count) for run in runs.reported()]


def expected(wrong: Iterable[int]) -> list[Spot]:
    """By arithmetic: neighbours are one, and many are one with gaps."""
    ordered = sorted(wrong)
    found = []
    for _, group in itertools.groupby(enumerate(ordered), lambda pair: pair[1] - pair[0]):
        pfns = [pfn for _, pfn in group]
        found.append((pfns[0], pfns[-1] + 1, len(pfns)))
    if len(found) > MAX_RUNS:
        return [(found[0][0], found[-1][1], len(ordered))]
    return found


def every(step: int, count: int) -> list[int]:
    return [START + step * i for i in range(count)]


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        [START],
        [START + PAGES - 1],
        range(START, START + PAGES),
        every(2, MAX_RUNS),
        every(2, MAX_RUNS + 1),
        every(2, 150),
        [*range(START, START + 100), *range(START + 101, START + 200)],
    ],
)
def test_pages_that_lie_together_are_one_run(wrong: Sequence[int]) -> None:
    runs = runs_of(wrong)
    assert spots(runs) == expected(wrong)
    assert runs.pages == len(wrong)


_OFFSETS = st.sets(st.integers(0, PAGES - 1), max_size=120)
_CUTS = st.sets(st.integers(1, PAGES - 1), max_size=6)


@given(_OFFSETS, _CUTS)
def test_seams_do_not_show(offsets: set[int], cuts: set[int]) -> None:
    wrong = {START + offset for offset in offsets}
    borders = [START, *(START + cut for cut in sorted(cuts)), START + PAGES]
    whole = Runs()
    for start, end in zip(borders, borders[1:]):
        whole.extend(runs_of(wrong, start, end))
    assert whole == runs_of(wrong)
    assert spots(whole) == expected(wrong)


@pytest.mark.parametrize("cut", [1, 2, 63, 64, 65, 66])
def test_seam_in_a_run_that_is_the_last_to_be_kept(cut: int) -> None:
    # Run 32 begins at 62: cut before it, in it, and behind it.
    wrong = [*every(2, MAX_RUNS - 1), *range(START + 62, START + 66), START + 70]
    whole = runs_of(wrong, START, START + cut)
    whole.extend(runs_of(wrong, START + cut))
    assert whole == runs_of(wrong)
    assert spots(whole) == expected(wrong)


def test_memory_does_not_grow_with_what_is_wrong() -> None:
    whole = Runs()
    for i in range(50):
        start = START + i * PAGES
        whole.extend(runs_of(range(start, start + PAGES, 2), start, start + PAGES))
    assert len(whole.kept) == MAX_RUNS
    assert (whole.number, whole.pages) == (50 * PAGES // 2,) * 2


def test_run_shows_its_first_page() -> None:
    (run,) = runs_of([START + 7, START + 8]).reported()
    evidence = run.evidence
    assert evidence.what == f"zone of PFN {START + 7:#x}"
    assert evidence.address == LAYOUT.vmemmap + 64 * (START + 7) + 8
    assert (evidence.value, evidence.expected) == (START + 7, 4)
    assert run.words == (START + 7, *(0,) * 7)


def test_what_stands_for_too_many_shows_the_first_page_of_all() -> None:
    (run,) = runs_of(every(3, MAX_RUNS + 1)).reported()
    assert run.evidence.what == f"zone of PFN {START:#x}"
    assert run.words[0] == START


def test_nothing_is_appended_of_nothing() -> None:
    runs = runs_of([START])
    before = spots(runs)
    runs.extend(Runs())
    runs.extend(runs_of([], START + 10, START + 20))
    assert spots(runs) == before
    empty = Runs()
    empty.extend(runs_of([START]))
    assert empty == runs_of([START])
