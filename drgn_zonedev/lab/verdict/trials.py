# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Run real PFN walkers on real bad pages, and compare what they do with the prediction.

A trial is a scenario at whose end the guest reads all of ``/proc/kpageflags`` and
``/proc/kpagecount``, runs the walkers that take a PFN on one PFN of each range, and starts the
walkers that walk all memory. If the guest panics, that is also a result. A frozen guest runs
nothing; in a kernel that has bits for ``pfn_zone_device()``, they are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from drgn_zonedev.lab.host.errors import GuestEndedError, NotPossible, StepProgress
from drgn_zonedev.lab.kernels.known import Kernel
from drgn_zonedev.lab.machine.boot import Guest, boot
from drgn_zonedev.lab.machine.initramfs import has_module
from drgn_zonedev.lab.scenarios import SCENARIOS, Scenario
from drgn_zonedev.lab.scenarios.arithmetic import GIB, MIB, PAGE, SECTION
from drgn_zonedev.lab.truth.answers import Values, Visit
from drgn_zonedev.lab.verdict.bits import bits_disagreements, kernel_bits
from drgn_zonedev.lab.verdict.disagreement import Disagreement, differences
from drgn_zonedev.lab.verdict.matrix_results import ascii_only
from drgn_zonedev.model import Case
from drgn_zonedev.pfn_walkers.kpageflags import KPF, kpage_end_pfn, predict, shows_devices
from drgn_zonedev.util.alignment import align_down, align_up
from drgn_zonedev.util.intervals import union

if TYPE_CHECKING:
    from drgn import Program

    from drgn_zonedev.classification.snapshot import Snapshot
    from drgn_zonedev.model import Range
    from drgn_zonedev.pfn_walkers import Exposure, WalkOutcome

__all__ = (
    "PROVED",
    "TRIALS",
    "Kpage",
    "MarkedPages",
    "Prediction",
    "Trial",
    "judge_bits",
    "judge_end",
    "judge_trial",
    "predict_victims",
    "run_trial",
    "trial_scenario",
    "trial_text",
    "visited_pfns",
    "walked_spans",
)

TRIALS = (
    *("fsdax-collision", "ghost", "two-in-one", "nvdimm-partial", "hotplug-offline", "orphan"),
    "acpi-hole",
)
"""
The scenarios whose ranges differ in what walkers do with them. They end without a breakpoint: a
frozen guest cannot run a walker.
"""

_HWPOISON = "hwpoison_inject"
_SECONDS = 180
_SECTION = SECTION // PAGE
# 64 GiB: a guest reads as many words in a minute.
_FAR = 64 * GIB // PAGE

# The rows of our table that a visit shows right or wrong.
_ROWS = {
    "memory_failure": ("memory-failure", "memory-failure-dax"),
    "hwpoison_inject": ("memory-failure", "memory-failure-dax"),
    "soft_offline_page": ("soft-offline",),
    "unpoison_memory": ("unpoison",),
}
PROVED = ("kpageflags", "kpagecount", *dict.fromkeys(n for names in _ROWS.values() for n in names))
"""The walkers of our table that trials compare with what a kernel did."""

# The answer of each walker to a page that its guard rejects; any other answer means that it read
# the struct page. From mm/memory-failure.c: memory_failure() and, for memory that is not online,
# memory_failure_dev_pagemap(); soft_offline_page(); unpoison_memory().
_ENXIO, _EIO = "No such device or address", "Input/output error"
_REJECTED = {
    "memory_failure": (_ENXIO,),
    "hwpoison_inject": (_ENXIO,),
    "soft_offline_page": (_ENXIO, _EIO),
    "unpoison_memory": (_ENXIO, _EIO),
}


@dataclass(frozen=True)
class Kpage:
    """How many words of a file are as predicted."""

    file: str
    compared: int
    """Words outside of RAM, which do not change meanwhile."""
    undecided: int
    """Of these, words that are not predicted."""
    ram: int
    """Words of RAM that were predicted, from a later moment than that of the guest's reading."""
    ram_equal: int


@dataclass(frozen=True)
class Prediction:
    """What memory failure does to a PFN, by the table; ``outcome`` is None for nothing bad."""

    pfn: int
    outcome: WalkOutcome | None

    @property
    def is_panic(self) -> bool:
        """Whether the guest should die of it."""
        from drgn_zonedev.pfn_walkers import FATAL

        return self.outcome in FATAL


