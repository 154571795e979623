# SPDX-License-Identifier: LGPL-2.1-or-later

"""The map as HTML: what is in the file, without a browser."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from support import machines
from support.fakekernel import collision
from support.fakekernel.ram import busy_ram
from support.machines import TIB
from support.opening import open_instead

from drgn_zonedev.census.kind_spans import KindsByPlace, KindSpan
from drgn_zonedev.census.kinds import PageKind
from drgn_zonedev.model import Access, Case, Provenance, Report
from drgn_zonedev.render.picture.glyphs import MARKS
from drgn_zonedev.render.picture.map_html import MapDetails, map_html
from drgn_zonedev.render.picture.scene import make_scene
from drgn_zonedev.report import check
from drgn_zonedev.shell import cli

NO_DETAILS = MapDetails()
HOSTILE = "</script><img src=x onerror=alert(1)>\u202e\"'&@@SCRIPT@@"


def page_of(report: Report, details: MapDetails = NO_DETAILS) -> str:
    scene = make_scene(report.kernel, report.ranges, report.pgmaps, report.findings)
    return map_html(scene, details)


def data_of(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def spans_of(data: Any) -> list[tuple[int, int, str, str]]:
    found, end = [], 0
    for at in range(0, len(data["ranges"]), 6):
        gap, pages, mark, access, _, _ = data["ranges"][at : at + 6]
        names = data["marks"][mark]["name"], data["accesses"][access]["name"]
        found.append((end + gap, end + gap + pages, *names))
        end += gap + pages
    return found


def test_ranges_are_those_of_the_report() -> None:
    report = check(collision("6.1").program())
    found = spans_of(data_of(page_of(report)))
    assert [row[:2] for row in found] == [(r.start_pfn, r.end_pfn) for r in report.ranges]
    assert [row[3] for row in found] == [r.access.value for r in report.ranges]
    assert {row[2] for row in found} < {mark.name for mark in MARKS}


def test_it_says_where_it_comes_from() -> None:
    report = check(collision("6.1").program())
    assert data_of(page_of(report))["origin"] is None
    origin = Provenance("9.8.7", HOSTILE, "b" * 40, None, "DWARF")
    scene = make_scene(report.kernel, report.ranges, report.pgmaps, provenance=origin)
    said = data_of(map_html(scene))["origin"]
    assert said.startswith("</script><img src=x onerror=alert(1)>\\u202e")
    assert said.endswith(f"build ID {'b' * 40}, types from DWARF, zonedev 9.8.7")


def test_ranges_that_overlap_are_drawn_once() -> None:
    ranges = [machines.range_(0, 100, Case.ONLINE), machines.range_(50, 150, Case.DEVICE)]
    found = spans_of(data_of(page_of(machines.report(ranges, []))))
    assert [row[:2] for row in found] == [(0, 100), (100, 150)]


def test_each_access_has_a_colour() -> None:
    ranges = [
        dataclasses.replace(machines.range_(i, i + 1, Case.ONLINE), access=access)
        for i, access in enumerate(Access)
    ]
    found = spans_of(data_of(page_of(machines.report(ranges, []))))
    assert [row[3] for row in found] == [access.value for access in Access]


def test_nodes_and_explanations_are_in_it() -> None:
    report = check(collision("6.1").program())
    data = data_of(page_of(report, MapDetails([(1, 2, 3)], explained={0x24400: "two\nlines\x1b"})))
    assert data["nodes"] == [[1, 2, 3]]
    assert data["pages"] == {str(0x24400): "two\nlines\\x1b"}


def test_names_of_strangers_end_nothing() -> None:
    report = machines.report(
        [machines.range_(0, 10, Case.DEVICE, 1)], [machines.pgmap(1, 0, 10, name=HOSTILE)]
    )
    page = page_of(report)
    assert page.count("</script>") == 2
    assert "<img" not in page
    assert "\u202e" not in page
    assert "img src=x" in data_of(page)["pgmaps"][0]["words"]


def test_policy_allows_the_script_of_the_page_and_nothing_else() -> None:
    page = page_of(check(collision("6.1").program()))
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL)
    assert script
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert policy[1].startswith("default-src 'none'")
    assert f"script-src 'sha256-{digest}'" in policy[1]
    assert "http:" not in page
    assert "https:" not in page


def test_64_tib_with_2000_pgmaps_are_two_megabytes_at_most() -> None:
    report = machines.many_pgmaps(2000)
    last = max(r.end_pfn for r in report.ranges)
    rest = machines.range_(last, 64 * TIB // 4096, Case.ONLINE)
    details = MapDetails(kinds=machines.sampled_kinds(rest.end_pfn))
    page = page_of(dataclasses.replace(report, ranges=(*report.ranges, rest)), details)
    assert len(data_of(page)["pgmaps"]) == 2000
    assert len(page.encode()) <= 2_000_000


def test_kinds_of_pages_are_spans_with_a_share() -> None:
    kinds = [KindSpan(16, 32, PageKind.SLAB, 16), KindSpan(48, 64, PageKind.FREE, 9)]
    data = data_of(page_of(machines.many_pgmaps(1), MapDetails(kinds=KindsByPlace(kinds))))
    names = [kind["name"] for kind in data["kinds"]]
    assert set(names) == {kind.value for kind in PageKind}
    slab, free = names.index("slab"), names.index("free")
    assert data["kind_spans"] == [16, 16, slab, 16, 16, 16, free, 9]


def test_check_draws_the_kinds_of_pages_and_ranges_reads_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    open_instead(monkeypatch, lambda: busy_ram("7.2").program())
    spans = {}
    for command in ("check", "ranges"):
        path = tmp_path / f"{command}.html"
        cli.main([command, "--map", "-o", str(path)])
        spans[command] = data_of(path.read_text("utf-8"))["kind_spans"]
    assert spans["check"]
    assert not spans["ranges"]
