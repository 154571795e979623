# SPDX-License-Identifier: LGPL-2.1-or-later

"""The walkers as data, and the document that is made of it."""

from __future__ import annotations

import re
from pathlib import Path

from drgn_zonedev.pfn_walkers.outcome import Act
from drgn_zonedev.pfn_walkers.table import NEVER_INLINED, ONLY_STABLE, TRACES, WALKERS
from scripts.walkers_document import document

ROOT = Path(__file__).parents[2]


def test_documentation_is_complete() -> None:
    text = (ROOT / "docs" / "walkers.md").read_text(encoding="utf-8")
    assert text == document(), "run scripts/write-walkers"
    sections = re.findall("^## (.+)$", text, re.MULTILINE)
    names = [walker.name for walker in WALKERS]
    assert sections == ["First releases", *names, "What can happen"]
    for walker in WALKERS:
        assert walker.function in text
        assert walker.note in text
        for guard in walker.guards:
            assert guard.source in text


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


def test_first_releases_are_those_of_their_commits() -> None:
    for walker in WALKERS:
        for guard in walker.guards:
            found = re.search(r"\(in v(\d+)\.(\d+)\)", guard.commit)
            if found and any(guard.since) and guard.since != ONLY_STABLE:
                assert guard.since == (int(found[1]), int(found[2])), walker.name


def test_a_tree_that_took_a_change_is_older_than_the_change() -> None:
    for walker in WALKERS:
        for guard in walker.guards:
            assert all(tree[:2] < guard.since for tree in guard.stable), walker.name
            assert guard.stable or guard.since != ONLY_STABLE, walker.name


def test_what_is_known_of_a_guard_is_said() -> None:
    assert all(guard.source for walker in WALKERS for guard in walker.guards)
