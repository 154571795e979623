# SPDX-License-Identifier: LGPL-2.1-or-later

"""
What every common schema of JUnit XML asks for: those of Ant's JUnitReport, of Maven's
Surefire, and of Jenkins' xUnit plugin, which rejects files that do not conform.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element


@dataclass(frozen=True)
class Rule:
    """What attributes an element has, and what is in it, in this order."""

    required: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    children: tuple[str, ...] = ()


_COUNTS = frozenset({"tests", "failures", "errors"})
_VERDICTS = ("skipped", "error", "failure")
_RULES = {
    "testsuites": Rule(optional=_COUNTS | {"name", "time"}, children=("testsuite",)),
    "testsuite": Rule(
        _COUNTS | {"name"},
        frozenset({"skipped", "time", "timestamp", "hostname", "id", "package"}),
        ("properties", "testcase", "system-out", "system-err"),
    ),
    "properties": Rule(children=("property",)),
    "property": Rule(frozenset({"name", "value"})),
    "testcase": Rule(
        frozenset({"name", "classname", "time"}),
        children=(*_VERDICTS, "system-out", "system-err"),
    ),
    "failure": Rule(frozenset({"type"}), frozenset({"message"})),
    "error": Rule(frozenset({"type"}), frozenset({"message"})),
    "skipped": Rule(optional=frozenset({"message", "type"})),
    "system-out": Rule(),
    "system-err": Rule(),
}


def broken_rules(element: Element) -> Iterator[str]:
    """Say what is wrong with an element and what is in it."""
    rule = _RULES.get(element.tag)
    if rule is None:
        yield f"there is no element {element.tag}"
        return
    names = set(element.keys())
    yield from (f"{element.tag} lacks {name}" for name in sorted(rule.required - names))
    unknown = sorted(names - rule.required - rule.optional)
    yield from (f"{element.tag} has no {name}" for name in unknown)
    if not re.fullmatch(r"\d+(\.\d+)?", element.get("time", "0")):
        yield f"{element.get('time')} is no time"
    tags = [child.tag for child in element]
    yield from (f"{tag} in {element.tag}" for tag in sorted(set(tags) - set(rule.children)))
    places = [rule.children.index(tag) for tag in tags if tag in rule.children]
    if places != sorted(places):
        yield f"{', '.join(tags)} in this order"
    if element.tag == "testcase" and sum(tag in _VERDICTS for tag in tags) > 1:
        yield f"more than one of {', '.join(_VERDICTS)}"
    if element.tag == "testsuite":
        yield from _wrong_counts(element)
    for child in element:
        yield from broken_rules(child)


def _wrong_counts(suite: Element) -> Iterator[str]:
    counted = {
        "tests": len(suite.findall("testcase")),
        "failures": len(suite.findall("testcase/failure")),
        "errors": len(suite.findall("testcase/error")),
        "skipped": len(suite.findall("testcase/skipped")),
    }
    for name, count in counted.items():
        if suite.get(name, str(count)) != str(count):
            yield f"{suite.get(name)} {name} are {count}"
