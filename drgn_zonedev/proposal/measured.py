# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Measured
--------

The tables of ``docs/proposal.md``, from dumps of real kernels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from drgn_zonedev.proposal.trial import ProposalReport, Verdict, proposal
from drgn_zonedev.stored import StoredDump

__all__ = ("Measured", "measure", "with_tables")

_BEGIN, _END = "<!-- measured: begin -->", "<!-- measured: end -->"


@dataclass(frozen=True)
class Measured:
    """What came of a stored dump: kernel and scenario are the two parts of its name."""

    kernel: str
    scenario: str
    report: ProposalReport


def measure(dumps: Iterable[StoredDump]) -> list[Measured]:
    """Try the variants on stored dumps."""
    found = []
    for dump in dumps:
        kernel, _, scenario = dump.name.partition("-")
        with dump.program() as prog:
            found.append(Measured(kernel, scenario, proposal(prog)))
    return found


def with_tables(text: str, measured: Sequence[Measured]) -> str:
    """
    Replace the tables of a document.

    :raises ValueError: if it has no place for them
    """
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"there is no {_BEGIN} ... {_END}")
    return f"{before}{_BEGIN}\n\n{_answers(measured)}\n\n{_costs(measured)}\n\n{_END}{after}"


def _answers(measured: Sequence[Measured]) -> str:
    names = [v.variant.name for v in measured[0].report.verdicts]
    rows: dict[str, dict[tuple[str, ...], list[str]]] = {}
    for m in measured:
        cells = tuple(_mistakes(v) for v in m.report.verdicts)
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


def _in_order(kernels: Iterable[str]) -> list[str]:
    return sorted(set(kernels), key=lambda name: [int(part) for part in name.split(".")])


def _costs(measured: Sequence[Measured]) -> str:
    # A machine without a device costs a lookup nothing that would compare.
    with_device = [
        m for m in measured if any(v.lookup and v.lookup.depth for v in m.report.verdicts)
    ]
    headers = [
        "variant",
        "loads",
        "cache lines",
        "atomics",
        "bytes a section",
        "per TiB",
        "hot-added section",
    ]
    lines = [_row(headers), _row(["---"] * len(headers))]
    for i, verdict in enumerate(measured[0].report.verdicts):
        same = [m.report.verdicts[i] for m in with_device]
        lookups = [v.lookup for v in same if v.lookup]
        slabs = {v.memory.slab for v in same if v.memory.slab and v.memory.per_section}
        lines.append(
            _row(
                [
                    f"`{verdict.variant.name}`",
                    _spread(lookup.loads for lookup in lookups),
                    _spread(lookup.lines for lookup in lookups),
                    _spread(lookup.atomics for lookup in lookups),
                    str(verdict.memory.per_section),
                    f"{verdict.memory.per_tib >> 10} KiB",
                    ", ".join(f"{a} → {b}" for a, b in sorted(slabs)) or "-",
                ]
            )
        )
    return "\n".join(lines)


def _spread(values: Iterable[int]) -> str:
    found = sorted(set(values))
    return str(found[0]) if len(found) == 1 else f"{found[0]}-{found[-1]}"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
