# SPDX-License-Identifier: LGPL-2.1-or-later

"""Where pages of which kind are, by arithmetic on a synthetic kernel's RAM."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from support.fakekernel import FakeKernel, collision
from support.fakekernel.ram import PLACES, busy_ram

from drgn_zonedev.census import kind_spans as module
from drgn_zonedev.census.kind_spans import KindsByPlace, KindSpan, kind_spans
from drgn_zonedev.census.kinds import PageKind
from drgn_zonedev.classification.classify import classify_snapshot
from drgn_zonedev.classification.reading import take_snapshot

START, END = 0x40000, 0x48000


def kinds_of(kernel: FakeKernel, most: int = 1 << 20) -> KindsByPlace:
    prog = kernel.program()
    snapshot = take_snapshot(prog)
    return kind_spans(prog, snapshot, classify_snapshot(prog, snapshot), most)


def spans_of(kernel: FakeKernel, most: int = 1 << 20) -> Sequence[KindSpan]:
    return kinds_of(kernel, most).spans


@pytest.fixture(scope="module")
def exact() -> Sequence[KindSpan]:
    return spans_of(busy_ram("7.2"))


def test_spans_are_exact_if_there_is_room(exact: Sequence[KindSpan]) -> None:
    assert all(span.pages == span.end_pfn - span.start_pfn for span in exact)
    # Neighbours differ.
    for a, b in zip(exact, exact[1:]):
        assert a.end_pfn <= b.start_pfn
        assert (a.end_pfn, a.kind) != (b.start_pfn, b.kind)

    def kind_at(pfn: int) -> PageKind:
        (span,) = (span for span in exact if span.start_pfn <= pfn < span.end_pfn)
        return span.kind

    assert kind_at(START + PLACES["table"]) is PageKind.PAGE_TABLE
    assert kind_at(START + PLACES["folio"] + 511) is PageKind.THP
    assert kind_at(START + PLACES["free"] + 1023) is PageKind.FREE


@pytest.mark.parametrize("most", [1, 100, 5000])
def test_longer_spans_have_the_most_frequent_kind(exact: Sequence[KindSpan], most: int) -> None:
    rough = spans_of(busy_ram("7.2"), most)
    assert len(rough) <= 2 * most + 1
    for span in rough:
        pages: Counter[PageKind] = Counter()
        for part in exact:
            low, high = max(part.start_pfn, span.start_pfn), min(part.end_pfn, span.end_pfn)
            pages[part.kind] += max(high - low, 0)
        assert pages[span.kind] == span.pages == max(pages.values())
        assert sum(pages.values()) == span.end_pfn - span.start_pfn


def test_devices_are_left_to_the_other_layers() -> None:
    # RAM around a device at 0x24000.
    spans = spans_of(collision("6.1"))
    assert all(span.end_pfn <= 0x24000 or span.start_pfn >= 0x30000 for span in spans)


def test_more_than_takes_some_seconds_is_sampled(
    exact: Sequence[KindSpan], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of the RAM in this kernel, a quarter may be read, in chunks of an eighth of a section.
    chunk = 0x1000
    ram = sum(span.pages for span in exact)
    monkeypatch.setattr(module, "SAMPLE_PAGES", chunk)
    monkeypatch.setattr(module, "_MOST_READ", ram // 4)
    kinds = kinds_of(busy_ram("7.2"))
    assert kinds.every == 4
    assert 0 < sum(span.pages for span in kinds.spans) <= ram // 4 + chunk
    # What is shown is true: each span lies in one of those of the whole.
    for span in kinds.spans:
        assert any(
            whole.kind is span.kind
            and whole.start_pfn <= span.start_pfn
            and span.end_pfn <= whole.end_pfn
            for whole in exact
        )
    starts = sorted({span.start_pfn // chunk for span in kinds.spans})
    assert all(b - a >= 4 for a, b in zip(starts, starts[1:]))
