# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Map as HTML
-----------

The picture as one HTML file, which zooms from all memory to a page. It needs no network, and its
policy forbids all requests and foreign scripts, because names in it come from strangers.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from typing import Any

from drgn_zonedev.census.kind_spans import SAMPLE_PAGES, KindsByPlace, KindSpan
from drgn_zonedev.model import Access
from drgn_zonedev.render.as_text import kernel_name, provenance_text
from drgn_zonedev.render.finding_groups import FindingGroup, group_line
from drgn_zonedev.render.picture.glyphs import MARKS, mark_of_range
from drgn_zonedev.render.picture.kind_looks import KIND_LOOKS
from drgn_zonedev.render.picture.scene import Picture
from drgn_zonedev.render.picture.words import device_name, pgmap_words
from drgn_zonedev.util.strings import printable

__all__ = ("MapDetails", "NodeSpan", "map_html")

NodeSpan = tuple[int, int, int]
"""The number of a node, and the PFNs that it spans: the first, and the one after the last."""

# The most important ones come first, because a pixel has one colour. Each has its ink and hatching.
_ACCESSES = {
    Access.HWPOISON: ("#c44f00", "#ffffff", "cross"),
    Access.UNKNOWN: ("#ffffff", "#000000", "cross"),
    Access.UNACCEPTED: ("#cc79a7", "#000000", "up"),
    Access.OFFLINE: ("#6b7280", "#ffffff", "down"),
    Access.MMIO: ("#e69f00", "#000000", None),
    Access.NO_MEMORY: ("#f0e442", "#000000", "up"),
    Access.STRUCT_PAGES: ("#56b4e9", "#000000", None),
    Access.READABLE: ("#d3d9de", "#000000", None),
}
_RANK = {access: rank for rank, access in enumerate(_ACCESSES)}


@dataclass(frozen=True)
class MapDetails:
    """
    What a map shows besides the scene: the spans of nodes, the kinds of RAM's pages, and the
    answers of ``pfn`` for some PFNs.
    """

    nodes: Sequence[NodeSpan] = ()
    kinds: KindsByPlace = field(default_factory=KindsByPlace)
    explained: Mapping[int, str] = field(default_factory=dict)


def map_html(scene: Picture, details: MapDetails = MapDetails()) -> str:
    """Draw a scene as an HTML document."""
    script = _part("map.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    title = printable(f"Physical memory of Linux {scene.kernel.release}")
    parts = {
        "@@TITLE@@": escape(title),
        "@@SCRIPT_HASH@@": f"'sha256-{digest}'",
        "@@SCRIPT@@": script,
        # This comes last, so that its contents are not replaced.
        "@@DATA@@": _in_html(_document(scene, title, details)),
    }
    page = _part("map.html")
    for name, text in parts.items():
        page = page.replace(name, text)
    return page


def _part(name: str) -> str:
    return resources.files("drgn_zonedev.render.picture").joinpath(name).read_text("utf-8")


def _in_html(document: Mapping[str, Any]) -> str:
    # Text must not end the element that contains it.
    return json.dumps(document, separators=(",", ":")).replace("<", "\\u003c")


def _document(scene: Picture, title: str, details: MapDetails) -> dict[str, Any]:
    texts = list(dict.fromkeys(printable(r.reason) for r in scene.ranges))
    numbers = {text: i for i, text in enumerate(texts)}
    return {
        "title": title,
        "about": printable(kernel_name(scene.kernel)),
        "origin": provenance_text(scene.provenance) if scene.provenance else None,
        "verified": scene.findings is not None,
        "kernel": {
            "page_size": scene.kernel.page_size,
            "section_pages": scene.kernel.section_size // scene.kernel.page_size,
        },
        "marks": [
            {"letter": m.letter, "name": m.name, "fill": m.fill, "ink": m.ink, "hatch": m.hatch}
            for m in MARKS
        ],
        "accesses": [
            {"name": access.value, "fill": fill, "ink": ink, "hatch": hatch}
            for access, (fill, ink, hatch) in _ACCESSES.items()
        ],
        "texts": texts,
        "ranges": list(_ranges(scene, numbers)),
        "pgmaps": [_pgmap(scene, number) for number in range(len(scene.pgmaps))],
        "findings": [_finding(group) for group in scene.groups],
        "nodes": [list(node) for node in details.nodes],
        "kinds": [
            {"name": kind.value, "fill": fill, "ink": ink, "hatch": hatch}
            for kind, (fill, ink, hatch) in KIND_LOOKS.items()
        ],
        "kind_spans": list(_kind_spans(details.kinds.spans)),
        "kind_pages": [SAMPLE_PAGES, details.kinds.every * SAMPLE_PAGES],
        "pages": {
            str(pfn): "\n".join(map(printable, text.split("\n")))
            for pfn, text in details.explained.items()
        },
    }


def _ranges(scene: Picture, numbers: Mapping[str, int]) -> Iterator[int]:
    end = 0
    for r, owner in zip(scene.ranges, scene.owners.tolist()):
        # A damaged dump may have ranges that overlap.
        start = max(r.start_pfn, end)
        if start < r.end_pfn:
            yield from (start - end, r.end_pfn - start, mark_of_range(r), _RANK[r.access], owner)
            yield numbers[printable(r.reason)]
            end = r.end_pfn


_KIND_RANK = {kind: rank for rank, kind in enumerate(KIND_LOOKS)}


def _kind_spans(spans: Sequence[KindSpan]) -> Iterator[int]:
    end = 0
    for span in spans:
        yield from (span.start_pfn - end, span.end_pfn - span.start_pfn)
        yield from (_KIND_RANK[span.kind], span.pages)
        end = span.end_pfn


def _pgmap(scene: Picture, number: int) -> dict[str, Any]:
    pgmap = scene.pgmaps[number]
    return {
        "name": device_name(pgmap),
        "words": pgmap_words(scene, number),
        "spans": [pfn for r in pgmap.ranges for pfn in (r.start_pfn, r.end_pfn)],
    }


def _finding(group: FindingGroup) -> dict[str, Any]:
    with_pages = [f for f in group.findings if f.start_pfn < f.end_pfn]
    return {
        "slug": group.slug,
        "severity": group.severity.value,
        "line": group_line(group),
        "spans": [pfn for f in with_pages for pfn in (f.start_pfn, f.end_pfn)],
    }
