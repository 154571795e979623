# SPDX-License-Identifier: LGPL-2.1-or-later

"""Judging one stored dump, in a process of its own."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drgn import Program
from mistakes import Arranged, false_yes, online_by_section, valid

from drgn_zonedev.lab.store import differences
from drgn_zonedev.proposal import proposal
from drgn_zonedev.render import as_json
from drgn_zonedev.report import check
from drgn_zonedev.stored import StoredDump
from drgn_zonedev.walkers import walkers


def judge_dump(path: Path) -> tuple[list[str], dict[str, Any]]:
    """Say what is wrong with what the tool says of a dump, and what it says."""
    logging.getLogger("drgn").setLevel(logging.CRITICAL)
    dump = StoredDump(path)
    with dump.program() as prog:
        expected = dump.expected()
        arranged = [(start, end, case) for start, end, case in expected["ranges"]]
        wrong = [
            *differences(prog, expected),
            *variant_differences(prog, arranged),
            *walker_differences(prog, arranged),
        ]
        return wrong, as_json.report_document(check(prog))


def variant_differences(prog: Program, arranged: list[Arranged]) -> Iterator[str]:
    """Say where the variants of pfn_zone_device() do not answer as arithmetic says."""
    expected = false_yes(arranged)
    for verdict in proposal(prog).verdicts:
        name = verdict.variant.name
        told = Counter({case.value: n for case, n in verdict.pages(True).items()})
        if told != expected[name]:
            yield f"{name}: false yes for {dict(told)}, not {dict(expected[name])}"
        if verdict.pages(False):
            yield f"{name}: false no for {verdict.pages(False)}"


def walker_differences(prog: Program, arranged: list[Arranged]) -> Iterator[str]:
    """Say where walkers do not meet what arithmetic says."""
    report = walkers(prog)
    taint = report.kernel.features["section_taint_zone_device"]
    expected = {
        "kpageflags": Counter() if taint else online_by_section(arranged),
        "hwpoison-inject": valid(arranged),
    }
    spans = [(start, end) for start, end, _ in arranged]
    for judgement in report.walkers:
        if judgement.walker.name not in expected:
            continue
        met: Counter[str] = Counter()
        for exposure in judgement.exposures:
            if any(a < exposure.end_pfn and exposure.start_pfn < b for a, b in spans):
                met[exposure.case.value] += exposure.touched
        wanted = +expected[judgement.walker.name]
        # Only struct pages tell a ghost from a hole, and they are not asked here.
        for counts in (met, wanted):
            counts["partial"] += counts.pop("ghost", 0)
        if +met != +wanted:
            yield f"{judgement.walker.name} meets {dict(met)}, not {dict(wanted)}"
