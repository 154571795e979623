# SPDX-License-Identifier: LGPL-2.1-or-later

from __future__ import annotations

import dataclasses
import io
from xml.etree import ElementTree

import junitparser
import pytest
from support.fakekernel import partial
from support.junitrules import broken_rules

from drgn_zonedev import check
from drgn_zonedev.findings import KINDS
from drgn_zonedev.model import Finding, Provenance, Report, Severity, Unjudged
from drgn_zonedev.render.as_junit import error_junit, report_junit


def _report() -> Report:
    kernel = partial("6.1")
    kernel.poke_page_word(0x100801, 1, 0)
    return check(kernel.program())


def _is_error(finding: Finding) -> bool:
    return finding.severity is Severity.ERROR


def _tests(text: str) -> dict[str, ElementTree.Element]:
    return {str(t.get("name")): t for t in ElementTree.fromstring(text).iter("testcase")}


def test_every_kind_is_a_test_and_what_is_named_fails() -> None:
    text = report_junit(_report(), _is_error)
    (suite,) = junitparser.JUnitXml.fromfile(io.StringIO(text))
    assert (suite.tests, suite.failures, suite.errors) == (len(KINDS) + 1, 1, 0)
    tests = _tests(text)
    assert set(KINDS) < set(tests)
    failed = [name for name, test in tests.items() if test.find("failure") is not None]
    assert failed == ["device-tail-link"]
    failure = tests["device-tail-link"].find("failure")
    assert failure is not None
    assert failure.get("type") == "error"
    assert "[0x100801, 0x100802)" in str(failure.text)


def test_what_is_not_named_is_said_and_does_not_fail() -> None:
    output = _tests(report_junit(_report(), _is_error))["case5-reserved"].find("system-out")
    assert output is not None
    assert "[0x100000, 0x100002)" in str(output.text)


def test_what_could_not_be_judged_is_skipped() -> None:
    report = dataclasses.replace(_report(), unjudged=(Unjudged(1, 2, "left out of the dump"),))
    text = report_junit(report, _is_error)
    skipped = _tests(text)["everything-was-judged"].find("skipped")
    assert skipped is not None
    assert "left out of the dump" in str(skipped.get("message"))
    assert _tests(report_junit(_report(), _is_error))["everything-was-judged"].find("*") is None


@pytest.mark.parametrize(("crash_time", "said"), [(None, []), (0, ["1970-01-01T00:00:00+00:00"])])
def test_only_a_kernel_that_crashed_has_a_crash_time(
    crash_time: int | None, said: list[str]
) -> None:
    origin = Provenance("9.8.7", "vmcore", None, crash_time, "DWARF")
    text = report_junit(dataclasses.replace(_report(), provenance=origin), _is_error)
    properties = ElementTree.fromstring(text).iter("property")
    assert [p.get("value") for p in properties if p.get("name") == "crash-time"] == said


def _nothing_judged() -> Report:
    report = _report()
    return dataclasses.replace(
        report,
        unjudged=(Unjudged(1, 2, "left out of the dump"),),
        coverage=dataclasses.replace(report.coverage, pages_verified=0, pages_unreadable=1),
    )


def test_nothing_judged_is_an_error() -> None:
    text = report_junit(_nothing_judged(), lambda finding: False)
    (suite,) = junitparser.JUnitXml.fromfile(io.StringIO(text))
    assert (suite.errors, suite.skipped) == (1, 0)
    error = _tests(text)["everything-was-judged"].find("error")
    assert error is not None
    assert "nothing could be judged: [0x1, 0x2): left out" in str(error.get("message"))


def test_no_report_is_an_error_of_the_same_test() -> None:
    text = error_junit("cannot open \x1b[2J <vmcore>: give another")
    assert list(broken_rules(ElementTree.fromstring(text))) == []
    ((name, test),) = _tests(text).items()
    assert name == "everything-was-judged"
    error = test.find("error")
    assert error is not None
    assert error.text == error.get("message") == "cannot open ?[2J <vmcore>: give another"


def test_shape_is_the_common_one() -> None:
    # What Jenkins, GitLab and GitHub's actions agree on.
    root = ElementTree.fromstring(report_junit(_report(), lambda finding: True))
    assert root.tag == "testsuites"
    (suite,) = root
    properties, *tests = suite
    assert properties.tag == "properties"
    assert suite.tag == "testsuite"
    assert {"name", "tests", "failures", "errors", "skipped"} <= set(suite.keys())
    assert len(suite.findall("testcase/failure")) == int(str(suite.get("failures")))
    for test in tests:
        assert test.tag == "testcase"
        assert {"classname", "name", "time"} <= set(test.keys())
        assert {child.tag for child in test} <= {"failure", "skipped", "system-out"}


def test_common_schemas_are_obeyed() -> None:
    unjudged = dataclasses.replace(_report(), unjudged=(Unjudged(1, 2, "left out of the dump"),))
    for report in (_report(), unjudged, _nothing_judged()):
        for is_failure in (_is_error, lambda finding: True, lambda finding: False):
            root = ElementTree.fromstring(report_junit(report, is_failure))
            assert list(broken_rules(root)) == []


@pytest.mark.parametrize(
    ("valid", "broken", "rule"),
    [
        (' errors="0"', "", "testsuite lacks errors"),
        ('failures="1"', 'failures="2"', "2 failures are 1"),
        (' type="error"', "", "failure lacks type"),
        (' time="0"', ' time="0 s"', "0 s is no time"),
        (' classname="', ' class="', "testcase lacks classname"),
        ("<failure", '<failure type=""/><failure', "more than one of skipped, error, failure"),
        ("<failure", "<system-out/><failure", "system-out, failure in this order"),
        (' value="DWARF"', "", "property lacks value"),
        ("<system-out>", "<output/><system-out>", "output in testcase"),
    ],
)
def test_broken_rules_are_seen(valid: str, broken: str, rule: str) -> None:
    text = report_junit(_report(), _is_error)
    assert valid in text
    root = ElementTree.fromstring(text.replace(valid, broken, 1))
    assert rule in list(broken_rules(root))


def test_what_xml_cannot_say_is_replaced() -> None:
    report = _report()
    kernel = dataclasses.replace(report.kernel, release='6.1\x1b<&">\udc80')
    text = report_junit(dataclasses.replace(report, kernel=kernel), _is_error)
    (suite,) = ElementTree.fromstring(text)
    assert suite.get("name") == 'zonedev check: Linux 6.1?<&">?: a program in drgn'
