# SPDX-License-Identifier: LGPL-2.1-or-later

"""One page and the walkers, against all walkers on all memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from drgn import FaultError
from support.fakekernel import FakeKernel, collision, in_flight, partial
from support.kernels import each_layout

from drgn_zonedev.explanation import exposed_walkers as exposed
from drgn_zonedev.explanation.explain import explain
from drgn_zonedev.pfn_walkers import walkers
from drgn_zonedev.render.explanation_text import explanation_text

PFNS = (0x0, 0x24000, 0x24002, 0x24400, 0x2FFFF, 0x100000, 0x100600, 0x114000, 0x114001)


@each_layout
@pytest.mark.parametrize("scene", [collision, in_flight, partial])
def test_page_meets_the_walkers_that_its_range_meets(
    scene: Callable[[str], FakeKernel], layout: str
) -> None:
    prog = scene(layout).program()
    judgements = [j for j in walkers(prog).walkers if j.present is not False]
    for pfn in PFNS:
        expected = {
            j.walker.name
            for j in judgements
            # Some look at one PFN of many only.
            if pfn % j.stride == j.offset
            and any(e.start_pfn <= pfn < e.end_pfn for e in j.exposures)
        }
        explanation = explain(prog, pfn)
        assert explanation.walkers_error is None
        assert {w.name for w in explanation.walkers} == expected, hex(pfn)


def test_trap_is_shown_with_what_comes_of_it() -> None:
    # Before the taint, pfn_to_online_page() lets everybody in.
    explanation = explain(collision("5.10").program(), 0x24000)
    assert explanation.walkers
    text = explanation_text(explanation)
    assert "WALKERS THAT WOULD TOUCH IT" in text
    assert f"{explanation.walkers[0].function}()" in text


def test_what_cannot_be_told_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise FaultError("cannot read the zones", 0x1000)

    monkeypatch.setattr(exposed, "walk_all", fail)
    explanation = explain(collision("6.1").program(), 0x24000)
    assert explanation.walkers == ()
    assert "cannot read the zones" in str(explanation.walkers_error)
    assert "not known: " in explanation_text(explanation)


def test_zone_that_cannot_be_read_is_said_where_it_matters() -> None:
    kernel = collision("5.10")
    dma = kernel.zone(0, kernel.layout.constant("ZONE_DMA"))
    kernel.hide(dma, kernel.layout.structs["zone"].size)
    prog = kernel.program()
    assert "a zone of node 0" in str(explain(prog, 0x24000).walkers_error)
    # Nobody asks what is promised.
    assert explain(prog, 0).walkers_error is None
