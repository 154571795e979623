# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Marks
-----

How each case looks. No two of them differ by colour alone: each has a letter, and what is
no ordinary memory has a pattern. The colours are those of Okabe and Ito, which people tell
apart who do not see all colours, and shades of grey.
"""

from __future__ import annotations

from dataclasses import dataclass

from drgn_zonedev.model import Case
from drgn_zonedev.render.cases import LETTERS, TELLING
from drgn_zonedev.render.cells import case_text

__all__ = ("BAD", "HOLE", "MARKS", "Mark", "is_bad", "mark_of")


@dataclass(frozen=True)
class Mark:
    """
    What stands for something in a picture.

    ``fill`` and ``ink`` are colours of what is filled and of what is written on it; ``hatch``
    is how it is hatched, if it is; ``sgr`` are the parameters of a terminal's SGR sequence.
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


# What is first wins where there is room for one only.
MARKS = (
    Mark("E", "error", "#c44f00", _WHITE, None, "1;38;5;231;48;5;160"),
    *(Mark(LETTERS[case], case_text(case), *_LOOKS[case]) for case in TELLING),
    Mark("-", "no section", _WHITE, "#5f6870", None, "38;5;245"),
)

BAD = 0
"""Struct pages that the kernel broke its promise for."""
HOLE = len(MARKS) - 1
"""No present section."""


_MARKS_OF = {case: i for i, case in enumerate(TELLING, 1)}


def is_bad(mark: int) -> bool:
    """Return whether a mark is one that no PFN walker may read: a capital, or not known."""
    return MARKS[mark].letter.isupper() or MARKS[mark].letter == "?"


def mark_of(case: Case) -> int:
    """Get the index of a case's mark."""
    return _MARKS_OF[case]
