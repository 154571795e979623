# SPDX-License-Identifier: LGPL-2.1-or-later

"""Reports of either schema are read, and nothing else is."""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from support import machines

from drgn_zonedev.comparison.differences import report_differences
from drgn_zonedev.comparison.known_report import NotAReportError, known_report
from drgn_zonedev.render.as_json import report_document

REPORT_1 = Path(__file__).parents[1] / "render" / "report_1.json"


def document() -> dict[str, Any]:
    return json.loads(json.dumps(report_document(machines.many_pgmaps(3))))


def test_both_schemas_are_read() -> None:
    old = known_report(json.loads(REPORT_1.read_text(encoding="utf-8")))
    assert old.scope == (None, None, None)
    assert old.ranges
    new = known_report(document())
    assert len(new.pgmaps) == 3
    assert [f.slug for f in new.findings]


def test_addresses_and_references_do_not_matter() -> None:
    other = document()
    for pgmap in other["pgmaps"]:
        pgmap["address"], pgmap["ref"]["count"] = "0x1", 77
    assert not report_differences(known_report(document()), known_report(other))


@pytest.mark.parametrize("what", [None, [], "text", 7, {}, {"schema": "drgn-zonedev/ranges/1"}])
def test_what_is_no_report_is_refused(what: object) -> None:
    with pytest.raises(NotAReportError, match="schema"):
        known_report(what)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every key and index in a document."""
    if isinstance(value, dict):
        return [p for k, v in value.items() for p in ((value, k), *places(v))]
    if isinstance(value, list):
        return [p for i, v in enumerate(value) for p in ((value, i), *places(v))]
    return []


@pytest.mark.parametrize("junk", [None, "junk", -1, [], {}, True, 1e300], ids=repr)
def test_damage_is_refused_or_does_not_matter(junk: object) -> None:
    whole = report_document(machines.many_pgmaps(1))
    for i in range(len(places(whole))):
        damaged = copy.deepcopy(whole)
        holder, key = places(damaged)[i]
        holder[key] = junk
        with contextlib.suppress(NotAReportError):
            known_report(damaged)
