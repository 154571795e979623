# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Groups of Findings
------------------

Findings that say the same of several runs of PFNs, as one: a defect that repeats every 2 MiB
is one thing to read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from drgn_zonedev.model import Evidence, Finding, Severity
from drgn_zonedev.util.strings import printable

__all__ = ("FindingGroup", "group_findings", "group_line", "where_text")

# So many runs are named, if they do not repeat.
_NAMED = 3


@dataclass(frozen=True)
class FindingGroup:
    """Findings that differ in their PFNs and their evidence only, by their first PFN."""

    findings: tuple[Finding, ...]

    @property
    def first(self) -> Finding:
        """The finding that stands for all of them."""
        return self.findings[0]

    @property
    def start_pfn(self) -> int:
        """The first PFN of the first run."""
        return self.first.start_pfn

    @property
    def end_pfn(self) -> int:
        """The PFN after the last run."""
        return max(f.end_pfn for f in self.findings)

    @property
    def pages(self) -> int:
        """How many pages are concerned."""
        return sum(f.count for f in self.findings)

    @property
    def slug(self) -> str:
        """The kind of the findings."""
        return self.first.slug

    @property
    def severity(self) -> Severity:
        """How bad each of them is."""
        return self.first.severity

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """The evidence of the first."""
        return self.first.evidence


def group_findings(findings: Iterable[Finding]) -> list[FindingGroup]:
    """Put equal findings together, each group where its first finding was."""
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for f in findings:
        # Findings about no PFN are about different things.
        unique = id(f) if f.start_pfn == f.end_pfn else None
        same = f.slug, f.severity, f.case, f.pgmap, f.message, f.known_bugs, unique
        groups.setdefault(same, []).append(f)
    return [FindingGroup(tuple(sorted(g, key=lambda f: f.start_pfn))) for g in groups.values()]


def group_line(group: FindingGroup) -> str:
    """Format a group as a line."""
    where = where_text(group)
    return printable(f"{group.severity.value}: {group.slug} {where}: {group.first.message}")


def where_text(group: FindingGroup) -> str:
    """Say where the findings of a group are; of several, also how they repeat."""
    text = f"[{group.start_pfn:#x}, {group.end_pfn:#x})"
    if len(group.findings) == 1:
        return text
    how = ", ".join(_runs(group.findings))
    pages = f"{group.pages:,} {'page' if group.pages == 1 else 'pages'}"
    return f"{text}: {len(group.findings):,} runs, {how}, {pages}"


def _runs(findings: Sequence[Finding]) -> Iterator[str]:
    stride, lengths = _stride(findings), {f.end_pfn - f.start_pfn for f in findings}
    length = lengths.pop()
    if lengths or stride is None or length >= stride:
        yield from (f"[{f.start_pfn:#x}, {f.end_pfn:#x})" for f in findings[:_NAMED])
        if findings[_NAMED:]:
            yield f"{len(findings) - _NAMED:,} more"
        return
    at = findings[0].start_pfn % stride
    if at == 0:
        yield f"the first {length:,} of each {stride:,}"
    elif at + length == stride:
        yield f"the last {length:,} of each {stride:,}"
    else:
        yield f"{length:,} of each {stride:,}"


def _stride(findings: Sequence[Finding]) -> int | None:
    """Get the distance of one run from the next, if it is always the same."""
    starts = [f.start_pfn for f in findings]
    distances = {b - a for a, b in zip(starts, starts[1:])}
    return distances.pop() if len(distances) == 1 and len(starts) > 2 else None
