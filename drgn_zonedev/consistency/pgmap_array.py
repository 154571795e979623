# SPDX-License-Identifier: LGPL-2.1-or-later

"""
pgmap_array
-----------

Checks the entries of ``pgmap_array``, and the ranges of the pgmaps in it.
"""

from __future__ import annotations

from collections.abc import Iterator

from drgn import FaultError, Object

from drgn_zonedev.consistency.claims import Check, Claim, Scene
from drgn_zonedev.findings import make_finding
from drgn_zonedev.kernel.memremap import (
    dev_pagemap_info,
    pgmap_array_slots,
)
from drgn_zonedev.model import Case, Evidence, Finding, Pgmap

__all__ = ("ARRAY_CHECKS",)


def _array_entries(scene: Scene) -> Iterator[Finding]:
    torn = scene.snapshot.torn_pgmaps
    claims = [c for c in scene.snapshot.stray_claims if scene.is_near(c[1].start_pfn, c[1].end_pfn)]
    notes = {a: _stray_note(scene, a) for a in {a for a, _ in claims} - torn}
    for address, span in claims:
        if note := notes.get(address):
            start, end = span.start_pfn, span.end_pfn
            entry = Evidence(f"pgmap_array[{start:#x}]", value=address, note=note)
            yield make_finding(
                "pgmap-array-entry", Case.UNKNOWN, start, end, pgmap=address, evidence=(entry,)
            )


def _stray_note(scene: Scene, address: int) -> str | None:
    # A pgmap that cannot be read proves nothing: it is unjudged.
    try:
        return _ranges_note(dev_pagemap_info(Object(scene.prog, "struct dev_pagemap *", address)))
    except FaultError:
        return None
    except ValueError as e:
        return str(e)


def _ranges_note(pgmap: Pgmap) -> str:
    ranges = (f"[{r.start_pfn:#x}, {r.end_pfn:#x})" for r in pgmap.ranges)
    return f"nr_range is {pgmap.nr_range}; its ranges: {', '.join(ranges)}"


def _array_missing(scene: Scene) -> Iterator[Finding]:
    array = scene.snapshot.pgmap_array
    for claim in scene.claims:
        address = claim.pgmap.address
        run: tuple[int, int, int] | None = None
        for start, end in pgmap_array_slots(claim.range.start_pfn, claim.range.end_pfn):
            found = array.find(start)
            if found == address or (not found and array.in_gap(start)):
                continue
            if run and run[1] == start:
                run = run[0], end, run[2]
                continue
            if run:
                yield _missing(scene, claim, *run)
            run = start, end, found
        if run:
            yield _missing(scene, claim, *run)


def _missing(scene: Scene, claim: Claim, start: int, end: int, found: int) -> Finding:
    address = claim.pgmap.address
    return make_finding(
        "pgmap-array-missing",
        Case.DEVICE,
        start,
        end,
        pgmap=address,
        evidence=(
            Evidence(f"pgmap_array[{start:#x}]", value=found, expected=address),
            *scene.range_facts(claim),
        ),
    )


def _overlaps(scene: Scene) -> Iterator[Finding]:
    before: Claim | None = None
    per_subsection = scene.snapshot.geometry.pages_per_subsection
    for claim in scene.claims:
        if before:
            start, end = claim.range.start_pfn, min(claim.range.end_pfn, before.range.end_pfn)
            slug = "pgmap-overlap"
            if start >= before.range.end_pfn:
                slug = "subsection-two-owners"
                start = start // per_subsection * per_subsection
                end = start + per_subsection
            if slug == "pgmap-overlap" or start < before.range.end_pfn:
                yield make_finding(
                    slug,
                    scene.case_at(start),
                    start,
                    end,
                    pgmap=claim.pgmap.address,
                    evidence=scene.range_facts(before) + scene.range_facts(claim),
                )
        if before is None or claim.range.end_pfn > before.range.end_pfn:
            before = claim


def _odd_ranges(scene: Scene) -> Iterator[Finding]:
    per_subsection = scene.snapshot.geometry.pages_per_subsection
    for claim in (c for c in scene.all_claims if c.complete):
        start, end = claim.range.start_pfn, claim.range.end_pfn
        if not scene.is_near(start, end):
            continue
        if start >= end or start % per_subsection or end % per_subsection:
            yield make_finding(
                "pgmap-range",
                Case.DEVICE,
                start,
                max(end, start + 1),
                pgmap=claim.pgmap.address,
                evidence=scene.range_facts(claim),
            )


ARRAY_CHECKS: tuple[Check, ...] = (
    _array_entries,
    _array_missing,
    _overlaps,
    _odd_ranges,
)
