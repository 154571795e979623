# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Change a source tree by a script that quotes only names from it.

Lines of a script, besides empty ones and those that begin with ``#``:

``file PATH``
    what the following edits change, below the tree
``in NAME``
    the next edit is inside of this function or ``struct TAG``
``before TEXT``, ``after TEXT``
    where: at the statement that has TEXT in it
``+TEXT``
    a line to insert there

Each place must be found exactly once; otherwise, the whole script fails and no file is changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from drgn_zonedev.lab.host.errors import LabError

__all__ = ("Edit", "edited", "edited_files", "parse_edits", "read_files", "write_changed")


@dataclass(frozen=True)
class Edit:
    """Lines to insert at a place of a file."""

    file: str
    inside: str
    """A function's name or ``struct TAG``; empty: anywhere at the left margin."""
    after: bool
    anchor: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        place = f" in {self.inside}" if self.inside else ""
        return f"{self.file}: {'after' if self.after else 'before'} {self.anchor!r}{place}"


def parse_edits(script: str) -> list[Edit]:
    """
    Parse a script.

    :raises LabError: if a line cannot be understood, or an edit has no place or no lines
    """
    edits: list[Edit] = []
    file = inside = ""
    for number, line in enumerate(script.splitlines(), 1):
        word, _, rest = line.partition(" ")
        if line.startswith("+") and edits and edits[-1].file == file and not inside:
            last = edits.pop()
            edits.append(Edit(file, last.inside, last.after, last.anchor, (*last.lines, line[1:])))
        elif word == "file" and rest:
            file, inside = rest, ""
        elif word == "in" and rest:
            inside = rest
        elif word in ("before", "after") and rest and file:
            edits.append(Edit(file, inside, word == "after", rest, ()))
            inside = ""
        elif line and not line.startswith("#"):
            raise LabError(f"line {number} of the script is invalid: {line}")
    for edit in edits:
        if not edit.lines:
            raise LabError(f"{edit}: there is nothing to insert")
    return edits


def read_files(tree: Path, edits: Iterable[Edit]) -> dict[str, str]:
    """
    Return the text of each file that edits change.

    :raises LabError: if a file is missing
    """
    texts: dict[str, str] = {}
    for edit in edits:
        try:
            texts[edit.file] = (tree / edit.file).read_text(encoding="utf-8")
        except OSError as e:
            raise LabError(f"{edit.file} is not in this kernel: {e.strerror}") from e
    return texts


def edited_files(texts: Mapping[str, str], edits: Iterable[Edit]) -> dict[str, str]:
    """
    Return the texts of files with edits in them.

    :raises LabError: if a place is missing, or there are several like it
    """
    found = dict(texts)
    for edit in edits:
        found[edit.file] = edited(found[edit.file], edit)
    return found


def write_changed(tree: Path, texts: Mapping[str, str]) -> None:
    """Write the files of a tree that do not hold their text already."""
    for name, text in texts.items():
        path = tree / name
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def edited(text: str, edit: Edit) -> str:
    """Return `text` with the lines of `edit` in it."""
    lines = text.split("\n")
    places = [
        index
        for start, end in _scopes(lines, edit)
        for index in range(start, end)
        if edit.anchor in lines[index] and (edit.inside or lines[index].startswith(edit.anchor))
    ]
    if len(places) != 1:
        raise LabError(f"{edit}: found {len(places)} such places, not one: is this another kernel?")
    (index,) = places
    if edit.after:
        # A statement may take several lines.
        while not re.search(r"[;{}]$", lines[index]):
            index += 1
            if index == len(lines):
                raise LabError(f"{edit}: the statement has no end")
        index += 1
    return "\n".join([*lines[:index], *edit.lines, *lines[index:]])


def _scopes(lines: Sequence[str], edit: Edit) -> Iterator[tuple[int, int]]:
    if not edit.inside:
        yield 0, len(lines)
        return
    name = re.escape(edit.inside)
    is_struct = edit.inside.startswith("struct ")
    head = re.compile(rf"{name} \{{$" if is_struct else rf"\w.*\b{name}\(")
    for start, line in enumerate(lines):
        if not head.match(line):
            continue
        body = start
        while not lines[body].endswith((";", "{")) and body + 1 < len(lines):
            body += 1
        # What ends with a semicolon is only declared.
        if lines[body].endswith("{"):
            yield body, next((i for i in range(body, len(lines)) if lines[i][:1] == "}"), body)
