# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Report
------

Classify, verify, and put everything that is known together.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

from drgn import FaultError, IntegerLike, Program, ProgramFlags
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.classification.classify import classify_snapshot, range_of_pfn
from drgn_zonedev.classification.facts import kernel_facts
from drgn_zonedev.classification.missing_debuginfo import Attempt, named_once, optional
from drgn_zonedev.classification.reading import changed_since, take_snapshot, with_devices
from drgn_zonedev.classification.snapshot import Changes, Snapshot
from drgn_zonedev.consistency import inconsistencies
from drgn_zonedev.kernel.arguments import require_number
from drgn_zonedev.kernel.uevent import uevent_seqnum
from drgn_zonedev.known_bugs.in_findings import with_known_bugs
from drgn_zonedev.model import (
    EVERYTHING,
    Case,
    Finding,
    FreeBlocks,
    MemoryKind,
    Missing,
    PageCounts,
    Range,
    Report,
    Scope,
    Severity,
    Unjudged,
    lacks_memmap,
)
from drgn_zonedev.opening.provenance import provenance_of
from drgn_zonedev.util.handles import bind
from drgn_zonedev.verification.context import Progress, Results, no_progress
from drgn_zonedev.verification.free_areas import FreeAreas, compare_free_areas
from drgn_zonedev.verification.missing_memory import missing_memory
from drgn_zonedev.verification.pool.scanner import scanner
from drgn_zonedev.verification.scope import (
    findings_in,
    memmap_in,
    pgmaps_in,
    ranges_in,
    unjudged_in,
    with_unread,
)
from drgn_zonedev.verification.task import ScanAll
from drgn_zonedev.verification.verify import (
    PROMISED,
    BegunVerification,
    Verification,
    begin_verification,
    finish_verification,
)

__all__ = (
    "CheckedMemory",
    "NoMemoryError",
    "check",
    "check_memory",
    "check_with",
    "for_each_finding",
    "make_scope",
)

# How often a running kernel may change under the verification before the
# answer is that it could not be judged.
_MAX_TRIES = 3


class NoMemoryError(ValueError):
    """There is no memory at the PFNs that were asked for."""


@dataclass(frozen=True)
class CheckedMemory:
    """A report, and the structures that it is made from."""

    report: Report
    snapshot: Snapshot


@takes_program_or_default
def check(
    prog: Program,
    *,
    only: str | None = None,
    pfns: tuple[IntegerLike, IntegerLike] | None = None,
    progress: Progress = no_progress,
    jobs: int | None = 1,
) -> Report:
    """
    Classify all physical memory, verify its struct pages, and report.

    :param only: ``devices`` or ``ram``, to verify nothing else.
    :param pfns: The first PFN to look at, and one more than the last.
    :param progress: Called with the number of bytes of struct pages that were scanned since the
        last call, and with their total number.
    :param jobs: How many processes scan the struct pages of a core dump, if there are enough of
        them; ``None`` for as many as pay off. They open the dump again, and do not see memory
        segments that were added to *prog*.
    :raises LookupError: if the debugging information does not have what is needed, or the
        kernel was built without ``CONFIG_SPARSEMEM`` or ``CONFIG_ZONE_DEVICE``
    :raises ValueError: if *jobs* is less than 1, *only* is neither, *pfns* are empty or
        reversed, or there is no memory at them
    """
    scope = make_scope(only, pfns)
    with scanner(prog, jobs) as scan_all:
        return check_with(prog, progress, scan_all, scope)


@takes_program_or_default
def for_each_finding(
    prog: Program,
    slug: str | None = None,
    *,
    only: str | None = None,
    pfns: tuple[IntegerLike, IntegerLike] | None = None,
) -> Iterator[Finding]:
    """
    Iterate over what :func:`check()` finds, the worst first.

    :param slug: Only findings of this kind.
    :param only: ``devices`` or ``ram``, to verify nothing else.
    :param pfns: The first PFN to look at, and one more than the last.
    """
    for finding in check(prog, only=only, pfns=pfns).findings:
        if slug is None or finding.slug == slug:
            yield finding


