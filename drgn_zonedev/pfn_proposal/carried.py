# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Carried
-------

The bitmaps of a kernel that has some for ``pfn_zone_device()``: members of
``struct mem_section_usage`` with the names of the patches on the list and of the lab's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from drgn import Program, offsetof

from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.kernel.records import read_records
from drgn_zonedev.model import Case, Unjudged
from drgn_zonedev.pfn_proposal.marks import Marks, mark

__all__ = ("NAMES", "Carried", "Difference", "carried_bitmaps")

_MAX_DIFFERENCES = 64


@dataclass(frozen=True)
class Difference:
    """PFNs of subsections whose bit is wrong; ``found`` is the bit in the kernel."""

    start_pfn: int
    end_pfn: int
    found: bool


@dataclass(frozen=True)
class Carried:
    """
    A bitmap that the kernel has, and where it differs from ours. Only the first
    differences are listed.
    """

    name: str
    meaning: str
    bits: int
    different: int
    differences: tuple[Difference, ...]
    unreadable: tuple[Unjudged, ...]


def _online(marks: Marks) -> np.ndarray:
    s = marks.snapshot
    ram = [(r.start_pfn, r.end_pfn) for r in marks.ranges if r.case is Case.ONLINE]
    return mark(s, ram)


_EARLY = "owned by a device since the memory was hot-added"
_LATE = "initialised, as posted in November 2019"

# The meaning of each bitmap. subsection_dev_map was posted as a late bit; together with
# subsection_init_map it is an early one.
NAMES: dict[str, tuple[str, Callable[[Marks], np.ndarray]]] = {
    "subsection_init_map": ("initialised, and not being removed", lambda m: m.touchable),
    "subsection_active_map": (
        "initialised, of RAM and of devices",
        lambda m: _online(m) | m.late,
    ),
    "subsection_online_map": ("online RAM", _online),
}


def carried_bitmaps(prog: Program, marks: Marks) -> tuple[Carried, ...]:
    """Compare the bitmaps that the kernel has with those that it should have."""
    try:
        usage = prog.type("struct mem_section_usage")
    except LookupError:
        return ()
    known = dict(NAMES)
    known["subsection_dev_map"] = (
        (_EARLY, lambda m: m.early)
        if usage.has_member("subsection_init_map")
        else (_LATE, lambda m: m.late)
    )
    return tuple(
        _compare(prog, marks, name, *known[name]) for name in known if usage.has_member(name)
    )


def _compare(
    prog: Program, marks: Marks, name: str, meaning: str, expected: Callable[[Marks], np.ndarray]
) -> Carried:
    snapshot = marks.snapshot
    offset = offsetof(prog.type("struct mem_section_usage"), name)
    found, readable = _read(prog, snapshot, offset)
    wrong = np.where(readable[:, None], found ^ expected(marks), np.uint64(0))
    rows = np.flatnonzero(wrong.any(axis=1))
    unpacked = snapshot.sections.unpacked
    row, bit = np.nonzero(unpacked(wrong[rows]))
    return Carried(
        name=name,
        meaning=meaning,
        bits=int(unpacked(found[found.any(axis=1)]).sum()),
        different=len(row),
        differences=_differences(snapshot, rows[row], bit, unpacked(found[rows])[row, bit]),
        unreadable=tuple(_unreadable(snapshot, name, readable)),
    )


def _read(prog: Program, snapshot: Snapshot, offset: int) -> tuple[np.ndarray, np.ndarray]:
    usage = snapshot.sections.usage
    found = np.zeros_like(snapshot.sections.subsection_map)
    readable = np.ones(len(usage), bool)
    rows = np.flatnonzero(usage)
    raw, readable[rows] = read_records(
        prog, usage[rows] + np.uint64(offset), found.shape[1] * 8, max_gap=4096
    )
    found[rows] = raw.view("<u8")
    return found, readable


def _differences(
    snapshot: Snapshot, row: np.ndarray, bit: np.ndarray, found: np.ndarray
) -> tuple[Difference, ...]:
    geometry = snapshot.geometry
    start = snapshot.sections.nr[row] * geometry.pages_per_section
    start = start + bit * geometry.pages_per_subsection
    runs: list[Difference] = []
    for pfn, is_set in zip(start.tolist(), found.tolist()):
        end = pfn + geometry.pages_per_subsection
        if runs and (runs[-1].end_pfn, runs[-1].found) == (pfn, is_set):
            pfn = runs.pop().start_pfn
        elif len(runs) == _MAX_DIFFERENCES:
            break
        runs.append(Difference(pfn, end, is_set))
    return tuple(runs)


def _unreadable(snapshot: Snapshot, name: str, readable: np.ndarray) -> list[Unjudged]:
    pages = snapshot.geometry.pages_per_section
    sections = snapshot.sections.nr[~readable].tolist()
    return [Unjudged(nr * pages, (nr + 1) * pages, f"{name} cannot be read") for nr in sections]
