# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Hazards
-------

Ranges whose struct pages the kernel promises nothing about: what a walker would read there.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from drgn import Program

from drgn_zonedev.findings import make_finding
from drgn_zonedev.kernel.memmap import head_pgmaps
from drgn_zonedev.model import Case, Evidence, EvidenceKind, Finding, Memmap, Pgmap, Range
from drgn_zonedev.util.intervals import Span, intersection, union
from drgn_zonedev.util.sets import containing
from drgn_zonedev.verification.context import Context, Reader, raw_page, read_range, reread_range
from drgn_zonedev.verification.dangling import dangling_pgmap
from drgn_zonedev.verification.holes import divide_hole
from drgn_zonedev.verification.patterns import Contents, page_contents
from drgn_zonedev.verification.runs import MAX_RUNS

__all__ = (
    "counted_pages",
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


def _holdings(
    context: Context, range_: Range, parts: Sequence[Range], read: Reader
) -> dict[Contents, _Holding]:
    holdings: dict[Contents, _Holding] = {}
    kinds = list(Contents)
    spans = np.array([(part.start_pfn, part.end_pfn) for part in parts])
    for pages in read(context, range_):
        codes = page_contents(context.prog, pages, range_.pgmap, frozenset(context.pgmaps))
        if len(parts) > 1:
            inside = containing(pages.pfn, spans[:, 0], spans[:, 1]) >= 0
            codes = np.where(inside, codes, len(kinds))
        for code, row, count in zip(*np.unique(codes, return_index=True, return_counts=True)):
            if code == len(kinds):
                continue
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
        facts.append(counted_pages(kind, holding.count))
        facts.append(holding.example)
        most = sorted(holding.pgmaps.items(), key=lambda item: (-item[1], item[0]))
        for pgmap, count in most[:_MAX_PGMAPS]:
            if kind is Contents.DANGLING_PGMAP:
                span = range_.start_pfn, range_.end_pfn
                facts.append(dangling_pgmap(prog, pgmap, count, span))
            else:
                facts.append(Evidence("pgmap", value=pgmap, note=f"of {count} struct pages"))
    return tuple(facts)


def counted_pages(contents: Contents, count: int) -> Evidence:
    """Get the fact that this many struct pages of a range hold something."""
    return Evidence(f"struct pages: {contents.value}", value=count, kind=EvidenceKind.PAGE_COUNT)


def _hazard(
    context: Context,
    range_: Range,
    slug: str,
    detail: str = "",
    *,
    parts: Sequence[Range] = (),
    read: Reader = read_range,
) -> Finding:
    # If it has parts, the range is about those alone.
    parts = parts or (range_,)
    holdings: dict[Contents, _Holding] = {}
    if range_.memmap is not Memmap.UNMAPPED:
        holdings = _holdings(context, range_, parts, read)
    dangling = holdings.get(Contents.DANGLING_PGMAP)
    if range_.case is Case.GHOST and dangling:
        pages = sum(part.pages for part in parts)
        detail = f"{dangling.count} of {pages} point to a pgmap that is not found in pgmap_array"
    initialized = holdings.get(Contents.INITIALIZED)
    if range_.case is Case.INITIALIZING and initialized:
        detail = f"{initialized.count} of {range_.pages} are done"
    return make_finding(
        slug,
        range_.case,
        range_.start_pfn,
        range_.end_pfn,
        count=sum(part.pages for part in parts),
        detail=detail,
        pgmap=range_.pgmap,
        evidence=range_.evidence + _contents_evidence(context.prog, range_, holdings),
    )


def _add(context: Context, range_: Range, finding: Finding) -> None:
    context.results.ranges.append(range_)
    context.results.findings.append(finding)


def verify_reserved(context: Context, range_: Range) -> None:
    _add(context, range_, _hazard(context, range_, "case5-reserved"))


def verify_initializing(context: Context, range_: Range) -> None:
    detail = "the memmap is not there yet" if range_.memmap is Memmap.UNMAPPED else ""
    _add(context, range_, _hazard(context, range_, "case4-initializing", detail))


def verify_teardown(context: Context, range_: Range) -> None:
    _add(context, range_, _hazard(context, range_, "teardown"))


def verify_orphan(context: Context, range_: Range) -> None:
    _add(context, range_, _hazard(context, range_, "orphan-section"))


def verify_hole(context: Context, range_: Range) -> None:
    parts = divide_hole(context, range_)
    context.results.ranges += parts
    shared = _sections_of_devices(context)
    ghosts, beside = [], []
    for part in parts:
        if part.case is Case.GHOST:
            ghosts.append(part)
        elif any(intersection((part.start_pfn, part.end_pfn), shared)):
            beside.append(part)
    state = "unmapped: reading them faults"
    if range_.memmap is not Memmap.UNMAPPED:
        state = "those of a hole at boot"
    found = [
        *_scattered(context, ghosts, "ghost-pages"),
        *_scattered(context, beside, "case3-partial", _beside(context, beside, state)),
    ]
    context.results.findings += sorted(found, key=lambda finding: finding.start_pfn)


def _beside(context: Context, parts: Sequence[Range], state: str) -> str:
    rest = _rest(context, parts) if parts else ""
    return f"its struct pages are {state}{rest}"


def _rest(context: Context, parts: Sequence[Range]) -> str:
    # Who has the rest of the sections that the parts are in.
    geometry, sections = context.snapshot.geometry, context.snapshot.sections
    pages = geometry.pages_per_section
    start = parts[0].start_pfn // pages * pages
    end = -(-parts[-1].end_pfn // pages) * pages
    owners = {p.address: _common(p, start, end) for p in context.snapshot.pgmaps}
    found = [f"{count} pages of pgmap {address:#x}" for address, count in owners.items() if count]
    units = np.arange(start, end, geometry.pages_per_subsection)
    rows = sections.row_of(units)
    populated = (rows >= 0) & sections.test_bit(sections.subsection_map, rows, units)
    ram = int(populated.sum()) * geometry.pages_per_subsection - sum(owners.values())
    if ram > 0:
        found.append(f"{ram} pages of RAM")
    return f"; the rest of its section: {', '.join(found)}" if found else ""


def _common(pgmap: Pgmap, start_pfn: int, end_pfn: int) -> int:
    spans = ((max(r.start_pfn, start_pfn), min(r.end_pfn, end_pfn)) for r in pgmap.ranges)
    return sum(max(end - start, 0) for start, end in spans)


def _scattered(
    context: Context, parts: Sequence[Range], slug: str, detail: str = ""
) -> Iterator[Finding]:
    # Like Runs.reported().
    if len(parts) > MAX_RUNS:
        whole = dataclasses.replace(parts[0], end_pfn=parts[-1].end_pfn)
        yield _hazard(context, whole, slug, detail, parts=parts, read=reread_range)
        return
    for part in parts:
        yield _hazard(context, part, slug, detail, parts=(part,), read=reread_range)


def _sections_of_devices(context: Context) -> tuple[Span, ...]:
    pages = context.snapshot.geometry.pages_per_section
    return union(
        (r.start_pfn // pages * pages, -(-r.end_pfn // pages) * pages)
        for pgmap in context.snapshot.pgmaps
        for r in pgmap.ranges
        if r.start_pfn < r.end_pfn
    )
