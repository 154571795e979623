# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The Trial
---------

Compare what each variant would answer on a program's memory with what is true.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from drgn import Program
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.classification.boundaries import aligned, pgmap_borders, section_borders
from drgn_zonedev.classification.classify import classify_snapshot, undecided
from drgn_zonedev.classification.facts import kernel_facts
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.model import (
    CASES,
    Case,
    Coverage,
    KernelFacts,
    Range,
    Severity,
    Unjudged,
    lacks_memmap,
)
from drgn_zonedev.pfn_proposal.calls import Question
from drgn_zonedev.pfn_proposal.carried import Carried, carried_bitmaps
from drgn_zonedev.pfn_proposal.cost import Lookup, MemoryCost, lookup_cost, memory_cost
from drgn_zonedev.pfn_proposal.marks import Marks
from drgn_zonedev.pfn_proposal.variants import VARIANTS, Asked, Variant
from drgn_zonedev.util.handles import Result
from drgn_zonedev.util.sets import containing, sorted_set
from drgn_zonedev.verification.context import Progress, no_progress
from drgn_zonedev.verification.verify import verify_snapshot

__all__ = ("ProposalReport", "Verdict", "Wrong", "proposal", "try_variants")


@dataclass(frozen=True)
class Wrong:
    """
    PFNs of one case for which a variant gives the wrong answer. With a false yes, a walker
    reads an unpromised struct page; with a false no, it misses a valid one.
    """

    start_pfn: int
    end_pfn: int
    case: Case
    answer: bool

    @property
    def pages(self) -> int:
        """Number of PFNs."""
        return self.end_pfn - self.start_pfn


@dataclass(frozen=True)
class Verdict:
    """
    The judgement of a variant. ``right`` is the number of PFNs with the right answer;
    ``wrong`` are all others that could be judged, by case and answer.

    ``taken_for_ram`` and ``lost_ram`` are the mistakes of ``pfn_to_online_page()`` if it used
    this variant to recognise devices: the number of PFNs, by case, that it would take for RAM
    although they are not, and of those that it would not take for RAM although they are. See
    :meth:`Variant.online`.
    """

    variant: Variant
    right: int
    wrong: tuple[Wrong, ...]
    taken_for_ram: Mapping[Case, int]
    lost_ram: int
    lookup: Lookup | None
    memory: MemoryCost

    def pages(self, answer: bool) -> dict[Case, int]:
        """Count the false yes or false no answers by case."""
        found: dict[Case, int] = {}
        for wrong in self.wrong:
            if wrong.answer is answer:
                found[wrong.case] = found.get(wrong.case, 0) + wrong.pages
        return found


@dataclass(frozen=True, repr=False)
class ProposalReport(Result):
    """
    The judgements of all variants.

    ``judged`` PFNs have a section or a pgmap, and a known case; ``valid`` of them are
    ``ZONE_DEVICE`` memory whose struct pages may be touched. The struct pages of ``broken``
    of these are wrong nevertheless, which is a bug of the kernel and not of a variant.
    ``coverage`` says how many struct pages were verified, and
    ``nothing_judged`` whether there are none at all.
    """

    kernel: KernelFacts
    judged: int
    valid: int
    broken: int
    verdicts: tuple[Verdict, ...]
    carried: tuple[Carried, ...]
    unjudged: tuple[Unjudged, ...]
    coverage: Coverage
    nothing_judged: bool = False

    def __repr__(self) -> str:
        return f"<ProposalReport Linux {self.kernel.release!r}: {len(self.verdicts)} variants>"


_TELLING = (Case.DEVICE, Case.PARTIAL, Case.GHOST)


@takes_program_or_default
def proposal(prog: Program, *, progress: Progress = no_progress) -> ProposalReport:
    """
    Try every variant of ``pfn_zone_device()`` on a program's memory.

    :param progress: Called with the bytes of memmap that were just verified, and the
        total: the struct pages of devices, and of holes in early sections.
    :raises LookupError: if the debugging information does not have what is needed
    """
    snapshot = take_snapshot(prog)
    ranges = classify_snapshot(prog, snapshot)
    # Only struct pages distinguish a hole from one where a device was removed.
    telling = [r for r in ranges if r.case in _TELLING]
    verification = verify_snapshot(prog, snapshot, telling, progress)
    rest = [r for r in ranges if r.case not in _TELLING]
    known = sorted((*verification.ranges, *rest), key=lambda r: r.start_pfn)
    marks = Marks(snapshot, known)
    asked, intervals = _ask(snapshot, marks, known)
    return ProposalReport(
        kernel=kernel_facts(prog),
        judged=int(intervals.pages.sum()),
        valid=int(intervals.pages[intervals.truth].sum()),
        broken=sum(
            f.count
            for f in verification.findings
            if f.severity is Severity.ERROR and f.case is Case.DEVICE
        ),
        verdicts=_verdicts(prog, snapshot, asked, intervals),
        carried=carried_bitmaps(prog, marks),
        unjudged=undecided(known),
        coverage=verification.coverage,
        nothing_judged=lacks_memmap(known),
    )


