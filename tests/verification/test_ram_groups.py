# SPDX-License-Identifier: LGPL-2.1-or-later

"""The fast path of RAM follows from the table of rules: a rule that is added counts."""

from __future__ import annotations

import numpy as np
import pytest
from drgn import Program
from support.fakekernel import busy_ram

from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.kernel.zones import zones
from drgn_zonedev.verification import ram_scan, rules
from drgn_zonedev.verification.promises import Area
from drgn_zonedev.verification.ram_fastpath import FastRam, Glance
from drgn_zonedev.verification.ram_window import RAM_AREAS
from drgn_zonedev.verification.ram_zones import ram_promises
from drgn_zonedev.verification.rule import Commit, Rule, Word
from drgn_zonedev.verification.scan import scan
from drgn_zonedev.verification.work import Work

START, END = 0x40000, 0x48000
# page->index, of which no rule says anything, and a bit that no page of RAM has there.
INDEX, BIT = 4, 1 << 61
# Pages that have it nevertheless.
STEP = 7


class Suspicious(FastRam):
    """Suspects what has the bit, and nothing else."""

    def glance(self, starts: np.ndarray, raw: bytes) -> Glance:
        words = np.frombuffer(raw, "<u8").reshape(-1, self.layout.size // 8)
        rows = np.flatnonzero(words[:, INDEX] & np.uint64(BIT))
        return Glance(rows, np.empty(0, np.uint64), np.empty(0, np.uint64), [])


@pytest.fixture(scope="module")
def prog() -> Program:
    kernel = busy_ram("6.1")
    for pfn in range(START, END, STEP):
        kernel.poke_page_word(pfn, INDEX, kernel.page_word(pfn, INDEX) | BIT)
    return kernel.program()


def found(prog: Program) -> set[tuple[int, int]]:
    """Where the new rule is broken."""
    spots = set()
    for promise in ram_promises(prog, zones(prog), START, END):
        work = Work(promise, np.array([[promise.start_pfn, promise.end_pfn]]))
        for slug, runs in scan(prog, page_layout(prog), work).runs.items():
            assert slug == "new"
            spots |= {(run.start_pfn, run.end_pfn) for run in runs.reported()}
    return spots


@pytest.mark.parametrize("area", RAM_AREAS)
def test_a_new_rule_is_not_passed_over(
    area: Area, prog: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    word = Word("bit", lambda *_: INDEX * 8, mask=lambda *_: BIT, flag=True)
    commit = Commit("0" * 12, "mm: none", "v0")
    new = Rule("new", (area,), word, 0, "not the bit", "", commit)
    assert found(prog) == set()
    monkeypatch.setattr(rules, "RULES", (*rules.RULES, new))
    fast = found(prog)
    assert fast
    monkeypatch.setattr(ram_scan, "FastRam", Suspicious)
    assert fast == found(prog)