def make_scope(only: str | None, pfns: tuple[IntegerLike, IntegerLike] | None) -> Scope:
    """
    Get what :func:`check` looks at.

    :raises TypeError: if *pfns* are not two numbers
    :raises ValueError: if *only* is not a kind of memory, or *pfns* are empty or reversed
    """
    kinds = [kind.value for kind in MemoryKind]
    if only is not None and only not in kinds:
        raise ValueError(f"expected one of {', '.join(kinds)}, got {only!r}")
    kind = None if only is None else MemoryKind(only)
    if pfns is None:
        return Scope(kind)
    try:
        first, last = pfns
    except (TypeError, ValueError) as e:
        raise TypeError(f"expected a pair, the first PFN and the end, got {pfns!r}") from e
    start, end = require_number(first), require_number(last)
    if not 0 <= start < end:
        raise ValueError(f"no PFN is in [{start:#x}, {end:#x}): the end must be above the start")
    return Scope(kind, start, end)


def check_with(
    prog: Program, progress: Progress, scan_all: ScanAll, scope: Scope = EVERYTHING
) -> Report:
    """
    Like :func:`check()`.

    :param scan_all: Scans the struct pages that have promises.
    :raises NoMemoryError: if there is nothing at the PFNs of the scope
    """
    return check_memory(prog, progress, scan_all, scope).report


def check_memory(
    prog: Program,
    progress: Progress,
    scan_all: ScanAll,
    scope: Scope = EVERYTHING,
    source: str | None = None,
) -> CheckedMemory:
    """
    Like :func:`check_with()`, for callers that use the same structures for more.

    :param source: What the user calls the program, if that is not the path of its dump.
    """
    snapshot, verification, scope = _judge(prog, progress, scan_all, scope)
    unjudged = named_once((*unjudged_in(scope, snapshot.unjudged), *verification.unjudged))
    here = pgmaps_in(scope, snapshot.pgmaps)
    pgmaps = optional("devices have no names", here, lambda: with_devices(prog, here))
    nothing: tuple[Missing, ...] = ()
    missing = optional(
        "where memory is missing is not known",
        nothing,
        lambda: missing_memory(prog, snapshot, unjudged),
    )
    kernel = kernel_facts(prog)
    findings = with_known_bugs(verification.findings, snapshot.pgmaps, kernel)
    report = Report(
        kernel=kernel,
        pgmaps=pgmaps.value,
        ranges=verification.ranges,
        findings=tuple(sorted(findings, key=_worst_first)),
        unjudged=named_once((*unjudged, *pgmaps.unjudged, *missing.unjudged)),
        coverage=verification.coverage,
        missing=missing.value,
        scope=scope,
        provenance=provenance_of(prog, source),
        memmap=verification.memmap,
    )
    for part in (*report.pgmaps, *report.ranges, *report.findings):
        bind(prog, part)
    return CheckedMemory(bind(prog, report), snapshot)


def _worst_first(finding: Finding) -> tuple[int, int, str]:
    return finding.severity.rank, finding.start_pfn, finding.slug


def _judge(prog: Program, progress: Progress, scan_all: ScanAll, wanted: Scope) -> _Look:
    if not prog.flags & ProgramFlags.IS_LIVE:
        return _look(prog, progress, scan_all, wanted)
    errors: list[frozenset[_ErrorId]] = []
    retries = 0
    for last in (*[False] * (_MAX_TRIES - 1), True):
        events = uevent_seqnum(prog)
        try:
            snapshot, verification, scope = _look(prog, progress, scan_all, wanted)
            changes = changed_since(prog, snapshot)
        except FaultError:
            if last:
                raise
            retries += 1
            continue
        retries += snapshot.retries
        errors.append(
            frozenset(_error_id(f) for f in verification.findings if f.severity is Severity.ERROR)
        )
        known = errors[-2] if len(errors) > 1 else frozenset()
        quiet = events is not None and events == uevent_seqnum(prog)
        # A momentary error does not look the same in another reading.
        if not changes and (quiet or errors[-1] <= known):
            break
        retries += not last
    else:
        verification = _without_torn_errors(verification, changes, frozenset.intersection(*errors))
    return snapshot, _counted(verification, retries, len(snapshot.torn_spans)), scope


_Look = tuple[Snapshot, Verification, Scope]
_NOT_LOOKED_AT = "struct pages were not looked at"


