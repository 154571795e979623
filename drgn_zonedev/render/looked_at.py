# SPDX-License-Identifier: LGPL-2.1-or-later

"""
What Was Looked at
------------------

The struct pages that a check verified, by kind, and those that it did not, with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from drgn_zonedev.model import CASES, Case, Coverage, Memmap, Report, Scope
from drgn_zonedev.render.cells import case_text, span

__all__ = ("kinds_text", "not_looked_at_text", "scope_text")

# Of what is in scope and has struct pages: why they are not looked at.
_REASONS = {
    Case.ONLINE: "not verified",
    Case.OFFLINE: "nothing is promised of them",
    Case.UNKNOWN: "undecided",
}


def _kind(case: Case) -> str:
    return "RAM" if case is Case.ONLINE else case_text(case)


def scope_text(scope: Scope) -> str:
    """What a check was restricted to; empty if it was not."""
    parts = [] if scope.only is None else [f"only {_ONLY[scope.only.value]}"]
    if scope.start_pfn is not None and scope.end_pfn is not None:
        parts.append(f"only PFNs {span(scope.start_pfn, scope.end_pfn)}")
    return ", ".join(parts)


_ONLY = {"devices": "memory of devices", "ram": "RAM"}


def kinds_text(coverage: Coverage) -> str:
    """How many struct pages of which case were verified."""
    verified = {case: coverage.by_case[case].verified for case in CASES if case in coverage.by_case}
    return ", ".join(f"{count} {_kind(case)}" for case, count in verified.items() if count)


def not_looked_at_text(report: Report) -> str:
    """How many struct pages of which case were not verified, and why."""
    return ", ".join(f"{count} {kind} ({why})" for kind, why, count in _left_out(report) if count)


def _left_out(report: Report) -> Iterator[tuple[str, str, int]]:
    counts, scope = report.coverage.by_case, report.scope
    for case in (c for c in CASES if c in counts):
        yield _kind(case), "not readable", counts[case].unreadable
        yield _kind(case), "left out of the export", counts[case].not_exported
    others, pages = Counter[Case](), Counter[Case]()
    for r in report.ranges:
        if r.memmap is not Memmap.UNMAPPED:
            (pages if scope.includes(r.case, r.pgmap) else others)[r.case] += r.pages
    for case, reason in _REASONS.items():
        if case in counts:
            seen = counts[case]
            pages[case] -= seen.verified + seen.unreadable + seen.not_exported
        yield _kind(case), reason, max(pages[case], 0)
    for case in CASES:
        yield _kind(case), "not asked for", others[case]
