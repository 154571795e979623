# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measurements, and the claims that are made of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

__all__ = ("Claim", "Judgement", "Measurement", "interleave", "judge", "seconds")


@dataclass(frozen=True)
class Measurement:
    """One contender's values, one for each round."""

    name: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.values)


@dataclass(frozen=True)
class Claim:
    """
    Something that must hold of two medians.

    ``relation`` is "ratio" (first / second) or "difference" (first - second);
    ``bound`` is "at most" or "at least". Without a ``second``, the first itself.
    """

    text: str
    first: str
    second: str | None
    relation: str
    bound: str
    limit: float


@dataclass(frozen=True)
class Judgement:
    """A claim and what came of it; ``value`` is ``None`` if it was not measured."""

    claim: Claim
    value: float | None

    @property
    def holds(self) -> bool | None:
        """``None`` if nobody knows."""
        if self.value is None:
            return None
        limit = self.claim.limit
        return self.value <= limit if self.claim.bound == "at most" else self.value >= limit

    @property
    def verdict(self) -> str:
        """In a word or two."""
        return {True: "holds", False: "FAILS", None: "not measured"}[self.holds]


def seconds(work: Callable[[], object]) -> float:
    """Time something once."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleave(
    contenders: Mapping[str, Callable[[], float]], rounds: int, unit: str
) -> list[Measurement]:
    """
    Have all contenders run in turns, so that whatever else the machine does hits
    all of them. One round before the first is not counted.
    """
    values: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, run in contenders.items():
            value = run()
            if number:
                values[name].append(value)
    return [Measurement(name, unit, tuple(found)) for name, found in values.items()]


def judge(claims: Iterable[Claim], measurements: Sequence[Measurement]) -> list[Judgement]:
    """Hold claims against what was measured."""
    medians = {m.name: m.median for m in measurements}
    return [Judgement(claim, _value(claim, medians)) for claim in claims]


def _value(claim: Claim, medians: Mapping[str, float]) -> float | None:
    if claim.first not in medians:
        return None
    first = medians[claim.first]
    if claim.second is None:
        return first
    if claim.second not in medians:
        return None
    second = medians[claim.second]
    return first - second if claim.relation == "difference" else first / second


def as_document(
    facts: Mapping[str, Any], measurements: Sequence[Measurement], judgements: Sequence[Judgement]
) -> dict[str, Any]:
    """Everything, for JSON."""
    return {
        "schema": "drgn-zonedev/bench/1",
        "facts": dict(facts),
        "measurements": [
            {"name": m.name, "unit": m.unit, "median": m.median, "values": list(m.values)}
            for m in measurements
        ],
        "claims": [
            {
                "claim": j.claim.text,
                "first": j.claim.first,
                "second": j.claim.second,
                "relation": j.claim.relation,
                "value": j.value,
                "bound": j.claim.bound,
                "limit": j.claim.limit,
                "holds": j.holds,
            }
            for j in judgements
        ],
    }
