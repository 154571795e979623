# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Results as Text
---------------

What ``print()`` and drgn's REPL show for a result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from drgn_zonedev.census.listing import PageList
from drgn_zonedev.census.total import Census
from drgn_zonedev.explanation.bug_report import BugReport
from drgn_zonedev.explanation.explain import Explanation
from drgn_zonedev.model import Finding, Pgmap, Range, Report
from drgn_zonedev.page_users.pins import Pins, UsedPages
from drgn_zonedev.pfn_proposal.trial import ProposalReport
from drgn_zonedev.pfn_walkers.judge import WalkersReport
from drgn_zonedev.render.as_json import Document, render, report_document
from drgn_zonedev.render.as_text import evidence_lines, report_text
from drgn_zonedev.render.bugreport import bugreport_document, bugreport_text
from drgn_zonedev.render.cells import advice_lines, case_text, device_text, span
from drgn_zonedev.render.explanation_json import explanation_document
from drgn_zonedev.render.explanation_text import explanation_text
from drgn_zonedev.render.kernel_knowledge import kernel_knowledge_document, kernel_knowledge_text
from drgn_zonedev.render.page_list import page_list_document, page_list_text
from drgn_zonedev.render.pages import census_document, census_text
from drgn_zonedev.render.pins import pins_document, pins_text, used_pages_text
from drgn_zonedev.render.proposal import proposal_document, proposal_text
from drgn_zonedev.render.walkers import walkers_document, walkers_text
from drgn_zonedev.util.rendering import result_text
from drgn_zonedev.util.strings import printable
from drgn_zonedev.verification.kernel_knowledge import KernelKnowledge

__all__ = ("to_json",)

# How what a command or helper returns is shown, as text and as JSON.
_RENDERINGS: dict[type, tuple[Callable[[Any], str], Callable[[Any], Document]]] = {
    BugReport: (bugreport_text, bugreport_document),
    Census: (census_text, census_document),
    Explanation: (explanation_text, explanation_document),
    KernelKnowledge: (kernel_knowledge_text, kernel_knowledge_document),
    PageList: (page_list_text, page_list_document),
    Pins: (pins_text, pins_document),
    ProposalReport: (proposal_text, proposal_document),
    Report: (report_text, report_document),
    WalkersReport: (walkers_text, walkers_document),
}

for _type, (_text, _) in _RENDERINGS.items():
    result_text.register(_type, _text)
result_text.register(UsedPages, used_pages_text)


def to_json(result: object) -> str:
    """
    Get a result as JSON, as ``--format json`` prints it.

    :param result: What :func:`~drgn_zonedev.check()`, :func:`~drgn_zonedev.explain()` or another
        helper returned that has a command of the same kind, or the value of a command, such as
        ``_`` after ``%zonedev kernel``.
    :raises TypeError: if no command prints such a result
    """
    rendering = _RENDERINGS.get(type(result))
    if rendering is None:
        known = ", ".join(each.__name__ for each in _RENDERINGS)
        raise TypeError(f"expected one of {known}, got {type(result).__name__}")
    return render(rendering[1](result))


def _span(result: Range | Finding) -> str:
    pages = result.end_pfn - result.start_pfn
    return f"{span(result.start_pfn, result.end_pfn)}, {pages} {'page' if pages == 1 else 'pages'}"


@result_text.register
def _range_text(range_: Range) -> str:
    head = printable(f"{_span(range_)}: {case_text(range_.case)}: {range_.reason}")
    return "\n".join([head, *evidence_lines(range_.evidence)])


@result_text.register
def _finding_text(finding: Finding) -> str:
    head = printable(
        f"{finding.severity.value}: {finding.slug} {_span(finding)}, {finding.count} concerned, "
        f"{case_text(finding.case)}: {finding.message}"
    )
    return "\n".join([head, *evidence_lines(finding.evidence), *advice_lines(finding)])


@result_text.register
def _pgmap_text(pgmap: Pgmap) -> str:
    return "\n".join(printable(line) for line in _pgmap_lines(pgmap))


def _pgmap_lines(pgmap: Pgmap) -> Iterator[str]:
    yield f"struct dev_pagemap @ {pgmap.address:#x}: {pgmap.type}"
    for i, r in enumerate(pgmap.ranges):
        state = "in progress" if pgmap.in_progress and i == pgmap.nr_range else "initialised"
        state = state if pgmap.is_settled else "perhaps in progress"
        pages = r.end_pfn - r.start_pfn
        yield f"    ranges[{i}]: {span(r.start_pfn, r.end_pfn)}, {pages} pages, {state}"
    if pgmap.altmap:
        a = pgmap.altmap
        yield f"    altmap: reserve {a.reserve}, free {a.free}, align {a.align}, alloc {a.alloc}"
    count = "?" if pgmap.ref.count is None else pgmap.ref.count
    yield f"    ref: {pgmap.ref.state}, {pgmap.ref.mode or 'no'} mode, {count} references"
    yield f"    vmemmap_shift: {pgmap.vmemmap_shift}, flags: {pgmap.flags:#x}"
    if pgmap.ops_address:
        yield f"    ops: {pgmap.ops or '?'} @ {pgmap.ops_address:#x}"
    if pgmap.owner_address:
        yield f"    owner: {pgmap.owner or '?'} @ {pgmap.owner_address:#x}"
    if pgmap.device:
        yield f"    device: {device_text(pgmap)}, {pgmap.device.kind}"
