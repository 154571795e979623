# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Compare the tool's answers with those of the guest's kernel, for every PFN.

For each PFN of each present section and pgmap, not only for samples: the predicates, the struct
pages that the kernel may touch, and the promises of our cases. The guest must have been booted with
``truth=True`` and must not have changed since.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from drgn import Program

from drgn_zonedev.classification.classify import classify_snapshot
from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.kernel.compound_pages import compound_pages
from drgn_zonedev.kernel.memmap import Pages, UnreadablePages, head_pgmaps, read_pages
from drgn_zonedev.kernel.memremap import get_dev_pagemap, pgmap_pfn_valid
from drgn_zonedev.kernel.mmzone import pfn_to_online_page, pfn_valid
from drgn_zonedev.kernel.predicates import Predicates
from drgn_zonedev.lab.truth.answers import Answer, Kpageflags
from drgn_zonedev.lab.truth.frozen import IRREGULAR, read_frozen
from drgn_zonedev.lab.truth.guest_facts import Facts
from drgn_zonedev.lab.verdict.bits import bits_disagreements, claimed_by_case
from drgn_zonedev.lab.verdict.counters import counter_disagreements
from drgn_zonedev.lab.verdict.disagreement import Disagreement, differences, runs
from drgn_zonedev.lab.verdict.every_kind import kind_disagreements
from drgn_zonedev.lab.verdict.every_page import folio_orders, page_disagreements
from drgn_zonedev.lab.verdict.sysfs import system_disagreements
from drgn_zonedev.lab.verdict.variant_answers import answers_of, model_disagreements, models_of
from drgn_zonedev.model import Case, Memmap, Range
from drgn_zonedev.pfn_walkers.kpageflags import has_page

__all__ = ("Agreement", "Disagreement", "compare", "disagreements")


@dataclass(frozen=True)
class Agreement:
    """The result of a comparison."""

    pages: int
    """PFNs that the kernel answered for."""
    disagreements: tuple[Disagreement, ...]
    leaks: tuple[Disagreement, ...]
    """Where the kernel's answer is wrong in a known way: `leak` says which."""
    silent: tuple[str, ...]
    """What could not be compared, and why."""


def disagreements(prog: Program, facts: Facts) -> list[Disagreement]:
    """Return where the tool and the guest's kernel differ; see :func:`compare` for the rest."""
    return list(compare(prog, facts).disagreements)


def compare(prog: Program, facts: Facts) -> Agreement:
    """Compare the tool's answers for a guest with those of the guest's kernel."""
    snapshot = take_snapshot(prog)
    ranges = classify_snapshot(prog, snapshot)
    answers: Sequence[Answer] = facts.get("truth", ())
    walk = _walk(prog, snapshot, facts.get("kpageflags", ()))
    truth = Truth(answers)
    ours = snapshot.predicates(truth.pfn)
    found = [
        *_helpers(prog, answers),
        *_predicates(ours, truth),
        *_own_answers(prog, snapshot, ranges, ours, truth),
        *bits_disagreements(prog, snapshot, ranges),
        *_pages(prog, answers),
        *_cases(snapshot, ranges, ours, truth),
        *_kpageflags(prog, snapshot, ranges, walk),
        *_frozen(prog, facts),
        *system_disagreements(prog, snapshot, ranges, facts),
    ]
    return Agreement(
        pages=len(truth.pfn),
        disagreements=tuple(d for d in found if not d.leak),
        leaks=tuple(d for d in found if d.leak),
        silent=tuple(_silent(facts, walk)),
    )


def _pfns(spans: Sequence[Any]) -> np.ndarray:
    parts = [np.arange(s.start_pfn, s.end_pfn, dtype=np.int64) for s in spans]
    return np.concatenate(parts or [np.empty(0, np.int64)])


def _spread(spans: Sequence[Any], values: Sequence[Any], dtype: Any) -> np.ndarray:
    # Expand a value per span to a value per PFN.
    lengths = [s.end_pfn - s.start_pfn for s in spans]
    return np.repeat(np.array(values, dtype), np.array(lengths, np.int64))


