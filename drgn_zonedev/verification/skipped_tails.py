# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Skipped Tails
-------------

Tails that memmap_init_compound() took for shared, and did not write: the last 384 of each 512,
if a compound page has 512 pages of 4 KiB. They are one finding however many compound pages there
are, and a missed initialisation whatever they hold: after the device was bound once before,
that is a page of its earlier pgmap, with the right zone and node.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from drgn_zonedev.verification.runs import Run, Runs

__all__ = ("ReportedRun", "reported_runs")

_NEVER_WRITTEN, _WRONG_LINK = "device-page-uninitialized", "device-tail-link"


@dataclasses.dataclass(frozen=True)
class ReportedRun:
    """A run, the finding that it is, and what distinguishes that from others of its kind."""

    slug: str
    run: Run
    detail: str = ""


def reported_runs(
    runs: Mapping[str, Runs], first_pfn: int, size: int, written: int
) -> list[ReportedRun]:
    """
    Get the findings that runs come to, in order.

    :param first_pfn: Of the first compound page.
    :param size: Pages of a compound page; 1 if there are none.
    :param written: How many struct pages of each the kernel writes, if it shares the others.
    """
    found = []
    for slug, those in runs.items():
        if slug in (_NEVER_WRITTEN, _WRONG_LINK) and _are_skipped(those, first_pfn, size, written):
            whole = dataclasses.replace(those.kept[0], end_pfn=those.end_pfn, count=those.pages)
            detail = f"{those.number} runs, the last {size - written} of each {size}"
            found.append(ReportedRun(_NEVER_WRITTEN, whole, detail))
        else:
            found += [ReportedRun(slug, run) for run in those.reported()]
    return sorted(found, key=lambda each: (each.run.start_pfn, each.slug))


def _are_skipped(runs: Runs, first_pfn: int, size: int, written: int) -> bool:
    if runs.number < 2 or not 0 < written < size:
        return False
    left = size - written
    return runs.pages == runs.number * left and all(
        run.count == left and (run.start_pfn - first_pfn) % size == written for run in runs.kept
    )
