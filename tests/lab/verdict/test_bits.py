# SPDX-License-Identifier: LGPL-2.1-or-later
"""A kernel's own pfn_zone_device(), read out of its memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from support.fakekernel import FakeKernel, collision, in_flight, partial
from support.kernels import each_layout

from drgn_zonedev.classification.classify import classify_snapshot
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.lab.verdict import bits
from drgn_zonedev.lab.verdict.bits import bits_disagreements, kernel_bits
from drgn_zonedev.lab.verdict.variant_answers import Models

LAYOUT = "6.12-proposal"
ALL = (1 << 64) - 1


def bits_of(start: int, end: int) -> int:
    return sum(1 << bit for bit in range(start, end))


def collision_maps(kernel: FakeKernel, *, initialized: bool) -> FakeKernel:
    """The device begins in the middle of section 4, its data 4 MiB (0x400 PFNs) behind that."""
    kernel.usage_map(4, "subsection_dev_map", bits_of(32, 64))
    kernel.usage_map(5, "subsection_dev_map", ALL)
    if initialized:
        kernel.usage_map(4, "subsection_init_map", bits_of(34, 64))
        kernel.usage_map(5, "subsection_init_map", ALL)
    return kernel


def partial_maps(kernel: FakeKernel) -> FakeKernel:
    """2.5 sections, with 6 MiB for the memmap in front."""
    for nr, end in ((32, 64), (33, 64), (34, 32)):
        kernel.usage_map(nr, "subsection_dev_map", bits_of(0, end))
        kernel.usage_map(nr, "subsection_init_map", bits_of(3 if nr == 32 else 0, end))
    return kernel


def told(kernel: FakeKernel) -> list[str]:
    prog = kernel.program()
    snapshot = take_snapshot(prog)
    ranges = classify_snapshot(prog, snapshot)
    return [str(d) for d in bits_disagreements(prog, snapshot, ranges)]


SCENES: dict[str, Callable[[], FakeKernel]] = {
    "collision": lambda: collision_maps(collision(LAYOUT), initialized=True),
    "in flight": lambda: collision_maps(in_flight(LAYOUT), initialized=False),
    "partial": lambda: partial_maps(partial(LAYOUT)),
}


@pytest.mark.parametrize("scene", SCENES)
def test_what_the_patch_would_have_set_is_agreed_with(scene: str) -> None:
    assert told(SCENES[scene]()) == []


def test_every_pfn_of_every_section_with_a_memmap_is_compared() -> None:
    prog = SCENES["collision"]().program()
    bits = kernel_bits(prog, take_snapshot(prog))
    assert bits is not None
    assert bits.pfn.tolist() == list(range(0x40000))
    assert np.flatnonzero(bits.zone_device).tolist() == list(range(0x24400, 0x30000))
    assert np.flatnonzero(bits.claimed).tolist() == list(range(0x24000, 0x30000))


@each_layout
def test_other_kernels_have_no_bits(layout: str) -> None:
    prog = collision(layout).program()
    assert kernel_bits(prog, take_snapshot(prog)) is None


@pytest.mark.parametrize(
    ("name", "nr", "word", "where", "ours"),
    [
        # Marked from the range's start on, like the code of 2019.
        ("init", 4, bits_of(32, 64), "0x24000-0x24400", "no"),
        # Not set, and not cleared.
        ("init", 5, ALL & ~(1 << 7), "0x28e00-0x29000", "yes"),
        ("init", 3, 1 << 63, "0x1fe00-0x20000", "no"),
        ("dev", 5, ALL >> 1, "0x2fe00-0x30000", "yes"),
        ("dev", 4, bits_of(31, 64), "0x23e00-0x24000", "no"),
    ],
)
def test_a_wrong_bit_is_found(name: str, nr: int, word: int, where: str, ours: str) -> None:
    kernel = SCENES["collision"]()
    kernel.usage_map(nr, f"subsection_{name}_map", word)
    function = {"init": "pfn_zone_device()", "dev": "pfn_zone_device_claimed()"}[name]
    theirs = {"yes": "no", "no": "yes"}[ours]
    assert told(kernel) == [
        f"PFNs {where}: {function} by its bitmap: we say {ours}, the kernel says {theirs}"
    ]


def test_bits_that_are_set_too_early_are_found() -> None:
    kernel = SCENES["in flight"]()
    kernel.usage_map(5, "subsection_init_map", 1)
    (found,) = told(kernel)
    assert found.startswith("PFNs 0x28000-0x28200: pfn_zone_device()")


# --- kernels that keep something else ---

SERIES = Models("late-bit", "late-bit+reserve", bitmap="subsection_dev_map")
FLAG = Models("section-flag+pgmap", "section-flag", flag=True)


def test_marks_of_a_variant_are_compared_with_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bits, "models_of", lambda prog: SERIES)
    assert told(collision_maps(collision(LAYOUT), initialized=True)) == []
    # It is marked late, and for all of the device.
    assert told(in_flight(LAYOUT)) == []
    (early,) = told(collision_maps(in_flight(LAYOUT), initialized=False))
    assert early == "PFNs 0x24000-0x30000: subsection_dev_map: we say no, the kernel says yes"


def test_a_flag_that_a_section_should_have_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bits, "models_of", lambda prog: FLAG)
    # These kernels set it only for the section that is shared with RAM.
    (missing,) = told(collision(LAYOUT))
    assert missing == "PFNs 0x28000-0x28001: the section's flag: we say yes, the kernel says no"