@dataclass(frozen=True)
class Truth:
    """The kernel's answers, a row per PFN."""

    answers: Sequence[Answer]

    @cached_property
    def pfn(self) -> np.ndarray:
        """The PFNs that the kernel answered for."""
        return _pfns(self.answers)

    def yes(self, name: str) -> np.ndarray:
        """A column of yes or no."""
        return _spread(self.answers, [getattr(a, name) for a in self.answers], bool)

    @property
    def has_zone_device(self) -> bool:
        """Whether the kernel has a pfn_zone_device(), and was asked."""
        return bool(self.answers) and all(a.zone_device is not None for a in self.answers)

    @cached_property
    def pgmap(self) -> np.ndarray:
        """``get_dev_pagemap()``"""
        return _spread(self.answers, [a.pgmap for a in self.answers], np.uint64)


def _predicates(ours: Predicates, truth: Truth) -> Iterator[Disagreement]:
    # A kernel without pfn_zone_device() answers it like memory_failure() does.
    zone_device = truth.yes("valid") & (truth.pgmap != 0) & truth.yes("pgmap_valid")
    for about, mine, theirs in (
        ("pfn_valid()", ours.pfn_valid, truth.yes("valid")),
        ("pfn_to_online_page()", ours.online, truth.yes("online")),
        ("get_dev_pagemap()", ours.pgmap, truth.pgmap),
        ("pgmap_pfn_valid()", ours.pgmap_pfn_valid, truth.yes("pgmap_valid")),
        ("pfn_zone_device()", ours.zone_device, zone_device),
    ):
        yield from differences(about, truth.pfn, mine, theirs)


def _helpers(prog: Program, answers: Sequence[Answer]) -> Iterator[Disagreement]:
    # The helpers for one PFN take microseconds each: call them at both ends of every answer.
    for answer in answers:
        for pfn in sorted({answer.start_pfn, answer.end_pfn - 1}):
            pgmap = get_dev_pagemap(prog, pfn)
            asked = {
                "pfn_valid": (pfn_valid(prog, pfn), answer.valid),
                "pfn_to_online_page": (bool(pfn_to_online_page(prog, pfn)), answer.online),
                "get_dev_pagemap": (pgmap.value_(), answer.pgmap),
                "pgmap_pfn_valid": (
                    bool(pgmap) and pgmap_pfn_valid(pgmap, pfn),
                    answer.pgmap_valid,
                ),
            }
            for name, (ours, theirs) in asked.items():
                if ours != theirs:
                    yield Disagreement(f"helper {name}()", f"{ours}", f"{theirs}", pfn, pfn + 1)


def _own_answers(
    prog: Program, snapshot: Snapshot, ranges: Sequence[Range], ours: Predicates, truth: Truth
) -> Iterator[Disagreement]:
    # Of a kernel that really has a pfn_zone_device().
    if not truth.has_zone_device:
        return iter(())
    models = models_of(prog)
    if models is None:
        return _zone_device(ours, ranges, truth)
    answers = truth.yes("zone_device"), truth.yes("claimed")
    return model_disagreements(models, snapshot, ranges, truth.pfn, *answers)


def _zone_device(ours: Predicates, ranges: Sequence[Range], truth: Truth) -> Iterator[Disagreement]:
    for function, mine, name in (
        ("pfn_zone_device()", ours.zone_device, "zone_device"),
        ("pfn_zone_device_reserved()", ours.zone_device_reserved, "reserved"),
        (
            "pfn_zone_device_claimed()",
            claimed_by_case(ranges, truth.pfn, ours.populated),
            "claimed",
        ),
    ):
        yield from differences(f"the kernel's own {function}", truth.pfn, mine, truth.yes(name))


def _pages(prog: Program, answers: Sequence[Answer]) -> Iterator[Disagreement]:
    for answer in answers:
        if answer.zone is None:
            continue
        for pages in read_pages(prog, answer.start_pfn, answer.end_pfn):
            if isinstance(pages, UnreadablePages):
                yield Disagreement(
                    "struct page", pages.reason, "readable", pages.start_pfn, pages.end_pfn
                )
            else:
                yield from _page_fields(prog, pages, answer)


def _page_fields(prog: Program, pages: Pages, answer: Answer) -> Iterator[Disagreement]:
    expected = [("zone", pages.zone, answer.zone), ("node", pages.node, answer.nid)]
    if answer.page_pgmap is not None:
        expected.append(("page_pgmap()", head_pgmaps(prog, pages), answer.page_pgmap))
    for about, ours, theirs in expected:
        assert theirs is not None
        column = np.full(len(ours), theirs, ours.dtype)
        yield from differences(about, pages.pfn, ours, column)
    if answer.order is None:
        # Folios in RAM have changed since the kernel was asked.
        return
    if answer.order < 0:
        ours = folio_orders(pages, compound_pages(prog, pages)) == IRREGULAR
        yield from differences("compound head: none", pages.pfn, ours, np.ones(len(ours), bool))
        return
    layout = pages.layout
    distance = pages.head.astype(np.int64) - pages.address.astype(np.int64)
    ours = pages.pfn + distance // layout.size
    yield from differences(
        "compound head", pages.pfn, ours, pages.pfn >> answer.order << answer.order
    )


