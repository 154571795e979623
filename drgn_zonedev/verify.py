# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Verification
------------

The struct pages of each range against what its case promises.

A ``device`` range promises initialised struct pages, so a deviation is an
error. The other cases promise nothing: there, a finding says that walkers can
meet the range, and what they would read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from drgn import Program, ProgramFlags
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.expected import (
    Deviation,
    DevicePages,
    device_deviations,
    metadata_deviations,
)
from drgn_zonedev.hazards import (
    verify_hole,
    verify_initializing,
    verify_orphan,
    verify_reserved,
    verify_teardown,
)
from drgn_zonedev.kernel.memmap import Pages, page_layout, read_pages
from drgn_zonedev.model import (
    Case,
    Coverage,
    Evidence,
    Finding,
    Pgmap,
    Range,
    Severity,
    Unjudged,
)
from drgn_zonedev.scan import Context, Progress, Results, raw_page, read_range
from drgn_zonedev.snapshot import Snapshot, take_snapshot

__all__ = ("Verification", "verify", "verify_snapshot")

# A page on a running kernel that is wrong only now and then is being written.
_LIVE_REREADS = 3

# Runs of wrong pages that are reported one by one; what is more scattered than
# that becomes one finding with a count.
_MAX_RUNS = 32


@dataclass(frozen=True)
class Verification:
    """
    What the struct pages say.

    ``ranges`` are those that were given, except that parts of early sections
    that only struct pages can tell apart (holes and ghosts) are divided.
    """

    ranges: tuple[Range, ...]
    findings: tuple[Finding, ...]
    unjudged: tuple[Unjudged, ...]
    coverage: Coverage


@takes_program_or_default
def verify(prog: Program, ranges: list[Range]) -> Verification:
    """
    Verify the struct pages of ranges that :func:`~drgn_zonedev.classify.classify`
    returned.

    :raises LookupError: if the debugging information lacks what is needed
    """
    return verify_snapshot(prog, take_snapshot(prog), ranges)


def verify_snapshot(
    prog: Program,
    snapshot: Snapshot,
    ranges: list[Range],
    progress: Progress = lambda pages: None,
) -> Verification:
    """
    Like :func:`verify`, for structures that were already read.

    :param progress: Called with the number of pages that were just read.
    """
    context = _context(prog, snapshot, progress)
    for range_ in ranges:
        _VERIFIERS.get(range_.case, _verify_nothing)(context, range_)
    results = context.results
    return Verification(
        ranges=tuple(results.ranges),
        findings=tuple(results.findings),
        unjudged=tuple(results.unjudged),
        coverage=Coverage(results.pages_verified, results.pages_unreadable, results.bytes_read),
    )


def _context(prog: Program, snapshot: Snapshot, progress: Progress) -> Context:
    return Context(
        prog=prog,
        snapshot=snapshot,
        pgmaps={p.address: p for p in snapshot.pgmaps},
        live=bool(prog.flags & ProgramFlags.IS_LIVE),
        progress=progress,
        results=Results(),
    )


def verify_pfn(prog: Program, snapshot: Snapshot, range_: Range, pfn: int) -> tuple[Finding, ...]:
    """Verify one struct page of a range; only what is promised can be wrong."""
    context = _context(prog, snapshot, lambda pages: None)
    compare = _comparison(context, range_)
    if compare:
        page = dataclasses.replace(range_, start_pfn=pfn, end_pfn=pfn + 1)
        _report_deviations(context, page, compare)
    return tuple(context.results.findings)


def _verify_nothing(context: Context, range_: Range) -> None:
    context.results.ranges.append(range_)
    if range_.case is Case.UNKNOWN:
        context.results.unjudged.append(Unjudged(range_.start_pfn, range_.end_pfn, range_.reason))


Compare = Callable[[Pages], Iterator[Deviation]]


def _comparison(context: Context, range_: Range) -> Compare | None:
    if range_.case is Case.METADATA:
        return metadata_deviations
    if range_.case is Case.DEVICE:
        promise = _promise(context, range_)
        return lambda pages: device_deviations(context.prog, pages, promise)
    return None


def _verify_promised(context: Context, range_: Range) -> None:
    context.results.ranges.append(range_)
    compare = _comparison(context, range_)
    assert compare is not None
    _report_deviations(context, range_, compare)
    if range_.case is Case.DEVICE and not _promise(context, range_).nodes:
        reason = "no node's ZONE_DEVICE spans the range: the node of its pages was not judged"
        context.results.unjudged.append(Unjudged(range_.start_pfn, range_.end_pfn, reason))


def _promise(context: Context, range_: Range) -> DevicePages:
    assert range_.pgmap is not None
    pgmap = context.pgmaps[range_.pgmap]
    layout = page_layout(context.prog)
    first_pfn, end_pfn = _initialized_by_driver(pgmap, range_)
    return DevicePages(
        pgmap=pgmap.address,
        first_pfn=first_pfn,
        end_pfn=end_pfn,
        nodes=tuple(
            nid
            for nid, (start, end) in context.snapshot.zone_device_spans.items()
            if start <= range_.start_pfn and range_.end_pfn <= end
        ),
        vmemmap_shift=pgmap.vmemmap_shift,
        folios=layout.pgmap_in_folio
        and pgmap.type in ("MEMORY_DEVICE_FS_DAX", "MEMORY_DEVICE_PRIVATE"),
    )


