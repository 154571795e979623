# SPDX-License-Identifier: LGPL-2.1-or-later

"""Judging one stored dump, in a process of its own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from drgn import Architecture

from drgn_zonedev.export.store import StoredDump
from drgn_zonedev.kernel.mmzone import sparsemem_geometry
from drgn_zonedev.lab import SCENARIOS
from drgn_zonedev.lab.scenarios.arm64 import arm64_scenarios
from drgn_zonedev.lab.store import dump_differences
from drgn_zonedev.lab.truth.answers import Answer
from drgn_zonedev.lab.verdict.proposal_differences import (
    kernel_differences,
    variant_differences,
    walker_differences,
)
from drgn_zonedev.pfn_proposal import proposal
from drgn_zonedev.pfn_walkers import walkers
from drgn_zonedev.render import as_json
from drgn_zonedev.report import check


def judge_dump(path: Path) -> tuple[list[str], dict[str, Any]]:
    """Say what is wrong with what the tool says of a dump, and what it says."""
    logging.getLogger("drgn").setLevel(logging.CRITICAL)
    dump = StoredDump(path)
    with dump.program() as prog:
        expected, geometry = dump.expected(), sparsemem_geometry(prog)
        page, section = 1 << geometry.page_shift, geometry.pages_per_section
        on_arm64 = prog.platform is not None and prog.platform.arch == Architecture.AARCH64
        scenario = (arm64_scenarios(page) if on_arm64 else SCENARIOS)[expected["scenario"]]
        arranged = [(start, end, case) for start, end, case in expected["ranges"]]
        answers = [_answer(*row) for row in expected["truth"] or ()]
        met = walkers(prog)
        taint = met.kernel.features["section_taint_zone_device"]
        wrong = [
            *dump_differences(prog, expected),
            *variant_differences(proposal(prog), arranged, scenario.was, section=section),
            *walker_differences(met, arranged, section=section),
        ]
        if answers:
            wrong += kernel_differences(answers, arranged, taint=taint, section=section)
        return wrong, as_json.report_document(check(prog))


def _answer(
    start_pfn: int, end_pfn: int, valid: bool, online: bool, pgmap: int, pgmap_valid: bool
) -> Answer:
    # Of what was said about struct pages, nothing is stored.
    return Answer(
        start_pfn,
        end_pfn,
        valid=valid,
        online=online,
        pgmap=pgmap,
        pgmap_valid=pgmap_valid,
        zone=None,
        nid=None,
        order=None,
        page_pgmap=None,
    )
