# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Measured
--------

The tables of ``docs/proposal.md``, from dumps of real kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from drgn_zonedev.export.store import StoredDump
from drgn_zonedev.pfn_proposal.cost import LookupWork
from drgn_zonedev.pfn_proposal.trial import ProposalReport, Verdict, proposal

__all__ = ("Measured", "measure", "with_tables")


@dataclass(frozen=True)
class Measured:
    """What came of a stored dump: kernel and scenario are the two parts of its name."""

    kernel: str
    scenario: str
    report: ProposalReport


def measure(dumps: Iterable[StoredDump]) -> list[Measured]:
    """Try the variants on stored dumps of x86-64: those of arm64 have other scenarios."""
    found = []
    for dump in dumps:
        kernel, _, scenario = dump.name.partition("-")
        if scenario.startswith("arm64-"):
            continue
        with dump.program() as prog:
            found.append(Measured(kernel, scenario, proposal(prog)))
    return found


def with_tables(text: str, measured: Sequence[Measured]) -> str:
    """
    Replace the tables of a document.

    :raises ValueError: if it has no place for them
    """
    taken = [m for m in measured if _any_taken(m)]
    text = _with_table(text, "answers", lambda: _answers(measured, _mistakes))
    text = _with_table(text, "online", lambda: _answers(taken, _taken))
    return _with_table(text, "costs", lambda: _costs(measured))


def _with_table(text: str, name: str, table: Callable[[], str]) -> str:
    begin, end = f"<!-- measured: {name} -->", "<!-- measured: end -->"
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"there is no {begin} ... {end}")
    return f"{before}{begin}\n\n{table()}\n\n{end}{after}"


def _answers(measured: Sequence[Measured], cell: Callable[[Verdict], str]) -> str:
    names = [v.variant.name for v in measured[0].report.verdicts]
    rows: dict[str, dict[tuple[str, ...], list[str]]] = {}
    for m in measured:
        cells = tuple(cell(v) for v in m.report.verdicts)
        rows.setdefault(m.scenario, {}).setdefault(cells, []).append(m.kernel)
    lines = [_row(["scenario", "kernels", *(f"`{name}`" for name in names)])]
    lines.append(_row(["---"] * (len(names) + 2)))
    for scenario, answers in rows.items():
        for cells, kernels in answers.items():
            lines.append(_row([scenario, ", ".join(_in_order(kernels)), *cells]))
    return "\n".join(lines)


def _mistakes(verdict: Verdict) -> str:
    parts = [f"+{n} {case.value}" for case, n in verdict.pages(True).items()]
    parts += [f"-{n} {case.value}" for case, n in verdict.pages(False).items()]
    return ", ".join(parts) or "exact"


def _taken(verdict: Verdict) -> str:
    parts = [f"+{n} {case.value}" for case, n in verdict.taken_for_ram.items()]
    parts += [f"-{verdict.lost_ram} online"] if verdict.lost_ram else []
    return ", ".join(parts) or "exact"


def _any_taken(measured: Measured) -> bool:
    return any(v.taken_for_ram or v.lost_ram for v in measured.report.verdicts)


def _in_order(kernels: Iterable[str]) -> list[str]:
    return sorted(set(kernels), key=lambda name: [int(part) for part in name.split(".")])


def _costs(measured: Sequence[Measured]) -> str:
    # Only where a device is in use does every lookup go all the way.
    in_use = [m.report.verdicts for m in measured if m.report.valid]
    headers = [
        "variant",
        "loads",
        "cache lines",
        "RCU sections",
        "reference",
        "next PFN",
        "bytes a section",
        "per TiB",
        "hot-added section",
    ]
    lines = [_row(headers), _row(["---"] * len(headers))]
    for i, verdict in enumerate(measured[0].report.verdicts):
        same = [verdicts[i] for verdicts in in_use]
        first = [v.lookup.first for v in same if v.lookup]
        again = [v.lookup.again for v in same if v.lookup]
        slabs = {v.memory.slab for v in same if v.memory.slab and v.memory.per_section}
        more = _changes(again)
        lines.append(
            _row(
                [
                    f"`{verdict.variant.name}`",
                    _spread(work.loads for work in first),
                    _spread(work.lines for work in first),
                    _spread(work.rcu for work in first),
                    _changes(first),
                    f"{_spread(work.loads for work in again)} loads"
                    + (f", {more}" if more != "-" else ""),
                    str(verdict.memory.per_section),
                    f"{verdict.memory.per_tib >> 10} KiB",
                    ", ".join(f"{a} → {b}" for a, b in sorted(slabs)) or "-",
                ]
            )
        )
    return "\n".join(lines)


def _changes(works: Sequence[LookupWork]) -> str:
    percpu, atomics = [work.percpu for work in works], [work.atomics for work in works]
    kinds = ((percpu, "per-CPU"), (atomics, "atomic"))
    parts = [f"{_spread(counts)} {kind}" for counts, kind in kinds if any(counts)]
    return ", ".join(parts) or "-"


def _spread(values: Iterable[int]) -> str:
    found = sorted(set(values))
    return str(found[0]) if len(found) == 1 else f"{found[0]}-{found[-1]}"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
