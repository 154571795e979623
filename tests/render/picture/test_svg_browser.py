# SPDX-License-Identifier: LGPL-2.1-or-later

"""The picture in a real browser: nothing overlaps, and the pointer finds the right page."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from support import machines
from support.browser import measure
from support.fakekernel import collision, in_flight, partial
from support.machines import MIB, TIB

from drgn_zonedev.model import Case, Report
from drgn_zonedev.render.picture.scene import make_scene
from drgn_zonedev.render.picture.svg import svg_text
from drgn_zonedev.report import check

pytestmark = pytest.mark.browser


def _damaged() -> Report:
    kernel = collision("6.1")
    kernel.poke_page_word(0x25123, 1, 0xDEAD)
    return check(kernel.program())


def _huge() -> Report:
    """64 TiB, half of them a device, of which one page was never initialised."""
    end = 64 * TIB // 4096
    ranges = [
        machines.range_(0, end // 2, Case.ONLINE),
        machines.range_(end // 2, end // 2 + 2, Case.RESERVED, 1),
        machines.range_(end // 2 + 2, end, Case.DEVICE, 1),
    ]
    bad = machines.finding("device-page-uninitialized", Case.DEVICE, end - 1000, end - 999, pgmap=1)
    pgmaps = [machines.pgmap(1, end // 2, end, name="a name that is much too long " * 9)]
    return machines.report(ranges, pgmaps, [bad])


def _arm64() -> Report:
    pages = 512 * MIB // 65536
    ranges = [
        machines.range_(0, pages, Case.ONLINE),
        machines.range_(pages, pages + 5000, Case.DEVICE, 1),
        machines.range_(pages + 5000, 2 * pages, Case.PARTIAL),
        *(machines.range_((2 + i) * pages, (3 + i) * pages, case) for i, case in enumerate(Case)),
    ]
    pgmaps = [machines.pgmap(1, pages, pages + 5000)]
    return machines.report(ranges, pgmaps, facts=machines.kernel(512 * MIB, 65536))


MACHINES: dict[str, Callable[[], Report]] = {
    "collision": lambda: check(collision("6.1").program()),
    "in flight": lambda: check(in_flight("6.1").program()),
    "partial": lambda: check(partial("6.1").program()),
    "damaged": _damaged,
    "64 TiB": _huge,
    "arm64": _arm64,
    "thousand": lambda: machines.many_pgmaps(1000),
}

# Where the map is: cells of 13 pixels from 142 on, 64 in a row.
LEFT, CELL = 142, 13

# A page of a row of a machine, and what it must be found to be.
PAGES = [
    # Section 4 of the collided machine is the second row.
    ("collision", 0x20000, 0x20000, "online"),
    ("collision", 0x20000, 0x23FFF, "online"),
    ("collision", 0x20000, 0x24000, "reserved (5)"),
    ("collision", 0x20000, 0x24200, "metadata"),
    ("collision", 0x20000, 0x24400, "device (2)"),
    ("collision", 0x28000, 0x2FFFF, "device (2)"),
    ("in flight", 0x20000, 0x24400, "initializing (4)"),
    ("partial", 0x110000, 0x113FFF, "device (2)"),
    ("partial", 0x110000, 0x114000, "partial (3)"),
    ("damaged", 0x20000, 0x25123, "device-page-pgmap"),
]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    pictures = []
    for machine in MACHINES.values():
        report = machine()
        scene = make_scene(report.kernel, report.ranges, report.pgmaps, report.findings)
        pictures.append(svg_text(scene))
    directory = tmp_path_factory.mktemp("browser")
    points = [
        [
            (f"{row:#x}", LEFT + (pfn - row) // 512 * CELL + CELL / 2)
            for name, row, pfn, _ in PAGES
            if name == machine
        ]
        for machine in MACHINES
    ]
    return dict(zip(MACHINES, measure(directory, pictures, points)))


Rect = tuple[float, float, float, float]


def _overlap(a: Rect, b: Rect) -> bool:
    # Boxes of letters touch each other, and are higher than the letters.
    return min(a[2], b[2]) - max(a[0], b[0]) > 0.5 and min(a[3], b[3]) - max(a[1], b[1]) > 1.5


@pytest.mark.parametrize("machine", MACHINES)
def test_no_words_overlap(measured: dict[str, dict[str, Any]], machine: str) -> None:
    texts = sorted(measured[machine]["texts"], key=lambda t: t["rect"][1])
    assert len(texts) > 10
    for i, text in enumerate(texts):
        for other in texts[i + 1 :]:
            if other["rect"][1] > text["rect"][3]:
                break
            assert not _overlap(text["rect"], other["rect"]), (text, other)


@pytest.mark.parametrize("machine", MACHINES)
def test_nothing_leaves_the_picture(measured: dict[str, dict[str, Any]], machine: str) -> None:
    width, height = measured[machine]["view"]
    for thing in measured[machine]["texts"] + measured[machine]["boxes"]:
        left, top, right, bottom = thing["rect"]
        assert 0 <= left < right <= width, thing
        assert 0 <= top < bottom <= height, thing


@pytest.mark.parametrize("machine", MACHINES)
def test_pointer_on_a_box_finds_its_title(
    measured: dict[str, dict[str, Any]], machine: str
) -> None:
    boxes = measured[machine]["boxes"]
    assert boxes
    assert measured[machine]["hits"] == [box["title"] for box in boxes]


@pytest.mark.parametrize(("machine", "row", "pfn", "case"), PAGES)
def test_pointer_at_a_page_finds_its_case(
    measured: dict[str, dict[str, Any]], machine: str, row: int, pfn: int, case: str
) -> None:
    found = [page for page in PAGES if page[0] == machine].index((machine, row, pfn, case))
    title = measured[machine]["points"][found]
    pages, what = title.splitlines()[:2]
    span = re.match(r"PFNs \[(0x[0-9a-f]+), (0x[0-9a-f]+)\)", pages)
    assert span
    assert int(span[1], 16) <= pfn < int(span[2], 16)
    assert case in what


def test_strip_finds_a_single_page_of_64_tib(measured: dict[str, dict[str, Any]]) -> None:
    end = 64 * TIB // 4096
    (box,) = (
        box
        for box in measured["64 TiB"]["boxes"]
        if box["title"].startswith(f"PFNs [{end - 1000:#x}, {end - 999:#x})")
    )
    left, _, right, _ = box["rect"]
    # Wide enough to be hit.
    assert right - left > 30
