# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Compare the tool's results for a guest with the truth, and describe each difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from drgn_zonedev.lab.scenarios import Expected
from drgn_zonedev.util.intervals import Span, difference

if TYPE_CHECKING:
    from drgn import Program

    from drgn_zonedev.lab.machine.boot import Guest
    from drgn_zonedev.lab.scenarios import Scenario
    from drgn_zonedev.model import Finding, Range, Report

__all__ = ("as_arranged", "compare_ranges", "judge")

# Outside the ranges that a scenario arranges, there is only RAM, and holes between RAM.
_ORDINARY = ("online", "partial")


def judge(guest: Guest, prog: Program, report: Report) -> list[str]:
    """Compare a report with the scenario's arithmetic and with the guest's own facts."""
    from drgn_zonedev.lab.verdict.proofs import failed_proofs
    from drgn_zonedev.lab.verdict.proven_errors import error_differences, proven_errors

    guest = as_arranged(guest, prog)
    unmapped = [(start, end) for start, end, _ in guest.scenario.unmapped]
    unexpected = [f for f in report.findings if _spot(f) not in guest.scenario.errors]
    return [
        *compare_ranges(report.ranges, guest.scenario.expected),
        *_missing_errors(guest.scenario, report),
        *error_differences(unexpected, proven_errors(prog, guest.facts)),
        *_unjudged(report, unmapped),
        *failed_proofs(guest, prog, report),
        *_mistakes(guest, prog),
        *_kernel_disagreements(guest, prog, report),
    ]


def as_arranged(guest: Guest, prog: Program) -> Guest:
    """Return a guest with the ranges that its scenario comes to on this kernel."""
    from drgn_zonedev.kernel.memmap import poisons_struct_pages

    poisoned = guest.scenario.poisoned
    if not poisoned or not poisons_struct_pages(prog):
        return guest
    return replace(guest, scenario=replace(guest.scenario, expected=poisoned))


def _missing_errors(scenario: Scenario, report: Report) -> Iterator[str]:
    found = {_spot(finding) for finding in report.findings}
    for slug, start, end in scenario.errors:
        if (slug, start, end) not in found:
            yield f"PFNs {start:#x}-{end:#x}: the kernel's bug leaves {slug}, which is not found"


def _spot(finding: Finding) -> tuple[str, int, int]:
    return finding.slug, finding.start_pfn, finding.end_pfn


def _mistakes(guest: Guest, prog: Program) -> Iterator[str]:
    from drgn_zonedev.kernel.mmzone import section_flags, sparsemem_geometry
    from drgn_zonedev.lab.verdict.proposal_differences import (
        kernel_differences,
        variant_differences,
        walker_differences,
    )
    from drgn_zonedev.pfn_proposal import proposal
    from drgn_zonedev.pfn_walkers import walkers

    scenario, met = guest.scenario, walkers(prog)
    # The arithmetic is about devices.
    arranged = () if scenario.of_ram else scenario.expected
    section = sparsemem_geometry(prog).pages_per_section
    yield from variant_differences(proposal(prog), arranged, scenario.was, section=section)
    claim = section_flags(prog).asks_claim
    yield from walker_differences(met, arranged, claim=claim, section=section)
    if "truth" in guest.facts:
        taint = met.kernel.features["section_taint_zone_device"]
        yield from kernel_differences(
            guest.facts["truth"], arranged, taint=taint, claim=claim, section=section
        )


def _kernel_disagreements(guest: Guest, prog: Program, report: Report) -> Iterator[str]:
    # A frozen guest reported before its steps, but its memory is from after them.
    if guest.scenario.breakpoint:
        from drgn_zonedev.classification.reading import take_snapshot
        from drgn_zonedev.lab.verdict.bits import bits_disagreements

        yield from map(str, bits_disagreements(prog, take_snapshot(prog), report.ranges))
        return
    from drgn_zonedev.lab.verdict.agreement import disagreements

    yield from map(str, disagreements(prog, guest.facts))


def compare_ranges(found: Iterable[Range], expected: Sequence[Expected]) -> list[str]:
    """Describe where the ranges of a report are not as expected."""
    ranges = [Expected(r.start_pfn, r.end_pfn, r.case.value) for r in found]
    edges = sorted({pfn for r in (*ranges, *expected) for pfn in r[:2]})
    wrong: list[tuple[int, int, str]] = []
    for start, end in zip(edges, edges[1:]):
        message = _difference(_case_at(expected, start), _case_at(ranges, start))
        if not message:
            continue
        if wrong and wrong[-1][1:] == (start, message):
            start = wrong.pop()[0]
        wrong.append((start, end, message))
    return [f"PFNs {start:#x}-{end:#x}: {message}" for start, end, message in wrong]


def _case_at(ranges: Iterable[Expected], pfn: int) -> str | None:
    return next((r.case for r in ranges if r.start_pfn <= pfn < r.end_pfn), None)


def _difference(expected: str | None, found: str | None) -> str:
    if expected is None:
        if found is None or found in _ORDINARY:
            return ""
        return f"{found}, where only RAM is expected"
    return "" if expected == found else f"{found or 'nothing'} instead of {expected}"


def _unjudged(report: Report, unmapped: Sequence[Span]) -> Iterator[str]:
    # All other memory of a guest can be read.
    for unjudged in report.unjudged:
        span = unjudged.start_pfn, unjudged.end_pfn
        if span[0] < span[1] and not any(difference(span, unmapped)):
            continue
        where = f"PFNs {unjudged.start_pfn:#x}-{unjudged.end_pfn:#x}"
        yield f"{where}: not judged: {unjudged.reason}"