# What a case promises of pfn_valid(), pfn_to_online_page(), get_dev_pagemap() and
# pgmap_pfn_valid(); predicates that are not listed are not promised.
_PROMISES: dict[Case, dict[str, bool]] = {
    Case.ONLINE: {"valid": True, "online": True, "pgmap": False},
    Case.OFFLINE: {"valid": True, "online": False, "pgmap": False},
    Case.DEVICE: {"valid": True, "online": False, "pgmap": True, "pgmap_valid": True},
    Case.PARTIAL: {"online": False, "pgmap": False},
    Case.INITIALIZING: {"online": False, "pgmap": True, "pgmap_valid": False},
    Case.RESERVED: {"valid": True, "online": False, "pgmap": True, "pgmap_valid": False},
    Case.METADATA: {"valid": True, "online": False, "pgmap": True, "pgmap_valid": False},
    Case.TEARDOWN: {"online": False, "pgmap": False},
    Case.ORPHAN: {"valid": True, "online": False, "pgmap": False},
    Case.GHOST: {"valid": True, "online": False, "pgmap": False},
}

# Of RAM, which has no pgmap, if that differs. The head of a memory block may be online or not.
_PROMISES_OF_RAM: dict[Case, dict[str, bool]] = {
    Case.INITIALIZING: {"valid": True, "online": True, "pgmap": False},
    Case.METADATA: {"valid": True, "pgmap": False},
}

_LEAKS = (
    "",
    "before v5.12, pfn_to_online_page() returns every page of an online section",
    "get_dev_pagemap() does not find a dying pgmap, so pfn_to_online_page() takes it for RAM",
    "sections that a failed memremap_pages() left behind have no pgmap to check",
    "without SECTION_TAINT_ZONE_DEVICE, pfn_to_online_page() does not check for a pgmap",
)


def _cases(
    snapshot: Snapshot, ranges: Sequence[Range], ours: Predicates, truth: Truth
) -> Iterator[Disagreement]:
    if not truth.answers:
        return
    answers = {name: truth.yes(name) for name in ("valid", "online", "pgmap_valid")}
    answers["pgmap"] = truth.pgmap != 0
    row = np.searchsorted(truth.pfn, [[r.start_pfn, r.end_pfn] for r in ranges]).reshape(-1, 2)
    for range_, (first, end) in zip(ranges, row.tolist()):
        rows = slice(first, end)
        if end - first != range_.pages:
            yield _of_range(range_, "coverage", f"{range_.pages} PFNs", f"{end - first}")
        if range_.case is Case.UNKNOWN:
            yield _of_range(range_, "case", f"unknown ({range_.reason})", "knows")
        for name, promised in _promises(range_).items():
            leaks = _leaks(snapshot, range_, ours, rows) if name == "online" else None
            yield from _broken(range_, name, promised, truth.pfn[rows], answers[name][rows], leaks)
    yield from _beyond(ranges, truth)


def _promises(range_: Range) -> dict[str, bool]:
    of_ram = _PROMISES_OF_RAM.get(range_.case) if range_.pgmap is None else None
    promises = dict(of_ram or _PROMISES.get(range_.case, {}))
    if range_.memmap is not Memmap.UNKNOWN:
        promises["valid"] = range_.memmap is Memmap.MAPPED
    return promises


def _of_range(range_: Range, about: str, ours: str, theirs: str) -> Disagreement:
    return Disagreement(about, ours, theirs, range_.start_pfn, range_.end_pfn)


def _broken(
    range_: Range,
    name: str,
    promised: bool,
    pfn: np.ndarray,
    answered: np.ndarray,
    leaks: np.ndarray | None,
) -> Iterator[Disagreement]:
    rows = np.flatnonzero(answered != promised)
    leak = np.zeros(len(rows), int) if leaks is None else leaks[rows]
    pfn = pfn[rows]
    for first, end in runs(pfn, leak):
        yield Disagreement(
            about=f"case {range_.case.value}",
            ours=f"{'' if promised else 'not '}{name}",
            theirs=f"{'not ' if promised else ''}{name}",
            start_pfn=int(pfn[first]),
            end_pfn=int(pfn[end - 1]) + 1,
            leak=_LEAKS[leak[first]],
        )


