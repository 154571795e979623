# SPDX-License-Identifier: LGPL-2.1-or-later

"""Which findings show which known bugs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from drgn_zonedev.known_bugs.bugs import BUGS, affected
from drgn_zonedev.model import Finding, KernelFacts, Pgmap

__all__ = ("SHOWN_BY", "with_known_bugs")

# Findings that are made only of the state that a bug leaves.
SHOWN_BY = {
    "collision-untainted": "collision-untainted",
    "orphan-section": "sections-left-behind",
}
_TAILS = "devdax-tails-uninitialized"
_NO_ZONE = "zone-of-reserved-hole"
_SUBSECTION = 2 << 20


def with_known_bugs(
    findings: Iterable[Finding], pgmaps: Sequence[Pgmap], kernel: KernelFacts
) -> tuple[Finding, ...]:
    """Name the known bugs that findings show, unless the release has their fixes."""
    by_address = {pgmap.address: pgmap for pgmap in pgmaps}
    return tuple(_named(finding, by_address, kernel) for finding in findings)


def _named(finding: Finding, pgmaps: dict[int, Pgmap], kernel: KernelFacts) -> Finding:
    slug = SHOWN_BY.get(finding.slug)
    if finding.slug == "device-page-uninitialized" and finding.pgmap in pgmaps:
        slug = _TAILS if _is_skipped_tail(finding, pgmaps[finding.pgmap], kernel) else None
    if finding.slug == "ram-hole-zone" and _is_zone_of_no_zone(finding, kernel):
        slug = _NO_ZONE
    if finding.slug == "vmemmap-unmapped":
        slug = _bug_of_unmapped(kernel)
    if slug is None or affected(BUGS[slug], kernel.release) is False:
        return finding
    return dataclasses.replace(finding, known_bugs=(slug,))


def _is_skipped_tail(finding: Finding, pgmap: Pgmap, kernel: KernelFacts) -> bool:
    # A tail behind the second page of vmemmap of its compound page.
    for i, range_ in enumerate(pgmap.ranges):
        if range_.start_pfn <= finding.start_pfn < range_.end_pfn:
            offset = (finding.start_pfn - pgmap.pfn_first(i)) % (1 << pgmap.vmemmap_shift)
            return offset >= 2 * kernel.page_size // max(kernel.sizeof_page, 1)
    return False


def _is_zone_of_no_zone(finding: Finding, kernel: KernelFacts) -> bool:
    # What the loop over zones ends with, in ZONES_WIDTH bits. Another number is corruption.
    if not kernel.max_nr_zones or not finding.evidence:
        return False
    page_zone, mask = finding.evidence[0].value, (1 << (kernel.max_nr_zones - 1).bit_length()) - 1
    return page_zone is not None and page_zone & mask == kernel.max_nr_zones & mask


def _bug_of_unmapped(kernel: KernelFacts) -> str | None:
    # Of arm64, whose vmemmap_free() was read: whether a page of vmemmap holds more than the struct
    # pages of a subsection, or a larger entry does.
    if kernel.architecture.lower() != "aarch64":
        return None
    of_subsection = _SUBSECTION // max(kernel.page_size, 1) * kernel.sizeof_page
    return "shared-vmemmap-page" if of_subsection < kernel.page_size else "shared-vmemmap-block"
