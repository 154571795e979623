# SPDX-License-Identifier: LGPL-2.1-or-later
"""The result of a run, for people."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tabulate import tabulate

from .measure import Judgement, Measurement

__all__ = ("as_markdown", "as_text", "machine_facts")


def machine_facts() -> dict[str, Any]:
    """What the numbers were measured on."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return {
        "processor": model[1] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory[1]) / (1 << 20), 1) if memory else None,
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "drgn": version("drgn"),
        "numpy": version("numpy"),
    }


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _claims(judgements: Sequence[Judgement]) -> list[list[str]]:
    return [
        [j.claim.text, f"{j.claim.bound} {_number(j.claim.limit)}", _number(j.value), j.verdict]
        for j in judgements
    ]


def _medians(measurements: Sequence[Measurement]) -> list[list[str]]:
    return [
        [m.name, _number(m.median), m.unit, f"{_number(min(m.values))} - {_number(max(m.values))}"]
        for m in measurements
    ]


_CLAIMS = ("what must hold", "limit", "measured", "")
_MEDIANS = ("what was measured", "median", "unit", "least - most")


def as_text(
    facts: Mapping[str, Any],
    measurements: Sequence[Measurement],
    judgements: Sequence[Judgement],
) -> str:
    """Two tables, and what is to be said of them."""
    tables = (
        tabulate(_medians(measurements), _MEDIANS, disable_numparse=True),
        tabulate(_claims(judgements), _CLAIMS, disable_numparse=True),
    )
    return "\n\n".join((*tables, *facts["notes"])) + "\n"


def as_markdown(
    facts: Mapping[str, Any],
    measurements: Sequence[Measurement],
    judgements: Sequence[Judgement],
) -> str:
    """The same with what it was measured on, for docs/performance.md."""
    machine = (
        f"{facts['cores']} cores of {facts['processor']}, {facts['memory_gib']} GiB of RAM, "
        f"load {facts['load_before']} before the run; Python {facts['python']}, "
        f"drgn {facts['drgn']}, numpy {facts['numpy']}. Medians of {facts['rounds']} rounds; "
        f"the large dump has {facts['base_gib']} GiB of device memory in 4 KiB pages, the "
        f"large kdump {facts['kdump_gib']} GiB."
    )
    tables = (
        tabulate(_claims(judgements), _CLAIMS, "github", disable_numparse=True),
        tabulate(_medians(measurements), _MEDIANS, "github", disable_numparse=True),
    )
    return "\n\n".join((machine, *tables, *facts["notes"])) + "\n"
