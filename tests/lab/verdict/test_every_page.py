# SPDX-License-Identifier: LGPL-2.1-or-later

"""Every struct page against the kernel's answers: silent on the truth, and loud on any lie."""

from __future__ import annotations

import numpy as np
import pytest
from support.fakekernel import LAYOUTS, FakeKernel, partial
from support.kernels import each_layout

from drgn_zonedev.lab.truth.frozen import _NODE, _RUN, _ZONE, Frozen, Is
from drgn_zonedev.lab.verdict.every_page import page_disagreements

DATA = 0x100600
# From include/linux/mmzone.h, as all of the lab's kernels are configured.
DMA, DMA32, DEVICE = 0, 1, 4
DEVICE_PAGE = Is.RESERVED
NO_BLOCK = -1
# Nothing to compare with, or compared as kinds: see test_every_kind.py.
OTHERS = (Is.ONLINE, Is.MEMMAP, Is.PCP, Is.FILE, Is.SHMEM, Is.KSM, Is.HUGE_ZERO)


def answers_of_partial(layout: str) -> np.ndarray:
    """What the module says of partial(): RAM, and two compound pages, where there are any."""
    ram = Is.ONLINE
    runs = [
        (0, 0x1000, DMA, 0, 0, NO_BLOCK, ram, 0),
        (0x1000, 0x10000, DMA32, 0, 0, NO_BLOCK, ram, 0),
    ]
    if layout == "5.10":
        runs.append((DATA, DATA + 0x400, DEVICE, 0, 0, NO_BLOCK, DEVICE_PAGE, 0))
    for head in (DATA, DATA + 0x200) if layout != "5.10" else ():
        runs.append((head, head + 1, DEVICE, 0, 9, NO_BLOCK, DEVICE_PAGE, 0))
        tail = DEVICE_PAGE | Is.TAIL
        runs.append((head + 1, head + 0x200, DEVICE, 0, 9, NO_BLOCK, tail, 0))
    return np.array(runs, _RUN)


def frozen(runs: np.ndarray) -> Frozen:
    return Frozen(runs, np.empty(0, _ZONE), np.empty(0, _NODE))


def found(kernel: FakeKernel, runs: np.ndarray) -> list[tuple[str, int, int]]:
    merged: list[tuple[str, int, int]] = []
    wrong = page_disagreements(kernel.program(), frozen(runs))
    for about, start, end in sorted((d.about, d.start_pfn, d.end_pfn) for d in wrong):
        # Struct pages are read piece by piece.
        if merged and (about, start) == (merged[-1][0], merged[-1][2]):
            start = merged.pop()[1]
        merged.append((about, start, end))
    return merged


@each_layout
def test_the_truth_is_agreed_with(layout: str) -> None:
    assert found(partial(layout), answers_of_partial(layout)) == []


@each_layout
@pytest.mark.parametrize(
    ("column", "about"),
    [
        ("zone", "page_zonenum()"),
        ("nid", "page_to_nid()"),
        ("order", "compound_order()"),
        ("buddy_order", "buddy_order()"),
    ],
)
def test_a_lie_about_a_number_is_found_at_its_pfns(layout: str, column: str, about: str) -> None:
    runs = answers_of_partial(layout)
    runs[column][1] += 3
    assert found(partial(layout), runs) == [(about, 0x1000, 0x10000)]


@each_layout
@pytest.mark.parametrize("answer", [answer for answer in Is if answer not in OTHERS])
def test_a_lie_about_a_yes_or_no_is_found_at_its_pfns(layout: str, answer: Is) -> None:
    runs = answers_of_partial(layout)
    runs["answers"][1] ^= answer
    wrong = found(partial(layout), runs)
    assert [where[1:] for where in wrong] == [(0x1000, 0x10000)]


@each_layout
def test_a_page_that_changed_is_found(layout: str) -> None:
    kernel = partial(layout)
    flags = kernel.page_word(0x8000, 0)
    # The bug of acpi-hole: a zone that no kernel has.
    kernel.poke_page_word(0x8000, 0, flags | 5 << 64 - 10 - 3)
    kernel.poke_page_word(0x8001, 0, flags | 1 << kernel.layout.constant("PG_reserved"))
    assert found(kernel, answers_of_partial(layout)) == [
        ("PG_reserved", 0x8001, 0x8002),
        ("page_zonenum()", 0x8000, 0x8001),
    ]


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_a_page_that_left_its_compound_page_is_found(layout: str) -> None:
    kernel = partial(layout)
    kernel.poke_page_word(DATA + 7, 1, 0)
    assert found(kernel, answers_of_partial(layout)) == [
        ("compound_head()", DATA + 7, DATA + 8),
        ("compound_order()", DATA + 7, DATA + 8),
    ]


def test_what_cannot_be_read_is_a_disagreement() -> None:
    kernel = partial("6.12")
    kernel.unmap_memmap(0x8000, 0x9000)
    assert found(kernel, answers_of_partial("6.12")) == [("struct page", 0x8000, 0x9000)]
