# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Differences
-----------

What came, went or changed from one report to the next.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Generic, TypeVar

from drgn_zonedev.comparison.known_report import (
    KnownFinding,
    KnownPgmap,
    KnownRange,
    KnownReport,
)

__all__ = ("Change", "Differences", "RangeChange", "new_findings", "report_differences")

_T = TypeVar("_T")

# The worst first.
_SEVERITIES = ("error", "warning", "info")


@dataclass(frozen=True)
class Change(Generic[_T]):
    """Something that came (``old`` is ``None``), went (``new`` is ``None``) or changed."""

    old: _T | None
    new: _T | None

    @property
    def word(self) -> str:
        """``came``, ``went`` or ``changed``."""
        return "came" if self.old is None else "went" if self.new is None else "changed"


@dataclass(frozen=True)
class RangeChange:
    """PFNs of which something else is said; ``None`` stands for no memory."""

    start_pfn: int
    end_pfn: int
    old: KnownRange | None
    new: KnownRange | None


@dataclass(frozen=True)
class Differences:
    """All that differs."""

    pgmaps: tuple[Change[KnownPgmap], ...]
    ranges: tuple[RangeChange, ...]
    findings: tuple[Change[KnownFinding], ...]

    def __bool__(self) -> bool:
        return bool(self.pgmaps or self.ranges or self.findings)


def report_differences(old: KnownReport, new: KnownReport) -> Differences:
    """Compare two reports of the same scope."""
    pgmaps = _changes(old.pgmaps, new.pgmaps, (attrgetter("spans"), attrgetter("device")))
    findings = _changes(
        old.findings, new.findings, (_place, _about_no_page, _overlap_key(old, new))
    )
    return Differences(
        tuple(sorted(pgmaps, key=lambda change: _either(change).spans)),
        _ranges(old.ranges, new.ranges),
        tuple(sorted(findings, key=lambda change: _worst_first(_either(change)))),
    )


def new_findings(old: KnownReport, new: KnownReport) -> list[bool]:
    """
    Say of each finding of a report whether it is new: the old one has none of that kind, and
    no less severe, that concern all of its pages, and as many of them.
    """
    known: dict[str, list[KnownFinding]] = defaultdict(list)
    for finding in old.findings:
        known[finding.slug].append(finding)
    return [not _is_known(finding, known[finding.slug]) for finding in new.findings]


def _is_known(finding: KnownFinding, known: Sequence[KnownFinding]) -> bool:
    rank = _SEVERITIES.index(finding.severity)
    bad = [k for k in known if _SEVERITIES.index(k.severity) <= rank]
    if finding.start_pfn == finding.end_pfn:
        return any(_place(k) == _place(finding) for k in bad)
    behind, pages = finding.start_pfn, 0
    for k in sorted(bad, key=lambda k: k.start_pfn):
        if k.start_pfn <= behind < k.end_pfn:
            behind, pages = k.end_pfn, pages + k.count
    return behind >= finding.end_pfn and pages >= finding.count


def _either(change: Change[_T]) -> _T:
    value = change.new if change.old is None else change.old
    assert value is not None
    return value


def _worst_first(finding: KnownFinding) -> tuple[int, int, str]:
    return _SEVERITIES.index(finding.severity), finding.start_pfn, finding.slug


def _place(finding: KnownFinding) -> Hashable:
    # Findings about no page differ in their messages only.
    message = finding.message if finding.start_pfn == finding.end_pfn else None
    return finding.slug, finding.start_pfn, finding.end_pfn, message


def _about_no_page(finding: KnownFinding) -> Hashable:
    return (finding.slug,) if finding.start_pfn == finding.end_pfn else None


def _overlap_key(old: KnownReport, new: KnownReport) -> Callable[[KnownFinding], Hashable]:
    """Get what is the same for findings of a kind that overlap: the start of their union."""
    starts: dict[tuple[str, int], int] = {}
    begun: dict[str, tuple[int, int]] = {}
    for f in sorted((*old.findings, *new.findings), key=lambda f: f.start_pfn):
        start, end = begun.get(f.slug, (-1, -1))
        if f.start_pfn >= end:
            start = f.start_pfn
        begun[f.slug] = start, max(end, f.end_pfn)
        starts[f.slug, f.start_pfn] = start
    return lambda f: None if f.start_pfn == f.end_pfn else (f.slug, starts[f.slug, f.start_pfn])


def _changes(
    old: Sequence[_T], new: Sequence[_T], keys: Sequence[Callable[[_T], Hashable]]
) -> list[Change[_T]]:
    """Pair items by the first key that they share, one of which is ``None`` for no pair."""
    pairs: list[Change[_T]] = []
    left, right = list(old), list(new)
    for key in keys:
        waiting: dict[Hashable, list[_T]] = defaultdict(list)
        for item in left:
            waiting[key(item)].append(item)
        unpaired = []
        for item in right:
            same = waiting[key(item)] if key(item) is not None else []
            if same:
                pairs.append(Change(same.pop(0), item))
            else:
                unpaired.append(item)
        left, right = [item for items in waiting.values() for item in items], unpaired
    changed = [pair for pair in pairs if _without_words(pair.old) != _without_words(pair.new)]
    return [*changed, *(Change(item, None) for item in left), *(Change(None, i) for i in right)]


def _without_words(item: object) -> object:
    if not isinstance(item, KnownFinding):
        return item
    # Releases of the tool word the same in other ways.
    said = item.message if item.start_pfn == item.end_pfn else ""
    return item.slug, item.severity, item.start_pfn, item.end_pfn, item.count, said


def _ranges(old: Sequence[KnownRange], new: Sequence[KnownRange]) -> tuple[RangeChange, ...]:
    merged: list[RangeChange] = []
    for change in _pieces(old, new):
        last = merged[-1] if merged else None
        if last and last.end_pfn == change.start_pfn and _said(last) == _said(change):
            merged.pop()
            change = RangeChange(last.start_pfn, change.end_pfn, last.old, last.new)
        merged.append(change)
    return tuple(merged)


def _pieces(old: Sequence[KnownRange], new: Sequence[KnownRange]) -> Iterator[RangeChange]:
    borders = sorted({pfn for r in (*old, *new) for pfn in (r.start_pfn, r.end_pfn)})
    before, after = _Walk(old), _Walk(new)
    for start, end in zip(borders, borders[1:]):
        change = RangeChange(start, end, before.at(start), after.at(start))
        if _said(change)[0] != _said(change)[1]:
            yield change


def _said(change: RangeChange) -> tuple[tuple[str, str] | None, tuple[str, str] | None]:
    return _case(change.old), _case(change.new)


def _case(range_: KnownRange | None) -> tuple[str, str] | None:
    return None if range_ is None else (range_.case, range_.memmap)


class _Walk:
    """Ranges in ascending order, asked for ascending PFNs."""

    def __init__(self, ranges: Sequence[KnownRange]) -> None:
        self._ranges = ranges
        self._next = 0

    def at(self, pfn: int) -> KnownRange | None:
        while self._next < len(self._ranges) and self._ranges[self._next].end_pfn <= pfn:
            self._next += 1
        found = self._ranges[self._next] if self._next < len(self._ranges) else None
        return found if found and found.start_pfn <= pfn else None