@dataclass(frozen=True)
class MarkedPages:
    """How many PFNs the kernel's own bits are set for; see ``KernelBits``."""

    claimed: int
    zone_device: int


@dataclass(frozen=True)
class Trial:
    """The result of a trial."""

    kernel: Kernel
    scenario: Scenario
    kpage: tuple[Kpage, ...] = ()
    visits: tuple[Visit, ...] = ()
    log: tuple[str, ...] = ()
    """What the guest's kernel printed meanwhile."""
    disagreements: tuple[Disagreement, ...] = ()
    impossible: str = ""
    panic: str = ""
    """How the guest ended, if it did."""
    console: str = ""
    """Everything that such a guest printed."""
    predicted: tuple[Prediction, ...] = ()
    """What was said of the scenario's victims, before memory failure handled them."""
    marked: MarkedPages | None = None
    """None: the kernel has no such bits."""


def visited_pfns(scenario: Scenario) -> tuple[int, ...]:
    """Return the PFNs on which walkers are run: the first of each range, and one of RAM."""
    ranges = [e for e in scenario.expected if e.case != "online"]
    # A page that is not in use after boot, so that losing it does no harm.
    return (*(e.start_pfn for e in ranges), 0x3F000)


def trial_scenario(kernel: Kernel, scenario: Scenario) -> Scenario:
    """Return a scenario at whose end the walkers run."""
    pfns = tuple(f"{pfn:x}" for pfn in visited_pfns(scenario))
    modules = (_HWPOISON,) if has_module(kernel, _HWPOISON) else ()
    sections = tuple(
        f"{start // _SECTION}:{(end - start) // _SECTION}" for start, end in walked_spans(scenario)
    )
    return replace(
        scenario,
        modules=(*scenario.modules, *modules),
        steps=(*scenario.steps, ("kpage", *sections), ("walkers", *pfns)),
    )


def walked_spans(scenario: Scenario) -> tuple[tuple[int, int], ...]:
    """
    Return the PFNs of which the files are read, in whole sections; empty: all of them.

    If a device is at high addresses, such as memory that no CPU can address, the files have
    gigabytes of words about nothing before it, which the guest would read for an hour.
    """
    if all(e.end_pfn < _FAR for e in scenario.expected):
        return ()
    ram_end = scenario.memory_mib * MIB // PAGE
    ends = [(0, ram_end), *((e.start_pfn, e.end_pfn) for e in scenario.expected)]
    return union((align_down(a, _SECTION), align_up(b, _SECTION)) for a, b in ends)


def run_trial(
    kernel: Kernel, name: str, *, accel: str = "tcg", progress: StepProgress = None
) -> Trial:
    """Boot a kernel into a scenario of TRIALS, and compare what its walkers did."""
    from drgn_zonedev.lab.verdict.matrix import debug_guest

    scenario = SCENARIOS[name]
    if kernel.name in scenario.impossible:
        return Trial(kernel, scenario, impossible=scenario.impossible[kernel.name])
    if scenario.breakpoint:
        return _run_frozen_trial(kernel, scenario, accel, progress)
    trial = Trial(kernel, scenario)
    if scenario.victims:
        trial = _run_fatal_trial(kernel, scenario, accel, progress)
        if trial.panic or trial.impossible or not scenario.expected:
            return trial
    wanted = trial_scenario(kernel, scenario)
    try:
        # If a walker ends the guest, a second attempt would end in the same way.
        with boot(kernel, wanted, accel=accel, timeout=_SECONDS, progress=progress) as guest:
            walked = judge_trial(guest, debug_guest(guest), scenario)
            return replace(
                walked,
                predicted=trial.predicted,
                disagreements=(*trial.disagreements, *walked.disagreements),
            )
    except NotPossible as e:
        return Trial(kernel, scenario, impossible=str(e))
    except GuestEndedError as e:
        return replace(trial, panic=_panic(str(e)), console=e.console)


def _run_frozen_trial(
    kernel: Kernel, scenario: Scenario, accel: str, progress: StepProgress
) -> Trial:
    """Compare the bits of a guest that cannot run a walker."""
    from drgn_zonedev.lab.verdict.matrix import debug_guest

    try:
        with boot(kernel, scenario, accel=accel, timeout=_SECONDS, progress=progress) as guest:
            return judge_bits(debug_guest(guest), Trial(kernel, scenario))
    except NotPossible as e:
        return Trial(kernel, scenario, impossible=str(e))


