# SPDX-License-Identifier: LGPL-2.1-or-later

"""Censuses are read from JSON, and nothing that is damaged."""

from __future__ import annotations

from typing import Any

import pytest

from drgn_zonedev.comparison.known_census import PagesLike, known_census
from drgn_zonedev.comparison.known_report import NotAReportError


def group(pages: int, **more: Any) -> dict[str, Any]:
    return {"kind": "slab", "node": 0, "zone": "ZONE_DMA", "order": None, "pages": pages, **more}


def document(*groups: dict[str, Any]) -> dict[str, Any]:
    return {"schema": "drgn-zonedev/pages/1", "total_pages": 0, "groups": list(groups)}


def test_pgmaps_are_told_apart_by_all_but_their_address() -> None:
    labels = [
        {"address": f"0x{n}", "type": "MEMORY_DEVICE_FS_DAX", "device": "pfn0.0", "in_use": n > 1}
        for n in range(4)
    ]
    census = known_census(document(*(group(10**n, pgmap=label) for n, label in enumerate(labels))))
    assert census.by == "pgmap"
    words = "pfn0.0 MEMORY_DEVICE_FS_DAX"
    assert census.pages == {
        PagesLike("slab", 0, "ZONE_DMA", f"{words} idle"): 11,
        PagesLike("slab", 0, "ZONE_DMA", f"{words} in use"): 1100,
    }
    assert census.total_pages == 1111


@pytest.mark.parametrize(
    ("more", "by", "label"),
    [
        ({}, None, None),
        ({"order": 3}, "order", 3),
        ({"flags": ["PG_slab", "PG_head"]}, "flags", "PG_slab|PG_head"),
        ({"slab_cache": "kmalloc-8"}, "slab_cache", "kmalloc-8"),
        ({"slab_cache": None}, "slab_cache", None),
        ({"memory_block": 7}, "memory_block", 7),
    ],
)
def test_what_pages_are_grouped_by_is_seen(more: dict[str, Any], by: str, label: object) -> None:
    census = known_census(document(group(5, **more)))
    assert (census.by, [like.label for like in census.pages]) == (by, [label])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("groups", None),
        ("groups", {}),
        ("groups", [None]),
        ("groups", ["text"]),
        ("kind", None),
        ("kind", 7),
        ("node", "0"),
        ("node", True),
        ("node", -1),
        ("zone", 7),
        ("pages", -1),
        ("pages", True),
        ("pages", 1.5),
        ("pages", None),
        ("pgmap", {}),
        ("pgmap", {"in_use": True, "device": 7, "type": "T"}),
        ("pgmap", [7]),
        ("pgmap", 1.5),
    ],
)
def test_damage_is_one_error(key: str, value: object) -> None:
    label = {"address": "0x1", "type": "T", "device": None, "in_use": True}
    whole = document(group(5, pgmap=label))
    known_census(whole)
    (whole if key == "groups" else whole["groups"][0])[key] = value
    with pytest.raises(NotAReportError, match="damaged or missing"):
        known_census(whole)
