# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Verification
------------

Compares the struct pages of each range with what its case promises.

A ``device`` range promises initialised struct pages, so a deviation is an
error. The other cases promise nothing: there, a finding says that walkers can
meet the range, and what they would read.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from drgn import Program
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.findings import make_finding
from drgn_zonedev.kernel.memmap import Pages, page_layout
from drgn_zonedev.model import (
    Case,
    Coverage,
    Evidence,
    Finding,
    FreeBlocks,
    Memmap,
    MemmapPart,
    PageCounts,
    Pgmap,
    Range,
    Unjudged,
)
from drgn_zonedev.util.handles import bind
from drgn_zonedev.util.intervals import Span, difference, intersection, union
from drgn_zonedev.verification.context import (
    Context,
    Progress,
    Results,
    no_progress,
    raw_page,
    unreadable,
)
from drgn_zonedev.verification.dangling import dangling_pgmap
from drgn_zonedev.verification.hazards import (
    verify_hole,
    verify_initializing,
    verify_orphan,
    verify_reserved,
    verify_teardown,
)
from drgn_zonedev.verification.holes import divide_hole
from drgn_zonedev.verification.page_access import (
    access_before,
    access_marks,
    divided_by_access,
    listed_access,
)
from drgn_zonedev.verification.patterns import Contents, is_kernel_pointer, page_contents
from drgn_zonedev.verification.promises import DevicePages, MetadataPages, Promise, RamPages
from drgn_zonedev.verification.ram_aliases import (
    find_ram_aliases,
    illegal_ram_aliases,
    own_spans,
    unreadable_ram_aliases,
)
from drgn_zonedev.verification.ram_memmap import verify_block_memmap, verify_deferred
from drgn_zonedev.verification.ram_window import window_size
from drgn_zonedev.verification.ram_zones import knows_zones, ram_promises
from drgn_zonedev.verification.references import (
    compare_references,
    counts_pages_in_use,
    uncounted,
)
from drgn_zonedev.verification.runs import MAX_RUNS, Run
from drgn_zonedev.verification.scan import scan, scanning
from drgn_zonedev.verification.shared_vmemmap import (
    NO_ALIASES,
    Aliases,
    Backing,
    find_aliases,
    illegal_aliases,
)
from drgn_zonedev.verification.task import ScanAll, scan_here
from drgn_zonedev.verification.work import Scanned, Work
from drgn_zonedev.vmcore.exported import exported_ram

__all__ = (
    "PROMISED",
    "BegunVerification",
    "PageVerdict",
    "Verification",
    "begin_verification",
    "divide_holes",
    "finish_verification",
    "verify",
    "verify_pfn",
    "verify_snapshot",
)

# For other cases, the kernel makes no promise, or leaves the struct pages to their users.
PROMISED = (Case.DEVICE, Case.METADATA, Case.ONLINE)


@dataclass(frozen=True)
class Verification:
    """
    What the struct pages say.

    ``ranges`` are those that were given, except that parts of early sections
    that only struct pages can tell apart (holes and ghosts) are divided. ``free_blocks``
    are those of the RAM that was looked at, ``memmap`` is the memory that struct pages are in.
    """

    ranges: tuple[Range, ...]
    findings: tuple[Finding, ...]
    unjudged: tuple[Unjudged, ...]
    coverage: Coverage
    free_blocks: FreeBlocks = field(default_factory=FreeBlocks)
    memmap: tuple[MemmapPart, ...] = ()


@takes_program_or_default
def verify(prog: Program, ranges: list[Range]) -> Verification:
    """
    Verify the struct pages of ranges that :func:`~drgn_zonedev.classification.classify.classify`
    returned. Ranges of a pgmap that has gone since then are unjudged.

    :raises LookupError: if the debugging information does not have what is needed
    :raises TypeError: if anything but a range is given
    """
    for range_ in ranges:
        if not isinstance(range_, Range):
            raise TypeError(f"expected a Range of classify(), got {type(range_).__name__}")
    verification = verify_snapshot(prog, take_snapshot(prog), ranges)
    for part in (*verification.ranges, *verification.findings):
        bind(prog, part)
    return verification


def verify_snapshot(
    prog: Program,
    snapshot: Snapshot,
    ranges: list[Range],
    progress: Progress = no_progress,
    scan_all: ScanAll = scan_here,
) -> Verification:
    """Like :func:`verify`, for structures that were already read."""
    return finish_verification(begin_verification(prog, snapshot, ranges, progress, scan_all))