def try_variants(prog: Program, snapshot: Snapshot, ranges: Sequence[Range]) -> tuple[Verdict, ...]:
    """Like :func:`proposal`, for structures that were already read and classified."""
    asked, intervals = _ask(snapshot, Marks(snapshot, ranges), ranges)
    return _verdicts(prog, snapshot, asked, intervals)


@dataclass(frozen=True)
class _Intervals:
    """Columns, a row per run of PFNs with the same case and the same answers of all lookups."""

    start: np.ndarray
    end: np.ndarray
    case: np.ndarray

    @property
    def pages(self) -> np.ndarray:
        return self.end - self.start

    @property
    def truth(self) -> np.ndarray:
        return self.case == CASES.index(Case.DEVICE)


def _ask(snapshot: Snapshot, marks: Marks, ranges: Sequence[Range]) -> tuple[Asked, _Intervals]:
    judged = [r for r in ranges if r.case is not Case.UNKNOWN]
    spans = np.array([(r.start_pfn, r.end_pfn) for r in judged], np.int64).reshape(-1, 2)
    case = np.array([CASES.index(_case(r)) for r in judged], np.int64)
    geometry = snapshot.geometry
    borders = pgmap_borders(snapshot) | set(spans.ravel().tolist())
    units = geometry.pages_per_subsection, geometry.pages_per_section
    edges = sorted_set(np.concatenate([aligned(borders, units), section_borders(snapshot)]))
    row = containing(edges[:-1], spans[:, 0], spans[:, 1])
    inside = row >= 0
    intervals = _Intervals(edges[:-1][inside], edges[1:][inside], case[row[inside]])
    return Asked(snapshot, marks, snapshot.predicates(intervals.start)), intervals


def _case(range_: Range) -> Case:
    # RAM that stores its own memmap, or that boot is still to initialise, belongs to no device.
    of_ram = range_.pgmap is None and range_.case in (Case.METADATA, Case.INITIALIZING)
    return Case.ONLINE if of_ram else range_.case


def _verdicts(
    prog: Program, snapshot: Snapshot, asked: Asked, intervals: _Intervals
) -> tuple[Verdict, ...]:
    questions = [Question(prog, asked.marks, pfn) for pfn in _samples(snapshot)]
    return tuple(
        _verdict(prog, snapshot, variant, asked, intervals, questions) for variant in VARIANTS
    )


def _verdict(
    prog: Program,
    snapshot: Snapshot,
    variant: Variant,
    asked: Asked,
    found: _Intervals,
    questions: Sequence[Question],
) -> Verdict:
    answer, online = variant.lookup(asked), variant.online(asked)
    ram = found.case == CASES.index(Case.ONLINE)
    rows = np.flatnonzero(answer != found.truth)
    apart = (
        (found.start[rows[1:]] != found.end[rows[:-1]])
        | (np.diff(found.case[rows]) != 0)
        | (answer[rows[1:]] != answer[rows[:-1]])
    )
    return Verdict(
        variant=variant,
        right=int(found.pages[answer == found.truth].sum()),
        wrong=tuple(
            Wrong(
                int(found.start[group[0]]),
                int(found.end[group[-1]]),
                CASES[int(found.case[group[0]])],
                bool(answer[group[0]]),
            )
            for group in np.split(rows, np.flatnonzero(apart) + 1)
            if len(group)
        ),
        taken_for_ram={
            case: int(found.pages[online & (found.case == i)].sum())
            for i, case in enumerate(CASES)
            if case is not Case.ONLINE and (online & (found.case == i)).any()
        },
        # RAM that the kernel itself does not take for online is not a mistake of a variant.
        lost_ram=int(found.pages[ram & asked.online_memory & ~online].sum()),
        lookup=lookup_cost(variant, questions),
        memory=memory_cost(prog, snapshot, variant),
    )


# Lookups are counted for this many pgmaps; there may be thousands.
_MAX_SAMPLES = 64


def _samples(snapshot: Snapshot) -> list[int]:
    # The first and last page of data in the first and in the last range of each pgmap; the last
    # range is the most expensive to find. Without any pgmap, a page of RAM.
    pfns = []
    for pgmap in snapshot.pgmaps[:_MAX_SAMPLES]:
        last = min(max(1, pgmap.nr_range), len(pgmap.ranges)) - 1
        for i in sorted({0, last} if pgmap.ranges else ()):
            pfns += [pgmap.pfn_first(i), pgmap.ranges[i].end_pfn - 1]
    sections, pages = snapshot.sections, snapshot.geometry.pages_per_section
    return pfns or [int(nr) * pages for nr in sections.nr[:1]]
