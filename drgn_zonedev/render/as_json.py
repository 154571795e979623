# SPDX-License-Identifier: LGPL-2.1-or-later

"""
JSON
----

Reports as JSON. Keys are in a fixed order, PFNs and counts are integers, and
addresses and words are hexadecimal strings, because they do not fit into the
numbers of many JSON readers. ``schema.json`` describes every document.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from drgn_zonedev.findings import KINDS
from drgn_zonedev.model import (
    Coverage,
    Evidence,
    Finding,
    KernelFacts,
    MemmapPart,
    Pgmap,
    Provenance,
    Range,
    Report,
    Severity,
    Unjudged,
)

if TYPE_CHECKING:
    from drgn_zonedev.classification.section_rows import SectionRow

__all__ = (
    "Document",
    "evidence_document",
    "finding_document",
    "gap_document",
    "kernel_document",
    "pgmaps_document",
    "range_document",
    "ranges_document",
    "render",
    "report_document",
    "sections_document",
    "unjudged_document",
)

Document = dict[str, Any]


def render(document: Document) -> str:
    """Get the text of a document."""
    return json.dumps(document, indent=2)


def report_document(report: Report, new: Collection[Finding] | None = None) -> Document:
    """The document of ``check``; *new* are the findings that are new, if it was compared."""
    return {
        "schema": "drgn-zonedev/report/2",
        "kernel": kernel_document(report.kernel),
        "scope": {
            "only": report.scope.only.value if report.scope.only else None,
            "start_pfn": report.scope.start_pfn,
            "end_pfn": report.scope.end_pfn,
        },
        "summary": {
            "pages_by_case": _pages_by_case(report.ranges),
            "findings_by_severity": _findings_by_severity(report.findings),
        },
        "pgmaps": [_pgmap(p) for p in report.pgmaps],
        "ranges": [range_document(r) for r in report.ranges],
        **({"memmap": [_memmap_part(p) for p in report.memmap]} if report.memmap else {}),
        "findings": [
            {**finding_document(f), **({} if new is None else {"new": f in new})}
            for f in report.findings
        ],
        "unjudged": [unjudged_document(u) for u in report.unjudged],
        "missing": [
            {"start": hex(m.start), "end": hex(m.end), "holds": m.holds, "hint": m.hint}
            for m in report.missing
        ],
        "coverage": _coverage(report.coverage),
        **({"provenance": _provenance(report.provenance)} if report.provenance else {}),
    }


def _memmap_part(part: MemmapPart) -> Document:
    return {
        "start_pfn": part.start_pfn,
        "end_pfn": part.end_pfn,
        "memory": part.memory.value,
        "page_size": part.page_size,
    }


def _provenance(origin: Provenance) -> Document:
    return {
        "tool": origin.tool,
        "source": origin.source,
        "build_id": origin.build_id,
        "crash_time": origin.crash_time,
        "types": origin.types,
    }


def _coverage(coverage: Coverage) -> Document:
    return {
        "pages_verified": coverage.pages_verified,
        "pages_unreadable": coverage.pages_unreadable,
        "bytes_read": coverage.bytes_read,
        "aliases_skipped": coverage.aliases_skipped,
        "retries": coverage.retries,
        "torn": coverage.torn,
        "by_case": {
            case.value: {
                "verified": counts.verified,
                "unreadable": counts.unreadable,
                "torn": counts.torn,
                "not_exported": counts.not_exported,
            }
            for case, counts in sorted(coverage.by_case.items(), key=lambda item: item[0].value)
        },
    }


def ranges_document(kernel: KernelFacts, ranges: Iterable[Range]) -> Document:
    """The document of ``ranges``."""
    return {
        "schema": "drgn-zonedev/ranges/1",
        "kernel": kernel_document(kernel),
        "ranges": [range_document(r) for r in ranges],
    }


def pgmaps_document(kernel: KernelFacts, pgmaps: Iterable[Pgmap]) -> Document:
    """The document of ``pgmaps``."""
    return {
        "schema": "drgn-zonedev/pgmaps/1",
        "kernel": kernel_document(kernel),
        "pgmaps": [_pgmap(p) for p in pgmaps],
    }


def sections_document(kernel: KernelFacts, rows: Iterable[SectionRow]) -> Document:
    """The document of ``sections``."""
    return {
        "schema": "drgn-zonedev/sections/1",
        "kernel": kernel_document(kernel),
        "sections": [
            {
                "nr": row.nr,
                "start_pfn": row.start_pfn,
                "end_pfn": row.end_pfn,
                "address": hex(row.address),
                "word": hex(row.word),
                "flags": list(row.flags),
                "usage": hex(row.usage),
                "subsections": [hex(word) for word in row.subsections]
                if row.subsections is not None
                else None,
                "memory_block": row.memory_block,
            }
            for row in rows
        ],
    }


def _hex(value: int | None) -> str | None:
    return None if value is None else hex(value)


def kernel_document(kernel: KernelFacts) -> Document:
    """The facts about the kernel that every answer depends on."""
    return {
        "release": kernel.release,
        "architecture": kernel.architecture,
        "live": kernel.live,
        "page_size": kernel.page_size,
        "section_size": kernel.section_size,
        "subsection_size": kernel.subsection_size,
        "sizeof_page": kernel.sizeof_page,
        "vmemmap": hex(kernel.vmemmap),
        "highest_present_section_nr": kernel.highest_present_section_nr,
        "features": dict(kernel.features),
        **({"types": "btf"} if kernel.types_from_btf else {}),
        **({"never_booted": list(kernel.never_booted)} if kernel.never_booted else {}),
    }


def _pages_by_case(ranges: Iterable[Range]) -> dict[str, int]:
    pages: Counter[str] = Counter()
    for range_ in ranges:
        pages[range_.case.value] += range_.pages
    return dict(sorted(pages.items()))


def _findings_by_severity(findings: Iterable[Finding]) -> dict[str, int]:
    counts = Counter(f.severity for f in findings)
    return {severity.value: counts[severity] for severity in Severity}


def _pgmap(pgmap: Pgmap) -> Document:
    altmap, device = pgmap.altmap, pgmap.device
    return {
        "address": hex(pgmap.address),
        "type": pgmap.type,
        "nr_range": pgmap.nr_range,
        "in_progress": pgmap.in_progress,
        **({} if pgmap.records_progress else {"records_progress": False}),
        "ranges": [{"start_pfn": r.start_pfn, "end_pfn": r.end_pfn} for r in pgmap.ranges],
        "vmemmap_shift": pgmap.vmemmap_shift,
        "flags": hex(pgmap.flags),
        "altmap": {
            "base_pfn": altmap.base_pfn,
            "end_pfn": altmap.end_pfn,
            "reserve": altmap.reserve,
            "free": altmap.free,
            "align": altmap.align,
            "alloc": altmap.alloc,
        }
        if altmap
        else None,
        "ref": {"state": pgmap.ref.state, "mode": pgmap.ref.mode, "count": pgmap.ref.count},
        "ops": pgmap.ops,
        "ops_address": hex(pgmap.ops_address),
        "owner": pgmap.owner,
        "owner_address": hex(pgmap.owner_address),
        "device": {
            "name": device.name,
            "kind": device.kind,
            "address": hex(device.address),
            "disk": device.disk,
            **_known(
                driver=device.driver,
                module=device.module,
                node=device.node,
                region=device.region,
                region_device=device.region_device,
            ),
        }
        if device
        else None,
        **_known(resource=pgmap.resource),
    }


def _known(**values: str | int | None) -> Document:
    return {name: value for name, value in values.items() if value is not None}


def range_document(range_: Range) -> Document:
    """One range."""
    return {
        "start_pfn": range_.start_pfn,
        "end_pfn": range_.end_pfn,
        "case": range_.case.value,
        "number": range_.case.number,
        "memmap": range_.memmap.value,
        "access": range_.access.value,
        "pgmap": _hex(range_.pgmap),
        "reason": range_.reason,
        "evidence": [evidence_document(e) for e in range_.evidence],
    }


def finding_document(finding: Finding) -> Document:
    """One finding."""
    kind = KINDS[finding.slug]
    return {
        "slug": finding.slug,
        "severity": finding.severity.value,
        "case": finding.case.value,
        "number": finding.case.number,
        "start_pfn": finding.start_pfn,
        "end_pfn": finding.end_pfn,
        "count": finding.count,
        "pgmap": _hex(finding.pgmap),
        "message": finding.message,
        "explanation": kind.explanation,
        "cure": kind.cure,
        "evidence": [evidence_document(e) for e in finding.evidence],
        **({"known_bugs": list(finding.known_bugs)} if finding.known_bugs else {}),
    }


def evidence_document(evidence: Evidence) -> Document:
    """One fact."""
    return {
        "what": evidence.what,
        "address": _hex(evidence.address),
        "value": _hex(evidence.value),
        "expected": _hex(evidence.expected),
        "note": evidence.note,
    }


def gap_document(unjudged: Unjudged) -> Document:
    """PFNs that could not be judged, and why."""
    return {
        "start_pfn": unjudged.start_pfn,
        "end_pfn": unjudged.end_pfn,
        "reason": unjudged.reason,
    }


def unjudged_document(unjudged: Unjudged) -> Document:
    """What could not be judged, with the address that could not be read."""
    return {**gap_document(unjudged), "address": _hex(unjudged.address)}
