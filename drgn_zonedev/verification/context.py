# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Context
-------

Reads the struct pages of ranges, and counts what was read and what could not be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from drgn import Program

from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.kernel.memmap import Pages, UnreadablePages, page_layout, read_pages
from drgn_zonedev.model import (
    Case,
    Coverage,
    Evidence,
    EvidenceKind,
    Finding,
    PageCounts,
    Pgmap,
    Range,
    Unjudged,
)
from drgn_zonedev.util.intervals import Span
from drgn_zonedev.verification.ram_zones import BlockZone, hot_added_zones
from drgn_zonedev.verification.shared_vmemmap import Aliases
from drgn_zonedev.verification.work import Scanned

__all__ = (
    "Context",
    "Progress",
    "Reader",
    "Results",
    "no_progress",
    "raw_page",
    "read_range",
    "reread_range",
    "unreadable",
)

Progress = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    """Report no progress, which is the default."""


"""
Called with the number of bytes of struct pages that were scanned since the last call, and with
their total number.
"""


@dataclass
class Results:
    """
    Collects results while the ranges are scanned; ``cuts`` counts cuts in holes. ``free`` and
    ``unread`` make :class:`~drgn_zonedev.model.FreeBlocks`. ``in_use`` counts pages in use of each
    pgmap, and ``seen`` those that were looked at.
    """

    ranges: list[Range] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    unjudged: list[Unjudged] = field(default_factory=list)
    by_case: dict[Case, PageCounts] = field(default_factory=dict)
    bytes_read: int = 0
    aliases_skipped: int = 0
    cuts: int = 0
    free: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    unread: list[tuple[int, int]] = field(default_factory=list)
    in_use: Counter[int] = field(default_factory=Counter)
    seen: Counter[int] = field(default_factory=Counter)

    def count(self, case: Case, pages: PageCounts) -> None:
        """Account for struct pages of a range of some case."""
        self.by_case[case] = self.by_case.get(case, PageCounts()) + pages

    def coverage(self) -> Coverage:
        """Sum up what was counted."""
        total = sum(self.by_case.values(), PageCounts())
        return Coverage(
            total.verified,
            total.unreadable,
            self.bytes_read,
            self.aliases_skipped,
            by_case=dict(self.by_case),
        )


@dataclass(frozen=True)
class Context:
    """
    ``progress`` is called with the number of struct pages that were scanned.
    ``scanned`` yields the result for each range that has promises. ``exported``
    are the PFNs of RAM whose struct pages an export has; ``None``: nothing was left out.
    """

    prog: Program
    snapshot: Snapshot
    pgmaps: dict[int, Pgmap]
    progress: Callable[[int], None]
    results: Results
    aliases: Aliases
    scanned: Iterator[Scanned]
    exported: tuple[Span, ...] | None = None

    @cached_property
    def hot_added_zones(self) -> tuple[BlockZone, ...]:
        """The zones of hotplugged memory blocks."""
        return hot_added_zones(self.prog, self.snapshot)


Reader = Callable[[Context, Range], Iterator[Pages]]


def reread_range(context: Context, range_: Range) -> Iterator[Pages]:
    """Read the struct pages of a range that was already accounted for."""
    for part in read_pages(context.prog, range_.start_pfn, range_.end_pfn):
        if isinstance(part, Pages):
            yield part


def read_range(context: Context, range_: Range) -> Iterator[Pages]:
    """Read a range's struct pages, and account for what was read and what could not be."""
    results = context.results
    for part in read_pages(context.prog, range_.start_pfn, range_.end_pfn):
        count = part.end_pfn - part.start_pfn
        context.progress(count)
        if isinstance(part, UnreadablePages):
            results.count(range_.case, PageCounts(unreadable=count))
            results.unjudged.append(unreadable(context.prog, part))
            continue
        results.count(range_.case, PageCounts(verified=count))
        results.bytes_read += part.words.nbytes
        yield part


def unreadable(prog: Program, gap: UnreadablePages) -> Unjudged:
    """Account for struct pages that cannot be read."""
    # Where the read faulted may be a physical address.
    address = page_layout(prog).page_address(gap.start_pfn)
    reason = f"struct pages not readable: {gap.reason}"
    return Unjudged(gap.start_pfn, gap.end_pfn, reason, address)


def raw_page(pages: Pages, row: int) -> Evidence:
    words = " ".join(f"{int(word):016x}" for word in pages.words[row])
    return Evidence(
        what=f"struct page of PFN {pages.start_pfn + row:#x}",
        address=int(pages.address[row]),
        note=words,
        kind=EvidenceKind.STRUCT_PAGE,
    )
