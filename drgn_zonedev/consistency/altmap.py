# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Altmaps
-------

Checks the altmap of a pgmap against the memory that it is for, and against the struct pages whose
memory it provides.
"""

from __future__ import annotations

from collections.abc import Iterator

from drgn import Architecture, sizeof

from drgn_zonedev.consistency.claims import Check, Claim, Scene
from drgn_zonedev.findings import make_finding
from drgn_zonedev.model import Case, Evidence, Finding

__all__ = ("ALTMAP_CHECKS",)


def _altmaps(scene: Scene) -> Iterator[Finding]:
    for claim in scene.complete:
        altmap, pgmap = claim.pgmap.altmap, claim.pgmap
        if claim.index or not altmap:
            continue
        start, end = claim.range.start_pfn, claim.range.end_pfn
        facts: list[Evidence] = []
        slug = "altmap-range"
        if altmap.base_pfn != start:
            facts.append(scene.pgmap_member(pgmap, "altmap.base_pfn", altmap.base_pfn, start))
        if altmap.offset > end - start:
            facts.append(scene.pgmap_member(pgmap, "altmap.reserve", altmap.reserve))
            facts.append(scene.pgmap_member(pgmap, "altmap.free", altmap.free))
        if not facts:
            slug, facts = _account(scene, claim)
        if facts:
            yield make_finding(
                slug, Case.METADATA, start, end, pgmap=pgmap.address, evidence=tuple(facts)
            )


def _account(scene: Scene, claim: Claim) -> tuple[str, list[Evidence]]:
    altmap, pgmap = claim.pgmap.altmap, claim.pgmap
    assert altmap is not None
    if altmap.alloc + altmap.align > altmap.free:
        return "altmap-account", [
            scene.pgmap_member(pgmap, "altmap.alloc", altmap.alloc),
            scene.pgmap_member(pgmap, "altmap.align", altmap.align),
            scene.pgmap_member(pgmap, "altmap.free", altmap.free),
        ]
    expected = _expected_alloc(scene, claim)
    if expected is None or expected == altmap.alloc:
        return "", []
    return "altmap-unaccounted", [scene.pgmap_member(pgmap, "altmap.alloc", altmap.alloc, expected)]


def _expected_alloc(scene: Scene, claim: Claim) -> int | None:
    # vmemmap_populate() of x86-64 uses the altmap for whole sections only, and
    # section_activate() reuses the memmap of early ones.
    prog, geometry = scene.prog, scene.snapshot.geometry
    assert prog.platform is not None
    if prog.platform.arch != Architecture.X86_64 or scene.snapshot.sections.unreadable:
        return None
    pages = geometry.pages_per_section
    whole = scene.rows(claim.range.start_pfn, claim.range.end_pfn)
    starts = scene.snapshot.sections.nr[whole] * pages
    taken = (starts >= claim.range.start_pfn) & (starts + pages <= claim.range.end_pfn)
    taken &= ~scene.has_flag(scene.snapshot.flags.early)[whole]
    memmap = pages * sizeof(prog.type("struct page"))
    return int(taken.sum()) * (memmap >> geometry.page_shift)


ALTMAP_CHECKS: tuple[Check, ...] = (_altmaps,)
