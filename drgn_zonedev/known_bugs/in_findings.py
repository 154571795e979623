# SPDX-License-Identifier: LGPL-2.1-or-later

"""Which findings show which known bugs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from drgn_zonedev.known_bugs.bugs import BUGS, affected
from drgn_zonedev.model import Finding, KernelFacts, Pgmap

__all__ = ("SIGNATURES", "FindingSignature", "with_known_bugs")

_SUBSECTION = 2 << 20

_Pgmaps = Mapping[int, Pgmap]


def _is_all(finding: Finding, pgmaps: _Pgmaps, kernel: KernelFacts) -> bool:
    return True


@dataclass(frozen=True)
class FindingSignature:
    """
    A kind of findings that shows a bug, if it ``shows`` by what is found: without a condition,
    nothing but the bug leaves that state.
    """

    finding: str
    bug: str
    shows: Callable[[Finding, _Pgmaps, KernelFacts], bool] = _is_all


def with_known_bugs(
    findings: Iterable[Finding], pgmaps: Sequence[Pgmap], kernel: KernelFacts
) -> tuple[Finding, ...]:
    """Name the known bugs that findings show, unless the release has their fixes."""
    by_address = {pgmap.address: pgmap for pgmap in pgmaps}
    return tuple(_named(finding, by_address, kernel) for finding in findings)


def _named(finding: Finding, pgmaps: _Pgmaps, kernel: KernelFacts) -> Finding:
    bugs = tuple(
        signature.bug
        for signature in SIGNATURES
        if signature.finding == finding.slug
        and signature.shows(finding, pgmaps, kernel)
        and affected(BUGS[signature.bug], kernel.release) is not False
    )
    return dataclasses.replace(finding, known_bugs=bugs) if bugs else finding


def _value(finding: Finding) -> int | None:
    # Of the word that is wrong.
    return finding.evidence[0].value if finding.evidence else None


def _is_skipped_tail(finding: Finding, pgmaps: _Pgmaps, kernel: KernelFacts) -> bool:
    # A tail after the second page of vmemmap of its compound page.
    pgmap = pgmaps.get(finding.pgmap or 0)
    for i, range_ in enumerate(pgmap.ranges if pgmap else ()):
        if pgmap and range_.start_pfn <= finding.start_pfn < range_.end_pfn:
            offset = (finding.start_pfn - pgmap.pfn_first(i)) % (1 << pgmap.vmemmap_shift)
            return offset >= 2 * kernel.page_size // max(kernel.sizeof_page, 1)
    return False


def _is_zone_of_no_zone(finding: Finding, pgmaps: _Pgmaps, kernel: KernelFacts) -> bool:
    # What the loop over zones ends with, in ZONES_WIDTH bits. Another number is corruption.
    page_zone, zones = _value(finding), kernel.max_nr_zones
    mask = (1 << (zones - 1).bit_length()) - 1
    return bool(zones) and page_zone is not None and page_zone & mask == zones & mask


def _is_copied_reference(finding: Finding, pgmaps: _Pgmaps, kernel: KernelFacts) -> bool:
    # Pages of vmemmap are copied as a whole, and each struct page in them has one reference.
    copied = kernel.page_size // max(kernel.sizeof_page, 1)
    shared = kernel.features.get("compound_info_is_mask", False)
    return shared and _value(finding) == 1 and finding.count >= copied


def _on(architecture: str) -> Callable[[Finding, _Pgmaps, KernelFacts], bool]:
    return lambda finding, pgmaps, kernel: kernel.architecture.lower() == architecture


def _is_shared_page(finding: Finding, pgmaps: _Pgmaps, kernel: KernelFacts) -> bool:
    # Of arm64, whose vmemmap_free() in arch/arm64/mm/mmu.c was read: a page of vmemmap holds more
    # than the struct pages of a subsection.
    of_subsection = _SUBSECTION // max(kernel.page_size, 1) * kernel.sizeof_page
    return kernel.architecture.lower() == "aarch64" and of_subsection < kernel.page_size


def _is_shared_block(finding: Finding, pgmaps: _Pgmaps, kernel: KernelFacts) -> bool:
    # Or a larger entry of vmemmap_populate() in arch/arm64/mm/mmu.c does.
    shares_page = _is_shared_page(finding, pgmaps, kernel)
    return kernel.architecture.lower() == "aarch64" and not shares_page


SIGNATURES = (
    FindingSignature("collision-untainted", "collision-untainted"),
    FindingSignature("orphan-section", "sections-left-behind"),
    FindingSignature("vmemmap-top-entry", "vmemmap-not-synchronised"),
    FindingSignature("device-page-uninitialized", "devdax-tails-uninitialized", _is_skipped_tail),
    FindingSignature("vmemmap-unmapped", "shared-vmemmap-page", _is_shared_page),
    FindingSignature("vmemmap-unmapped", "shared-vmemmap-block", _is_shared_block),
    FindingSignature("ram-hole-zone", "zone-of-reserved-hole", _is_zone_of_no_zone),
    FindingSignature("ram-free-refcount", "hugetlb-references-restored", _is_copied_reference),
    # arch_add_memory() of arch/arm64/mm/mmu.c and arch/riscv/mm/init.c.
    FindingSignature("ram-beyond-max-pfn", "max-pfn-lowered-arm64", _on("aarch64")),
    FindingSignature("ram-beyond-max-pfn", "max-pfn-lowered-riscv", _on("riscv64")),
)
"""Every finding that can show a bug."""
