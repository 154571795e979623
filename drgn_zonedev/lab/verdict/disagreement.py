# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A difference between the tool and a guest's kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

__all__ = ("Disagreement", "differences", "runs")


@dataclass(frozen=True)
class Disagreement:
    """
    The tool says `ours` about these PFNs, the kernel says `theirs`.

    Without PFNs, it is about something else, and `about` says what.
    """

    about: str
    ours: str
    theirs: str
    start_pfn: int = 0
    end_pfn: int = 0
    leak: str = ""
    """Why the kernel's answer is wrong, if it is known to be."""

    def __str__(self) -> str:
        where = f"PFNs {self.start_pfn:#x}-{self.end_pfn:#x}: " if self.end_pfn else ""
        text = f"{where}{self.about}: we say {self.ours}, the kernel says {self.theirs}"
        return f"{text} (known: {self.leak})" if self.leak else text


def runs(pfn: np.ndarray, *columns: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield the indices at which runs begin and end: PFNs follow and no column changes."""
    if not len(pfn):
        return
    same = np.diff(pfn) == 1
    for column in columns:
        same &= column[1:] == column[:-1]
    first = np.flatnonzero(np.concatenate([[True], ~same]))
    yield from zip(first.tolist(), [*first[1:].tolist(), len(pfn)])


def differences(
    about: str, pfn: np.ndarray, ours: np.ndarray, theirs: np.ndarray
) -> Iterator[Disagreement]:
    """Yield where two columns differ, run by run."""
    rows = np.flatnonzero(ours != theirs)
    pfn, ours, theirs = pfn[rows], ours[rows], theirs[rows]
    for first, end in runs(pfn, ours, theirs):
        yield Disagreement(
            about,
            _text(ours[first]),
            _text(theirs[first]),
            int(pfn[first]),
            int(pfn[end - 1]) + 1,
        )


def _text(value: np.generic) -> str:
    if isinstance(value, np.bool_):
        return "yes" if value else "no"
    return hex(int(value))
