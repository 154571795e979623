# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The walkers let loose
---------------------

Evaluates every walker's guard on the memory at hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from drgn import Program
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.classify import classify_snapshot, undecided
from drgn_zonedev.contents import Contents
from drgn_zonedev.kernel.resource import iomem_resources
from drgn_zonedev.kernel.strings import c_string
from drgn_zonedev.model import CASES, Case, KernelFacts, Range, Unjudged
from drgn_zonedev.report import kernel_facts
from drgn_zonedev.scan import Progress
from drgn_zonedev.snapshot import Snapshot, take_snapshot
from drgn_zonedev.spans import union
from drgn_zonedev.verify import divide_holes
from drgn_zonedev.walkers.ground import (
    CONTENTS,
    UNREAD,
    Ground,
    lay_ground,
    read_max_pfn,
    read_zones,
)
from drgn_zonedev.walkers.guards import BLOCK_PAGES, FILTERS, STEPS
from drgn_zonedev.walkers.outcome import OUTCOMES, Act, Outcome, outcomes
from drgn_zonedev.walkers.table import WALKERS, Guard, Walker

__all__ = ("Exposure", "Judgement", "WalkersReport", "unread_by_guards", "walk_all", "walkers")

# Any kernel with an MMU has this function: if the debugging information does not,
# then it was cut down to what was needed, and lacks the walkers as well.
_EVERYWHERE = "vfree"


@dataclass(frozen=True)
class Exposure:
    """
    Memory of one case that passes a walker's guard although nobody promises its
    struct pages.

    ``touched`` PFNs are looked at, ``used`` of them pass the filters as well; of the
    others, only the flags are read. ``outcomes`` and ``contents`` count all that are
    touched, by what comes of it and by what they hold.
    """

    start_pfn: int
    end_pfn: int
    case: Case
    touched: int
    used: int
    outcomes: dict[Outcome, int]
    contents: dict[Contents, int]

    @property
    def worst(self) -> Outcome:
        """The worst that can happen."""
        return min(self.outcomes, key=OUTCOMES.index)


@dataclass(frozen=True)
class Judgement:
    """
    A walker on this memory.

    ``present`` is ``None`` if the debugging information does not tell. ``guard`` is
    ``None`` if the kernel at hand is older than the walker. ``by_release`` tells
    that the guard was chosen by the kernel's release, which distributors patch.
    """

    walker: Walker
    present: bool | None
    guard: Guard | None
    by_release: bool
    exposures: tuple[Exposure, ...]


@dataclass(frozen=True)
class WalkersReport:
    """
    All of them, and the memory of which nothing can be said. ``unread`` says what
    guards need and could not be read, so that they seem weaker than they are.
    """

    kernel: KernelFacts
    walkers: tuple[Judgement, ...]
    unjudged: tuple[Unjudged, ...]
    unread: tuple[str, ...]


@takes_program_or_default
def walkers(prog: Program, *, progress: Progress = lambda done, total: None) -> WalkersReport:
    """
    Tell which of the kernel's PFN walkers would touch struct pages that nobody
    promises.

    :param progress: Called with the bytes of memmap that were just read, and all there are.
    :raises LookupError: if the debugging information lacks what is needed
    """
    snapshot = take_snapshot(prog)
    ranges = classify_snapshot(prog, snapshot)
    return WalkersReport(
        kernel=kernel_facts(prog),
        walkers=walk_all(prog, snapshot, divide_holes(prog, snapshot, ranges), WALKERS, progress),
        unjudged=undecided(ranges),
        unread=unread_by_guards(prog),
    )


def unread_by_guards(prog: Program) -> tuple[str, ...]:
    """Get what guards need and could not be read."""
    return tuple(_unread(prog))


def _unread(prog: Program) -> Iterator[str]:
    if read_max_pfn(prog) is None:
        yield "max_pfn"
    if _system_ram(prog) is None:
        yield "iomem_resource"
    for nid in sorted({zone.nid for zone in read_zones(prog).unread}):
        yield f"a zone of node {nid}"


def walk_all(
    prog: Program,
    snapshot: Snapshot,
    ranges: Sequence[Range],
    table: Sequence[Walker] = WALKERS,
    progress: Progress = lambda done, total: None,
) -> tuple[Judgement, ...]:
    """Like :func:`walkers`, for structures that were already read."""
    ram = _system_ram(prog)
    if ram is None:
        # What is not known to be no RAM may be some.
        ram = ((0, snapshot.geometry.max_pfn),)
    ground = lay_ground(prog, snapshot, ranges, BLOCK_PAGES, ram, progress)
    release = _release(prog)
    return tuple(_judge(ground, walker, release) for walker in table)


