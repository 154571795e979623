# SPDX-License-Identifier: LGPL-2.1-or-later

"""JUnit documents, read back by parsers of others."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import junitparser
import pytest

from drgn_zonedev.render.junit_document import (
    add_result,
    add_suite,
    add_test,
    document_text,
    new_document,
)


def test_counts_are_those_of_the_results() -> None:
    root = new_document("all")
    suite = add_suite(root, "one")
    add_test(suite, "class", "passes")
    for tag in ("failure", "failure", "error", "skipped"):
        add_result(add_test(suite, "class", "other", "1.5"), tag, "text", message="why")
    (read,) = junitparser.JUnitXml.fromfile(io.StringIO(document_text(root)))
    assert (read.tests, read.failures, read.errors, read.skipped) == (5, 2, 1, 1)
    assert [case.time for case in read] == [0, 1.5, 1.5, 1.5, 1.5]


@pytest.mark.parametrize("text", ["\0", "\x1b[31m", "\udcff", "\ufffe", "<&\"'>]]>"])
def test_any_text_makes_valid_xml(text: str) -> None:
    root = new_document(text)
    test = add_test(add_suite(root, text), "class", "name")
    add_result(test, "failure", text, message=text)
    read = ElementTree.fromstring(document_text(root))
    assert len(read.findall("testsuite/testcase/failure")) == 1


def test_library_keeps_what_xml_does_not_have() -> None:
    written: bytes = junitparser.TestSuite("\0").tostring()  # type: ignore[no-untyped-call]
    with pytest.raises(ElementTree.ParseError):
        ElementTree.fromstring(written)