def judge_bits(prog: Program, trial: Trial) -> Trial:
    """Return the trial of a frozen guest, with what its kernel's bits say."""
    from drgn_zonedev.classification.classify import classify_snapshot
    from drgn_zonedev.classification.reading import take_snapshot

    snapshot = take_snapshot(prog)
    marked = _marked(prog, snapshot)
    if marked is None:
        return replace(trial, impossible="a frozen guest runs no walker, and has no bits to read")
    wrong = bits_disagreements(prog, snapshot, classify_snapshot(prog, snapshot))
    return replace(trial, marked=marked, disagreements=tuple(wrong))


def _marked(prog: Program, snapshot: Snapshot) -> MarkedPages | None:
    bits = kernel_bits(prog, snapshot)
    if bits is None:
        return None
    return MarkedPages(int(bits.claimed.sum()), int(bits.zone_device.sum()))


def _run_fatal_trial(
    kernel: Kernel, scenario: Scenario, accel: str, progress: StepProgress
) -> Trial:
    """Predict on one guest what memory failure does to the victims, and have another one do it."""
    from drgn_zonedev.lab.verdict.matrix import debug_guest

    with boot(kernel, scenario, accel=accel, timeout=_SECONDS, progress=progress) as guest:
        predicted = predict_victims(debug_guest(guest), scenario.victims)
    words = tuple(f"{pfn:x}" for pfn in scenario.victims)
    wanted = replace(scenario, steps=(*scenario.steps, ("hard_offline", *words)))
    trial = Trial(kernel, scenario, predicted=predicted)
    try:
        with boot(
            kernel, wanted, accel=accel, timeout=_SECONDS, attempts=1, progress=progress
        ) as guest:
            visits, log = guest.facts["visits"], guest.facts["visits_log"]
            trial = replace(trial, visits=tuple(visits), log=log)
    except NotPossible as e:
        return replace(trial, impossible=str(e))
    except GuestEndedError as e:
        trial = replace(trial, panic=_panic(str(e)), console=e.console)
    return replace(trial, disagreements=tuple(judge_end(trial)))


def predict_victims(prog: Program, victims: Sequence[int]) -> tuple[Prediction, ...]:
    """Say what memory failure does to PFNs, by the table."""
    from drgn_zonedev.pfn_walkers import walkers

    names = _ROWS["memory_failure"]
    if shows_devices(prog):
        # There, memory_failure() first asks pfn_zone_device() about everything that is not RAM.
        names = ("memory-failure",)
    rows = [j for j in walkers(prog).walkers if j.walker.name in names]
    exposures = [exposure for row in rows for exposure in row.exposures]
    return tuple(
        Prediction(pfn, next((e.worst for e in exposures if e.start_pfn <= pfn < e.end_pfn), None))
        for pfn in victims
    )


def judge_end(trial: Trial) -> Iterator[Disagreement]:
    """Yield where the end of a guest is not what was predicted of the victims."""
    fatal = [prediction for prediction in trial.predicted if prediction.is_panic]
    about, pfn = "memory_failure()", trial.scenario.victims[0]
    if trial.panic and not fatal:
        yield Disagreement(about, "the guest survives", trial.panic, pfn, pfn + 1)
    elif fatal and not trial.panic:
        pfn, outcome = fatal[0].pfn, fatal[0].outcome
        ours = outcome.value if outcome else ""
        yield Disagreement(about, ours, "the guest survived", pfn, pfn + 1)


def _panic(error: str) -> str:
    found = re.search(r"(BUG: .*|Kernel panic.*|kernel BUG .*)", error)
    return found[1] if found else error.splitlines()[0]


def judge_trial(guest: Guest, prog: Program, scenario: Scenario) -> Trial:
    """Compare what the guest's walkers did with the prediction."""
    from drgn_zonedev.classification.classify import classify_snapshot
    from drgn_zonedev.classification.reading import take_snapshot

    snapshot = take_snapshot(prog)
    ranges = classify_snapshot(prog, snapshot)
    visits: Sequence[Visit] = guest.facts["visits"]
    table = _Table.judge(prog, snapshot, ranges)
    kpage, wrong = _kpage(prog, snapshot, table, guest.facts, walked_spans(scenario))
    return Trial(
        guest.kernel,
        scenario,
        kpage=kpage,
        visits=tuple(visits),
        log=guest.facts["visits_log"],
        disagreements=(
            *wrong,
            *_guards(snapshot, table, visits, scenario),
            *bits_disagreements(prog, snapshot, ranges),
        ),
        marked=_marked(prog, snapshot),
    )