def _system_ram(prog: Program) -> tuple[tuple[int, int], ...] | None:
    shift = int(prog["PAGE_SHIFT"].value_())
    try:
        resources = iomem_resources(prog)
    except LookupError:
        return None
    if resources.unread:
        return None
    return union((r.start >> shift, r.end >> shift) for r in resources.found if r.is_ram)


def _release(prog: Program) -> tuple[int, int]:
    found = re.match(r"(\d{1,4})\.(\d{1,4})", c_string(prog["UTS_RELEASE"]))
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _present(prog: Program, walker: Walker) -> bool | None:
    if any(_has_function(prog, name) for name in walker.functions):
        return True
    # Symbols of modules need not be loaded, nor the module itself.
    elsewhere = walker.module or not walker.functions
    return None if elsewhere or not _has_function(prog, _EVERYWHERE) else False


def _has_function(prog: Program, name: str) -> bool:
    return name in prog


def _guard(prog: Program, walker: Walker, release: tuple[int, int]) -> Guard | None:
    fitting = [
        guard
        for guard in walker.guards
        if (_has_function(prog, guard.function) if guard.function else guard.since <= release)
    ]
    return fitting[-1] if fitting else None


def _judge(ground: Ground, walker: Walker, release: tuple[int, int]) -> Judgement:
    guard = _guard(ground.prog, walker, release)
    return Judgement(
        walker=walker,
        present=_present(ground.prog, walker),
        guard=guard,
        by_release=any(g.since > (0, 0) for g in walker.guards),
        exposures=_exposures(ground, walker, guard) if guard else (),
    )


def _exposures(ground: Ground, walker: Walker, guard: Guard) -> tuple[Exposure, ...]:
    runs = ground.runs
    if not len(runs):
        return ()
    touched = np.ones(len(runs), bool)
    for step in guard.steps:
        touched &= STEPS[step](ground)
    used = touched.copy()
    for name in guard.filters:
        used &= FILTERS[name](ground)
    pages = _looked_at(runs.start - walker.offset, runs.end - walker.offset, walker.stride)
    touched &= pages > 0
    used &= pages > 0
    outcome = np.where(
        used, outcomes(ground, walker.acts), outcomes(ground, frozenset({Act.FLAGS}))
    )
    rows = np.flatnonzero(touched)
    # A range of the memory's classification becomes one exposure again.
    apart = (runs.start[rows[1:]] != runs.end[rows[:-1]]) | (np.diff(runs.case[rows]) != 0)
    return tuple(
        _exposure(ground, group, used, outcome, pages)
        for group in np.split(rows, np.flatnonzero(apart) + 1)
        if len(group)
    )


def _looked_at(start: np.ndarray, end: np.ndarray, stride: int) -> np.ndarray:
    # Multiples of the stride within [start, end).
    return -(-end // stride) - -(-start // stride)


def _exposure(
    ground: Ground, rows: np.ndarray, used: np.ndarray, outcome: np.ndarray, pages: np.ndarray
) -> Exposure:
    runs = ground.runs
    return Exposure(
        start_pfn=int(runs.start[rows[0]]),
        end_pfn=int(runs.end[rows[-1]]),
        case=CASES[int(runs.case[rows[0]])],
        touched=int(pages[rows].sum()),
        used=int(pages[rows[used[rows]]].sum()),
        outcomes=_tally(outcome[rows], pages[rows], OUTCOMES),
        contents=_held(ground, rows, pages),
    )


def _held(ground: Ground, rows: np.ndarray, pages: np.ndarray) -> dict[Contents, int]:
    runs = ground.runs
    rows = rows[runs.mapped[rows] & ~runs.has(UNREAD)[rows]]
    return _tally(runs.contents()[rows], pages[rows], CONTENTS)


_Name = TypeVar("_Name")


def _tally(codes: np.ndarray, pages: np.ndarray, names: Sequence[_Name]) -> dict[_Name, int]:
    # np.unique() sorts them.
    return {names[code]: int(pages[codes == code].sum()) for code in np.unique(codes).tolist()}
