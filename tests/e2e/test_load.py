# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Kernels under load: struct pages change while they are read, nothing is said against
those that are healthy, and those that a test damages are found.
"""

from __future__ import annotations

import pytest

from drgn_zonedev.lab import fetch_kernel
from drgn_zonedev.lab.targets.load import DEFECTS, How, run_load

longer = pytest.mark.long("ten minutes of what is one minute in every run")

# Of 10,000 struct pages, at most one may have changed at every look.
TORN = 10_000
# The kernel's bug of acpi-hole, at the end of 1 GiB and of the 2 GiB that checking itself takes.
BUG = {How.LIVE: (0x3FFDF, 0x3FFE3), How.PAUSED: (0x3FFDF, 0x3FFE3), How.INSIDE: (0x7FFDF, 0x7FFE3)}
DAMAGED = [(defect.pfn, defect.pfn + 1) for defect in DEFECTS]


@pytest.mark.qemu
@pytest.mark.parametrize(
    ("kernel", "seconds", "how"),
    [
        ("6.1", 60, How.LIVE),
        *(
            pytest.param(kernel, 600, how, marks=longer)
            for kernel in ("5.10", "6.1", "7.3")
            for how in How
        ),
    ],
)
def test_load_is_no_error_and_defects_are(kernel: str, seconds: int, how: How) -> None:
    tally = run_load(fetch_kernel(kernel), seconds, how)
    assert tally["checks"] > 0
    assert tally["crashes"] == {}
    assert 0 <= tally["torn_pages"] * TORN <= tally["pages"] > 0
    expected = [BUG[how], *(DAMAGED if how is not How.INSIDE else [])]
    seen = {tuple(span) for spans in tally["ever"].values() for span in spans}
    assert {span for span in seen if not any(is_within(span, known) for known in expected)} == set()
    if how is How.INSIDE:
        return
    for defect in DEFECTS:
        spans = tally["last"].get(defect.slug, [])
        assert any(start <= defect.pfn < end for start, end in spans), defect


def is_within(span: tuple[int, ...], known: tuple[int, int]) -> bool:
    return known[0] <= span[0] and span[1] <= known[1]
