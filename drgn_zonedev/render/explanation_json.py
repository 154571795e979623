# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Explanation as JSON
-------------------

What ``pfn --format json`` prints; see :mod:`drgn_zonedev.render.as_json`.
"""

from __future__ import annotations

from collections.abc import Sequence

from drgn_zonedev.explanation.explain import Explanation
from drgn_zonedev.explanation.neighbours import Border
from drgn_zonedev.explanation.struct_page import PageWords
from drgn_zonedev.render.as_json import (
    Document,
    evidence_document,
    finding_document,
    kernel_document,
    range_document,
)

__all__ = ("explanation_document", "explanations_document")


def explanations_document(explanations: Sequence[Explanation]) -> Document:
    """The document of ``pfn`` with more than one page."""
    return {
        "schema": "drgn-zonedev/pfns/1",
        "pages": [explanation_document(e) for e in explanations],
    }


def explanation_document(explanation: Explanation) -> Document:
    """The document of ``pfn``."""
    e = explanation
    return {
        "schema": "drgn-zonedev/pfn/1",
        "kernel": kernel_document(e.kernel),
        "subject": {"kind": e.subject.kind, "note": e.subject.note},
        "pfn": e.pfn,
        "physical_address": hex(e.physical_address),
        "section_nr": e.section_nr,
        "subsection": e.subsection,
        "page_address": hex(e.page_address),
        "range": range_document(e.range) if e.range else None,
        "neighbours": {
            "below": _border(e.neighbours.below),
            "above": _border(e.neighbours.above),
        },
        "predicates": [
            {
                "name": p.name,
                "answer": p.answer,
                "because": p.because,
                "evidence": [evidence_document(fact) for fact in p.evidence],
            }
            for p in e.predicates
        ],
        "page": _page(e.page) if e.page else None,
        "page_error": e.page_error,
        "findings": [finding_document(f) for f in e.findings],
        "walkers": [
            {"name": w.name, "function": w.function, "uses": w.uses, "outcome": w.outcome}
            for w in e.walkers
        ],
        "walkers_error": e.walkers_error,
        "verdict": e.verdict,
    }


def _border(border: Border | None) -> Document | None:
    if border is None:
        return None
    return {
        "pfn": border.pfn,
        "why": list(border.why),
        "beyond": range_document(border.beyond) if border.beyond else None,
    }


def _page(page: PageWords) -> Document:
    return {
        "words": [hex(word) for word in page.words],
        "flags": list(page.flags),
        "zone": page.zone,
        "node": page.node,
        "refcount": page.refcount,
        "mapcount": page.mapcount,
        "contents": page.contents,
        "fields": [
            {
                "name": f.name,
                "offset": f.offset,
                "size": f.size,
                "value": hex(f.value),
                "meaning": f.meaning,
                "expected": f.expected,
                "differs": f.differs,
            }
            for f in page.fields
        ],
    }
