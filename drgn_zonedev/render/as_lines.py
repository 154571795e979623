# SPDX-License-Identifier: LGPL-2.1-or-later

"""
JSON Lines
----------

A report as one JSON object per line, for tools that read logs: a header, then every
finding, worst first, then what could not be judged. In each line, ``record`` says
what it is; each line conforms to ``schema.json`` by itself.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator

from drgn_zonedev.model import Finding, Report
from drgn_zonedev.render.as_json import Document, report_document

__all__ = ("report_lines",)


def report_lines(report: Report, new: Collection[Finding] | None = None) -> str:
    """What ``check --format jsonl`` prints."""
    return "\n".join(json.dumps(record) for record in _records(report, new))


def _records(report: Report, new: Collection[Finding] | None) -> Iterator[Document]:
    document = report_document(report, new)
    yield {
        "record": "header",
        "schema": "drgn-zonedev/report-lines/2",
        "kernel": document["kernel"],
        **{key: document[key] for key in ("provenance",) if key in document},
        "scope": document["scope"],
        "summary": document["summary"],
        "coverage": document["coverage"],
        "findings": len(report.findings),
        "unjudged": len(report.unjudged),
    }
    for finding in document["findings"]:
        yield {"record": "finding", **finding}
    for unjudged in document["unjudged"]:
        yield {"record": "unjudged", **unjudged}
