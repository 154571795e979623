# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Known Reports
-------------

What of a report can be compared with another one: not addresses, which differ from boot to
boot, and not counts of references, which always move. It is read from JSON of either schema,
because that is what is left of a machine that is gone; a new report goes the same way.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = (
    "SCHEMAS",
    "KnownFinding",
    "KnownPgmap",
    "KnownRange",
    "KnownReport",
    "NotAReportError",
    "known_report",
    "value_of",
)

_T = TypeVar("_T")

SCHEMAS = ("drgn-zonedev/report/1", "drgn-zonedev/report/2")
"""Schemas of reports that can be compared."""


class NotAReportError(ValueError):
    """A document is not a report, or damaged."""


@dataclass(frozen=True)
class KnownRange:
    """A run of PFNs with one case."""

    start_pfn: int
    end_pfn: int
    case: str
    memmap: str


@dataclass(frozen=True)
class KnownFinding:
    """A finding, without its evidence."""

    slug: str
    severity: str
    start_pfn: int
    end_pfn: int
    count: int
    message: str


@dataclass(frozen=True)
class KnownPgmap:
    """A ``struct dev_pagemap``: its PFNs, its device, and what else is said of it."""

    spans: tuple[tuple[int, int], ...]
    device: str | None
    type: str
    state: str
    vmemmap_shift: int
    altmap: tuple[int, int, int] | None
    """reserve, free and alloc, in pages"""


@dataclass(frozen=True)
class KnownReport:
    """One kernel's memory, or the part of it that ``scope`` names."""

    release: str
    architecture: str
    scope: tuple[str | None, int | None, int | None]
    pgmaps: tuple[KnownPgmap, ...]
    ranges: tuple[KnownRange, ...]
    findings: tuple[KnownFinding, ...]


class _Severity(enum.Enum):
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


def known_report(document: object) -> KnownReport:
    """
    Read a document of ``check --format json``.

    :raises NotAReportError: if it is something else
    """
    if not isinstance(document, dict) or document.get("schema") not in SCHEMAS:
        schema = document.get("schema") if isinstance(document, dict) else None
        raise NotAReportError(f"its schema is {schema!r}" if schema else "it has no schema")
    try:
        return _report(document)
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise NotAReportError(f"a part of it is damaged or missing ({e})") from e


def _report(document: dict[str, Any]) -> KnownReport:
    kernel, scope = document["kernel"], document.get("scope") or {}
    return KnownReport(
        release=value_of(str, kernel["release"]),
        architecture=value_of(str, kernel["architecture"]),
        scope=(scope.get("only"), scope.get("start_pfn"), scope.get("end_pfn")),
        pgmaps=_all(_pgmap, document["pgmaps"]),
        ranges=tuple(sorted(_all(_range, document["ranges"]), key=lambda r: r.start_pfn)),
        findings=_all(_finding, document["findings"]),
    )


def value_of(kind: type[_T], value: object) -> _T:
    """
    Return a value of a document.

    :raises TypeError: if it is of another kind
    """
    # bool is an int, but not a PFN.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"expected {kind.__name__}, got {value!r:.40}")
    return value


def _all(read: Callable[[dict[str, Any]], _T], items: Sequence[Any]) -> tuple[_T, ...]:
    return tuple(read(item) for item in value_of(list, items))


def _span(item: dict[str, Any]) -> tuple[int, int]:
    start, end = value_of(int, item["start_pfn"]), value_of(int, item["end_pfn"])
    if not 0 <= start <= end:
        raise ValueError(f"PFNs {start} to {end}")
    return start, end


def _range(item: dict[str, Any]) -> KnownRange:
    return KnownRange(*_span(item), value_of(str, item["case"]), value_of(str, item["memmap"]))


def _finding(item: dict[str, Any]) -> KnownFinding:
    return KnownFinding(
        value_of(str, item["slug"]),
        _Severity(item["severity"]).value,
        *_span(item),
        value_of(int, item["count"]),
        value_of(str, item["message"]),
    )


def _pgmap(item: dict[str, Any]) -> KnownPgmap:
    altmap, device = item["altmap"], item["device"]
    return KnownPgmap(
        spans=_all(_span, item["ranges"]),
        device=value_of(str, device["name"]) if device else None,
        type=value_of(str, item["type"]),
        state="initializing" if item["in_progress"] else value_of(str, item["ref"]["state"]),
        vmemmap_shift=value_of(int, item["vmemmap_shift"]),
        altmap=tuple(value_of(int, altmap[name]) for name in ("reserve", "free", "alloc"))  # type: ignore[arg-type]
        if altmap
        else None,
    )
