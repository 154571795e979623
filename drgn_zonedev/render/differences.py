# SPDX-License-Identifier: LGPL-2.1-or-later

"""What differs between two reports, as text and as JSON."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import TypeVar

from drgn_zonedev.comparison.differences import Change, Differences, RangeChange
from drgn_zonedev.comparison.known_report import (
    KnownFinding,
    KnownPgmap,
    KnownRange,
    KnownReport,
)
from drgn_zonedev.model import Finding, Report
from drgn_zonedev.render.as_json import Document
from drgn_zonedev.render.cells import fitted_table, span
from drgn_zonedev.render.finding_groups import group_findings, group_line
from drgn_zonedev.render.screen import Screen, wrapped
from drgn_zonedev.util.strings import printable

_T = TypeVar("_T")

__all__ = ("CompareSide", "baseline_text", "differences_document", "differences_text")


@dataclasses.dataclass(frozen=True)
class CompareSide:
    """One of the two: what the user calls it, and its report."""

    name: str
    report: KnownReport


def differences_text(
    old: CompareSide, new: CompareSide, found: Differences, *, screen: Screen | None = None
) -> str:
    """What ``diff`` prints."""
    parts = [
        printable(f"{word}: {side.name}: Linux {side.report.release} {side.report.architecture}")
        for word, side in (("old", old), ("new", new))
    ]
    if found.pgmaps:
        parts += ["", "PGMAPS", "", _pgmaps(found, screen)]
    if found.ranges:
        parts += ["", "RANGES", "", _ranges(found, screen)]
    if found.findings:
        lines = [printable(line) for change in found.findings for line in _finding(change)]
        parts += ["", "FINDINGS", "", *(wrapped(s, screen) if screen else s for s in lines)]
    return "\n".join([*parts, "", _summary(found)])


def baseline_text(name: str, report: Report, found: Collection[Finding]) -> str:
    """What ``check --baseline`` says below the summary: which findings are new."""
    new = [finding for finding in report.findings if finding in found]
    known = len(report.findings) - len(new)
    lines = [f"{known} of {len(report.findings)} findings are in {name}, {len(new)} are new"]
    lines += [f"new: {group_line(group)}" for group in group_findings(new)]
    return "\n".join(map(printable, lines))


def _summary(found: Differences) -> str:
    if not found:
        return "no differences"
    ranges = f"{len(found.ranges)} ranges changed"
    return f"pgmaps: {_counts(found.pgmaps)}; {ranges}; findings: {_counts(found.findings)}"


def _counts(changes: tuple[Change[KnownPgmap], ...] | tuple[Change[KnownFinding], ...]) -> str:
    counts = Counter(change.word for change in changes)
    return ", ".join(f"{counts[word]} {word}" for word in ("came", "went", "changed"))


def _pgmaps(found: Differences, screen: Screen | None) -> str:
    rows = [
        (change.word, _spans(pgmap), pgmap.device or "-", what)
        for change in found.pgmaps
        for pgmap, what in [_pgmap(change)]
    ]
    return fitted_table(("", "PFNS", "DEVICE", "WHAT"), rows, screen)


def _spans(pgmap: KnownPgmap) -> str:
    more = f" and {len(pgmap.spans) - 1} more" if pgmap.spans[1:] else ""
    return f"{span(*pgmap.spans[0])}{more}" if pgmap.spans else "none"


def _pgmap(change: Change[KnownPgmap]) -> tuple[KnownPgmap, str]:
    old, new = change.old, change.new
    if old is not None and new is not None:
        return new, "; ".join(_fields(old, new))
    pgmap = new if old is None else old
    assert pgmap is not None
    return pgmap, f"{pgmap.type}, {pgmap.state}"


def _fields(old: KnownPgmap, new: KnownPgmap) -> Iterator[str]:
    if old.spans != new.spans:
        yield f"PFNs were {_spans(old)}"
    for name in ("device", "type", "state", "vmemmap_shift"):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield f"{name}: {before}, now {after}"
    if old.altmap != new.altmap:
        yield f"altmap: {_altmap(old)}, now {_altmap(new)}"


def _altmap(pgmap: KnownPgmap) -> str:
    return "reserve {}, free {}, alloc {}".format(*pgmap.altmap) if pgmap.altmap else "none"


def _ranges(found: Differences, screen: Screen | None) -> str:
    rows = [
        (span(c.start_pfn, c.end_pfn), c.end_pfn - c.start_pfn, _case(c.old, c), _case(c.new, c))
        for c in found.ranges
    ]
    return fitted_table(("PFNS", "PAGES", "WAS", "IS"), rows, screen)


def _case(range_: KnownRange | None, change: RangeChange) -> str:
    if range_ is None:
        return "no memory"
    others = [r for r in (change.old, change.new) if r is not None]
    # Only what differs is worth a word.
    return (
        range_.case if len({r.memmap for r in others}) == 1 else f"{range_.case}, {range_.memmap}"
    )


def _finding(change: Change[KnownFinding]) -> Iterator[str]:
    old, new = change.old, change.new
    now = old if new is None else new
    assert now is not None
    pages = f"{now.count} {'page' if now.count == 1 else 'pages'}"
    where = span(now.start_pfn, now.end_pfn)
    yield f"{change.word}: {now.severity}: {now.slug} {where} {pages}: {now.message}"
    if old is not None and new is not None:
        yield (
            f"    was {old.severity}: {span(old.start_pfn, old.end_pfn)}, {old.count} pages"
            f"{'' if old.message == new.message else f': {old.message}'}"
        )


def differences_document(old: CompareSide, new: CompareSide, found: Differences) -> Document:
    """The document of ``diff``."""
    return {
        "schema": "drgn-zonedev/diff/1",
        "old": _side_document(old),
        "new": _side_document(new),
        "pgmaps": [_change(change, _pgmap_document) for change in found.pgmaps],
        "ranges": [
            {
                "start_pfn": c.start_pfn,
                "end_pfn": c.end_pfn,
                "old": c.old and {"case": c.old.case, "memmap": c.old.memmap},
                "new": c.new and {"case": c.new.case, "memmap": c.new.memmap},
            }
            for c in found.ranges
        ],
        "findings": [_change(change, dataclasses.asdict) for change in found.findings],
    }


def _side_document(side: CompareSide) -> Document:
    return {
        "name": side.name,
        "release": side.report.release,
        "architecture": side.report.architecture,
    }


def _change(change: Change[_T], document: Callable[[_T], Document]) -> Document:
    return {
        "change": change.word,
        "old": None if change.old is None else document(change.old),
        "new": None if change.new is None else document(change.new),
    }


def _pgmap_document(pgmap: KnownPgmap) -> Document:
    altmap = pgmap.altmap
    return {
        "ranges": [{"start_pfn": start, "end_pfn": end} for start, end in pgmap.spans],
        "device": pgmap.device,
        "type": pgmap.type,
        "state": pgmap.state,
        "vmemmap_shift": pgmap.vmemmap_shift,
        "altmap": altmap and dict(zip(("reserve", "free", "alloc"), altmap)),
    }
