# SPDX-License-Identifier: LGPL-2.1-or-later

"""Kinds of pages against the kernel's answers: silent on the truth, and loud on any lie."""

from __future__ import annotations

import numpy as np
import pytest
from support.fakekernel import FakeKernel, collision
from support.fakekernel.ram import PLACES, busy_ram
from support.kernels import each_layout

from drgn_zonedev.census.kinds import PageKind
from drgn_zonedev.lab.truth.frozen import _NODE, _RUN, _ZONE, Frozen, Is, Use
from drgn_zonedev.lab.verdict.every_kind import kind_disagreements

START = 0x40000
DMA32, DEVICE = 1, 4


def frozen(*runs: tuple[int, int, Is, int], zone: int = DMA32) -> Frozen:
    """What the module says of runs of PFNs: answers, and uses."""
    rows = [(start, end, zone, 0, 0, -1, answers, uses) for start, end, answers, uses in runs]
    return Frozen(np.array(rows, _RUN), np.empty(0, _ZONE), np.empty(0, _NODE))


def found(kernel: FakeKernel, said: Frozen) -> list[str]:
    return [str(d) for d in kind_disagreements(kernel.program(), said)]


def at(name: str, pages: int, answers: Is, uses: int = 0) -> tuple[int, int, Is, int]:
    start = START + PLACES[name]
    return start, start + pages, Is.ONLINE | answers, uses


@each_layout
def test_the_truth_is_agreed_with(layout: str) -> None:
    said = frozen(
        at("table", 16, Is.TABLE),
        at("folio", 512, Is(0), Use.THP | Use.ANON),
        at("slab", 4, Is.SLAB),
    )
    assert found(busy_ram(layout), said) == []


@pytest.mark.parametrize(
    ("answers", "uses", "kind"),
    [
        (Is(0), 0, PageKind.KERNEL),
        (Is(0), Use.BUDDY, PageKind.FREE),
        (Is.PCP, 0, PageKind.PCP_FREE),
        (Is.RESERVED, Use.ANON, PageKind.RESERVED),
        (Is.MEMMAP | Is.RESERVED, 0, PageKind.VMEMMAP),
        (Is.SHMEM, 0, PageKind.SHMEM),
        (Is.FILE, Use.SWAPCACHE, PageKind.FILE),
        (Is.KSM, Use.ANON, PageKind.KSM),
        (Is(0), Use.SWAPCACHE, PageKind.ANON),
        (Is(0), Use.ZERO_PAGE | Use.THP, PageKind.ZERO),
    ],
)
def test_a_lie_is_found_at_its_pfns(answers: Is, uses: int, kind: PageKind) -> None:
    said = frozen(at("table", 16, answers, uses))
    start = START + PLACES["table"]
    assert found(busy_ram("6.12"), said) == [
        f"PFNs {start:#x}-{start + 16:#x}: kind: we say page-table, the kernel says {kind.value}"
    ]


def test_metadata_of_a_device_is_in_its_zone_and_the_device_too() -> None:
    said = frozen((0x24002, 0x24500, Is.RESERVED, 0), zone=DEVICE)
    assert found(collision("6.1"), said) == []
    said = frozen((0x24002, 0x24500, Is.RESERVED, 0))
    assert found(collision("6.1"), said) != []


def test_pages_that_we_do_not_know_are_a_disagreement() -> None:
    said = frozen((START + 0x8000, START + 0x8002, Is.ONLINE, 0))
    (only,) = found(busy_ram("6.12"), said)
    assert only.endswith("we say not there, the kernel says kernel")
