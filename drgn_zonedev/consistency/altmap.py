# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Altmaps
-------

Checks the altmap of a pgmap against the memory that it is for, and against the struct pages whose
memory it provides.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from drgn import Program

from drgn_zonedev.consistency.claims import Check, Claim, Scene
from drgn_zonedev.findings import make_finding
from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.kernel.vmemmap import vmemmap_rules
from drgn_zonedev.model import Case, Evidence, Finding

__all__ = ("ALTMAP_CHECKS",)

# Pages of 4 KiB in one of 2 MiB.
_LARGE = 512


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
    if expected is None or altmap.alloc in expected:
        return "", []
    nearest = min(expected, key=lambda pages: abs(pages - altmap.alloc))
    return "altmap-unaccounted", [scene.pgmap_member(pgmap, "altmap.alloc", altmap.alloc, nearest)]


def _expected_alloc(scene: Scene, claim: Claim) -> set[int] | None:
    """
    Get how many pages the altmap may have provided: those of vmemmap that hold struct pages of
    this device in sections that were hot-added. section_activate() reuses the memmap of early ones.

    :return: ``None`` if the rules of the architecture are not known
    """
    rules, geometry = vmemmap_rules(scene.prog), scene.snapshot.geometry
    if rules.partial_altmap is None or scene.snapshot.sections.unreadable:
        return None
    pages = geometry.pages_per_section
    rows = scene.rows(claim.range.start_pfn, claim.range.end_pfn)
    rows = rows[~scene.has_flag(scene.snapshot.flags.early)[rows]]
    starts = scene.snapshot.sections.nr[rows] * pages
    whole = (starts >= claim.range.start_pfn) & (starts + pages <= claim.range.end_pfn)
    of_section = pages * page_layout(scene.prog).size >> geometry.page_shift
    sums = set(_pages_of_whole_sections(scene.prog, starts[whole], pages))
    for start in starts[~whole].tolist() if rules.partial_altmap else ():
        first, end = max(start, claim.range.start_pfn), min(start + pages, claim.range.end_pfn)
        of_part = _pages_of_part(scene.prog, first, end)
        # One larger page may hold the struct pages of the whole section; it belongs to the first
        # user.
        taken = set(of_part) if rules.base_pages else {0, *of_part, of_section}
        sums = {known + more for known in sums for more in taken}
    return sums


def _pages_of_whole_sections(prog: Program, starts: np.ndarray, pages: int) -> set[int]:
    # vmemmap_populate_hugepages() takes pages of 2 MiB. If the struct pages of a section do not
    # fill these, as those of 56 bytes, the first and the last may have been there for a neighbour.
    layout, size = page_layout(prog), prog["PAGE_SIZE"].value_()
    of_section = pages * layout.size // size
    if size > 4096 or of_section % _LARGE == 0 or not len(starts):
        return {len(starts) * of_section}
    least = most = 0
    for run in np.split(starts, np.flatnonzero(np.diff(starts) != pages) + 1):
        start, end = int(run[0]), int(run[-1]) + pages
        first, last = layout.memmap_pages(start, end, size * _LARGE)
        shared = {
            page
            for page, pfn in ((first, start), (last - 1, end))
            if layout.page_address(pfn) % (size * _LARGE)
        }
        least, most = least + last - first - len(shared), most + last - first
    return set(range(least * _LARGE, most * _LARGE + 1, _LARGE))


def _pages_of_part(prog: Program, start_pfn: int, end_pfn: int) -> range:
    # A page at either end that is shared may have been there already.
    layout, size = page_layout(prog), prog["PAGE_SIZE"].value_()
    first, end = layout.memmap_pages(start_pfn, end_pfn, size)
    shared = {
        page
        for page, pfn in ((first, start_pfn), (end - 1, end_pfn))
        if layout.page_address(pfn) % size
    }
    return range(end - first - len(shared), end - first + 1)


ALTMAP_CHECKS: tuple[Check, ...] = (_altmaps,)
