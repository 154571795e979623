# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Judging the Walkers
-------------------

Evaluate the guard of every walker on the unpromised memory of a program.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby
from typing import TypeVar

import numpy as np
from drgn import Program
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.classification.classify import classify_snapshot, undecided
from drgn_zonedev.classification.facts import kernel_facts
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.model import CASES, Case, KernelFacts, Range, Unjudged, lacks_memmap
from drgn_zonedev.pfn_walkers.functions import has_function, is_untraced, lacks_function
from drgn_zonedev.pfn_walkers.guards import FEATURES, FILTERS, STEPS, unknown_here
from drgn_zonedev.pfn_walkers.kernel_release import KernelRelease, has_change, kernel_release
from drgn_zonedev.pfn_walkers.memory import (
    CONTENTS,
    UNREADABLE,
    UnpromisedMemory,
    read_max_pfn,
    suspects,
    unpromised_memory,
    zones_with_ram,
)
from drgn_zonedev.pfn_walkers.outcome import OUTCOMES, Act, WalkOutcome, dropped, outcomes
from drgn_zonedev.pfn_walkers.table import WALKERS, Guard, Stride, Walker
from drgn_zonedev.util.handles import Result
from drgn_zonedev.util.intervals import union
from drgn_zonedev.util.strings import c_string
from drgn_zonedev.verification.context import Progress, no_progress
from drgn_zonedev.verification.patterns import Contents
from drgn_zonedev.verification.verify import divide_holes

__all__ = ("Exposure", "Judgement", "WalkersReport", "unreadable_by_guards", "walk_all", "walkers")

_NO_RELEASE = "which stable release this kernel is of is not known"

_UNREAD = "RAM that no zone spans: its struct pages are not readable"

# Paths in debugging information are those of the machine that built the kernel.
_IN_TREE = re.compile(r"(?:.*/)?((?:mm|fs|kernel|drivers|arch)/.+\.c)")


@dataclass(frozen=True)
class Exposure:
    """
    Unpromised memory of one case that passes a walker's guard.

    ``touched`` is the number of PFNs whose struct pages are read. ``used`` of them also pass
    the filters; the others are dropped. ``outcomes`` and ``contents`` count the touched PFNs
    by what happens and by what their struct pages hold.
    """

    start_pfn: int
    end_pfn: int
    case: Case
    touched: int
    used: int
    outcomes: dict[WalkOutcome, int]
    contents: dict[Contents, int]

    @property
    def worst(self) -> WalkOutcome:
        """The worst that can happen."""
        return min(self.outcomes, key=OUTCOMES.index)


@dataclass(frozen=True)
class Judgement:
    """
    A walker on this memory.

    ``present`` is whether the kernel has the walker; ``None`` if the debugging information
    does not show it, and ``untraced`` is whether it would not if the kernel has it: inlined
    everywhere, and without vmlinux. If it is false, the rest is what this kernel would do if it
    were built with the walker. ``guard`` is ``None`` if this kernel is older than the walker, or
    newer than its removal.
    ``by_release`` is true if only the kernel's release says that it has no later guard; a
    distributor may have backported that. ``unjudged`` says why the guard cannot be evaluated on
    this kernel; then, there are no exposures. ``function`` in ``file`` reads the struct pages;
    both are the names in this kernel. It reads one PFN in ``stride``, the one at ``offset``.
    ``proof`` says how ``touched`` was compared with what this kernel really did, if it was.
    """

    walker: Walker
    present: bool | None
    untraced: bool
    guard: Guard | None
    by_release: bool
    unjudged: str | None
    file: str
    function: str
    stride: int
    offset: int
    proof: str | None
    exposures: tuple[Exposure, ...]

    @property
    def counts(self) -> bool:
        """Whether the kernel has the walker, or may have it, and it was judged."""
        return self.present is not False and self.guard is not None and self.unjudged is None


@dataclass(frozen=True, repr=False)
class WalkersReport(Result):
    """
    All walkers, and the memory that could not be judged. ``unreadable`` names the inputs of
    guards that could not be read: without them, guards let more pass than in the kernel.
    ``nothing_judged`` is whether there are no struct pages that a walker could meet.
    """

    kernel: KernelFacts
    walkers: tuple[Judgement, ...]
    unjudged: tuple[Unjudged, ...]
    unreadable: tuple[str, ...]
    nothing_judged: bool = False

    def __repr__(self) -> str:
        return f"<WalkersReport Linux {self.kernel.release!r}: {len(self.walkers)} walkers>"


@takes_program_or_default
def walkers(prog: Program, *, progress: Progress = no_progress) -> WalkersReport:
    """
    Find the PFN walkers of the kernel that would touch unpromised struct pages: those that
    are not promised to be initialised.

    :param progress: Called with the bytes of memmap that were just read, and all there are.
    :raises LookupError: if the debugging information does not have what is needed
    """
    snapshot = take_snapshot(prog)
    ranges = classify_snapshot(prog, snapshot)
    walked = suspects(prog, snapshot, divide_holes(prog, snapshot, ranges))
    memory = _memory(prog, snapshot, walked, progress)
    return WalkersReport(
        kernel=kernel_facts(prog),
        walkers=_judge_all(memory, WALKERS),
        unjudged=(*undecided(ranges), *(Unjudged(*span, _UNREAD) for span in memory.unread_ram)),
        unreadable=unreadable_by_guards(prog, snapshot),
        nothing_judged=lacks_memmap(ranges),
    )


