# SPDX-License-Identifier: LGPL-2.1-or-later

"""
JUnit XML
---------

A report as CI servers read it: a test for each kind of finding, which fails if the
report has one that ``--fail-on`` names, and one for what could not be judged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from xml.etree import ElementTree

from drgn_zonedev.findings import KINDS
from drgn_zonedev.model import Finding, Report, Severity

__all__ = ("report_junit", "xml_text")

# What XML 1.0 has no way to say.
_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def report_junit(report: Report, is_failure: Callable[[Finding], bool]) -> str:
    """
    What ``check --format junit`` prints.

    :param is_failure: Whether a finding makes its test fail.
    """
    found: dict[str, list[Finding]] = {slug: [] for slug in KINDS}
    for finding in report.findings:
        found[finding.slug].append(finding)
    failures = sum(any(map(is_failure, findings)) for findings in found.values())
    root = ElementTree.Element("testsuites", name="zonedev")
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        name=xml_text(f"zonedev check: Linux {report.kernel.release}"),
        tests=str(len(found) + 1),
        failures=str(failures),
        errors="0",
        skipped=str(int(bool(report.unjudged))),
    )
    for slug, findings in found.items():
        _add_kind(suite, slug, findings, is_failure)
    _add_unjudged(suite, report)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def _add_kind(
    suite: ElementTree.Element,
    slug: str,
    findings: Sequence[Finding],
    is_failure: Callable[[Finding], bool],
) -> None:
    severity = KINDS[slug].severity
    test = _add_test(suite, f"zonedev.{severity.value}", slug)
    failing = [f for f in findings if is_failure(f)]
    text = "\n".join(xml_text(str(finding)) for finding in findings)
    if failing:
        count = "1 finding" if len(failing) == 1 else f"{len(failing)} findings"
        message = f"{count}: {failing[0].message}"
        _add(test, "failure", text, message=xml_text(message), type=severity.value)
    elif findings:
        _add(test, "system-out", text)


def _add_unjudged(suite: ElementTree.Element, report: Report) -> None:
    test = _add_test(suite, f"zonedev.{Severity.INFO.value}", "everything-was-judged")
    if report.unjudged:
        lines = [f"[{u.start_pfn:#x}, {u.end_pfn:#x}): {u.reason}" for u in report.unjudged]
        _add(test, "skipped", message=xml_text(f"{len(lines)} could not be judged: {lines[0]}"))
        _add(test, "system-out", xml_text("\n".join(lines)))


def _add_test(suite: ElementTree.Element, classname: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=classname, name=name, time="0")


def _add(test: ElementTree.Element, tag: str, text: str = "", **attributes: str) -> None:
    ElementTree.SubElement(test, tag, attributes).text = text or None


def xml_text(text: str) -> str:
    """Get text without what XML cannot hold, not even escaped."""
    return _NOT_XML.sub("?", text)
