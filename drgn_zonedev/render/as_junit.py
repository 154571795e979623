# SPDX-License-Identifier: LGPL-2.1-or-later

"""
JUnit XML
---------

A report for CI servers: a test for each kind of finding, which fails if the report has
a finding of that kind that ``--fail-on`` names, and a test for what could not be judged,
which is an error if nothing could be judged.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath
from xml.etree import ElementTree

from drgn_zonedev.findings import KINDS
from drgn_zonedev.model import Finding, Provenance, Report, Severity
from drgn_zonedev.render.as_text import evidence_lines, time_text
from drgn_zonedev.render.bugs import bug_lines
from drgn_zonedev.render.cells import kind_lines
from drgn_zonedev.render.finding_groups import group_findings, group_line
from drgn_zonedev.render.junit_document import (
    add_properties,
    add_result,
    add_suite,
    add_test,
    document_text,
    new_document,
)

__all__ = ("error_junit", "report_junit")

# The test of what could not be judged: its class, its name, and the type of its errors.
_JUDGED, _NOT_JUDGED = (f"zonedev.{Severity.INFO.value}", "everything-was-judged"), "not judged"


def report_junit(report: Report, is_failure: Callable[[Finding], bool]) -> str:
    """
    What ``check --format junit`` prints.

    :param is_failure: Whether a finding makes its test fail.
    """
    found: dict[str, list[Finding]] = {slug: [] for slug in KINDS}
    for finding in report.findings:
        found[finding.slug].append(finding)
    root = new_document("zonedev")
    suite = add_suite(root, _suite_name(report))
    if report.provenance:
        _add_provenance(suite, report.provenance)
    for slug, findings in found.items():
        _add_kind(suite, slug, findings, is_failure)
    _add_unjudged(suite, report)
    return document_text(root)


def _suite_name(report: Report) -> str:
    name = f"zonedev check: Linux {report.kernel.release}"
    # The lab calls dumps after the kernel and the scenario.
    return f"{name}: {PurePath(report.provenance.source).name}" if report.provenance else name


def _add_provenance(suite: ElementTree.Element, origin: Provenance) -> None:
    now = datetime.datetime.now(datetime.timezone.utc)
    suite.set("timestamp", now.replace(tzinfo=None).isoformat(timespec="seconds"))
    crashed = None if origin.crash_time is None else time_text(origin.crash_time)
    properties = {
        "tool": f"zonedev {origin.tool}",
        "source": origin.source,
        "build-id": origin.build_id,
        "crash-time": crashed,
        "types": origin.types,
    }
    add_properties(suite, {name: value for name, value in properties.items() if value})


def error_junit(message: str) -> str:
    """The document to write if there is no report; *message* says why."""
    root = new_document("zonedev")
    test = add_test(add_suite(root, "zonedev"), *_JUDGED)
    add_result(test, "error", message, message=message, type=_NOT_JUDGED)
    return document_text(root)


def _add_kind(
    suite: ElementTree.Element,
    slug: str,
    findings: Sequence[Finding],
    is_failure: Callable[[Finding], bool],
) -> None:
    severity = KINDS[slug].severity
    test = add_test(suite, f"zonedev.{severity.value}", slug)
    failing = [f for f in findings if is_failure(f)]
    text = "\n".join(_lines(findings))
    if failing:
        count = "1 finding" if len(failing) == 1 else f"{len(failing)} findings"
        message = f"{count}: {failing[0].message}"
        add_result(test, "failure", text, message=message, type=severity.value)
    elif findings:
        add_result(test, "system-out", text)


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    for group in group_findings(findings):
        yield group_line(group)
        yield from evidence_lines(group.evidence)
        yield from bug_lines(group.first.known_bugs)
    if findings:
        # The same for all of them.
        yield from kind_lines(findings[0].slug)


def _add_unjudged(suite: ElementTree.Element, report: Report) -> None:
    test = add_test(suite, *_JUDGED)
    lines = [f"[{u.start_pfn:#x}, {u.end_pfn:#x}): {u.reason}" for u in report.unjudged]
    if report.nothing_judged:
        message = f"nothing could be judged: {lines[0] if lines else 'all is unknown'}"
        add_result(test, "error", "\n".join(lines), message=message, type=_NOT_JUDGED)
    elif lines:
        add_result(test, "skipped", message=f"{len(lines)} could not be judged: {lines[0]}")
        add_result(test, "system-out", "\n".join(lines))