@dataclass(frozen=True)
class BegunVerification:
    """Other processes may go through struct pages already; results come from this one."""

    context: Context
    ranges: Sequence[Range]
    verifiers: Sequence[_Verifier]


def begin_verification(
    prog: Program,
    snapshot: Snapshot,
    ranges: list[Range],
    progress: Progress,
    scan_all: ScanAll,
) -> BegunVerification:
    """
    Begin a verification that :func:`finish_verification()` completes.

    :param progress: Called with the number of bytes of struct pages that were scanned
        since the last call, and with their total number.
    :param scan_all: Scans the struct pages that have promises.
    """
    context = _context(prog, snapshot)
    claims = {p.address: union((r.start_pfn, r.end_pfn) for r in p.ranges) for p in snapshot.pgmaps}
    verifiers = [_verifier(context, claims, r) for r in ranges]
    promised = [r for r, f in zip(ranges, verifiers) if f in _PROMISES]
    aliases, works = _works(context, promised)
    hazards = (r for r, f in zip(ranges, verifiers) if f not in (*_PROMISES, *_READS_NO_HAZARD))
    total = sum(work.pages for of_range in works for work in of_range)
    total += sum(r.pages for r in hazards if r.memmap is not Memmap.UNMAPPED)

    def count_pages(pages: int) -> None:
        size = page_layout(prog).size
        progress(size * pages, size * total)

    every = list(itertools.chain(*works))
    # With nothing to go through, there may be no memmap whose layout could be asked for.
    scanned = scan_all(prog, scanning(page_layout(prog)), every, count_pages) if every else iter(())
    context.results.findings += illegal_aliases(aliases)
    context = dataclasses.replace(
        context, aliases=aliases, progress=count_pages, scanned=_together(prog, works, scanned)
    )
    return BegunVerification(context, ranges, verifiers)


def finish_verification(begun: BegunVerification) -> Verification:
    """Get what the struct pages say."""
    context, results = begun.context, begun.context.results
    for range_, verify_range in zip(begun.ranges, begun.verifiers):
        verify_range(context, range_)
    pgmaps = context.snapshot.pgmaps
    counted = _counted(context)
    results.findings += compare_references(context.prog, pgmaps, counted, results.ranges)
    results.unjudged += uncounted(pgmaps, results.ranges)
    return Verification(
        ranges=tuple(results.ranges),
        findings=tuple(results.findings),
        unjudged=tuple(results.unjudged),
        coverage=results.coverage(),
        free_blocks=FreeBlocks(dict(results.free), union(results.unread)),
    )


def _is_ram(range_: Range) -> bool:
    # RAM that stores the memmap of its memory block is, too.
    return range_.case is Case.ONLINE or (range_.case is Case.METADATA and range_.pgmap is None)


def _works(context: Context, ranges: Sequence[Range]) -> tuple[Aliases, list[list[Work]]]:
    # What there is to go through, for each range of which something is promised.
    devices = [r for r in ranges if not _is_ram(r)]
    aliases = find_aliases(context.prog, [_backing(context, r) for r in devices])
    spans = iter(aliases.spans)
    works = [
        _ram_works(context, r) if _is_ram(r) else [Work(_promise(context, r), next(spans))]
        for r in ranges
    ]
    return aliases, works


def _ram_works(context: Context, range_: Range) -> list[Work]:
    works, zones = [], context.snapshot.zones
    for part in _exported(context, range_):
        aliases = find_ram_aliases(context.prog, *part)
        for promise in ram_promises(context.prog, zones, *part, context.hot_added_zones):
            start, end, window = promise.start_pfn, promise.end_pfn, window_size(promise)
            spans = own_spans(context.prog, promise.kinds, aliases, start, end, window)
            context.results.findings += illegal_ram_aliases(spans)
            # No block and no compound page has pages that store the memmap, and others.
            around = spans.around if range_.case is Case.ONLINE else promise.around
            works.append(Work(dataclasses.replace(promise, around=around), spans.own))
    return works


def _exported(context: Context, range_: Range) -> tuple[Span, ...]:
    span = range_.start_pfn, range_.end_pfn
    # Exports have what stores the memmap of a memory block.
    if context.exported is None or range_.case is not Case.ONLINE:
        return (span,)
    return tuple(intersection(span, context.exported))