def _look(prog: Program, progress: Progress, scan_all: ScanAll, scope: Scope) -> _Look:
    snapshot = take_snapshot(prog)
    ranges = classify_snapshot(prog, snapshot)
    if lacks_memmap(ranges):
        # It is not known where memory is, so PFNs cannot limit anything.
        scope = EVERYTHING
    here = functools.partial(range_of_pfn, prog, snapshot, ranges)
    wanted = ranges_in(scope, ranges, here)
    if not wanted.ranges and not wanted.others and not scope.is_whole:
        raise NoMemoryError(f"no memory at PFNs [{scope.start_pfn:#x}, {scope.end_pfn:#x})")
    begun = optional(
        _NOT_LOOKED_AT,
        None,
        lambda: begin_verification(prog, snapshot, wanted.ranges, progress, scan_all),
    )
    # Other processes scan struct pages in the meantime.
    structures = inconsistencies(prog, snapshot, ranges, scope.pfns)
    verified = _finished(begun, wanted.ranges)
    blocks = with_unread(verified.value.free_blocks, scope, ranges)
    free = FreeAreas()
    if Case.ONLINE in verified.value.coverage.by_case:
        free = _free_areas(prog, snapshot, ranges, blocks)
    shown = (*verified.value.ranges, *wanted.others)
    findings = findings_in(scope, (*structures.findings, *free.findings))
    unjudged = unjudged_in(scope, (*structures.unjudged, *free.unjudged))
    return (
        snapshot,
        dataclasses.replace(
            verified.value,
            ranges=tuple(sorted(shown, key=lambda r: r.start_pfn)),
            findings=(*verified.value.findings, *findings),
            unjudged=(*verified.value.unjudged, *verified.unjudged, *unjudged),
            free_blocks=blocks,
            memmap=memmap_in(structures.memmap, wanted.ranges),
        ),
        scope,
    )


def _finished(
    begun: Attempt[BegunVerification | None], ranges: list[Range]
) -> Attempt[Verification]:
    unverified, started = _unverified(ranges), begun.value
    if started is None:
        return Attempt(unverified, begun.unjudged)
    return optional(_NOT_LOOKED_AT, unverified, lambda: finish_verification(started))


def _free_areas(
    prog: Program, snapshot: Snapshot, ranges: list[Range], blocks: FreeBlocks
) -> FreeAreas:
    compared = optional(
        "free areas were not compared",
        FreeAreas(),
        lambda: compare_free_areas(prog, snapshot, ranges, blocks),
    )
    return FreeAreas(compared.value.findings, (*compared.value.unjudged, *compared.unjudged))


def _unverified(ranges: list[Range]) -> Verification:
    results = Results()
    for range_ in ranges:
        if range_.case in PROMISED:
            results.count(range_.case, PageCounts(unreadable=range_.pages))
    return Verification(tuple(ranges), (), (), results.coverage())


_ErrorId = tuple[str, int, int, Optional[int]]


def _error_id(finding: Finding) -> _ErrorId:
    return finding.slug, finding.start_pfn, finding.end_pfn, finding.pgmap


def _without_torn_errors(
    verification: Verification, changes: Changes, lasting: frozenset[_ErrorId]
) -> Verification:
    # Structures that came, went or changed while they were read must not be called wrong, and
    # errors that not every reading showed must not be reported.
    findings, unjudged = [], list(verification.unjudged)
    for finding in verification.findings:
        torn = _depends_on(finding, changes) or _error_id(finding) not in lasting
        if finding.severity is Severity.ERROR and torn:
            reason = f"it changed while it was read ({finding.slug})"
            unjudged.append(Unjudged(finding.start_pfn, finding.end_pfn, reason))
        else:
            findings.append(finding)
    torn_errors = len(verification.findings) - len(findings)
    coverage = dataclasses.replace(verification.coverage, torn=torn_errors)
    return dataclasses.replace(
        verification, findings=tuple(findings), unjudged=tuple(unjudged), coverage=coverage
    )


def _depends_on(finding: Finding, changes: Changes) -> bool:
    return finding.pgmap in changes.pgmaps or any(
        start < finding.end_pfn and finding.start_pfn < end for start, end in changes.spans
    )


def _counted(verification: Verification, retries: int, torn: int) -> Verification:
    coverage = verification.coverage
    coverage = dataclasses.replace(coverage, retries=retries, torn=coverage.torn + torn)
    return dataclasses.replace(verification, coverage=coverage)
