# SPDX-License-Identifier: LGPL-2.1-or-later

"""What is gone through is accounted for, whether it can be read or not."""

from __future__ import annotations

from collections.abc import Callable

from drgn import Program
from support.fakekernel import FakeKernel
from support.kernels import Device, device

from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.kernel.memmap import UnreadablePages, page_layout
from drgn_zonedev.model import Case, Memmap, PageCounts, Range
from drgn_zonedev.verification.context import (
    Context,
    Results,
    raw_page,
    read_range,
    reread_range,
    unreadable,
)
from drgn_zonedev.verification.shared_vmemmap import NO_ALIASES

START, END = 0x40000, 0x48000
RANGE = Range(START, END, Case.DEVICE, Memmap.MAPPED, "because")


def context(prog: Program, progress: Callable[[int], None] = lambda pages: None) -> Context:
    return Context(
        prog=prog,
        snapshot=take_snapshot(prog),
        pgmaps={},
        progress=progress,
        results=Results(),
        aliases=NO_ALIASES,
        scanned=iter(()),
    )


def holey() -> FakeKernel:
    """A device whose struct pages of 0x42000 to 0x43000 cannot be read."""
    kernel = device("6.1", Device(START, END))
    kernel.unmap_memmap(0x42000, 0x43000)
    return kernel


def test_pages_that_are_read_are_counted_with_their_bytes() -> None:
    made = context(device("6.1", Device(START, END)).program())
    parts = list(read_range(made, RANGE))
    assert (parts[0].start_pfn, parts[-1].end_pfn) == (START, END)
    results = made.results
    assert results.by_case == {Case.DEVICE: PageCounts(verified=0x8000)}
    assert results.bytes_read == 0x8000 * 64
    assert results.unjudged == []


def test_pages_that_cannot_be_read_are_unjudged() -> None:
    made = context(holey().program())
    read = [(part.start_pfn, part.end_pfn) for part in read_range(made, RANGE)]
    assert (read[0][0], read[-1][1]) == (START, END)
    assert sum(end - start for start, end in read) == 0x7000
    results = made.results
    assert results.by_case == {Case.DEVICE: PageCounts(verified=0x7000, unreadable=0x1000)}
    assert results.bytes_read == 0x7000 * 64
    spans = [(u.start_pfn, u.end_pfn) for u in results.unjudged]
    assert (spans[0][0], spans[-1][1]) == (0x42000, 0x43000)
    assert sum(end - start for start, end in spans) == 0x1000


def test_struct_pages_are_counted_by_the_case_of_their_range() -> None:
    results = Results()
    results.count(Case.DEVICE, PageCounts(verified=5, unreadable=1))
    results.count(Case.ONLINE, PageCounts(verified=7, torn=2, not_exported=3))
    results.count(Case.DEVICE, PageCounts(verified=10))
    coverage = results.coverage()
    assert (coverage.pages_verified, coverage.pages_unreadable) == (22, 1)
    assert coverage.by_case == {
        Case.DEVICE: PageCounts(verified=15, unreadable=1),
        Case.ONLINE: PageCounts(verified=7, torn=2, not_exported=3),
    }


def test_progress_counts_what_cannot_be_read_too() -> None:
    steps: list[int] = []
    made = context(holey().program(), steps.append)
    assert list(read_range(made, RANGE))
    assert sum(steps) == 0x8000


def test_what_is_read_again_is_not_counted_again() -> None:
    steps: list[int] = []
    made = context(holey().program(), steps.append)
    read = [(part.start_pfn, part.end_pfn) for part in reread_range(made, RANGE)]
    assert sum(end - start for start, end in read) == 0x7000
    assert made.results == Results()
    assert steps == []


def test_gap_is_where_its_struct_pages_would_be() -> None:
    # The address of the fault may be a physical one.
    prog = holey().program()
    gap = UnreadablePages(0x42000, 0x43000, 0x1234, "not in the dump")
    unjudged = unreadable(prog, gap)
    assert (unjudged.start_pfn, unjudged.end_pfn) == (0x42000, 0x43000)
    assert unjudged.address == page_layout(prog).vmemmap + 64 * 0x42000
    assert unjudged.reason.endswith("not in the dump")


def test_raw_page_has_all_words_and_its_address() -> None:
    kernel = device("6.1", Device(START, END))
    kernel.poke_page_word(START + 7, 5, 0xABC)
    (pages, *_) = read_range(context(kernel.program()), RANGE)
    evidence = raw_page(pages, 7)
    assert evidence.what == f"struct page of PFN {START + 7:#x}"
    assert evidence.address == kernel.page(START + 7)
    assert evidence.note is not None
    words = [int(word, 16) for word in evidence.note.split()]
    assert words == [kernel.page_word(START + 7, i) for i in range(8)]
    assert words[5] == 0xABC
