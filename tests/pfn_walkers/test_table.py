# SPDX-License-Identifier: LGPL-2.1-or-later

"""The walkers as data, and the document that is made of it."""

from __future__ import annotations

import re
from pathlib import Path

from drgn_zonedev.pfn_walkers.outcome import Act
from drgn_zonedev.pfn_walkers.table import NEVER_INLINED, TRACES, WALKERS
from scripts.walkers_document import document

ROOT = Path(__file__).parents[2]


def test_documentation_is_complete() -> None:
    text = (ROOT / "docs" / "walkers.md").read_text(encoding="utf-8")
    assert text == document(), "run scripts/write-walkers"
    sections = re.findall("^## (.+)$", text, re.MULTILINE)
    assert sections == [*(walker.name for walker in WALKERS), "What can happen"]
    for walker in WALKERS:
        assert walker.function in text
        assert walker.note in text
        for guard in walker.guards:
            assert guard.known in text


def test_each_walker_does_something_to_a_struct_page() -> None:
    for walker in WALKERS:
        for guard in walker.guards:
            assert guard.acts, walker.name
            # What a filter keeps out, an act must follow; only a comparison may come last.
            assert len(set(guard.does)) == len(guard.does), walker.name


def test_only_code_of_memory_failure_looks_up_a_zone_for_its_pagesets() -> None:
    # zone_pcp_disable() has no other callers among the walkers.
    found = {w.name for w in WALKERS for g in w.guards if Act.ZONE in g.acts}
    assert found == {"memory-failure", "soft-offline", "unpoison"}


def test_traces_lead_to_functions_that_are_always_there() -> None:
    assert {trace.function for trace in TRACES.values()} - NEVER_INLINED <= {"get_hwpoison_page"}
