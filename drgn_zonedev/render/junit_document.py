# SPDX-License-Identifier: LGPL-2.1-or-later

"""
JUnit Documents
---------------

Suites, tests and their results as JUnit XML. junitparser reads it in our tests, but
cannot write it: it keeps characters that XML does not have, such as NUL, and texts of a
damaged kernel contain them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree

__all__ = ("add_properties", "add_result", "add_suite", "add_test", "document_text", "new_document")

# Characters that XML 1.0 cannot represent, not even escaped.
_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_COUNTS = (("failures", "failure"), ("errors", "error"), ("skipped", "skipped"))


def new_document(name: str) -> ElementTree.Element:
    """Begin a document without suites."""
    return ElementTree.Element("testsuites", name=_xml_text(name))


def add_suite(root: ElementTree.Element, name: str) -> ElementTree.Element:
    """Add a suite without tests."""
    return ElementTree.SubElement(root, "testsuite", name=_xml_text(name))


def add_properties(suite: ElementTree.Element, properties: Mapping[str, str]) -> None:
    """Say something about a suite, before its first test."""
    element = ElementTree.SubElement(suite, "properties")
    for name, value in properties.items():
        ElementTree.SubElement(element, "property", name=name, value=_xml_text(value))


def add_test(
    suite: ElementTree.Element, classname: str, name: str, time: str = "0"
) -> ElementTree.Element:
    """Add a test, which passes unless it gets another result."""
    return ElementTree.SubElement(suite, "testcase", classname=classname, name=name, time=time)


def add_result(test: ElementTree.Element, tag: str, text: str = "", **attributes: str) -> None:
    """
    Add ``failure``, ``error``, ``skipped`` or ``system-out`` to a test.

    :param text: It may contain any characters, and so may the attributes.
    """
    valid = {name: _xml_text(value) for name, value in attributes.items()}
    ElementTree.SubElement(test, tag, valid).text = _xml_text(text) or None


def document_text(root: ElementTree.Element) -> str:
    """Count the tests and results of each suite, and return the document."""
    for suite in root:
        suite.set("tests", str(len(suite.findall("testcase"))))
        for count, tag in _COUNTS:
            suite.set(count, str(len(suite.findall(f"testcase/{tag}"))))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def _xml_text(text: str) -> str:
    return _NOT_XML.sub("?", text)