def unreadable_by_guards(prog: Program, snapshot: Snapshot) -> tuple[str, ...]:
    """Name the inputs of guards that could not be read."""
    return tuple(_unreadable(prog, snapshot))


def _unreadable(prog: Program, snapshot: Snapshot) -> Iterator[str]:
    if read_max_pfn(prog) is None:
        yield "max_pfn"
    if _system_ram(snapshot) is None:
        yield "iomem_resource"
    for nid in sorted({zone.nid for zone in zones_with_ram(prog, snapshot).unreadable}):
        yield f"a zone of node {nid}"


def walk_all(
    prog: Program,
    snapshot: Snapshot,
    ranges: Sequence[Range],
    table: Sequence[Walker] = WALKERS,
    progress: Progress = no_progress,
) -> tuple[Judgement, ...]:
    """Like :func:`walkers`, for structures that were already read, and some ranges."""
    return _judge_all(_memory(prog, snapshot, ranges, progress), table)


def _memory(
    prog: Program, snapshot: Snapshot, ranges: Sequence[Range], progress: Progress
) -> UnpromisedMemory:
    ram = _system_ram(snapshot)
    if ram is None:
        # Any memory may be System RAM.
        ram = ((0, snapshot.geometry.max_pfn),)
    return unpromised_memory(prog, snapshot, ranges, ram, progress)


def _judge_all(memory: UnpromisedMemory, table: Sequence[Walker]) -> tuple[Judgement, ...]:
    release = kernel_release(memory.prog)
    # Dozens of walkers do the same few things.
    outcomes_of = cache(partial(outcomes, memory))
    return tuple(_judge(memory, outcomes_of, walker, release) for walker in table)


def _system_ram(snapshot: Snapshot) -> tuple[tuple[int, int], ...] | None:
    shift, resources = snapshot.geometry.page_shift, snapshot.resources
    if resources is None or resources.unreadable:
        return None
    return union((r.start >> shift, r.end >> shift) for r in resources.found if r.is_ram)


def _was_removed(prog: Program, walker: Walker, release: KernelRelease) -> bool:
    removed = walker.until is not None and has_change(release, walker.until)
    return bool(removed) and not has_function(prog, walker.function)


def _present(prog: Program, walker: Walker) -> bool | None:
    if any(has_function(prog, name) for name in walker.functions):
        return True
    whole = has_function(prog, walker.beside)
    if whole and any(lacks_function(prog, name) for name in walker.needs):
        return False
    # The module, or its symbols, may not be loaded.
    if walker.module or not walker.functions or not whole:
        return None
    return False if any(lacks_function(prog, name) for name in walker.functions) else None


def _guard(prog: Program, walker: Walker, release: KernelRelease) -> Guard | None:
    fitting = [guard for guard in walker.guards if _fits(prog, guard, release)]
    return fitting[-1] if fitting else None


def _is_undecided(
    prog: Program, walker: Walker, guard: Guard | None, release: KernelRelease
) -> bool:
    # A fix that this kernel may have, or not.
    later = walker.guards[walker.guards.index(guard) + 1 :] if guard else walker.guards
    return any(_fits(prog, each, release) is None for each in later)


def _fits(prog: Program, guard: Guard, release: KernelRelease) -> bool | None:
    if guard.feature:
        return FEATURES[guard.feature](prog)
    if guard.function and (has_function(prog, guard.function) or not any(guard.since)):
        return has_function(prog, guard.function) and _has_parameters(prog, guard)
    return has_change(release, guard.since, guard.stable)


def _has_parameters(prog: Program, guard: Guard) -> bool:
    if guard.parameters is None:
        return True
    try:
        type_ = prog.function(guard.function).type_
    except LookupError:
        # The function is shown without its type: the last guard counts.
        return True
    # An export of such a kernel has no type either: void (...)
    return type_.is_variadic or len(type_.parameters) == guard.parameters


def _is_by_release(prog: Program, walker: Walker, guard: Guard | None) -> bool:
    later = walker.guards[walker.guards.index(guard) + 1 :] if guard else walker.guards
    return any(
        any(each.since) and not (each.function and has_function(prog, each.function))
        for each in later
    )


_OutcomesOf = Callable[[frozenset[Act]], np.ndarray]


