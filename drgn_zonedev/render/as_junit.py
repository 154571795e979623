# SPDX-License-Identifier: LGPL-2.1-or-later

"""
JUnit XML
---------

A report for CI servers: a test for each kind of finding, which fails if the report has
a finding of that kind that ``--fail-on`` names, and a test for what could not be judged,
which is an error if nothing could be judged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from xml.etree import ElementTree

from drgn_zonedev.findings import KINDS
from drgn_zonedev.model import Finding, Report, Severity

__all__ = ("error_junit", "report_junit", "xml_text")

# The test of what could not be judged: its class, its name, and the type of its errors.
_JUDGED, _NOT_JUDGED = (f"zonedev.{Severity.INFO.value}", "everything-was-judged"), "not judged"

# Characters that XML 1.0 cannot represent.
_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def report_junit(report: Report, is_failure: Callable[[Finding], bool]) -> str:
    """
    What ``check --format junit`` prints.

    :param is_failure: Whether a finding makes its test fail.
    """
    found: dict[str, list[Finding]] = {slug: [] for slug in KINDS}
    for finding in report.findings:
        found[finding.slug].append(finding)
    root = ElementTree.Element("testsuites", name="zonedev")
    suite = _add_suite(root, f"zonedev check: Linux {report.kernel.release}")
    for slug, findings in found.items():
        _add_kind(suite, slug, findings, is_failure)
    _add_unjudged(suite, report)
    return _text(root)


def error_junit(message: str) -> str:
    """The document to write if there is no report; *message* says why."""
    root = ElementTree.Element("testsuites", name="zonedev")
    test = _add_test(_add_suite(root, "zonedev"), *_JUDGED)
    _add(test, "error", xml_text(message), message=xml_text(message), type=_NOT_JUDGED)
    return _text(root)


def _add_suite(root: ElementTree.Element, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(root, "testsuite", name=xml_text(name))


def _text(root: ElementTree.Element) -> str:
    for suite in root:
        suite.set("tests", str(len(suite)))
        for count, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            suite.set(count, str(len(suite.findall(f"testcase/{tag}"))))
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
    test = _add_test(suite, *_JUDGED)
    lines = [f"[{u.start_pfn:#x}, {u.end_pfn:#x}): {u.reason}" for u in report.unjudged]
    if report.nothing_judged:
        message = xml_text(f"nothing could be judged: {lines[0] if lines else 'all is unknown'}")
        _add(test, "error", xml_text("\n".join(lines)), message=message, type=_NOT_JUDGED)
    elif lines:
        _add(test, "skipped", message=xml_text(f"{len(lines)} could not be judged: {lines[0]}"))
        _add(test, "system-out", xml_text("\n".join(lines)))


def _add_test(suite: ElementTree.Element, classname: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=classname, name=name, time="0")


def _add(test: ElementTree.Element, tag: str, text: str = "", **attributes: str) -> None:
    ElementTree.SubElement(test, tag, attributes).text = text or None


def xml_text(text: str) -> str:
    """Replace the characters that XML cannot represent, not even escaped."""
    return _NOT_XML.sub("?", text)