@dataclass(frozen=True)
class _Table:
    """The walkers' table, judged on a guest's memory."""

    ranges: Sequence[Range]
    exposures: dict[str, tuple[Exposure, ...]]

    @staticmethod
    def judge(prog: Program, snapshot: Snapshot, ranges: Sequence[Range]) -> _Table:
        from drgn_zonedev.pfn_walkers import suspects, walk_all

        found = walk_all(prog, snapshot, suspects(prog, snapshot, ranges))
        return _Table(ranges, {j.walker.name: j.exposures for j in found})

    def exposed(self, name: str, pfn: np.ndarray) -> np.ndarray:
        """Whether a walker would touch the struct pages of PFNs, if they are unpromised."""
        return _inside(pfn, [(e.start_pfn, e.end_pfn) for e in self.exposures[name]])

    def used(self, name: str, pfn: np.ndarray) -> np.ndarray:
        """Whether a walker's guard lets PFNs pass, of which it may have read something before."""
        if name != "memory-failure-dax":
            return self.exposed(name, pfn)
        return _inside(pfn, [(e.start_pfn, e.end_pfn) for e in self.exposures[name] if e.used])

    def is_case(self, pfn: np.ndarray, *cases: Case) -> np.ndarray:
        return _inside(pfn, [(r.start_pfn, r.end_pfn) for r in self.ranges if r.case in cases])

    def is_ram(self, pfn: np.ndarray) -> np.ndarray:
        """Whether PFNs are RAM that may be in use, or store the memmap of their own block."""
        spans = [
            (r.start_pfn, r.end_pfn)
            for r in self.ranges
            if r.case is Case.ONLINE or (r.case is Case.METADATA and r.pgmap is None)
        ]
        return _inside(pfn, spans)


def _inside(pfn: np.ndarray, spans: Sequence[tuple[int, int]]) -> np.ndarray:
    found = np.zeros(len(pfn), bool)
    for start, end in spans:
        found |= (pfn >= start) & (pfn < end)
    return found


def _kpage(
    prog: Program,
    snapshot: Snapshot,
    table: _Table,
    facts: dict[str, Sequence[Values]],
    spans: Sequence[tuple[int, int]],
) -> tuple[tuple[Kpage, ...], list[Disagreement]]:
    end_pfn = kpage_end_pfn(prog)
    spans = [(start, min(end, end_pfn)) for start, end in spans or [(0, end_pfn)]]
    predictions = [predict(prog, snapshot, start, end) for start, end in spans if start < end]
    pfn = np.concatenate([np.arange(p.start_pfn, p.end_pfn) for p in predictions])
    decided = np.concatenate([p.decided for p in predictions])
    ram = table.is_ram(pfn)
    found: list[Kpage] = []
    wrong: list[Disagreement] = []
    for file, column in (("kpageflags", "flags"), ("kpagecount", "count")):
        ours = np.concatenate([getattr(p, column) for p in predictions])
        walked, words = _words(facts[f"{file}_values"])
        if not np.array_equal(walked, pfn):
            end = int(walked[-1]) + 1 if len(walked) else 0
            wrong.append(Disagreement(f"/proc/{file} ends at PFN", hex(end_pfn), hex(end)))
            continue
        still = np.flatnonzero(~ram & decided)
        wrong += differences(f"/proc/{file}", pfn[still], ours[still], words[still])
        if file == "kpageflags":
            wrong += _seen(table, pfn[~ram], words[~ram])
        moving = ram & decided
        found.append(
            Kpage(
                file,
                compared=len(still),
                undecided=int((~ram & ~decided).sum()),
                ram=int(moving.sum()),
                ram_equal=int((moving & (ours == words)).sum()),
            )
        )
    return tuple(found), wrong