def _judge(
    memory: UnpromisedMemory, outcomes_of: _OutcomesOf, walker: Walker, release: KernelRelease
) -> Judgement:
    prog = memory.prog
    guard, present = _guard(prog, walker, release), _present(prog, walker)
    if _was_removed(prog, walker, release):
        guard, present = None, False
    function = walker.function
    if has_function(prog, walker.older) and not has_function(prog, function):
        function = walker.older
    stride, unjudged = _stride(memory, walker), _unjudged(memory, walker, guard)
    if not unjudged and present is not False and _is_undecided(prog, walker, guard, release):
        unjudged = _NO_RELEASE
    offset = stride - 1 if walker.last else 0
    judged = guard and not unjudged
    return Judgement(
        walker=walker,
        present=present,
        untraced=present is None
        and not walker.module
        and any(is_untraced(prog, name) for name in walker.functions),
        guard=guard,
        by_release=_is_by_release(prog, walker, guard),
        unjudged=unjudged,
        file=_file(prog, walker, function, release),
        function=function,
        stride=stride,
        offset=offset,
        proof=_proof(prog, walker) if present and judged else None,
        exposures=_exposures(memory, outcomes_of, guard, stride, offset)
        if guard and judged
        else (),
    )


def _unjudged(memory: UnpromisedMemory, walker: Walker, guard: Guard | None) -> str | None:
    asked = (*guard.steps, walker.stride.value if walker.stride else "") if guard else ()
    return next(filter(None, (unknown_here(memory, step) for step in asked)), None)


def _stride(memory: UnpromisedMemory, walker: Walker) -> int:
    geometry = memory.snapshot.geometry
    # If a size is not known, walkers with that stride are not judged.
    pages = {
        Stride.EIGHT: 8,
        Stride.PAGEBLOCK: memory.pageblock_pages,
        Stride.MAX_ORDER: memory.max_order_pages,
        Stride.SUBSECTION: geometry.pages_per_subsection,
        Stride.SECTION: geometry.pages_per_section,
    }
    return (pages[walker.stride] if walker.stride else None) or 1


def _proof(prog: Program, walker: Walker) -> str | None:
    proof = walker.proof
    return proof.what if proof and c_string(prog["UTS_RELEASE"]) in proof.releases else None


def _file(prog: Program, walker: Walker, function: str, release: KernelRelease) -> str:
    # A function that was inlined into another function has no line of its own, and an export
    # has no lines at all.
    moved, before = walker.moved or ((0, 0), "")
    known = walker.file if has_change(release, moved) else before
    try:
        address = prog.function(function).address_
        lines = prog.source_location(address) if address else ()
    except LookupError:
        return known
    found = _IN_TREE.fullmatch(lines[-1].filename) if lines else None
    return found[1] if found else known


def _exposures(
    memory: UnpromisedMemory, outcomes_of: _OutcomesOf, guard: Guard, stride: int, offset: int
) -> tuple[Exposure, ...]:
    runs = memory.runs
    if not len(runs):
        return ()
    pages = _looked_at(runs.start - offset, runs.end - offset, stride)
    touched = pages > 0
    for step in guard.steps:
        touched &= STEPS[step](memory)
    used, outcome = _walk(memory, outcomes_of, guard, touched)
    rows = np.flatnonzero(touched)
    # A range of the memory's classification becomes one exposure again.
    apart = (runs.start[rows[1:]] != runs.end[rows[:-1]]) | (np.diff(runs.case[rows]) != 0)
    return tuple(
        _exposure(memory, group, used, outcome, pages)
        for group in np.split(rows, np.flatnonzero(apart) + 1)
        if len(group)
    )


def _walk(
    memory: UnpromisedMemory, outcomes_of: _OutcomesOf, guard: Guard, touched: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Get which of the touched runs are used, and the outcome of each."""
    used, acts = touched.copy(), frozenset[Act]()
    outcome = outcomes_of(acts)
    for filtered, group in groupby(guard.does, key=lambda each: isinstance(each, str)):
        if filtered:
            for name in group:
                used &= FILTERS[str(name)](memory)
        else:
            acts |= {act for act in group if isinstance(act, Act)}
            outcome = np.where(used, outcomes_of(acts), outcome)
    return used, np.where(used, outcome, dropped(outcome))


def _looked_at(start: np.ndarray, end: np.ndarray, stride: int) -> np.ndarray:
    # Multiples of the stride within [start, end).
    return -(-end // stride) - -(-start // stride)


def _exposure(
    memory: UnpromisedMemory,
    rows: np.ndarray,
    used: np.ndarray,
    outcome: np.ndarray,
    pages: np.ndarray,
) -> Exposure:
    runs = memory.runs
    return Exposure(
        start_pfn=int(runs.start[rows[0]]),
        end_pfn=int(runs.end[rows[-1]]),
        case=CASES[int(runs.case[rows[0]])],
        touched=int(pages[rows].sum()),
        used=int(pages[rows[used[rows]]].sum()),
        outcomes=_tally(outcome[rows], pages[rows], OUTCOMES),
        contents=_held(memory, rows, pages),
    )


def _held(memory: UnpromisedMemory, rows: np.ndarray, pages: np.ndarray) -> dict[Contents, int]:
    runs = memory.runs
    rows = rows[runs.mapped[rows] & ~runs.has(UNREADABLE)[rows]]
    return _tally(runs.contents()[rows], pages[rows], CONTENTS)


_Name = TypeVar("_Name")


def _tally(codes: np.ndarray, pages: np.ndarray, names: Sequence[_Name]) -> dict[_Name, int]:
    # np.unique() sorts them.
    return {names[code]: int(pages[codes == code].sum()) for code in np.unique(codes).tolist()}