def _initialized_by_driver(pgmap: Pgmap, range_: Range) -> tuple[int, int]:
    # Where memmap_init_zone_device() started, and ended: a compound page is
    # counted from there, not from where this range happens to begin.
    for i, whole in enumerate(pgmap.ranges):
        if whole.start_pfn <= range_.start_pfn < whole.end_pfn:
            head = pgmap.altmap.offset if pgmap.altmap and i == 0 else 0
            return whole.start_pfn + head, whole.end_pfn
    return range_.start_pfn, range_.end_pfn


def _report_deviations(context: Context, range_: Range, compare: Compare) -> None:
    runs: dict[str, list[_Run]] = {}
    for pages in read_range(context, range_):
        for deviation in _confirmed(context, pages, compare):
            _add_runs(runs.setdefault(deviation.slug, []), pages, deviation)
    for slug, found in runs.items():
        if len(found) > _MAX_RUNS:
            count = sum(run.count for run in found)
            found = [dataclasses.replace(found[0], end_pfn=found[-1].end_pfn, count=count)]
        context.results.findings += [_error(slug, range_, run) for run in found]


def _confirmed(context: Context, pages: Pages, compare: Compare) -> list[Deviation]:
    # A running kernel changes pages while they are read. What is really wrong
    # stays wrong.
    deviations = [d for d in compare(pages) if d.wrong.any()]
    for _ in range(_LIVE_REREADS if context.live and deviations else 0):
        again = next(read_pages(context.prog, pages.start_pfn, pages.end_pfn))
        if not isinstance(again, Pages) or again.end_pfn != pages.end_pfn:
            return []
        still = {d.slug: d.wrong for d in compare(again)}
        deviations = [
            dataclasses.replace(d, wrong=d.wrong & still[d.slug])
            for d in deviations
            if (d.wrong & still[d.slug]).any()
        ]
    return deviations


@dataclass(frozen=True)
class _Run:
    start_pfn: int
    end_pfn: int
    count: int
    evidence: Evidence
    raw: Evidence


def _add_runs(runs: list[_Run], pages: Pages, deviation: Deviation) -> None:
    rows = np.flatnonzero(deviation.wrong)
    for group in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
        start = pages.start_pfn + int(group[0])
        end = pages.start_pfn + int(group[-1]) + 1
        if runs and runs[-1].end_pfn == start:
            last = runs[-1]
            runs[-1] = dataclasses.replace(last, end_pfn=end, count=last.count + len(group))
        else:
            fact = _fact(pages, deviation, int(group[0]))
            runs.append(_Run(start, end, len(group), fact, raw_page(pages, int(group[0]))))


def _fact(pages: Pages, deviation: Deviation, row: int) -> Evidence:
    expected = np.broadcast_to(deviation.expected, (len(pages.words),))
    return Evidence(
        what=f"{deviation.what} of PFN {pages.start_pfn + row:#x}",
        address=int(pages.address[row]) + deviation.offset,
        value=int(deviation.found[row]),
        expected=int(expected[row]),
    )


_MESSAGES = {
    "device-page-uninitialized": "memmap_init_zone_device() never wrote these struct pages, "
    "although nr_range says that it was through",
    "device-page-zone": "the pgmap claims these pages, but they are not in ZONE_DEVICE",
    "device-page-node": "these device pages belong to a node whose ZONE_DEVICE is elsewhere",
    "device-page-pgmap": "these device pages do not lead to the pgmap that pgmap_array holds",
    "device-head-flag": "the heads of compound device pages lack PG_head",
    "device-tail-link": "tails of compound device pages do not link to their head",
    "metadata-page-uninitialized": "memmap_init_range() never wrote these struct pages",
    "metadata-page-zone": "pages of the altmap are not in ZONE_DEVICE",
    "metadata-page-link": "pages of the altmap are on a list, or hold a pgmap",
}


def _error(slug: str, range_: Range, run: _Run) -> Finding:
    return Finding(
        slug=slug,
        severity=Severity.ERROR,
        case=range_.case,
        start_pfn=run.start_pfn,
        end_pfn=run.end_pfn,
        count=run.count,
        message=_MESSAGES[slug],
        pgmap=range_.pgmap,
        evidence=(run.evidence, run.raw),
    )


_VERIFIERS = {
    Case.DEVICE: _verify_promised,
    Case.METADATA: _verify_promised,
    Case.RESERVED: verify_reserved,
    Case.INITIALIZING: verify_initializing,
    Case.TEARDOWN: verify_teardown,
    Case.ORPHAN: verify_orphan,
    Case.PARTIAL: verify_hole,
    Case.GHOST: verify_hole,
}
