# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Bug Reports
-----------

A bug report as plain text that a mailing list takes, and as JSON.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from drgn_zonedev.explanation.bug_report import BugReport
from drgn_zonedev.findings import KINDS
from drgn_zonedev.known_bugs.bugs import AS_OF, BUGS
from drgn_zonedev.model import Evidence, EvidenceKind
from drgn_zonedev.render.as_json import Document, evidence_document, kernel_document
from drgn_zonedev.render.bugs import fix_text, releases_text
from drgn_zonedev.util.strings import printable

__all__ = ("bugreport_document", "bugreport_text")

_COLUMNS = 72


def bugreport_document(report: BugReport) -> Document:
    """The document of ``bugreport``."""
    finding, kind = report.finding, KINDS[report.finding.slug]
    return {
        "schema": "drgn-zonedev/bugreport/1",
        "slug": finding.slug,
        "severity": finding.severity.value,
        "summary": kind.message,
        "start_pfn": finding.start_pfn,
        "end_pfn": finding.end_pfn,
        "count": finding.count,
        "case": finding.case.value,
        "pgmap_type": report.pgmap_type,
        "kernel": kernel_document(report.kernel),
        "contents": report.contents,
        "words": None if report.words is None else [hex(word) for word in report.words],
        "evidence": [evidence_document(fact) for fact in report.evidence],
        "why": kind.explanation,
        "cure": kind.cure,
        "known_bugs": [_bug(slug) for slug in finding.known_bugs],
        "known_bugs_as_of": AS_OF,
        "scenario": report.scenario,
        "walkers": [
            {"name": w.name, "function": w.function, "uses": w.uses, "outcome": w.outcome}
            for w in report.walkers
        ],
        "walkers_error": report.walkers_error,
    }


def _bug(slug: str) -> Document:
    bug = BUGS[slug]
    return {
        "slug": slug,
        "mechanism": bug.mechanism,
        "introduced": None if bug.introduced is None else str(bug.introduced),
        "fix": None if bug.fix is None else str(bug.fix),
        "fixed_in": None if bug.fixed is None else releases_text(bug).split(", "),
        "sure": bug.sure.value,
        "note": bug.note,
    }


def bugreport_text(report: BugReport) -> str:
    """What ``bugreport`` prints: no line has more than 72 columns, as far as words allow."""
    return "\n".join(printable(line) for line in _lines(report))


def _lines(report: BugReport) -> Iterator[str]:
    finding, kind = report.finding, KINDS[report.finding.slug]
    yield from _filled(f"Linux {report.kernel.release}: {kind.message}.")
    for title, lines in (
        ("Kernel", _kernel(report)),
        ("Where", _where(report)),
        ("Evidence", _evidence(report)),
        ("Why this is wrong", _filled(kind.explanation)),
        ("Known bug", _bugs(report)),
        ("How to see it again", _reproduction(report)),
        ("What would touch these struct pages", _walkers(report)),
        ("What helps", _filled(kind.cure)),
    ):
        yield from ("", f"{title}:")
        yield from (f"  {line}" if line else "" for line in lines)
    yield from ("", f"Found by zonedev ({finding.severity.value}: {finding.slug}).")


def _filled(text: str) -> list[str]:
    return textwrap.wrap(text, _COLUMNS - 2, break_long_words=False, break_on_hyphens=False)


def _kernel(report: BugReport) -> list[str]:
    kernel = report.kernel
    return [
        f"Linux {kernel.release}, {kernel.architecture}",
        f"pages of {kernel.page_size >> 10} KiB, struct page of {kernel.sizeof_page} bytes",
        f"sections of {kernel.section_size >> 20} MiB, "
        f"subsections of {kernel.subsection_size >> 20} MiB",
        *(f"{name}: {'yes' if has else 'no'}" for name, has in kernel.features.items()),
    ]


def _where(report: BugReport) -> Iterator[str]:
    finding = report.finding
    pages = finding.end_pfn - finding.start_pfn
    yield f"PFNs [{finding.start_pfn:#x}, {finding.end_pfn:#x}), {pages} pages"
    if finding.count != pages:
        yield f"{finding.count} of them are concerned"
    yield f"case: {finding.case.value}"
    if report.pgmap_type:
        yield f"pgmap: {report.pgmap_type}"


def _evidence(report: BugReport) -> Iterator[str]:
    for fact in report.evidence:
        yield from _fact(fact)
    pfn = report.finding.start_pfn
    if report.contents is not None:
        yield from _filled(f"struct page of PFN {pfn:#x} holds: {report.contents}")
    if report.words is None:
        yield "its words are left out: they may be private data"
        return
    for i in range(0, len(report.words), 2):
        pair = " ".join(f"{word:016x}" for word in report.words[i : i + 2])
        yield f"  +{8 * i:02x}: {pair}"


def _fact(fact: Evidence) -> Iterator[str]:
    if fact.kind is EvidenceKind.PAGE_COUNT:
        yield from _filled(f"{fact.what}: {fact.value}")
        return
    yield from _filled(fact.what)
    value = f"  = {fact.value:#x}"
    yield value if fact.expected is None else f"{value}, expected {fact.expected:#x}"


def _bugs(report: BugReport) -> Iterator[str]:
    if not report.finding.known_bugs:
        yield f"none, and no fix known, as of {AS_OF}"
    for slug in report.finding.known_bugs:
        bug = BUGS[slug]
        yield from _filled(f"{slug}: {bug.mechanism}.")
        if bug.introduced is not None:
            yield from _filled(f"introduced by {bug.introduced}")
        yield from _filled(fix_text(bug))
        yield from _filled(f"how sure: {bug.sure.value}{f'; {bug.note}' if bug.note else ''}")


def _reproduction(report: BugReport) -> Iterable[str]:
    if report.scenario is None:
        return ["no scenario of the lab leaves this state"]
    return [
        f"zonedev lab run KERNEL {report.scenario}",
        "(zonedev lab list names the kernels)",
    ]


def _walkers(report: BugReport) -> Iterator[str]:
    if report.walkers_error is not None:
        yield from _filled(f"not known: {report.walkers_error}")
    elif not report.walkers:
        yield "none of the PFN walkers that zonedev knows"
    for walker in report.walkers:
        uses = "uses it" if walker.uses else "reads its flags"
        yield from _filled(f"{walker.name}: {walker.function}() {uses}: {walker.outcome}")
