# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Hazards
-------

Ranges of whose struct pages nothing is promised: what a walker would read if it
came here.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from drgn import Program

from drgn_zonedev.contents import Contents, page_contents
from drgn_zonedev.dangling import dangling_pgmap
from drgn_zonedev.findings import make_finding
from drgn_zonedev.kernel.memmap import head_pgmaps, page_layout
from drgn_zonedev.model import Case, Evidence, Memmap, Range
from drgn_zonedev.scan import Context, Reader, raw_page, read_range, reread_range

__all__ = (
    "verify_hole",
    "verify_initializing",
    "verify_orphan",
    "verify_reserved",
    "verify_teardown",
)


@dataclass
class _Holding:
    """
    How many struct pages hold one kind of contents, with the first as example, and
    the pgmaps that they lead to.
    """

    count: int
    example: Evidence
    pgmaps: Counter[int] = field(default_factory=Counter)


# A range of stale pages leads to few pgmaps, garbage to any number.
_MAX_PGMAPS = 4


def _holdings(context: Context, range_: Range, read: Reader) -> dict[Contents, _Holding]:
    holdings: dict[Contents, _Holding] = {}
    kinds = list(Contents)
    for pages in read(context, range_):
        codes = page_contents(context.prog, pages, range_.pgmap, frozenset(context.pgmaps))
        for code, row, count in zip(*np.unique(codes, return_index=True, return_counts=True)):
            holding = holdings.setdefault(kinds[code], _Holding(0, raw_page(pages, int(row))))
            holding.count += int(count)
            if kinds[code] in (Contents.OTHER_PGMAP, Contents.DANGLING_PGMAP):
                words = head_pgmaps(context.prog, pages)[codes == code]
                holding.pgmaps.update(
                    dict(zip(*(c.tolist() for c in np.unique(words, return_counts=True))))
                )
    return holdings


def _contents_evidence(
    prog: Program, range_: Range, holdings: dict[Contents, _Holding]
) -> tuple[Evidence, ...]:
    facts = []
    for kind, holding in sorted(holdings.items(), key=lambda item: list(Contents).index(item[0])):
        facts.append(Evidence(f"struct pages: {kind.value}", value=holding.count))
        facts.append(holding.example)
        most = sorted(holding.pgmaps.items(), key=lambda item: (-item[1], item[0]))
        for pgmap, count in most[:_MAX_PGMAPS]:
            if kind is Contents.DANGLING_PGMAP:
                span = range_.start_pfn, range_.end_pfn
                facts.append(dangling_pgmap(prog, pgmap, count, span))
            else:
                facts.append(Evidence("pgmap", value=pgmap, note=f"of {count} struct pages"))
    return tuple(facts)


def _hazard(
    context: Context, range_: Range, slug: str, detail: str = "", *, read: Reader = read_range
) -> None:
    holdings: dict[Contents, _Holding] = {}
    if range_.memmap is not Memmap.UNMAPPED:
        holdings = _holdings(context, range_, read)
    initialized = holdings.get(Contents.INITIALIZED)
    if range_.case is Case.INITIALIZING and initialized:
        detail = f"{initialized.count} of {range_.pages} are done"
    context.results.findings.append(
        make_finding(
            slug,
            range_.case,
            range_.start_pfn,
            range_.end_pfn,
            detail=detail,
            pgmap=range_.pgmap,
            evidence=range_.evidence + _contents_evidence(context.prog, range_, holdings),
        )
    )


def verify_reserved(context: Context, range_: Range) -> None:
    context.results.ranges.append(range_)
    _hazard(context, range_, "case5-reserved")


def verify_initializing(context: Context, range_: Range) -> None:
    context.results.ranges.append(range_)
    absent = range_.memmap is Memmap.UNMAPPED
    _hazard(context, range_, "case4-initializing", "the memmap is not there yet" if absent else "")


def verify_teardown(context: Context, range_: Range) -> None:
    context.results.ranges.append(range_)
    _hazard(context, range_, "teardown")


def verify_orphan(context: Context, range_: Range) -> None:
    context.results.ranges.append(range_)
    _hazard(context, range_, "orphan-section")


def verify_hole(context: Context, range_: Range) -> None:
    if range_.memmap is not Memmap.MAPPED:
        _add_partial(context, range_, range_.case)
        return
    # Only the zone tells a page that a device left behind from a hole that was
    # initialised at boot.
    layout = page_layout(context.prog)
    start, ghostly = range_.start_pfn, np.empty(0, bool)
    for pages in read_range(context, range_):
        if pages.start_pfn != start + len(ghostly):
            _divide(context, range_, start, ghostly)
            _keep(context, range_, start + len(ghostly), pages.start_pfn)
            start, ghostly = pages.start_pfn, np.empty(0, bool)
        poisoned = (pages.words == np.uint64(0xFFFFFFFFFFFFFFFF)).all(axis=1)
        ghostly = np.concatenate([ghostly, (pages.zone == layout.zone_device) | poisoned])
    _divide(context, range_, start, ghostly)
    _keep(context, range_, start + len(ghostly), range_.end_pfn)


def _keep(context: Context, range_: Range, start_pfn: int, end_pfn: int) -> None:
    # What could not be read stays what the metadata said.
    if start_pfn < end_pfn:
        part = dataclasses.replace(range_, start_pfn=start_pfn, end_pfn=end_pfn)
        _add_partial(context, part, range_.case)


def _divide(context: Context, range_: Range, start_pfn: int, ghostly: np.ndarray) -> None:
    borders = np.flatnonzero(np.diff(ghostly.astype(np.int8))) + 1
    for rows in np.split(np.arange(len(ghostly)), borders):
        if len(rows):
            first, last = start_pfn + int(rows[0]), start_pfn + int(rows[-1]) + 1
            reason = _GHOST_REASON if ghostly[rows[0]] else _HOLE_REASON
            # Metadata alone cannot be sure.
            part = dataclasses.replace(range_, start_pfn=first, end_pfn=last, reason=reason)
            _add_partial(context, part, Case.GHOST if ghostly[rows[0]] else Case.PARTIAL)


_GHOST_REASON = "a hole in an early section whose struct pages a departed device left behind"
_HOLE_REASON = "a boot-time hole in an early section"


def _add_partial(context: Context, range_: Range, case: Case) -> None:
    range_ = dataclasses.replace(range_, case=case)
    context.results.ranges.append(range_)
    if case is Case.GHOST:
        _hazard(context, range_, "ghost-pages", read=reread_range)
    elif _shares_section_with_device(context, range_):
        unmapped = range_.memmap is Memmap.UNMAPPED
        _hazard(
            context,
            range_,
            "case3-partial",
            "its struct pages are "
            + ("unmapped: reading them faults" if unmapped else "those of a hole at boot"),
            read=reread_range,
        )


def _shares_section_with_device(context: Context, range_: Range) -> bool:
    pages = context.snapshot.geometry.pages_per_section
    start = range_.start_pfn // pages * pages
    end = -(-range_.end_pfn // pages) * pages
    return any(
        r.start_pfn < end and start < r.end_pfn
        for pgmap in context.snapshot.pgmaps
        for r in pgmap.ranges
    )