def _together(
    prog: Program, works: Sequence[Sequence[Work]], scanned: Iterator[Scanned]
) -> Iterator[Scanned]:
    # Joins the results of all works of each range.
    lost = False
    for of_range in works:
        whole = Scanned()
        for _ in of_range:
            whole.extend(next(scanned))
        of_ram = [work for work in of_range if isinstance(work.promise, RamPages)]
        # Aliases have the memory of pages before them.
        lost |= bool(of_ram and whole.gaps)
        for promise, spans in ((w.promise, w.spans) for w in of_ram):
            assert isinstance(promise, RamPages)
            span = promise.start_pfn, promise.end_pfn
            if lost or not len(spans) or spans[0, 0] > span[0]:
                whole.insert_gaps(unreadable_ram_aliases(prog, span, spans))
        yield whole


def _verifier(context: Context, claims: dict[int, tuple[Span, ...]], range_: Range) -> _Verifier:
    if range_.case is Case.ONLINE and not _exported(context, range_):
        return _verify_not_exported
    if range_.pgmap is None:
        return _verifier_without_pgmap(context.snapshot, range_)
    if range_.case not in _VERIFIERS:
        return _verify_nothing
    # Another device may have got the memory of its pgmap.
    span = range_.start_pfn, range_.end_pfn
    inside = next(intersection(span, claims.get(range_.pgmap, ())), None) == span
    return _VERIFIERS[range_.case] if inside else _verify_gone


def _verifier_without_pgmap(snapshot: Snapshot, range_: Range) -> _Verifier:
    if range_.case is Case.INITIALIZING:
        return verify_deferred
    if range_.case is Case.METADATA:
        # Those of a block that is offline hold garbage.
        online = snapshot.is_online(range_.start_pfn)
        return _verify_block_memmap if online else _verify_nothing
    return _VERIFIERS.get(range_.case, _verify_nothing)


def _backing(context: Context, range_: Range) -> Backing:
    assert range_.pgmap is not None
    pgmap = context.pgmaps[range_.pgmap]
    shift = pgmap.vmemmap_shift if range_.case is Case.DEVICE else 0
    return Backing(range_, _initialized_by_driver(pgmap, range_)[0], shift)


def _context(prog: Program, snapshot: Snapshot) -> Context:
    return Context(
        prog=prog,
        snapshot=snapshot,
        pgmaps={p.address: p for p in snapshot.pgmaps},
        progress=lambda pages: None,
        results=Results(),
        aliases=NO_ALIASES,
        scanned=iter(()),
        exported=exported_ram(prog),
    )


@dataclass(frozen=True)
class PageVerdict:
    """
    What verification says of one page: its range, with the case that struct pages
    tell apart; what is wrong or dangerous; and the promise, if there is one.
    """

    range: Range
    findings: tuple[Finding, ...]
    promise: Promise | None


def verify_pfn(prog: Program, snapshot: Snapshot, range_: Range, pfn: int) -> PageVerdict:
    """Verify one struct page of a range, and judge it by that page alone."""
    context = _context(prog, snapshot)
    page = dataclasses.replace(range_, start_pfn=pfn, end_pfn=pfn + 1)
    promise: Promise | None = None
    if range_.case is Case.METADATA and _verifier(context, {}, page) is _verify_block_memmap:
        (work,) = _ram_works(context, page)
        promise = work.promise
        _judge_block_memmap(context, page, scan(prog, page_layout(prog), work))
    elif range_.case is Case.ONLINE:
        # Nothing is promised of an alias alone, or of what an export has by chance.
        for work in (work for work in _ram_works(context, page) if work.pages):
            promise = work.promise
            _judge(context, page, scan(prog, page_layout(prog), work), 1)
    elif range_.case in PROMISED and range_.pgmap is not None:
        promise = _promise(context, range_)
        work = Work(promise, np.array([[pfn, pfn + 1]]))
        _judge(context, page, scan(prog, page_layout(prog), work), 1)
    else:
        verifier = _verifier_without_pgmap(snapshot, page)
        (verifier if page.pgmap is None else _VERIFIERS.get(page.case, _verify_nothing))(
            context, page
        )
    results = context.results
    case = results.ranges[0].case if results.ranges else range_.case
    reason = results.ranges[0].reason if results.ranges else range_.reason
    return PageVerdict(
        dataclasses.replace(range_, case=case, reason=reason), tuple(results.findings), promise
    )