def _words(runs: Sequence[Values]) -> tuple[np.ndarray, np.ndarray]:
    """Return the PFNs of which a file was read, and its words."""
    pfn = [np.arange(run.start_pfn, run.end_pfn) for run in runs] or [np.empty(0, np.int64)]
    values = np.array([run.value for run in runs], np.uint64)
    return np.concatenate(pfn), np.repeat(values, [run.end_pfn - run.start_pfn for run in runs])


def _seen(table: _Table, pfn: np.ndarray, flags: np.ndarray) -> Iterator[Disagreement]:
    # All struct pages outside of RAM and devices are reserved or garbage here, so the word of a
    # page that was read is never 0.
    bad = ~table.is_case(pfn, Case.DEVICE)
    seen = (flags[bad] != 0) & (flags[bad] >> np.uint64(KPF["NOPAGE"]) & np.uint64(1) == 0)
    ours = table.exposed("kpageflags", pfn[bad])
    yield from differences("/proc/kpageflags sees a bad page", pfn[bad], ours, seen)


def _guards(
    snapshot: Snapshot, table: _Table, visits: Sequence[Visit], scenario: Scenario
) -> Iterator[Disagreement]:
    sent = [visit for visit in visits if visit.pfn is not None and visit.walker in _REJECTED]
    pfn = np.array([visit.pfn for visit in sent], np.int64)
    good = table.is_case(pfn, Case.ONLINE, Case.DEVICE)
    of = snapshot.predicates(pfn)
    good |= table.is_ram(pfn) & of.online
    for row, visit in enumerate(sent):
        if _is_ambiguous(visit, bool(of.online[row]), bool(of.pfn_valid[row])):
            continue
        if scenario.xfs_mib and good[row] and visit.said == _ENXIO:
            continue  # XFS also says so for a page that is not in a file.
        passed = visit.said not in _REJECTED[visit.walker]
        names = _ROWS[visit.walker]
        # The table is about bad pages. Good pages must pass: RAM with all guards, and device memory
        # with that of memory_failure_dev_pagemap().
        ours = bool(of.online[row]) or "memory-failure-dax" in names
        if not good[row]:
            ours = any(bool(table.used(name, pfn[row : row + 1])[0]) for name in names)
        if ours != passed:
            yield Disagreement(
                f"{visit.walker}()'s guard",
                "lets it pass" if ours else "rejects it",
                visit.said,
                int(pfn[row]),
                int(pfn[row]) + 1,
            )


def _is_ambiguous(visit: Visit, online: bool, valid: bool) -> bool:
    # get_any_page() returns EIO for pages in use that it cannot handle, after it has read them.
    if online:
        return visit.said == _EIO
    # 7.3 also handles poison without a struct page, and returns EBUSY.
    return not valid and visit.said not in _REJECTED[visit.walker]


def trial_text(trial: Trial, *, verbose: bool = False) -> str:
    """Return the text of a trial."""
    return "\n".join(map(ascii_only, _lines(trial, verbose)))


def _lines(trial: Trial, verbose: bool) -> Iterator[str]:
    yield f"===== {trial.kernel.release}: {trial.scenario.name} ====="
    if trial.impossible:
        yield f"not possible: {trial.impossible}"
        return
    for prediction in trial.predicted:
        outcome = prediction.outcome.value if prediction.outcome else "nothing bad"
        end = "a panic" if prediction.is_panic else "no panic"
        yield f"predicted of memory failure at PFN {prediction.pfn:#x}: {outcome}: {end}"
    if trial.panic:
        yield f"the guest panicked: {trial.panic}"
        if not trial.predicted:
            return
    for kpage in trial.kpage:
        yield (
            f"/proc/{kpage.file}: {kpage.compared} words of what is not RAM compared, "
            f"{kpage.undecided} not predicted; of RAM, {kpage.ram_equal} of {kpage.ram} are equal "
            "(it is in use meanwhile)"
        )
    if trial.marked:
        yield (
            f"bits of the kernel: {trial.marked.claimed} PFNs are claimed by a device, "
            f"{trial.marked.zone_device} may be touched"
        )
    for visit in trial.visits:
        where = "all memory" if visit.pfn is None else f"PFN {visit.pfn:#x}"
        yield f"{visit.walker} at {where}: {visit.said}"
    for disagreement in trial.disagreements:
        yield f"DIFFERS: {disagreement}"
    if not trial.disagreements:
        yield "all as predicted"
    if verbose:
        yield from trial.log
