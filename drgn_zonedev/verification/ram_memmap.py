# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The Memmap of RAM
-----------------

RAM whose struct pages boot has not initialised yet, and RAM that stores struct pages.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from drgn_zonedev.findings import make_finding
from drgn_zonedev.kernel.memmap import Pages
from drgn_zonedev.kernel.page_types import page_types
from drgn_zonedev.model import Evidence, Finding, Range
from drgn_zonedev.verification.context import Context, raw_page, reread_range

__all__ = ("verify_block_memmap", "verify_deferred")


def verify_deferred(context: Context, range_: Range) -> None:
    """Report RAM above ``first_deferred_pfn``: what its struct pages hold means nothing."""
    context.results.ranges.append(range_)
    context.results.findings.append(
        make_finding(
            "case4-deferred",
            range_.case,
            range_.start_pfn,
            range_.end_pfn,
            evidence=range_.evidence,
        )
    )


def verify_block_memmap(context: Context, range_: Range) -> None:
    """Look for free pages among those that store the memmap of an online memory block."""
    for pages in reread_range(context, range_):
        context.results.findings += _free_pages(context, range_, pages)


def _free_pages(context: Context, range_: Range, pages: Pages) -> Iterator[Finding]:
    free = page_types(context.prog).has(pages, "buddy")
    rows = np.flatnonzero(free)
    if not len(rows):
        return
    first, last = int(rows[0]), int(rows[-1])
    address = int(pages.address[first]) + pages.layout.mapcount_offset
    value = int(pages.mapcount[first]) % (1 << 32)
    yield make_finding(
        "block-memmap-free",
        range_.case,
        pages.start_pfn + first,
        pages.start_pfn + last + 1,
        count=len(rows),
        evidence=(
            Evidence("page->page_type", address, value, note="PageBuddy()"),
            raw_page(pages, first),
            *range_.evidence,
        ),
    )
