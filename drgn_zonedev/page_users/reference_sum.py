# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Sum of References
-----------------

The references to a pgmap that its pages account for, to hold against what the kernel counts.
"""

from __future__ import annotations

from collections.abc import Sequence

from drgn import Program

from drgn_zonedev.kernel.folio_counts import drops_initial_references
from drgn_zonedev.model import Pgmap
from drgn_zonedev.page_users.pins import ReferenceSum, UsedPages

__all__ = ("reference_sum",)

# Their pages take a reference when they are handed out.
_HANDED_OUT = ("MEMORY_DEVICE_PRIVATE", "MEMORY_DEVICE_COHERENT")
_P2PDMA = "MEMORY_DEVICE_PCI_P2PDMA"


def reference_sum(prog: Program, pgmap: Pgmap, uses: Sequence[UsedPages]) -> ReferenceSum:
    """
    Add up the references to a pgmap.

    :param uses: All of its pages that are used.
    """
    # Up to v5.17, each page has a reference until its own count is 0: put_page() in
    # memunmap_pages(), up to Linux kernel commit 27674ef6c73f ("mm: remove the extra ZONE_DEVICE
    # struct page refcount") (in v5.18). Up to v6.0, this is so for device-private pages, too.
    by_page = drops_initial_references(prog)
    is_live = pgmap.ref.state == "live"
    takes_pages = by_page or pgmap.type not in _HANDED_OUT
    return ReferenceSum(
        initial=int(is_live),
        of_pages=_pages(pgmap) if is_live and takes_pages else 0,
        of_users=_of_users(pgmap, uses, by_page=by_page, is_live=is_live),
        found=pgmap.ref.count,
    )


def _pages(pgmap: Pgmap) -> int:
    # pfn_len() of each range that is initialised.
    ranges = enumerate(pgmap.ranges[: pgmap.nr_range])
    pages = ((r.end_pfn - pgmap.pfn_first(i)) >> pgmap.vmemmap_shift for i, r in ranges)
    return sum(max(count, 0) for count in pages)


def _of_users(pgmap: Pgmap, uses: Sequence[UsedPages], *, by_page: bool, is_live: bool) -> int:
    if by_page:
        return 0 if is_live else sum(use.folios for use in uses if use.is_held)
    if pgmap.type in (*_HANDED_OUT, _P2PDMA):
        return sum(use.pages for use in uses)
    return 0
