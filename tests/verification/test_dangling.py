# SPDX-License-Identifier: LGPL-2.1-or-later

"""What is said of pgmaps that struct pages outlived."""

from __future__ import annotations

import pytest
from support.fakekernel import FakeKernel, collision
from support.kernels import each_layout

from drgn_zonedev.classification.classify import classify
from drgn_zonedev.kernel.slab import SlabObject
from drgn_zonedev.model import Severity
from drgn_zonedev.verification import dangling as module
from drgn_zonedev.verification.dangling import dangling_pgmap
from drgn_zonedev.verification.verify import verify

GONE = 0xFFFF8880DEADBE00
SPAN = (0x44000, 0x48000)


def forgotten_pgmap(layout: str) -> tuple[FakeKernel, int]:
    """A pgmap that is not in pgmap_array, but whose memory is as it was."""
    kernel = FakeKernel(layout)
    kernel.section(8, online=True, early=True, taint=True, subsections=range(32))
    kernel.memory_block(8)
    kernel.ram_pages(0x40000, 0x44000)
    kernel.hole_pages(0x44000, 0x48000)
    old = kernel.pgmap((0x44000, 0x44400), stored=False, ops="fsdax_pagemap_ops")
    return kernel, old


@each_layout
def test_old_owner_is_named_while_its_memory_is_intact(layout: str) -> None:
    kernel, old = forgotten_pgmap(layout)
    fact = dangling_pgmap(kernel.program(), old, 7, SPAN)
    assert (fact.what, fact.value) == ("dangling pgmap", old)
    assert "of 7 struct pages" in fact.note
    assert "still reads as MEMORY_DEVICE_FS_DAX for [0x44000, 0x44400)" in fact.note
    assert "operations fsdax_pagemap_ops" in fact.note


@each_layout
@pytest.mark.parametrize(("end", "span"), [(0x44001, SPAN), (0x44400, (0x44400, 0x48000))])
def test_memory_that_somebody_else_took(layout: str, end: int, span: tuple[int, int]) -> None:
    # It reads as a pgmap, but not as one that these pages can have had.
    kernel, _ = forgotten_pgmap(layout)
    old = kernel.pgmap((0x44000, end), stored=False)
    assert "still reads" not in dangling_pgmap(kernel.program(), old, 1, span).note


@each_layout
def test_memory_that_is_gone(layout: str) -> None:
    kernel, _ = forgotten_pgmap(layout)
    fact = dangling_pgmap(kernel.program(), GONE, 1, SPAN)
    assert fact.value == GONE
    assert "still reads" not in fact.note


@pytest.mark.parametrize(
    ("at", "allocated", "text"),
    [
        (0x48, True, r"; allocated object of kmalloc-512\x1b, at +0x48"),
        (0x48, False, r"; freed object of kmalloc-512\x1b, at +0x48"),
        (0x48, None, r"; unknown object of kmalloc-512\x1b, at +0x48"),
        (None, None, r"; unknown object of kmalloc-512\x1b;"),
    ],
)
def test_slab(
    at: int | None, allocated: bool | None, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, old = forgotten_pgmap("6.1")
    found = SlabObject(r"kmalloc-512\x1b", None if at is None else old - at, allocated)
    monkeypatch.setattr(module, "slab_object", lambda prog, address: found)
    assert text in dangling_pgmap(kernel.program(), old, 1, SPAN).note


@each_layout
def test_ghosts_say_whose_they_were(layout: str) -> None:
    kernel, old = forgotten_pgmap(layout)
    kernel.device_pages(0x44000, 0x44300, old)
    kernel.device_pages(0x44300, 0x44400, GONE)
    prog = kernel.program()
    (ghosts,) = verify(prog, classify(prog)).findings
    facts = [e for e in ghosts.evidence if e.what == "dangling pgmap"]
    assert [(f.value, f.note.split(";")[0]) for f in facts] == [
        (old, f"of {0x300} struct pages"),
        (GONE, f"of {0x100} struct pages"),
    ]


@each_layout
def test_device_page_that_leads_to_a_pgmap_that_is_gone(layout: str) -> None:
    kernel = collision(layout)
    old = kernel.pgmap((0x24000, 0x24400), stored=False, ops="fsdax_pagemap_ops")
    kernel.poke_page_word(0x25000, 1, old)
    prog = kernel.program()
    (error,) = (f for f in verify(prog, classify(prog)).findings if f.severity is Severity.ERROR)
    assert error.slug == "device-page-pgmap"
    assert [e.value for e in error.evidence if e.what == "dangling pgmap"] == [old]


@each_layout
@pytest.mark.parametrize("word", [0, 0xDEAD, 0xFFFFFFFFFFFFFFFF, 0xFFFF888000000004])
def test_garbage_is_not_taken_for_a_pgmap(layout: str, word: int) -> None:
    kernel = collision(layout)
    kernel.poke_page_word(0x25000, 1, word)
    prog = kernel.program()
    errors = [f for f in verify(prog, classify(prog)).findings if f.severity is Severity.ERROR]
    assert [f.slug for f in errors] == ["device-page-pgmap"]
    assert not any(e.what == "dangling pgmap" for e in errors[0].evidence)
