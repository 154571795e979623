# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Parse what the guest reported.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Callable

from drgn_zonedev.lab.truth.answers import parse_kpageflags, parse_truth, parse_values, parse_visits

__all__ = (
    "Facts",
    "IomemEntry",
    "Started",
    "failure",
    "inability",
    "is_ready",
    "parse_attributes",
    "parse_facts",
    "parse_iomem",
    "parse_started",
    "parse_zoneinfo",
    "waits_for_host",
)

Facts = dict[str, Any]
"""
Keys are those of the guest script's ``report_facts``; ``frozen`` is the address of the answers that
the truth module gave when it stopped the machine.
"""


@dataclass(frozen=True)
class IomemEntry:
    """A line of /proc/iomem. `end` is exclusive, unlike in the file."""

    level: int
    start: int
    end: int
    name: str


@dataclass(frozen=True)
class Started:
    """A process that a step of the guest script left running: what it does with which file."""

    pid: int
    kind: str
    path: str


def parse_started(text: str) -> tuple[Started, ...]:
    """Parse the processes that the steps left running."""
    lines = (line.split("\t") for line in text.splitlines())
    return tuple(Started(int(pid), kind, path) for pid, kind, path in lines)


def parse_iomem(text: str) -> tuple[IomemEntry, ...]:
    """Parse /proc/iomem."""
    found = re.findall(r"^( *)([0-9a-f]+)-([0-9a-f]+) : (.*)$", text, re.MULTILINE)
    return tuple(
        IomemEntry(len(indent) // 2, int(start, 16), int(end, 16) + 1, name)
        for indent, start, end, name in found
    )


def parse_zoneinfo(text: str) -> dict[tuple[int, str], dict[str, int]]:
    """Map (node, zone) to the numbers of /proc/zoneinfo that describe the zone's extent."""
    zones: dict[tuple[int, str], dict[str, int]] = {}
    current: dict[str, int] = {}
    for line in text.splitlines():
        if head := re.match(r"Node (\d+), zone +(\w+)", line):
            current = zones.setdefault((int(head[1]), head[2]), {})
        if number := re.match(r" +(spanned|present|managed|start_pfn):? +(\d+)$", line):
            current[number[1]] = int(number[2])
    return zones


def _number(value: str) -> int | str:
    try:
        return int(value, 0)
    except ValueError:
        return value


def parse_attributes(text: str) -> dict[str, dict[str, int | str]]:
    """Map a device's name to its sysfs attributes; numbers become integers."""
    devices: dict[str, dict[str, int | str]] = {}
    for line in text.splitlines():
        path, tab, value = line.partition("\t")
        if tab:
            file = PurePosixPath(path)
            devices.setdefault(file.parent.name, {})[file.name] = _number(value)
    return devices


def _parse_blocks(text: str) -> dict[int, str]:
    blocks = parse_attributes(text)
    return {int(name[len("memory") :]): str(block["state"]) for name, block in blocks.items()}


def _parse_json(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def _parse_vmcoreinfo(text: str) -> tuple[int, int] | None:
    # The physical address and the size of the note, both in hex.
    words = text.split()
    return (int(words[0], 16), int(words[1], 16)) if len(words) == 2 else None


_PARSERS: dict[str, Callable[[str], Any]] = {
    "uname": str.strip,
    "cmdline": str.strip,
    "iomem": parse_iomem,
    "vmcoreinfo": _parse_vmcoreinfo,
    "zoneinfo": parse_zoneinfo,
    "memory_block_size": lambda text: int(text, 16),
    "memory_blocks": _parse_blocks,
    "nd": parse_attributes,
    "dax": parse_attributes,
    "truth": parse_truth,
    "cost": _parse_json,
    "races": _parse_json,
    "rebound": int,
    "kpageflags": parse_kpageflags,
    "kpageflags_values": parse_values,
    "kpagecount_values": parse_values,
    "visits": parse_visits,
    "visits_log": lambda text: tuple(text.splitlines()),
    "started": parse_started,
    "dmesg": lambda text: tuple(text.splitlines()),
}


def parse_facts(text: str) -> Facts:
    """Parse the guest's report; if a fact was reported twice, use the later one."""
    facts: Facts = {}
    pattern = r"^== begin (\w+)\n(.*?)^== end \1$"
    for name, body in re.findall(pattern, text.replace("\r", ""), re.MULTILINE | re.DOTALL):
        facts[name] = _PARSERS.get(name, str)(body)
    if frozen := re.search(r"^== frozen ([0-9a-f]+)\r?\n", text, re.MULTILINE):
        facts["frozen"] = int(frozen[1], 16)
    return facts


def failure(text: str) -> str | None:
    """Return why the guest script gave up, or None if it did not."""
    found = re.search(r"^== failed (.*?)\r?$", text, re.MULTILINE)
    return found[1] if found else None


def inability(text: str) -> str | None:
    """Return why the guest's kernel does not support the scenario, or None."""
    found = re.search(r"^== cannot (.*?)\r?$", text, re.MULTILINE)
    return found[1] if found else None


def waits_for_host(text: str) -> bool:
    """Return whether the guest waits for the host."""
    return re.search(r"^== host\r?$", text, re.MULTILINE) is not None


def is_ready(text: str) -> bool:
    """Return whether the guest has finished its steps and reported its facts."""
    # A guest that is asked about every struct page is stopped then.
    return re.search(r"^== (ready|frozen [0-9a-f]+)\r?\n", text, re.MULTILINE) is not None
