# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Known Censuses
--------------

What of a census can be compared with another one: how many pages are alike. It is read from
JSON, like :mod:`~drgn_zonedev.comparison.known_report`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from drgn_zonedev.comparison.known_report import NotAReportError, value_of

__all__ = ("CENSUS_SCHEMA", "KnownCensus", "PagesLike", "known_census")

CENSUS_SCHEMA = "drgn-zonedev/pages/1"
"""The schema of censuses that can be compared."""

# Keys of groups that say what pages are grouped by, besides the order.
_LABELS = ("migratetype", "flags", "slab_cache", "pgmap", "memory_block")


@dataclass(frozen=True)
class PagesLike:
    """
    What some pages have in common. ``label`` is what else they are grouped by: a number or
    words. Pgmaps do without their address, which differs from boot to boot.
    """

    kind: str
    node: int | None
    zone: str | None
    label: int | str | None


@dataclass(frozen=True)
class KnownCensus:
    """How many pages there are of each sort. ``by`` is a key in JSON, such as ``slab_cache``."""

    by: str | None
    pages: dict[PagesLike, int]

    @property
    def total_pages(self) -> int:
        """Number of all pages."""
        return sum(self.pages.values())


def known_census(document: dict[str, Any]) -> KnownCensus:
    """
    Read a document of ``pages --format json``.

    :raises NotAReportError: if it is damaged
    """
    try:
        groups = value_of(list, document["groups"])
        by = _by(groups)
        pages: Counter[PagesLike] = Counter()
        for group in groups:
            pages[_pages_like(group, by)] += _count(group["pages"])
        return KnownCensus(by, dict(pages))
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise NotAReportError(f"a part of it is damaged or missing ({e})") from e


def _by(groups: list[dict[str, Any]]) -> str | None:
    for name in _LABELS:
        if any(name in group for group in groups):
            return name
    return "order" if any(group["order"] is not None for group in groups) else None


def _pages_like(group: dict[str, Any], by: str | None) -> PagesLike:
    node, zone = group["node"], group["zone"]
    return PagesLike(
        kind=value_of(str, group["kind"]),
        node=None if node is None else _count(node),
        zone=None if zone is None else value_of(str, zone),
        label=None if by is None else _label(group[by]),
    )


def _label(label: Any) -> int | str | None:
    if isinstance(label, dict):
        use = "in use" if label["in_use"] else "idle"
        return " ".join((label["device"] or "?", value_of(str, label["type"]), use))
    if isinstance(label, list):
        return "|".join(label)
    if label is not None and not isinstance(label, (int, str)):
        raise TypeError(f"expected a label, got {label!r:.40}")
    return label


def _count(value: object) -> int:
    count = value_of(int, value)
    if count < 0:
        raise ValueError(f"expected a number of 0 or more, got {count}")
    return count
