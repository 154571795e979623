# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Measured
--------

The tables of ``docs/proposal.md``: from dumps of real kernels, and from what guests counted
(``scripts/measure-proposal``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drgn_zonedev.export.store import StoredDump
from drgn_zonedev.lab import SCENARIOS
from drgn_zonedev.model import CASES, Case
from drgn_zonedev.pfn_proposal.trial import ProposalReport, Verdict, proposal

__all__ = (
    "COUNTED",
    "MEASURED",
    "RANGES",
    "Measured",
    "measure",
    "read_measured",
    "with_tables",
    "write_measured",
)

MEASURED = Path(__file__).parents[1] / "docs" / "proposal-measured.json"
"""What guests counted."""

COUNTED = {
    "section-flag": ("7.3-section-flag", "pfn_zone_device_claimed", "pfn_zone_device_claimed"),
    "section-flag+pgmap": ("7.3-section-flag", "pfn_zone_device", "next_claimed"),
    "taint+pgmap": ("7.3-taint", "pfn_zone_device", "next_by_taint"),
    "early-bit": ("7.3-proposal", "pfn_zone_device_claimed", "pfn_zone_device_claimed"),
    "late-bit": ("7.3-series", "pfn_zone_device", "pfn_zone_device"),
    "late-bit+reserve": ("7.3-series", "pfn_zone_device_claimed", "next_counted"),
    "late-bit-data": ("7.3-proposal", "pfn_zone_device", "pfn_zone_device"),
    "two-bits": ("7.3-proposal", "pfn_zone_device", "pfn_zone_device"),
    "pgmap+range": ("7.3-taint", "pfn_zone_device_claimed", "next_in_range"),
}
"""
The kernel that has a variant, which of its lookups that is, and what another PFN of the same range
takes. ``late-bit-data`` reads one bit by the code of ``two-bits``.
"""

RANGES = {
    "device": "device",
    "shared-device": "device in a section of RAM",
    "shared-altmap": "its altmap",
    "shared-ram": "RAM in that section",
    "ram": "RAM",
    "partial": "no subsection",
    "absent": "no section",
}
"""The ranges whose PFNs were looked up, in words."""

_RACED = {
    "7.3-raced-taint": "`taint+pgmap`",
    "7.3-raced-series": "`late-bit`",
    "7.3-raced": "`two-bits`",
}
_ASLEEP = "stale pfn_zone_device"
_WALKERS = {
    "pfn_valid": "`pfn_valid()` alone",
    "pfn_to_online_page": "`pfn_to_online_page()`",
    "pfn_zone_device": "`pfn_zone_device()`, in an RCU read-side critical section",
    "reference": "`get_dev_pagemap()` and `pgmap_pfn_valid()`, with the reference",
    _ASLEEP: "`pfn_zone_device()`, and asleep before the touch",
}


@dataclass(frozen=True)
class Measured:
    """What came of a stored dump: kernel and scenario are the two parts of its name."""

    kernel: str
    scenario: str
    report: ProposalReport


def measure(dumps: Iterable[StoredDump]) -> list[Measured]:
    """Try the variants on stored dumps of x86-64 and its scenarios, of kernels as they come."""
    found = []
    for dump in dumps:
        kernel, _, scenario = dump.name.partition("-")
        if scenario not in SCENARIOS:
            # Of arm64, or of a kernel that was built: 7.3-debug.
            continue
        with dump.program() as prog:
            found.append(Measured(kernel, scenario, proposal(prog)))
    return found


def read_measured(path: Path) -> dict[str, Any]:
    """Return what guests counted; nothing if there is no such file yet."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


def write_measured(path: Path, counted: Mapping[str, Any]) -> None:
    """Write it, a line for each row."""
    path.write_text(_json(counted) + "\n")


def _json(value: Any, indent: str = "\n") -> str:
    inner = f"{indent} "
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return f"[{','.join(inner + _json(item, inner) for item in value)}{indent}]"
    if isinstance(value, dict) and any(_holds_objects(item) for item in value.values()):
        items = (f"{inner}{json.dumps(key)}: {_json(item, inner)}" for key, item in value.items())
        return f"{{{','.join(items)}{indent}}}"
    return json.dumps(value)


def _holds_objects(value: Any) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(item, dict) for item in value)
    )


def with_tables(text: str, measured: Sequence[Measured], counted: Mapping[str, Any]) -> str:
    """
    Replace the tables of a document.

    :param counted: see :func:`read_measured()`
    :raises ValueError: if it has no place for them
    """
    taken = [m for m in measured if _any_taken(m)]
    text = _with_table(text, "summary", lambda: _summary(measured, counted["cost"]))
    text = _with_table(text, "answers", lambda: _answers(measured, _mistakes))
    text = _with_table(text, "online", lambda: _answers(taken, _taken))
    text = _with_table(text, "counted", lambda: _counted(counted["cost"]))
    text = _with_table(text, "variants", lambda: _variants(counted["answers"]))
    text = _with_table(text, "races", lambda: _races(counted["races"]))
    return _with_table(text, "windows", lambda: _windows(counted["races"]))


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


def _summary(measured: Sequence[Measured], cost: Mapping[str, Any]) -> str:
    header = ["variant", "touches what is not initialised", "takes for RAM", "a device", "RAM"]
    header += ["next PFN", "bytes a section"]
    lines = [_row(header), _row(["---"] * len(header))]
    for i, verdict in enumerate(measured[0].report.verdicts):
        name = verdict.variant.name
        verdicts = [m.report.verdicts[i] for m in measured]
        first, following = COUNTED[name][1:]
        cells = [
            f"`{name}`",
            _cases(case for v in verdicts for case in v.pages(True)),
            _cases(case for v in verdicts for case in v.taken_for_ram),
            _instructions(cost, name, first, "device"),
            _instructions(cost, name, first, "ram"),
            _instructions(cost, name, following, "device"),
            str(verdict.memory.per_section),
        ]
        lines.append(_row(cells))
    return "\n".join(lines)


def _cases(cases: Iterable[Case]) -> str:
    found = set(cases)
    return ", ".join(case.value for case in CASES if case in found) or "nothing"


def _counted(cost: Mapping[str, Any]) -> str:
    lines = [_row(["variant", "PFN", *RANGES.values()]), _row(["---"] * (len(RANGES) + 2))]
    for name, (_, first, following) in COUNTED.items():
        cells = [_work(cost, name, first, range_) for range_ in RANGES]
        lines.append(_row([f"`{name}`", "first", *cells]))
        if following != first:
            cells = [_work(cost, name, following, range_) for range_ in RANGES]
            lines.append(_row([f"`{name}`", "next", *cells]))
    return "\n".join(lines)


def _variants(answers: Mapping[str, Mapping[str, str]]) -> str:
    lines = [_row(["kernel", "variants", "agrees in", "differs in"]), _row(["---"] * 4)]
    for kernel, verdicts in answers.items():
        variants = [name for name, (counted, *_) in COUNTED.items() if counted == kernel]
        agree = [name for name, verdict in verdicts.items() if verdict == "agrees"]
        others = [name for name in verdicts if name not in agree]
        cells = [", ".join(f"`{name}`" for name in variants), ", ".join(sorted(agree))]
        lines.append(_row([f"`{kernel}`", *cells, ", ".join(sorted(others)) or "-"]))
    return "\n".join(lines)


def _races(runs: Sequence[Mapping[str, Any]]) -> str:
    kernels = _raced(runs)
    header = ["walker", *(_RACED[kernel] for kernel in kernels)]
    lines = [_row(header), _row(["---"] * len(header))]
    by_kernel = {
        kernel: sorted((run for run in runs if run["kernel"] == kernel), key=_processors)
        for kernel in kernels
    }
    rounds = ("; ".join(f"{run['rebound']:,}" for run in same) for same in by_kernel.values())
    lines.append(_row(["(how often it was unbound and bound)", *rounds]))
    for lookup, words in _WALKERS.items():
        cells = []
        for of_kernel in by_kernel.values():
            bad = (_bad(r for r in run["races"] if _is_of(r, lookup)) for run in of_kernel)
            cells.append("; ".join(bad))
        lines.append(_row([words, *cells]))
    return "\n".join(lines)


def _is_of(race: Mapping[str, Any], lookup: str) -> bool:
    # A kprobe cannot sleep.
    return race["lookup"] == lookup and (lookup != _ASLEEP or race["where"] == "threads")


def _raced(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    return [kernel for kernel in _RACED if any(run["kernel"] == kernel for run in runs)]


def _processors(run: Mapping[str, Any]) -> int:
    return int(run["processors"])


def _bad(races: Iterable[Mapping[str, Any]]) -> str:
    found = list(races)
    bad = sum(race["poisoned"] + race["unmapped"] for race in found)
    return f"{bad:,} of {sum(race['touched'] for race in found):,}"


def _windows(runs: Sequence[Mapping[str, Any]]) -> str:
    asked = ("pfn_to_online_page", "pfn_zone_device")
    kernels = _raced(runs)
    header = ["at the entry of", *(f"{_RACED[k]}: `{name}()`" for k in kernels for name in asked)]
    lines = [_row(header), _row(["---"] * len(header))]
    races = [(run["kernel"], race) for run in runs for race in run["races"]]
    for where in dict.fromkeys(race["where"] for _, race in races):
        cells = [
            _bad(r for k, r in races if (k, r["where"], r["lookup"]) == (kernel, where, name))
            for kernel in kernels
            for name in asked
        ]
        place = "(threads)" if where == "threads" else f"`{where.partition('.')[0]}()`"
        lines.append(_row([place, *cells]))
    return "\n".join(lines)


def _work(cost: Mapping[str, Any], variant: str, lookup: str, range_: str) -> str:
    row = _counted_row(cost, variant, lookup, range_)
    loads, stores = _spread(row["loads"]), _spread(row["stores"])
    return f"{_spread(row['instructions'])}: {loads}+{stores}, {_spread(row['lines'])}"


def _instructions(cost: Mapping[str, Any], variant: str, lookup: str, range_: str) -> str:
    return _spread(_counted_row(cost, variant, lookup, range_)["instructions"])


def _counted_row(
    cost: Mapping[str, Any], variant: str, lookup: str, range_: str
) -> Mapping[str, Any]:
    rows: Sequence[Mapping[str, Any]] = cost[COUNTED[variant][0]]
    (row,) = (r for r in rows if (r["lookup"], r["range"]) == (lookup, range_))
    return row


def _spread(values: Iterable[int]) -> str:
    found = sorted(set(values))
    return str(found[0]) if len(found) == 1 else f"{found[0]}-{found[-1]}"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
