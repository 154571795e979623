# SPDX-License-Identifier: LGPL-2.1-or-later

"""
SVG
---

The picture as a self-contained SVG file, without scripts, style sheets, fonts or external
references. It has its own background, so it is legible on any page.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from drgn_zonedev.render.as_text import kernel_name, provenance_text, size_text
from drgn_zonedev.render.cells import span
from drgn_zonedev.render.finding_groups import FindingGroup, group_line
from drgn_zonedev.render.picture.glyphs import BAD, HOLE, MARKS, is_bad, mark_of_range
from drgn_zonedev.render.picture.layout import Grid, Row, grid
from drgn_zonedev.render.picture.scene import Picture, error_findings_between, ranges_between
from drgn_zonedev.render.picture.strips import Part, Strip, edges, strip
from drgn_zonedev.render.picture.words import (
    device_name,
    legend_marks,
    numbers_words,
    pgmap_words,
    range_words,
    scale_words,
    trouble_words,
    troubles,
)
from drgn_zonedev.render.screen import chosen
from drgn_zonedev.util.strings import printable

__all__ = ("svg_text",)

_COLUMNS, _MAX_ROWS = 64, 40
_MAX_STRIPS, _MAX_PARTS, _MAX_TROUBLES = 16, 9, 12
_MAX_TITLE_LINES = 8

_MARGIN = 24.0
_CELL, _ROW, _ROW_GAP = 13.0, 20.0, 4.0
_LABEL = 118.0
_SIDE = 208.0
_MAP = _COLUMNS * _CELL
_WIDTH = 2 * _MARGIN + _LABEL + _MAP + _SIDE
_INNER = _WIDTH - 2 * _MARGIN
_LEFT = _MARGIN + _LABEL

_FONT = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"
# Width of a character of such a font, in units of its size; some are narrower.
_ASPECT = 0.61
_PAPER, _INK, _SOFT, _ALARM, _RULE = "#fcfcfa", "#1c2227", "#4f5a63", "#b03a00", "#c9ced2"

Element = ElementTree.Element


@dataclass(frozen=True)
class _Block:
    """A drawn element, and its height."""

    element: Element
    height: float


def svg_text(scene: Picture) -> str:
    """Draw a scene as an SVG document."""
    drawn = grid(scene, _COLUMNS, _MAX_ROWS)
    strips = _strips(scene)
    marks = legend_marks(drawn, [part.mark for s in strips for part in s.parts])
    blocks = [
        _heading(scene, drawn),
        _legend(marks),
        _map(scene, drawn),
        _zooms(scene, strips),
        _troubles(scene),
    ]
    root = _root(scene, sum(block.height for block in blocks) + 2 * _MARGIN, marks)
    y = _MARGIN
    for block in blocks:
        block.element.set("transform", f"translate(0 {_n(y)})")
        root.append(block.element)
        y += block.height
    ElementTree.indent(root, " ")
    return ElementTree.tostring(root, encoding="unicode")


def _root(scene: Picture, height: float, marks: Sequence[int]) -> Element:
    root = Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {_n(_WIDTH)} {_n(height)}",
            "width": _n(_WIDTH),
            "height": _n(height),
            "font-family": _FONT,
            "font-size": "12",
            "fill": _INK,
            "role": "img",
            "aria-labelledby": "zonedev-title zonedev-desc",
        },
    )
    _child(root, "title", {"id": "zonedev-title"}).text = printable(
        f"Physical memory of Linux {scene.kernel.release}"
    )
    _child(root, "desc", {"id": "zonedev-desc"}).text = _description(scene)
    defs = _child(root, "defs")
    for mark in marks:
        _pattern(defs, mark)
    _child(root, "rect", {"width": "100%", "height": "100%", "rx": "8", "fill": _PAPER})
    return root


def _description(scene: Picture) -> str:
    pages: dict[str, int] = {}
    for r in scene.ranges:
        pages[r.case.value] = pages.get(r.case.value, 0) + r.pages
    size = scene.kernel.page_size
    cases = [f"{size_text(n * size)} {case}" for case, n in sorted(pages.items())]
    origin = f" From {provenance_text(scene.provenance)}." if scene.provenance else ""
    return f"{', '.join(cases) or 'no memory'}; {len(scene.pgmaps):,} pgmaps.{origin}"


# Small things.


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _child(parent: Element, tag: str, attributes: dict[str, str] | None = None) -> Element:
    return ElementTree.SubElement(parent, tag, attributes or {})


def _text(
    parent: Element, x: float, y: float, words: str, size: float = 12, **attributes: str
) -> Element:
    element = _child(parent, "text", {"x": _n(x), "y": _n(y), "font-size": _n(size)})
    for name, value in attributes.items():
        element.set(name.replace("_", "-"), value)
    element.text = words
    return element


def _fit(words: str, width: float, size: float = 12) -> str:
    """Cut words to a width."""
    most = _most_letters(width, size)
    return words if len(words) <= most else f"{words[: max(most - 1, 0)]}\u2026"


def _most_letters(width: float, size: float = 12) -> int:
    return int(width / (_ASPECT * size))


def _width(words: str, size: float = 12) -> float:
    return len(words) * _ASPECT * size


def _fill(mark: int) -> str:
    return f"url(#zonedev-fill-{mark})" if MARKS[mark].hatch else MARKS[mark].fill


_HATCHES = {"up": "M-1 7L7 -1M-1 1L1 -1M5 7L7 5", "down": "M-1 -1L7 7M5 -1L7 1M-1 5L1 7"}
_HATCHES["cross"] = _HATCHES["up"] + _HATCHES["down"]


def _pattern(defs: Element, mark: int) -> None:
    look = MARKS[mark]
    if look.hatch is None:
        return
    side = {"width": "6", "height": "6"}
    pattern = _child(
        defs,
        "pattern",
        {"id": f"zonedev-fill-{mark}", "patternUnits": "userSpaceOnUse", **side},
    )
    _child(pattern, "rect", {**side, "fill": look.fill})
    hatch = {"d": _HATCHES[look.hatch], "stroke": look.ink, "stroke-opacity": "0.2"}
    _child(pattern, "path", hatch)


def _box(
    parent: Element,
    position: tuple[float, float, float, float],
    mark: int,
    words: Iterable[str],
    pfns: tuple[int, int],
) -> Element:
    """Draw a box for ``pfns``; *words* are the lines of its tooltip."""
    x, y, width, height = position
    box = _child(
        parent,
        "rect",
        {
            "x": _n(x),
            "y": _n(y),
            "width": _n(width),
            "height": _n(height),
            "fill": _fill(mark),
            "data-start-pfn": str(pfns[0]),
            "data-end-pfn": str(pfns[1]),
        },
    )
    if mark == HOLE:
        box.attrib.update({"stroke": _RULE, "stroke-dasharray": "2 3"})
    lines = list(words)
    if len(lines) > _MAX_TITLE_LINES:
        lines = [*lines[:_MAX_TITLE_LINES], f"and {len(lines) - _MAX_TITLE_LINES:,} more"]
    _child(box, "title").text = "\n".join(lines)
    return box


def _on_box(
    parent: Element,
    position: tuple[float, float, float, float],
    mark: int,
    candidates: Iterable[str],
) -> None:
    """Write the first of some texts that fits on a box."""
    x, y, width, height = position
    for words in candidates:
        if _width(words, 11) + 2 <= width:
            ink = {"fill": MARKS[mark].ink, "text_anchor": "middle", "pointer_events": "none"}
            _text(parent, x + width / 2, y + height / 2 + 4, words, 11, **ink)
            return


def _titles(scene: Picture, start_pfn: int, end_pfn: int) -> Iterator[str]:
    """Describe PFNs: their addresses, their ranges, and errors there."""
    size = scene.kernel.page_size
    yield f"PFNs {span(start_pfn, end_pfn)}, addresses {span(start_pfn * size, end_pfn * size)}"
    for finding in error_findings_between(scene, start_pfn, end_pfn, _MAX_TITLE_LINES):
        yield group_line(FindingGroup((finding,)))
    ranges = ranges_between(scene, start_pfn, end_pfn)
    for r in sorted(ranges, key=mark_of_range):
        yield printable(f"{range_words(scene, r)}: {r.reason}")
    if not ranges:
        yield MARKS[HOLE].name


# The blocks, from top to bottom.


def _heading(scene: Picture, drawn: Grid) -> _Block:
    group = Element("g")
    kernel = kernel_name(scene.kernel)
    _text(group, _MARGIN, 16, _fit(kernel, _INNER, 17), 17, font_weight="bold")
    y = 38.0
    if scene.provenance:
        for line in textwrap.wrap(provenance_text(scene.provenance), _most_letters(_INNER)):
            _text(group, _MARGIN, y, line, fill=_SOFT)
            y += 18
    words = f"In the map {scale_words(scene, drawn)}"
    if any(row.repeats > 1 for row in drawn.rows):
        words += "; equal rows are drawn as one"
    _text(group, _MARGIN, y, _fit(f"{words}.", _INNER), fill=_SOFT)
    return _Block(group, y + 12)


def _legend(marks: Sequence[int]) -> _Block:
    group = Element("g")
    x, y = _MARGIN, 0.0
    for mark in marks:
        look = MARKS[mark]
        width = 26 + _width(look.name) + 20
        if x + width > _WIDTH - _MARGIN:
            x, y = _MARGIN, y + 24
        swatch = {"x": _n(x), "y": _n(y), "width": "18", "height": "16", "fill": _fill(mark)}
        _child(group, "rect", {**swatch, "stroke": _RULE if mark == HOLE else "none"})
        _text(group, x + 9, y + 12, look.letter, 11, fill=look.ink, text_anchor="middle")
        _text(group, x + 25, y + 12, look.name)
        x += width
    rules = "A cell shows the first of these in it; PFN walkers must not read the capital ones."
    _text(group, _MARGIN, y + 34, rules, fill=_SOFT)
    return _Block(group, y + 54)


def _map(scene: Picture, drawn: Grid) -> _Block:
    group = Element("g")
    for i in range(0, drawn.columns, drawn.columns // 4):
        # Like the labels of the rows: added to one of them, it is the PFN of the cell.
        offset = f"+{i * drawn.cell_pages:#x}" if i else "PFN"
        _text(group, _LEFT + i * _CELL, 10, offset, 10, fill=_SOFT)
    y = 18.0
    for row in drawn.rows:
        _row(group, scene, drawn, row, y)
        y += _ROW + _ROW_GAP
    return _Block(group, y + 20)


def _row(group: Element, scene: Picture, drawn: Grid, row: Row, y: float) -> None:
    if any(map(is_bad, row.marks)):
        _text(group, _MARGIN, y + 14, "!", 13, fill=_ALARM, font_weight="bold")
    _text(group, _LEFT - 8, y + 14, f"{row.start_pfn:#x}", text_anchor="end")
    if row.repeats > 1 and len(set(row.marks)) == 1:
        _folded_row(group, scene, row, y)
    else:
        _cells(group, scene, drawn, row, y)
    side = numbers_words(row.pgmaps)
    if len(row.pgmaps) == 1:
        side += f" {device_name(scene.pgmaps[row.pgmaps[0]])}"
    if row.repeats > 1 and len(set(row.marks)) > 1:
        side = f"x{row.repeats:,} {side}"
    if side:
        words = _text(group, _LEFT + _MAP + 10, y + 14, _fit(side, _SIDE - 10, 11), 11)
        titles = [pgmap_words(scene, number) for number in row.pgmaps[:_MAX_TITLE_LINES]]
        _child(words, "title").text = "\n".join(titles)


def _folded_row(group: Element, scene: Picture, row: Row, y: float) -> None:
    mark = row.marks[0]
    position = (_LEFT, y, _MAP, _ROW)
    pfns = (row.start_pfn, row.end_pfn)
    _box(group, position, mark, _titles(scene, *pfns), pfns)
    size = size_text((row.end_pfn - row.start_pfn) * scene.kernel.page_size)
    _on_box(group, position, mark, [f"{MARKS[mark].name}: {row.repeats:,} rows, {size}"])


def _cells(group: Element, scene: Picture, drawn: Grid, row: Row, y: float) -> None:
    def kind(i: int) -> tuple[int, tuple[int, ...]]:
        start = row.start_pfn + i * drawn.cell_pages
        inside = ranges_between(scene, start, start + drawn.cell_pages)
        return row.marks[i], tuple(r.start_pfn for r in inside)

    for (mark, _), run in itertools.groupby(range(drawn.columns), key=kind):
        cells = list(run)
        position = (_LEFT + cells[0] * _CELL, y, len(cells) * _CELL, _ROW)
        start = row.start_pfn + cells[0] * drawn.cell_pages
        pfns = (start, start + len(cells) * drawn.cell_pages)
        _box(group, position, mark, _titles(scene, *pfns), pfns)
    lines = "".join(f"M{_n(_LEFT + i * _CELL)} {_n(y)}v{_n(_ROW)}" for i in range(1, drawn.columns))
    attributes = {"d": lines, "stroke": _PAPER, "stroke-opacity": "0.25", "pointer-events": "none"}
    _child(group, "path", attributes)
    # Write one word for neighbouring cells of one mark, even if they are of several ranges.
    for mark, run in itertools.groupby(range(drawn.columns), key=lambda i: row.marks[i]):
        cells = list(run)
        position = (_LEFT + cells[0] * _CELL, y, len(cells) * _CELL, _ROW)
        _on_box(group, position, mark, [MARKS[mark].name, MARKS[mark].letter])


def _strips(scene: Picture) -> list[Strip]:
    """Lay out as many pgmaps as there is room for, those with the worst marks first."""
    strips = [strip(scene, i, _MAX_PARTS) for i in range(len(scene.pgmaps))]
    worst = [min((part.mark for part in s.parts), default=HOLE) for s in strips]
    return [strips[i] for i in chosen(worst, worst, _MAX_STRIPS)]


_STRIP = 24.0


def _zooms(scene: Picture, strips: Sequence[Strip]) -> _Block:
    group = Element("g")
    if not strips:
        return _Block(group, 0)
    _text(group, _MARGIN, 14, "Pgmaps, down to the PFN", 14, font_weight="bold")
    words = (
        "The parts' widths grow with the logarithm of their pages; below is the first PFN of each."
    )
    _text(group, _MARGIN, 34, words, fill=_SOFT)
    y = 50.0
    for s in strips:
        block = _zoom(scene, s)
        block.element.set("transform", f"translate(0 {_n(y)})")
        group.append(block.element)
        y += block.height
    if left_out := len(scene.pgmaps) - len(strips):
        words = f"{left_out:,} more pgmaps are not drawn: zonedev pgmaps --all lists them."
        _text(group, _MARGIN, y + 12, words, fill=_SOFT)
        y += 24
    return _Block(group, y + 8)


def _zoom(scene: Picture, s: Strip) -> _Block:
    group = Element("g")
    width = _INNER
    words = pgmap_words(scene, s.pgmap)
    _child(_text(group, _MARGIN, 12, _fit(words, width)), "title").text = words
    if not s.parts:
        return _Block(group, 30)
    least = _width(f"{s.parts[-1].end_pfn:#x}", 10) + 10
    # Below the last part, also write its end.
    positions = [x + _MARGIN for x in edges(s.parts, width - least, least)]
    positions[-1] += least
    y = 20.0
    if s.frontier is not None:
        y += _frontier(group, scene, s, positions, y)
    for part, x, end in zip(s.parts, positions, positions[1:]):
        _part(group, scene, part, (x, y, end - x, _STRIP))
        _text(group, x, y + _STRIP + 12, f"{part.start_pfn:#x}", 10, fill=_SOFT)
        _child(group, "path", {"d": f"M{_n(x)} {_n(y)}v{_n(_STRIP + 4)}", "stroke": _INK})
    last = f"{s.parts[-1].end_pfn:#x}"
    _child(group, "path", {"d": f"M{_n(positions[-1])} {_n(y)}v{_n(_STRIP + 4)}", "stroke": _INK})
    _text(group, positions[-1], y + _STRIP + 12, last, 10, fill=_SOFT, text_anchor="end")
    return _Block(group, y + _STRIP + 30)


def _frontier(
    group: Element, scene: Picture, s: Strip, positions: Sequence[float], y: float
) -> float:
    """Mark what ``memmap_init_zone_device()`` may not have initialised yet."""
    i = next((i for i, part in enumerate(s.parts) if part.end_pfn > (s.frontier or 0)), 0)
    x = positions[i]
    words = f"nr_range = {scene.pgmaps[s.pgmap].nr_range}: not initialised from {s.frontier:#x} on"
    triangle = f"M{_n(x - 5)} {_n(y + 6)}h10l-5 9z"
    _child(group, "path", {"d": triangle, "fill": _ALARM})
    right = x + 10 + _width(words, 11) <= _WIDTH - _MARGIN
    anchor, at = ("start", x + 10) if right else ("end", x - 10)
    _text(group, at, y + 13, words, 11, fill=_ALARM, text_anchor=anchor)
    return 18


def _part(
    group: Element, scene: Picture, part: Part, position: tuple[float, float, float, float]
) -> None:
    pages = part.end_pfn - part.start_pfn
    look = MARKS[part.mark]
    pfns = (part.start_pfn, part.end_pfn)
    titles: Iterable[str] = _titles(scene, *pfns)
    names = [f"{look.name}: {pages:,}", look.name, look.letter]
    if part.stands_for > 1:
        titles = itertools.chain([f"{part.stands_for:,} parts, folded"], titles)
        names = [f"{part.stands_for:,} parts, {look.name}", f"{part.stands_for:,} parts", "\u2026"]
    if part.unit:
        times = f"{part.stands_for // len(part.unit):,} times"
        unit = ", ".join(f"{count:,} {MARKS[mark].name}" for mark, count in part.unit)
        short = ", ".join(f"{count:,} {MARKS[mark].letter}" for mark, count in part.unit)
        titles = itertools.chain([f"{times}: {unit}"], _titles(scene, *pfns))
        names = [f"{times} {unit}", f"{times} {short}", times, "\u2026"]
    box = _box(group, position, part.mark, titles, pfns)
    if part.mark == BAD:
        box.attrib.update({"stroke": _INK, "stroke-width": "2"})
    _on_box(group, position, part.mark, names)


def _troubles(scene: Picture) -> _Block:
    group = Element("g")
    found = troubles(scene)
    if not found:
        return _Block(group, 0)
    title = "What a walker must not read" if scene.findings is None else "Findings"
    _text(group, _MARGIN, 14, title, 14, font_weight="bold")
    y = 34.0
    shown = chosen([kind for _, kind, _ in found], [rank for _, _, rank in found], _MAX_TROUBLES)
    for i in shown:
        words = trouble_words(scene, found[i][0])
        _child(_text(group, _MARGIN, y, _fit(words, _INNER)), "title").text = words
        y += 18
    if len(shown) < len(found):
        count = f"{len(found) - len(shown):,} more are not shown: --all lists them in text."
        _text(group, _MARGIN, y, count, fill=_SOFT)
        y += 18
    return _Block(group, y - 8)
