# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Marks
-----

The mark of each case. Marks never differ only in colour: each has a letter, and all but
ordinary memory have a pattern. The colours are shades of grey and those of Okabe and Ito,
which colour-blind people can distinguish.
"""

from __future__ import annotations

from dataclasses import dataclass

from drgn_zonedev.model import Access, Case, Range
from drgn_zonedev.render.cases import LETTERS, TELLING
from drgn_zonedev.render.cells import case_text

__all__ = ("BAD", "HOLE", "MARKS", "NOT_FOR_READING", "Mark", "is_bad", "mark_of", "mark_of_range")


@dataclass(frozen=True)
class Mark:
    """
    How a case or another state of memory is drawn.

    ``fill`` is the colour of the area and ``ink`` that of text on it; ``hatch`` is the hatching,
    if any; ``sgr`` are the parameters of a terminal's SGR sequence.
    """

    letter: str
    name: str
    fill: str
    ink: str
    hatch: str | None
    sgr: str


_BLACK, _WHITE = "#000000", "#ffffff"
_LOOKS = {
    Case.UNKNOWN: (_WHITE, _BLACK, "cross", "38;5;16;48;5;231"),
    Case.INITIALIZING: ("#cc79a7", _BLACK, "up", "38;5;16;48;5;175"),
    Case.TEARDOWN: ("#7b4b94", _WHITE, "down", "38;5;231;48;5;97"),
    Case.GHOST: ("#009e73", _BLACK, "down", "38;5;16;48;5;36"),
    Case.ORPHAN: ("#8c5a2b", _WHITE, "cross", "38;5;231;48;5;94"),
    Case.RESERVED: ("#e69f00", _BLACK, None, "38;5;16;48;5;214"),
    Case.PARTIAL: ("#f0e442", _BLACK, "up", "38;5;16;48;5;227"),
    Case.OFFLINE: ("#6b7280", _WHITE, "down", "38;5;231;48;5;240"),
    Case.METADATA: ("#56b4e9", _BLACK, None, "38;5;16;48;5;74"),
    Case.DEVICE: ("#0072b2", _WHITE, None, "38;5;231;48;5;25"),
    Case.ONLINE: ("#d3d9de", _BLACK, None, "38;5;71"),
}

# Cases from here on have memory that may be read, but for some pages.
_UNHARMED = TELLING.index(Case.DEVICE)

# If there is room for only one mark, the first of these is drawn.
MARKS = (
    Mark("E", "error", "#c44f00", _WHITE, None, "1;38;5;231;48;5;160"),
    *(Mark(LETTERS[case], case_text(case), *_LOOKS[case]) for case in TELLING[:_UNHARMED]),
    # Pages of what follows.
    Mark("u", "unreadable memory", "#a3abb3", _BLACK, "up", "38;5;16;48;5;248"),
    *(Mark(LETTERS[case], case_text(case), *_LOOKS[case]) for case in TELLING[_UNHARMED:]),
    Mark("-", "no section", _WHITE, "#5f6870", None, "38;5;245"),
)

BAD = 0
"""Struct pages that break a promise of the kernel."""
HOLE = len(MARKS) - 1
"""No present section."""
NOT_FOR_READING = 1 + _UNHARMED
"""Memory of single pages that must not be read, although their struct pages may."""


_MARKS_OF = {case: i + (i >= NOT_FOR_READING) for i, case in enumerate(TELLING, 1)}
_PAGE_ACCESS = (Access.OFFLINE, Access.HWPOISON, Access.UNACCEPTED)


def is_bad(mark: int) -> bool:
    """Return whether a PFN walker must not read memory with a mark: a capital, or unknown."""
    return MARKS[mark].letter.isupper() or MARKS[mark].letter == "?"


def mark_of(case: Case) -> int:
    """Get the index of a case's mark."""
    return _MARKS_OF[case]


def mark_of_range(range_: Range) -> int:
    """Get the index of a range's mark: that of its case, unless the pages say otherwise."""
    mark = _MARKS_OF[range_.case]
    return NOT_FOR_READING if mark > NOT_FOR_READING and range_.access in _PAGE_ACCESS else mark
