# SPDX-License-Identifier: LGPL-2.1-or-later
"""Kernels that have another pfn_zone_device() are compared with what its model says."""

from __future__ import annotations

import numpy as np
from support.fakekernel import collision

from drgn_zonedev.classification.classify import classify_snapshot
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.lab.verdict.variant_answers import Models, model_disagreements, models_of

SERIES = Models("late-bit", "late-bit+reserve")


def test_an_answer_that_the_model_does_not_give_is_found() -> None:
    prog = collision("7.3").program()
    snapshot = take_snapshot(prog)
    ranges = classify_snapshot(prog, snapshot)
    pfn = np.arange(0x23000, 0x31000)
    marked = (pfn >= 0x24000) & (pfn < 0x30000)
    shown = marked & (pfn >= 0x24002)
    assert list(model_disagreements(SERIES, snapshot, ranges, pfn, marked, shown)) == []
    shown[0x1002] = False
    (found,) = model_disagreements(SERIES, snapshot, ranges, pfn, marked, shown)
    assert (found.about, found.start_pfn, found.end_pfn) == (
        "the kernel's own late-bit+reserve",
        0x24002,
        0x24003,
    )


def test_other_kernels_have_no_models() -> None:
    assert models_of(collision("7.3").program()) is None