def divide_holes(prog: Program, snapshot: Snapshot, ranges: Iterable[Range]) -> tuple[Range, ...]:
    """
    Tell holes in early sections from ghosts by their struct pages, and nothing else:
    the ranges are those that :func:`verify_snapshot` returns, at the cost of the holes.
    """
    context = _context(prog, snapshot)
    holes = (Case.PARTIAL, Case.GHOST)
    divided = (divide_hole(context, r) if r.case in holes else [r] for r in ranges)
    return tuple(itertools.chain.from_iterable(divided))


def _verify_nothing(context: Context, range_: Range) -> None:
    context.results.ranges.append(range_)
    is_reported = context.snapshot.is_reported(range_.start_pfn, range_.end_pfn)
    if range_.case is Case.UNKNOWN and not is_reported:
        gap = Unjudged(range_.start_pfn, range_.end_pfn, range_.reason)
        context.results.unjudged.append(gap)


def _verify_gone(context: Context, range_: Range) -> None:
    context.results.ranges.append(range_)
    reason = "its pgmap has gone since it was classified"
    context.results.unjudged.append(Unjudged(range_.start_pfn, range_.end_pfn, reason))


def _verify_block_memmap(context: Context, range_: Range) -> None:
    context.results.ranges.append(range_)
    _judge_block_memmap(context, range_, next(context.scanned))


def _judge_block_memmap(context: Context, range_: Range, scanned: Scanned) -> None:
    # What is free there is reported as that, whatever else is wrong with a free block.
    free = [slug for slug in scanned.runs if slug.startswith("ram-free-")]
    for slug in free:
        del scanned.runs[slug]
    _judge(context, range_, scanned, range_.pages)
    verify_block_memmap(context, range_)


def _verify_not_exported(context: Context, range_: Range) -> None:
    context.results.ranges.append(range_)
    _count_not_exported(context, range_)


def _count_not_exported(context: Context, range_: Range) -> int:
    left_out = list(difference((range_.start_pfn, range_.end_pfn), _exported(context, range_)))
    pages = sum(end - start for start, end in left_out)
    context.results.count(range_.case, PageCounts(not_exported=pages))
    context.results.unread += left_out
    return pages


def _verify_promised(context: Context, range_: Range) -> None:
    scanned = next(context.scanned)
    before = access_before(
        context.prog, page_layout(context.prog), access_marks(context.prog), range_.start_pfn
    )
    listed = listed_access(context.prog) if range_.case is Case.ONLINE else ()
    context.results.ranges += divided_by_access(range_, [*before, *listed, *scanned.access])
    left_out = _count_not_exported(context, range_) if range_.case is Case.ONLINE else 0
    _judge(context, range_, scanned, range_.pages - left_out)
    zones = context.snapshot.zones
    if range_.case is Case.ONLINE and not knows_zones(zones):
        reason = "not all zones could be read: the zone of its pages was not judged"
        context.results.unjudged.append(Unjudged(range_.start_pfn, range_.end_pfn, reason))
    if range_.case is Case.DEVICE and not _nodes(context, range_):
        reason = "no node's ZONE_DEVICE spans the range: the node of its pages was not judged"
        context.results.unjudged.append(Unjudged(range_.start_pfn, range_.end_pfn, reason))


