# SPDX-License-Identifier: LGPL-2.1-or-later

"""What differs between two censuses, as text and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from drgn_zonedev.comparison.census_changes import CensusChanges, PagesChange
from drgn_zonedev.comparison.known_census import KnownCensus
from drgn_zonedev.render.as_json import Document
from drgn_zonedev.render.cells import fitted_table
from drgn_zonedev.render.screen import Screen
from drgn_zonedev.util.strings import printable

__all__ = ("CensusSide", "census_changes_document", "census_changes_text")


@dataclass(frozen=True)
class CensusSide:
    """One of the two: what the user calls it, and its census."""

    name: str
    census: KnownCensus


def census_changes_text(
    old: CensusSide, new: CensusSide, found: CensusChanges, *, screen: Screen | None = None
) -> str:
    """What ``diff`` prints of censuses."""
    parts = [
        printable(f"{word}: {side.name}: {side.census.total_pages:,} pages")
        for word, side in (("old", old), ("new", new))
    ]
    if found.kinds:
        rows = [(printable(change.pages.kind), *_numbers(change)) for change in found.kinds]
        table = fitted_table(("KIND", "WAS", "IS", "CHANGE"), rows, screen)
        parts += ["", "KINDS", "", table]
    if found.groups:
        title = found.by.replace("_", "-").upper() if found.by else "NODE AND ZONE"
        parts += ["", f"BY {title}", "", _groups(found, screen)]
    return "\n".join([*parts, "", _summary(found.groups)])


def _groups(found: CensusChanges, screen: Screen | None) -> str:
    headers = ["KIND", "NODE", "ZONE", "WAS", "IS", "CHANGE"]
    if found.by:
        headers.append(found.by.replace("_", "-").upper())
    rows = [
        _group(change) + ([_dash(change.pages.label)] if found.by else [])
        for change in found.groups
    ]
    return fitted_table(headers, rows, screen)


def _group(change: PagesChange) -> list[str]:
    like = change.pages
    zone = like.zone and like.zone.replace("ZONE_", "")
    return [printable(like.kind), _dash(like.node), _dash(zone), *_numbers(change)]


def _numbers(change: PagesChange) -> tuple[str, str, str]:
    return f"{change.old:,}", f"{change.new:,}", f"{change.new - change.old:+,}"


def _dash(value: object) -> str:
    return "-" if value is None else printable(str(value))


def _summary(changes: Sequence[PagesChange]) -> str:
    if not changes:
        return "no differences"
    words = Counter(change.word for change in changes)
    counts = ", ".join(f"{words[word]} {word}" for word in ("came", "went", "changed"))
    return f"groups of pages: {counts}"


def census_changes_document(old: CensusSide, new: CensusSide, found: CensusChanges) -> Document:
    """The document of ``diff`` of censuses."""
    return {
        "schema": "drgn-zonedev/pages-diff/1",
        "old": _side_document(old),
        "new": _side_document(new),
        "by": found.by,
        "groups": [_change(change) for change in found.groups],
    }


def _side_document(side: CensusSide) -> Document:
    return {"name": side.name, "total_pages": side.census.total_pages}


def _change(change: PagesChange) -> Document:
    like = change.pages
    return {
        "change": change.word,
        "kind": like.kind,
        "node": like.node,
        "zone": like.zone,
        "label": like.label,
        "old": change.old,
        "new": change.new,
    }
