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

from drgn_zonedev.aliases import NO_ALIASES, Backing, find_aliases, illegal_aliases
from drgn_zonedev.contents import Contents, is_kernel_pointer, page_contents
from drgn_zonedev.dangling import dangling_pgmap
from drgn_zonedev.expected import (
    Deviation,
    DevicePages,
    builds_folios,
    device_deviations,
    fewest_references,
    metadata_deviations,
)
from drgn_zonedev.findings import make_finding
from drgn_zonedev.handles import bind
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
    Unjudged,
)
from drgn_zonedev.scan import Context, Progress, Results, raw_page, read_range
from drgn_zonedev.snapshot import Snapshot, take_snapshot

__all__ = ("PageVerdict", "Verification", "verify", "verify_pfn", "verify_snapshot")

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
    verification = verify_snapshot(prog, take_snapshot(prog), ranges)
    for part in (*verification.ranges, *verification.findings):
        bind(prog, part)
    return verification


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
    backings = [_backing(context, r) for r in ranges if r.case in (Case.DEVICE, Case.METADATA)]
    context = dataclasses.replace(context, aliases=find_aliases(prog, backings))
    context.results.findings += illegal_aliases(context.aliases, backings)
    for range_ in ranges:
        _VERIFIERS.get(range_.case, _verify_nothing)(context, range_)
    results = context.results
    return Verification(
        ranges=tuple(results.ranges),
        findings=tuple(results.findings),
        unjudged=tuple(results.unjudged),
        coverage=Coverage(
            results.pages_verified,
            results.pages_unreadable,
            results.bytes_read,
            results.aliases_skipped,
        ),
    )


def _backing(context: Context, range_: Range) -> Backing:
    assert range_.pgmap is not None
    pgmap = context.pgmaps[range_.pgmap]
    shift = pgmap.vmemmap_shift if range_.case is Case.DEVICE else 0
    return Backing(range_, _initialized_by_driver(pgmap, range_)[0], shift)


def _context(prog: Program, snapshot: Snapshot, progress: Progress) -> Context:
    return Context(
        prog=prog,
        snapshot=snapshot,
        pgmaps={p.address: p for p in snapshot.pgmaps},
        live=bool(prog.flags & ProgramFlags.IS_LIVE),
        progress=progress,
        results=Results(),
        aliases=NO_ALIASES,
    )


@dataclass(frozen=True)
class PageVerdict:
    """
    What verification says of one page: its range, with the case that struct pages
    tell apart; what is wrong or dangerous; and the promise, if there is one.
    """

    range: Range
    findings: tuple[Finding, ...]
    promise: DevicePages | None


def verify_pfn(prog: Program, snapshot: Snapshot, range_: Range, pfn: int) -> PageVerdict:
    """Verify one struct page of a range, and judge it by that page alone."""
    context = _context(prog, snapshot, lambda pages: None)
    page = dataclasses.replace(range_, start_pfn=pfn, end_pfn=pfn + 1)
    promise = None
    if range_.case in (Case.DEVICE, Case.METADATA):
        compare = _comparison(context, range_)
        assert compare is not None
        _report_deviations(context, page, compare)
        promise = _promise(context, range_)
    else:
        _VERIFIERS.get(range_.case, _verify_nothing)(context, page)
    results = context.results
    case = results.ranges[0].case if results.ranges else range_.case
    reason = results.ranges[0].reason if results.ranges else range_.reason
    return PageVerdict(
        dataclasses.replace(range_, case=case, reason=reason), tuple(results.findings), promise
    )


def _verify_nothing(context: Context, range_: Range) -> None:
    context.results.ranges.append(range_)
    if range_.case is Case.UNKNOWN:
        said = any(
            u.start_pfn <= range_.start_pfn and range_.end_pfn <= u.end_pfn
            for u in context.snapshot.unjudged
        )
        if not said:
            context.results.unjudged.append(
                Unjudged(range_.start_pfn, range_.end_pfn, range_.reason)
            )


Compare = Callable[[Pages], Iterator[Deviation]]


def _comparison(context: Context, range_: Range) -> Compare | None:
    if range_.case is Case.METADATA:
        nodes = _nodes(context, range_)
        return lambda pages: metadata_deviations(context.prog, pages, nodes)
    if range_.case is Case.DEVICE:
        promise = _promise(context, range_)
        return lambda pages: device_deviations(context.prog, pages, promise)
    return None


def _verify_promised(context: Context, range_: Range) -> None:
    context.results.ranges.append(range_)
    compare = _comparison(context, range_)
    assert compare is not None
    _report_deviations(context, range_, compare)
    if range_.case is Case.DEVICE and not _nodes(context, range_):
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
        nodes=_nodes(context, range_),
        vmemmap_shift=pgmap.vmemmap_shift,
        folios=builds_folios(layout, pgmap),
        fewest_references=fewest_references(layout, pgmap),
    )