def _leaks(snapshot: Snapshot, range_: Range, ours: Predicates, rows: slice) -> np.ndarray:
    # An index into _LEAKS for each PFN. It is only a leak if our own pfn_to_online_page() agrees
    # with the kernel's.
    tainted = ours.has_flag(snapshot.flags.taint)[rows]
    claimed = ours.pgmap[rows] != 0
    kinds = [
        np.full(len(tainted), not snapshot.flags.taint),
        np.full(len(tainted), range_.case is Case.TEARDOWN),
        np.full(len(tainted), range_.case is Case.ORPHAN),
        claimed & ~tainted,
    ]
    leak = np.select(kinds, range(1, len(_LEAKS)), 0)
    if range_.case is Case.ONLINE:
        leak[:] = 0
    return np.where(ours.online[rows], leak, 0)


def _beyond(ranges: Sequence[Range], truth: Truth) -> Iterator[Disagreement]:
    # PFNs that the kernel has, and our ranges do not.
    covered = np.zeros(len(truth.pfn), bool)
    for range_ in ranges:
        first, end = np.searchsorted(truth.pfn, [range_.start_pfn, range_.end_pfn])
        covered[first:end] = True
    yield from differences("present", truth.pfn, covered, np.ones(len(covered), bool))


@dataclass(frozen=True)
class _Walk:
    """Whether /proc/kpageflags found a page, for the PFNs for which that is known."""

    pfn: np.ndarray
    found: np.ndarray
    undecided: int
    """Number of other PFNs that it reports."""


def _walk(prog: Program, snapshot: Snapshot, kpageflags: Sequence[Kpageflags]) -> _Walk:
    decisive = [run for run in kpageflags if run.answer != "zero"]
    zeros = [run for run in kpageflags if run.answer == "zero"]
    if any(run.answer == "nopage" for run in kpageflags):
        # A kernel with KPF_NOPAGE has seen a page wherever it does not set that flag.
        decisive, zeros = [*decisive, *zeros], []
    zero = _pfns(zeros)
    decided = zero[_not_seen(prog, snapshot, zero)]
    found = _spread(decisive, [run.answer != "nopage" for run in decisive], bool)
    return _Walk(
        np.concatenate([_pfns(decisive), decided]),
        np.concatenate([found, np.zeros(len(decided), bool)]),
        len(zero) - len(decided),
    )


def _not_seen(prog: Program, snapshot: Snapshot, pfn: np.ndarray) -> np.ndarray:
    """Return for which PFNs that read 0 it is certain that the kernel found no page."""
    valid = snapshot.predicates(pfn).pfn_valid
    sure = ~valid
    rows = np.flatnonzero(valid)
    for first, end in runs(pfn[rows]):
        start_pfn = int(pfn[rows[first]])
        for pages in read_pages(prog, start_pfn, start_pfn + end - first):
            if isinstance(pages, Pages):
                # All device pages have PG_reserved, so a page that was found would not read 0.
                row = rows[first] + pages.start_pfn - start_pfn
                flag = np.uint64(pages.layout.pg_reserved)
                sure[row : row + len(pages.pfn)] = (pages.flags & flag) != 0
    return sure


def _kpageflags(
    prog: Program, snapshot: Snapshot, ranges: Sequence[Range], walk: _Walk
) -> Iterator[Disagreement]:
    order = np.argsort(walk.pfn, kind="stable")
    pfn = walk.pfn[order]
    ours = has_page(prog, snapshot.predicates(pfn))
    models = models_of(prog)
    if models and models.shown:
        ours = ours | answers_of(models.shown, snapshot, ranges, pfn)
    yield from differences("/proc/kpageflags finds a page", pfn, ours, walk.found[order])


def _frozen(prog: Program, facts: Facts) -> Iterator[Disagreement]:
    frozen = read_frozen(prog, facts)
    if frozen is not None:
        yield from page_disagreements(prog, frozen)
        yield from kind_disagreements(prog, frozen)
        yield from counter_disagreements(prog, frozen)


def _silent(facts: Facts, walk: _Walk) -> Iterator[str]:
    for name in ("truth", "kpageflags", "frozen"):
        if name not in facts:
            yield f"the guest did not report {name}"
    if walk.undecided:
        yield f"/proc/kpageflags: {walk.undecided} PFNs read 0: no page, or one without flags"
