# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Consistency
-----------

The structures that decide what a PFN is, against each other. No struct page is
read.

Only pgmaps that are live are held to anything, and most promises are kept only
once a range is complete: while memory is added or removed, everything here is
legal for a moment.

``pgmap_array.py``, ``sections.py`` and ``elsewhere.py`` hold the checks, ``claims.py`` what
they look at.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from drgn import Program

from drgn_zonedev.classification.missing_debuginfo import optional
from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.consistency.claims import Check, Scene
from drgn_zonedev.consistency.elsewhere import ELSEWHERE_CHECKS
from drgn_zonedev.consistency.pgmap_array import ARRAY_CHECKS
from drgn_zonedev.consistency.sections import SECTION_CHECKS
from drgn_zonedev.model import Finding, Range, Unjudged

__all__ = ("inconsistencies",)

_CHECKS = (*ARRAY_CHECKS, *SECTION_CHECKS, *ELSEWHERE_CHECKS)


def inconsistencies(
    prog: Program,
    snapshot: Snapshot,
    ranges: Sequence[Range],
    lacks: list[Unjudged] | None = None,
) -> list[Finding]:
    """
    Compare the structures with each other.

    :param ranges: What the classification made of them.
    :param lacks: Gets what could not be compared, because it cannot be read, or the
        debugging information lacks something.
    """
    told = [] if lacks is None else lacks
    scene = Scene(prog, snapshot, ranges, told)
    findings: list[Finding] = []
    for check in _CHECKS:
        nothing: list[Finding] = []
        findings += optional(
            told, "not all structures were compared", nothing, functools.partial(_all, check, scene)
        )
    return findings


def _all(check: Check, scene: Scene) -> list[Finding]:
    return list(check(scene))