def _promise(context: Context, range_: Range) -> Promise:
    if range_.case is Case.METADATA:
        return MetadataPages(_nodes(context, range_))
    assert range_.pgmap is not None
    pgmap = context.pgmaps[range_.pgmap]
    first_pfn, end_pfn = _initialized_by_driver(pgmap, range_)
    return DevicePages(
        pgmap=pgmap.address,
        type=pgmap.type,
        first_pfn=first_pfn,
        end_pfn=end_pfn,
        nodes=_nodes(context, range_),
        vmemmap_shift=pgmap.vmemmap_shift,
        marks=access_marks(context.prog),
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
            return min(pgmap.pfn_first(i), whole.end_pfn), whole.end_pfn
    return range_.start_pfn, range_.end_pfn


def _judge(context: Context, range_: Range, scanned: Scanned, pages: int) -> None:
    # Adds the results of scanning ``pages`` pages of a range.
    results = context.results
    scanned.insert_gaps(list(context.aliases.absent(range_, scanned.gaps)))
    missing = sum(gap.end_pfn - gap.start_pfn for gap in scanned.gaps)
    verified = pages - missing
    results.count(range_.case, PageCounts(verified, missing, scanned.torn))
    if range_.case is Case.ONLINE:
        _count_free(context, scanned)
    if range_.case is Case.DEVICE and range_.pgmap is not None:
        results.in_use[range_.pgmap] += scanned.in_use
        results.seen[range_.pgmap] += verified
        results.findings += (
            make_finding(slug, range_.case, start, end, pgmap=range_.pgmap)
            for slug, start, end in scanned.broken_folios[:MAX_RUNS]
        )
    results.aliases_skipped += verified - scanned.pages_read
    results.bytes_read += scanned.bytes_read
    results.unjudged += [unreadable(context.prog, gap) for gap in scanned.gaps]
    results.unjudged += scanned.unconfirmed
    found = [(slug, run) for slug, runs in scanned.runs.items() for run in runs.reported()]
    found.sort(key=lambda each: (each[1].start_pfn, each[0]))
    errors = [_error(context, slug, range_, run) for slug, run in found]
    if range_.pgmap is None or context.pgmaps[range_.pgmap].is_settled:
        results.findings += errors
    else:
        results.unjudged += map(_perhaps_unfinished, errors)


def _counted(context: Context) -> dict[int, int]:
    # How many pages are in use, by pgmap: where those of all of its pages were counted.
    results, found = context.results, {}
    for pgmap in (context.pgmaps[address] for address in results.seen):
        whole = sum(r.end_pfn - pgmap.pfn_first(i) for i, r in enumerate(pgmap.ranges))
        counted = counts_pages_in_use(page_layout(context.prog), pgmap.type)
        if counted and results.seen[pgmap.address] == whole:
            found[pgmap.address] = results.in_use[pgmap.address]
    return found


def _perhaps_unfinished(error: Finding) -> Unjudged:
    reason = (
        f"struct pages are not as promised ({error.slug}), but this kernel does not record "
        "whether memmap_init_zone_device() has finished"
    )
    return Unjudged(error.start_pfn, error.end_pfn, reason)


def _count_free(context: Context, scanned: Scanned) -> None:
    zones_shift = page_layout(context.prog).zones_shift
    for (zone, order), number in scanned.free.items():
        nid, zone_number = divmod(zone, 1 << zones_shift)
        context.results.free[nid, zone_number, order] += number
    context.results.unread += [(gap.start_pfn, gap.end_pfn) for gap in scanned.gaps]


def _error(context: Context, slug: str, range_: Range, run: Run) -> Finding:
    page = _first_page(context, run)
    details = []
    # Only what was never written can hold anything.
    if slug.endswith("-uninitialized"):
        code = page_contents(context.prog, page, None, frozenset(context.pgmaps))[0]
        details.append(f"the first one holds: {list(Contents)[code].value}")
    shared = context.aliases.shared_with(run.start_pfn) if run.count == 1 else 0
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
        evidence=(run.evidence, raw_page(page, 0), *_where_it_leads(context, slug, run)),
    )


def _first_page(context: Context, run: Run) -> Pages:
    words = np.array([run.words], np.uint64)
    return Pages(run.start_pfn, run.start_pfn + 1, words, page_layout(context.prog))


def _where_it_leads(context: Context, slug: str, run: Run) -> Iterator[Evidence]:
    # A page that does not lead to its pgmap may still lead to one that is gone.
    word = run.evidence.value
    if slug != "device-page-pgmap" or word is None or word in context.pgmaps:
        return
    if is_kernel_pointer(word):
        span = (run.start_pfn, run.end_pfn)
        yield dangling_pgmap(context.prog, word, run.count, span)


_Verifier = Callable[[Context, Range], None]

_VERIFIERS: dict[Case, _Verifier] = {
    Case.DEVICE: _verify_promised,
    Case.METADATA: _verify_promised,
    Case.ONLINE: _verify_promised,
    Case.RESERVED: verify_reserved,
    Case.INITIALIZING: verify_initializing,
    Case.TEARDOWN: verify_teardown,
    Case.ORPHAN: verify_orphan,
    Case.PARTIAL: verify_hole,
    Case.GHOST: verify_hole,
}

# What scan_all reads.
_PROMISES = (_verify_promised, _verify_block_memmap)

# Nothing is read at all.
_READS_NO_HAZARD = (
    _verify_nothing,
    _verify_gone,
    _verify_not_exported,
    verify_deferred,
)
