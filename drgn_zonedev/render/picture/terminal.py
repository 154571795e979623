# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Terminal
--------

The picture in letters, and in colour if the terminal has any.
"""

from __future__ import annotations

import itertools
import shutil
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Optional

from drgn_zonedev.render.as_text import kernel_name, provenance_text, size_text
from drgn_zonedev.render.cells import type_text
from drgn_zonedev.render.picture.glyphs import HOLE, MARKS, is_bad
from drgn_zonedev.render.picture.layout import Grid, Row, grid
from drgn_zonedev.render.picture.scene import Picture
from drgn_zonedev.render.picture.words import (
    brief_pgmap_words,
    brief_trouble_words,
    device_name,
    legend_marks,
    numbers_words,
    pgmap_words,
    scale_words,
    trouble_words,
    troubles,
)
from drgn_zonedev.render.screen import Screen, has_colour, height, placed, share, with_gaps

__all__ = ("Terminal", "current_terminal", "terminal_text")


# How many lines pgmaps get, and how many troubles, and where.
_Room = Optional[tuple[int, int, Screen]]
_ALL: _Room = None

# The most cells of a row; a section of x86_64 has 64.
_MOST_COLUMNS = 128
_FEWEST_COLUMNS = 8
# At least some lines for each part, even on a small screen.
_LEAST_LINES = 3


@dataclass(frozen=True)
class Terminal:
    """A terminal: ``width`` characters per line, and whether it has colours."""

    width: int
    colour: bool


def current_terminal(colour: str = "auto") -> Terminal:
    """
    Get the properties of standard output; honours ``COLUMNS``.

    :param colour: as for :func:`~drgn_zonedev.render.screen.has_colour()`
    """
    return Terminal(shutil.get_terminal_size().columns, has_colour(colour))


def terminal_text(scene: Picture, terminal: Terminal, screen: Screen | None) -> str:
    """
    Draw a scene in letters.

    :param screen: room to fill; if ``None``, a cell is a subsection, and nothing is left out
    """
    if screen is None:
        drawn = _fitting(scene, terminal, None)
        return _text(scene, terminal, drawn, _as_it_is, _ALL, _origin(scene))
    wanted = [screen.lines, len(scene.pgmaps), len(troubles(scene))]
    # Lines around the grid, the pgmaps and the findings: the head, blank lines, and the legend.
    around = len(_around(scene, terminal, _fitting(scene, terminal, screen.lines)))
    rows, _, _ = share(screen.lines - around, wanted, (4, 1, 2), _LEAST_LINES)
    # The grid may need fewer lines than its share.
    drawn = _fitting(scene, terminal, rows)
    left = max(screen.lines - around - len(drawn.rows), 0)
    if sum(wanted[1:]) <= left:
        # Where it comes from is the first to go.
        for origin in (_origin(scene), []):
            text = _text(scene, terminal, drawn, lambda s: _wrapped(s, terminal), _ALL, origin)
            if text.count("\n") < screen.lines:
                return text
    narrow = Screen(screen.lines, terminal.width)
    wanted = [sum(height(text, narrow) for text in texts) for texts in _whole(scene, terminal)]
    pgmaps, found = share(left, wanted, (1, 2), _LEAST_LINES)
    return _text(scene, terminal, drawn, _as_it_is, (pgmaps, found, narrow))


def _whole(scene: Picture, terminal: Terminal) -> tuple[list[str], list[str]]:
    """Get the full lines about pgmaps and findings."""
    pgmaps = [_wrapped(pgmap_words(scene, i), terminal) for i in range(len(scene.pgmaps))]
    found = [_wrapped(f"! {trouble_words(scene, t)}", terminal) for t, _, _ in troubles(scene)]
    return pgmaps, found


def _brief(scene: Picture, terminal: Terminal) -> tuple[list[str], list[str]]:
    """Get shorter lines about pgmaps and findings, but always with the PFNs."""
    pgmaps, found = _whole(scene, terminal)
    return (
        [
            _shorter(words, [brief_pgmap_words(scene, i)], terminal)
            for i, words in enumerate(pgmaps)
        ],
        [
            _shorter(words, [f"! {w}" for w in brief_trouble_words(trouble)], terminal)
            for words, (trouble, _, _) in zip(found, troubles(scene))
        ],
    )


def _shorter(words: str, others: Sequence[str], terminal: Terminal) -> str:
    if "\n" not in words:
        return words
    fits = (other for other in others if len(other) <= terminal.width)
    return next(fits, _wrapped(others[-1], terminal))


def _fitting(scene: Picture, terminal: Terminal, max_rows: int | None) -> Grid:
    """Lay out a scene in as many columns as there is room for."""
    columns = _MOST_COLUMNS
    while True:
        drawn = grid(scene, columns, max_rows)
        lines = (_line(scene, row, _label_width(drawn)) for row in drawn.rows)
        widest = max((len(_plain(line)) for line in lines), default=0)
        if widest <= terminal.width or columns <= _FEWEST_COLUMNS:
            return drawn
        columns //= 2


def _text(
    scene: Picture,
    terminal: Terminal,
    drawn: Grid,
    shape: Callable[[str], str],
    room: _Room,
    origin: Sequence[str] = (),
) -> str:
    head, legend = [*_head(scene, drawn), *origin], _legend(drawn)
    parts = [*(_wrapped(line, terminal) for line in head), ""]
    width = _label_width(drawn)
    for row in drawn.rows:
        line = [*_line(scene, row, width), *_name(scene, row, width, terminal)]
        parts.append(_coloured(line) if terminal.colour else _plain(line).rstrip())
    found = troubles(scene)
    if room is None:
        pgmaps = [shape(pgmap_words(scene, i)) for i in range(len(scene.pgmaps))]
        texts = [shape(f"! {trouble_words(scene, trouble)}") for trouble, _, _ in found]
    else:
        pgmaps, texts = _brief(scene, terminal)
        types = [type_text(p) for p in scene.pgmaps]
        calm = [not p.in_progress and p.ref.state == "live" for p in scene.pgmaps]
        pgmaps = _some(pgmaps, types, calm, "pgmaps", room[0], room[2])
        kinds, ranks = [kind for _, kind, _ in found], [rank for _, _, rank in found]
        texts = _more_words(texts, _whole(scene, terminal)[1], kinds, room[1], room[2])
        texts = _some(texts, kinds, ranks, "troubles", room[1], room[2])
    for lines in (pgmaps, texts):
        parts += ["", *lines] if lines else []
    return "\n".join([*parts, "", *_wrapped_legend(legend, terminal)])


def _around(scene: Picture, terminal: Terminal, drawn: Grid) -> list[str]:
    wrapped = "\n".join(_wrapped(line, terminal) for line in _head(scene, drawn)).split("\n")
    legend = _wrapped_legend(_legend(drawn), terminal)
    blank = [""] * (2 + bool(scene.pgmaps) + bool(troubles(scene)))
    return [*wrapped, *legend, *blank]


def _some(
    texts: Sequence[str],
    kinds: Sequence[str],
    ranks: Sequence[int],
    things: str,
    lines: int,
    screen: Screen,
) -> list[str]:
    """Choose as many items as there are lines for, and count the others in their place."""
    if sum(height(text, screen) for text in texts) <= lines:
        return list(texts)
    tallest = max(height(text, screen) for text in texts)
    shown = placed(kinds, ranks, lines // tallest)
    return list(with_gaps([texts[i] for i in shown], shown, kinds, things, str, screen))


def _more_words(
    texts: Sequence[str], whole: Sequence[str], kinds: Sequence[str], lines: int, screen: Screen
) -> list[str]:
    """Use the full text of the first item of each kind, as far as there is room."""
    left = lines - sum(height(text, screen) for text in texts)
    said = []
    for i, text in enumerate(texts):
        extra = height(whole[i], screen) - height(text, screen)
        if kinds[i] not in kinds[:i] and extra <= left:
            text = whole[i]
            left -= extra
        said.append(text)
    return said


def _as_it_is(line: str) -> str:
    return line


def _head(scene: Picture, drawn: Grid) -> list[str]:
    return [kernel_name(scene.kernel), scale_words(scene, drawn)]


def _origin(scene: Picture) -> list[str]:
    return [provenance_text(scene.provenance)] if scene.provenance else []


def _wrapped(text: str, terminal: Terminal) -> str:
    return "\n".join(textwrap.wrap(text, terminal.width, subsequent_indent="    "))


def _label_width(drawn: Grid) -> int:
    return max((len(f"{row.start_pfn:#x}") for row in drawn.rows), default=0)


# A piece of a line: its text, and its SGR parameters.
_Piece = tuple[str, str]


def _line(scene: Picture, row: Row, width: int) -> list[_Piece]:
    trouble = any(map(is_bad, row.marks))
    label = f"{'!' if trouble else ' '}{f'{row.start_pfn:#x}':>{width}} "
    pieces = [(label, "1;31" if trouble else "")]
    if row.repeats > 1 and len(set(row.marks)) == 1:
        pieces.append(_folded_cells(scene, row))
    else:
        for mark, run in itertools.groupby(row.marks):
            pieces.append((MARKS[mark].letter * len(list(run)), MARKS[mark].sgr))
        if row.repeats > 1:
            pieces.append((f" x{row.repeats:,}", ""))
    if row.pgmaps:
        pieces.append((f" {numbers_words(row.pgmaps)}", ""))
    return pieces


def _folded_cells(scene: Picture, row: Row) -> _Piece:
    mark = MARKS[row.marks[0]]
    size = size_text((row.end_pfn - row.start_pfn) * scene.kernel.page_size)
    name = mark.name if row.marks[0] == HOLE else mark.name.split(" ")[0]
    for words in (f" {row.repeats:,} rows, {size} {name} ", f" x{row.repeats:,} ", ""):
        if len(words) + 4 <= len(row.marks):
            return words.center(len(row.marks), mark.letter), mark.sgr
    return mark.letter * len(row.marks), mark.sgr


def _name(scene: Picture, row: Row, width: int, terminal: Terminal) -> Iterable[_Piece]:
    """Get the name of a row's device, if there is one and it fits."""
    if len(row.pgmaps) != 1:
        return []
    name = f" {device_name(scene.pgmaps[row.pgmaps[0]])}"
    room = terminal.width - len(_plain(_line(scene, row, width)))
    return [(name, "")] if len(name) <= room else []


def _plain(pieces: Iterable[_Piece]) -> str:
    return "".join(text for text, _ in pieces)


def _coloured(pieces: Iterable[_Piece]) -> str:
    return "".join(f"\x1b[{sgr}m{text}\x1b[0m" if sgr else text for text, sgr in pieces)


def _legend(drawn: Grid) -> list[_Piece]:
    return [(f"{MARKS[i].letter} {MARKS[i].name}", MARKS[i].sgr) for i in legend_marks(drawn)]


def _wrapped_legend(legend: Sequence[_Piece], terminal: Terminal) -> list[str]:
    lines: list[list[_Piece]] = [[]]
    for text, sgr in legend:
        if lines[-1] and len(_plain(lines[-1])) + len(text) > terminal.width:
            lines.append([])
        lines[-1] += [(text, sgr), ("  ", "")]
    rules = "A cell shows the first of these in it; walkers must not read the capital ones."
    drawn = [(_coloured(line) if terminal.colour else _plain(line)).rstrip() for line in lines]
    return [*drawn, *_wrapped(rules, terminal).split("\n")]