def _nodes(context: Context, range_: Range) -> tuple[int, ...]:
    # Nodes whose ZONE_DEVICE spans a range.
    return tuple(
        nid
        for nid, (start, end) in context.snapshot.zone_device_spans.items()
        if start <= range_.start_pfn and range_.end_pfn <= end
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
    def compare_unshared(pages: Pages) -> Iterator[Deviation]:
        unshared = ~context.aliases.skipped(pages.pfn)
        for d in compare(pages):
            yield dataclasses.replace(d, wrong=d.wrong & unshared)

    runs: dict[str, list[_Run]] = {}
    for pages in _read_unshared(context, range_):
        for deviation in _confirmed(context, pages, compare_unshared):
            _add_runs(context, runs.setdefault(deviation.slug, []), pages, deviation)
    for slug, found in runs.items():
        if len(found) > _MAX_RUNS:
            count = sum(run.count for run in found)
            found = [dataclasses.replace(found[0], end_pfn=found[-1].end_pfn, count=count)]
        context.results.findings += [_error(context, slug, range_, run) for run in found]


# The unit in which struct pages are skipped without being read.
_ALIAS_CHUNK = 16384


def _read_unshared(context: Context, range_: Range) -> Iterator[Pages]:
    # Whole chunks of aliases are not read at all: of a compound page of 1 GiB, two
    # pages in 4096 are left.
    results = context.results
    for start, end, count in _runs_of_chunks(context, range_):
        results.aliases_skipped += count
        if count == end - start:
            results.pages_verified += count
            context.progress(count)
        else:
            part = dataclasses.replace(range_, start_pfn=start, end_pfn=end)
            yield from read_range(context, part)


def _runs_of_chunks(context: Context, range_: Range) -> Iterator[tuple[int, int, int]]:
    # Yields (start, end, number of aliases), where either all are aliases, or each
    # chunk has something to read.
    run: tuple[int, int, int] | None = None
    for start in range(range_.start_pfn, range_.end_pfn, _ALIAS_CHUNK):
        end = min(start + _ALIAS_CHUNK, range_.end_pfn)
        count = int(context.aliases.skipped(np.arange(start, end)).sum())
        if run and (count == end - start) == (run[2] == run[1] - run[0]):
            run = run[0], end, run[2] + count
            continue
        if run:
            yield run
        run = start, end, count
    if run:
        yield run


def _confirmed(context: Context, pages: Pages, compare: Compare) -> list[Deviation]:
    # A running kernel changes pages while they are read. What is really wrong
    # stays wrong.
    deviations = [d for d in compare(pages) if d.wrong.any()]
    for _ in range(_LIVE_REREADS if context.live and deviations else 0):
        again = next(read_pages(context.prog, pages.start_pfn, pages.end_pfn))
        if not isinstance(again, Pages) or again.end_pfn != pages.end_pfn:
            _unjudge(context, deviations, pages, "could not be read again")
            return []
        still = {d.slug: d.wrong for d in compare(again)}
        deviations = [
            dataclasses.replace(d, wrong=d.wrong & still[d.slug])
            for d in deviations
            if (d.wrong & still[d.slug]).any()
        ]
    return deviations


def _unjudge(context: Context, deviations: list[Deviation], pages: Pages, reason: str) -> None:
    # What looked wrong, and could not be confirmed.
    for d in deviations:
        rows = np.flatnonzero(d.wrong)
        start, end = pages.start_pfn + int(rows[0]), pages.start_pfn + int(rows[-1]) + 1
        context.results.unjudged.append(Unjudged(start, end, f"{d.slug}: {reason}"))


@dataclass(frozen=True)
class _Run:
    start_pfn: int
    end_pfn: int
    count: int
    evidence: Evidence
    raw: Evidence
    contents: str


def _add_runs(context: Context, runs: list[_Run], pages: Pages, deviation: Deviation) -> None:
    rows = np.flatnonzero(deviation.wrong)
    for group in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
        start = pages.start_pfn + int(group[0])
        end = pages.start_pfn + int(group[-1]) + 1
        if runs and runs[-1].end_pfn == start:
            last = runs[-1]
            runs[-1] = dataclasses.replace(last, end_pfn=end, count=last.count + len(group))
        else:
            row = int(group[0])
            fact, raw = _fact(pages, deviation, row), raw_page(pages, row)
            contents = _contents(context, pages, row, deviation.slug)
            runs.append(_Run(start, end, len(group), fact, raw, contents))


def _contents(context: Context, pages: Pages, row: int, slug: str) -> str:
    # Only what was never written can hold anything.
    if not slug.endswith("-uninitialized"):
        return ""
    pfn = pages.start_pfn + row
    page = Pages(pfn, pfn + 1, pages.words[row : row + 1], pages.layout)
    code = page_contents(context.prog, page, None, frozenset(context.pgmaps))[0]
    return f"the first one holds: {list(Contents)[code].value}"


def _fact(pages: Pages, deviation: Deviation, row: int) -> Evidence:
    rows = (len(pages.words),)
    expected = np.broadcast_to(deviation.expected, rows)
    offset = np.broadcast_to(deviation.offset, rows)
    return Evidence(
        what=f"{deviation.what} of PFN {pages.start_pfn + row:#x}",
        address=int(pages.address[row]) + int(offset[row]),
        value=int(deviation.found[row]),
        expected=int(expected[row]),
    )


def _error(context: Context, slug: str, range_: Range, run: _Run) -> Finding:
    details = [run.contents] if run.contents else []
    shared = context.aliases.shared_with(run.start_pfn, run.end_pfn) if run.count == 1 else 0
    if shared:
        details.append(f"{shared} more struct pages have the same memory")
    return make_finding(
        slug,
        range_.case,
        run.start_pfn,
        run.end_pfn,
        count=run.count,
        detail="; ".join(details),
        pgmap=range_.pgmap,
        evidence=(run.evidence, run.raw, *_where_it_leads(context, slug, run)),
    )


def _where_it_leads(context: Context, slug: str, run: _Run) -> Iterator[Evidence]:
    # A page that does not lead to its pgmap may still lead to one that is gone.
    word = run.evidence.value
    if slug != "device-page-pgmap" or word is None or word in context.pgmaps:
        return
    if is_kernel_pointer(word):
        span = (run.start_pfn, run.end_pfn)
        yield dangling_pgmap(context.prog, word, run.count, span)


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
