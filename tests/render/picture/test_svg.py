# SPDX-License-Identifier: LGPL-2.1-or-later

"""The picture as SVG: what is in it. What it looks like is for a browser to say."""

from __future__ import annotations

import dataclasses
import re
from xml.etree import ElementTree

import pytest
from support import machines
from support.fakekernel import collision, in_flight
from support.opening import open_instead

from drgn_zonedev.model import Case, PgmapDevice, Provenance, Report
from drgn_zonedev.render.picture.scene import make_scene
from drgn_zonedev.render.picture.svg import svg_text
from drgn_zonedev.report import check
from drgn_zonedev.shell import cli

SVG = "{http://www.w3.org/2000/svg}"


def _draw(report: Report) -> ElementTree.Element:
    text = svg_text(make_scene(report.kernel, report.ranges, report.pgmaps, report.findings))
    return ElementTree.fromstring(text)


def _boxes(root: ElementTree.Element) -> list[tuple[int, int, str]]:
    boxes = []
    for box in root.iter(f"{SVG}rect"):
        if "data-start-pfn" in box.attrib:
            start, end = int(box.attrib["data-start-pfn"]), int(box.attrib["data-end-pfn"])
            boxes.append((start, end, box.findtext(f"{SVG}title") or ""))
    return boxes


def test_file_needs_nothing_else() -> None:
    report = machines.many_pgmaps(50)
    root = _draw(report)
    tags = {element.tag.replace(SVG, "") for element in root.iter()}
    assert tags <= {"svg", "g", "rect", "path", "text", "title", "desc", "defs", "pattern"}
    ids = {element.get("id") for element in root.iter()} - {None}
    for element in root.iter():
        for name, value in element.attrib.items():
            assert not name.startswith("on")
            assert "href" not in name
            assert name != "style"
            for reference in re.findall(r"url\((.*?)\)", value):
                assert reference[0] == "#"
                assert reference[1:] in ids


def test_whoever_cannot_see_it_is_told_what_it_is() -> None:
    root = _draw(check(collision("6.1").program()))
    assert root.get("role") == "img"
    labels = [root.find(f"*[@id='{name}']") for name in root.get("aria-labelledby", "").split()]
    assert [e is not None and e.tag for e in labels] == [f"{SVG}title", f"{SVG}desc"]
    # 188 MiB of device from the arithmetic of the scene, and one pgmap.
    assert re.search("188 MiB device.*; 1 pgmaps", root.findtext(f"{SVG}desc") or "")


def test_every_box_says_which_pages_it_is() -> None:
    boxes = _boxes(_draw(check(collision("6.1").program())))
    for start, end, title in boxes:
        assert title.startswith(
            f"PFNs [{start:#x}, {end:#x}), addresses [{start << 12:#x}, {end << 12:#x})\n"
        )
    # The map shows all of the eight sections, the strip the pgmap.
    rows = [(start, end) for start, end, _ in boxes]
    assert sum(end - start for start, end in rows) == 0x40000 + (0x30000 - 0x24000)
    assert (0x24000, 0x24002) in rows
    # The cell that both share says both, what matters most first.
    title = next(t for s, e, t in boxes if (s, e) == (0x24000, 0x24200))
    assert [line.split(") ")[1].split(",")[0] for line in title.splitlines()[1:]] == [
        "reserved (5)",
        "metadata",
    ]


def test_bad_page_has_a_box_of_its_own_and_says_why() -> None:
    kernel = collision("6.1")
    kernel.poke_page_word(0x25123, 1, 0xDEAD)
    report = check(kernel.program())
    (finding,) = (f for f in report.findings if f.severity.value == "error")
    boxes = _boxes(_draw(report))
    titles = [title for start, end, title in boxes if (start, end) == (0x25123, 0x25124)]
    assert len(titles) == 1
    assert finding.slug in titles[0]


def test_frontier_is_named() -> None:
    texts = [e.text for e in _draw(check(in_flight("6.1").program())).iter(f"{SVG}text")]
    assert "nr_range = 0: not initialised from 0x24400 on" in texts


def test_what_repeats_is_said_on_the_strip_and_in_its_tooltip() -> None:
    report = machines.many_pgmaps(2)
    pgmap, ranges = report.pgmaps[0], report.ranges
    device = next(r for r in ranges if r.case is Case.DEVICE)
    bad = [
        machines.finding("device-page-zone", Case.DEVICE, start, start + 384, pgmap.address)
        for start in (device.start_pfn + 512 * i + 128 for i in range(32))
    ]
    root = _draw(machines.report(ranges, [pgmap], bad))
    assert "32 times 128 device (2), 384 error" in {e.text for e in root.iter(f"{SVG}text")}
    assert any("32 times: 128 device (2), 384 error" in title for _, _, title in _boxes(root))


