# SPDX-License-Identifier: LGPL-2.1-or-later

"""Which struct pages may share their memory, and that one of them is verified for all."""

from __future__ import annotations

import numpy as np
import pytest
from drgn import Program
from support.fakekernel import FakeKernel
from support.kernels import Device, device, since_compounds

from drgn_zonedev.classification.classify import classify
from drgn_zonedev.model import Severity
from drgn_zonedev.verification import shared_vmemmap as module
from drgn_zonedev.verification.verify import Verification, verify

START, END = 0x40000, 0x48000
PER_PAGE, COMPOUND = 64, 512


class Tables:
    """Page tables in which pages of vmemmap, by their first PFN, have the frame of another."""

    def __init__(self, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.base = kernel.vmemmap >> 12
        self.same: dict[int, int] = {}
        monkeypatch.setattr(module, "vmemmap_page_frames", self.frames)

    def share(self, pfn: int, with_pfn: int) -> None:
        self.same[self.base + pfn // PER_PAGE] = self.base + with_pfn // PER_PAGE

    def frames(self, prog: Program, first: int, end: int) -> np.ndarray:
        return np.array([self.same.get(page, page) - self.base for page in range(first, end)])


def shared(layout: str, monkeypatch: pytest.MonkeyPatch, shift: int) -> tuple[FakeKernel, Tables]:
    kernel = device(layout, Device(START, END, "MEMORY_DEVICE_GENERIC", shift))
    tables = Tables(kernel, monkeypatch)
    for head in range(START, END, 1 << shift if shift else END):
        for pfn in range(head + 2 * PER_PAGE, head + (1 << shift), PER_PAGE):
            tables.share(pfn, head + PER_PAGE)
    return kernel, tables


def verified(kernel: FakeKernel) -> Verification:
    prog = kernel.program()
    return verify(prog, classify(prog))


def errors(verification: Verification) -> list[tuple[str, int, int]]:
    return [
        (f.slug, f.start_pfn, f.end_pfn)
        for f in verification.findings
        if f.severity is Severity.ERROR
    ]


@since_compounds
@pytest.mark.parametrize(("shift", "unique"), [(9, 128), (15, 128)])
def test_each_piece_of_memory_is_verified_once(
    layout: str, shift: int, unique: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, _ = shared(layout, monkeypatch, shift)
    verification = verified(kernel)
    assert errors(verification) == []
    coverage = verification.coverage
    assert coverage.pages_verified == END - START
    assert coverage.aliases_skipped == (END - START) - (END - START >> shift) * unique
    # What is shared is read once.
    assert coverage.bytes_read == 64 * (END - START >> shift) * unique


@since_compounds
def test_a_shared_tail_is_one_finding(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, _ = shared(layout, monkeypatch, 9)
    kernel.poke_page_word(START + 200, 1, 0)
    verification = verified(kernel)
    # 200 is 8 in the fourth page, and shares its memory with 64 + 8.
    pfn = START + PER_PAGE + 200 % PER_PAGE
    assert errors(verification) == [("device-tail-link", pfn, pfn + 1)]
    (finding,) = verification.findings
    assert finding.message.endswith("; 6 more struct pages have the same memory")


@since_compounds
@pytest.mark.parametrize(
    ("pfn", "with_pfn"),
    [
        (START + COMPOUND, START),  # two heads
        (START + PER_PAGE, START),  # a tail and its head
        (START + COMPOUND + PER_PAGE, START + PER_PAGE),  # tails of two compound pages
        (END - PER_PAGE, START + PER_PAGE),
    ],
)
def test_sharing_that_is_not_allowed(
    layout: str, pfn: int, with_pfn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, tables = shared(layout, monkeypatch, 9)
    tables.same.clear()
    tables.share(pfn, with_pfn)
    verification = verified(kernel)
    assert errors(verification) == [("vmemmap-alias", pfn, pfn + PER_PAGE)]
    assert verification.coverage.aliases_skipped == 0


def test_base_pages_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, tables = shared("6.1", monkeypatch, 0)
    tables.share(START + 0x400, START + 0x200)
    tables.share(START + 0x440, START + 0x240)
    assert errors(verified(kernel)) == [("vmemmap-alias", START + 0x400, START + 0x480)]


def test_without_page_tables_everything_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, _ = shared("6.1", monkeypatch, 9)
    monkeypatch.setattr(module, "vmemmap_page_frames", lambda prog, first, end: None)
    coverage = verified(kernel).coverage
    assert (coverage.pages_verified, coverage.aliases_skipped) == (END - START, 0)


def test_unmapped_pages_are_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, _ = shared("6.1", monkeypatch, 9)
    nothing = lambda prog, first, end: np.full(end - first, -1)  # noqa: E731
    monkeypatch.setattr(module, "vmemmap_page_frames", nothing)
    assert errors(verified(kernel)) == []