def test_axis_has_the_unit_of_the_rows() -> None:
    texts = [e.text or "" for e in _draw(machines.many_pgmaps(2000)).iter(f"{SVG}text")]
    first = texts.index("PFN")
    offsets = [int(text, 16) for text in texts[first + 1 : first + 4]]
    assert offsets == [offsets[0] * n for n in (1, 2, 3)]
    assert all(text.startswith("+0x") for text in texts[first + 1 : first + 4])


def test_picture_says_where_it_comes_from() -> None:
    report = check(collision("6.1").program())
    origin = Provenance("9.8.7", "dump\x1b[2J", "b" * 40, 1700000000, "DWARF")
    scene = make_scene(report.kernel, report.ranges, report.pgmaps, provenance=origin)
    root = ElementTree.fromstring(svg_text(scene))
    texts = " ".join(e.text or "" for e in root.iter(f"{SVG}text"))
    for drawn in (texts, root.findtext(f"{SVG}desc") or ""):
        for said in (r"dump\x1b[2J", "b" * 40, "2023-11-14T22:13:20", "DWARF", "zonedev 9.8.7"):
            assert said in drawn


def test_folded_axis_and_logarithm_are_said() -> None:
    text = " ".join(e.text or "" for e in _draw(machines.many_pgmaps(50)).iter(f"{SVG}text"))
    assert "equal rows are drawn as one" in text
    assert "logarithm" in text
    assert "34 more pgmaps are not drawn" in text


@pytest.mark.parametrize("name", ["</text><script>alert(1)</script>", "\x00\x1b[2J\x0b", "\ud800&"])
def test_names_from_a_dump_are_only_text(name: str) -> None:
    report = machines.many_pgmaps(1)
    device = PgmapDevice(name, "dax", 1, disk=name)
    pgmaps = (dataclasses.replace(report.pgmaps[0], device=device),)
    facts = dataclasses.replace(report.kernel, release=name)
    root = _draw(dataclasses.replace(report, pgmaps=pgmaps, kernel=facts))
    assert not list(root.iter(f"{SVG}script"))
    svg_text(make_scene(facts, report.ranges, pgmaps)).encode()


def test_thousand_pgmaps_are_a_file_that_a_browser_likes() -> None:
    root = _draw(machines.many_pgmaps(1000))
    assert sum(1 for _ in root.iter()) < 10000
    assert float(root.get("height", "0")) < 4000


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> None:
    open_instead(monkeypatch, in_flight("6.1").program)


@pytest.mark.parametrize("command", ["ranges", "check"])
@pytest.mark.usefixtures("opened")
def test_suffix_chooses_svg(
    command: str, tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command, "--map", "-o", f"{tmp_path}/map.svg"]) == 0
    root = ElementTree.parse(f"{tmp_path}/map.svg").getroot()
    assert root.tag == f"{SVG}svg"
    assert ("case4-initializing" in ElementTree.tostring(root, "unicode")) == (command == "check")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("words", [["check", "--map"], ["check"], ["ranges"], ["ranges", "--map"]])
@pytest.mark.usefixtures("opened")
def test_format_chooses_svg_for_standard_output(
    words: list[str], tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*words, "--format", "svg"]) == 0
    written = capsys.readouterr().out
    assert ElementTree.fromstring(written).tag == f"{SVG}svg"
    assert cli.main([*words[:1], "--map", "-o", f"{tmp_path}/map.svg"]) == 0
    with open(f"{tmp_path}/map.svg") as f:
        assert f.read() == written
    # The name of the file does not matter, unless it says something else.
    assert cli.main([*words, "--format", "svg", "-o", f"{tmp_path}/map.xml"]) == 0
    with open(f"{tmp_path}/map.xml") as f:
        assert f.read() == written


@pytest.mark.usefixtures("opened")
def test_other_suffixes_are_text(tmp_path: object) -> None:
    assert cli.main(["ranges", "--map", "-o", f"{tmp_path}/map.txt"]) == 0
    with open(f"{tmp_path}/map.txt") as f:
        assert f"{'o' * 32}Rm{'I' * 30} #1" in f.read()


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["ranges", "--map", "--format", "json"], "--format json"),
        (["check", "--format", "svg", "-o", "map.html"], "--format svg"),
        (["ranges", "--map", "--format", "html", "-o", "map.svg"], "--format html"),
        (["check", "--format", "svg", "-o", "map.png"], "map.png"),
        (["check", "--quiet", "--format", "svg"], "--quiet"),
        (["check", "--map", "--format", "json"], "--format json"),
        (["ranges", "-o", "map.svg"], "--map"),
        (["check", "-o", "MAP.SVG"], "--map"),
    ],
)
@pytest.mark.usefixtures("opened")
def test_what_cannot_be_drawn_is_one_clear_error(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    done = capsys.readouterr()
    assert done.out == ""
    (line,) = done.err.splitlines()
    assert hint in line
