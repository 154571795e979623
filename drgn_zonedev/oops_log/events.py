# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Events
------

Finds each oops, BUG, warning and lockup in a log, with its function and stack trace.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from drgn_zonedev.oops_log.lines import LogLine

__all__ = ("Event", "EventKind", "events")


class EventKind(enum.Enum):
    """What the kernel noticed."""

    FAULT = "page fault"
    GENERAL_PROTECTION = "general protection fault"
    BUG = "BUG"
    WARNING = "warning"
    BAD_PAGE = "bad page state"
    BAD_MAP = "bad page map"
    PAGE_TABLE = "corrupted page table"
    LOCKUP = "lockup"
    LIST = "list corruption"
    KASAN = "KASAN report"


@dataclass(frozen=True)
class Event:
    """
    An oops or the like, of the lines ``[line, last_line]``.

    ``function`` is where it happened; ``trace`` is the stack trace, inner functions first.
    ``condition`` is the one of VM_BUG_ON_PAGE(), or the reason of bad_page().
    """

    kind: EventKind
    line: int
    last_line: int
    function: str | None = None
    trace: tuple[str, ...] = ()
    condition: str | None = None


_HEADINGS = (
    (re.compile(r"BUG: Bad page state in process"), EventKind.BAD_PAGE),
    (re.compile(r"BUG: Bad page map in process"), EventKind.BAD_MAP),
    (re.compile(r"BUG: KASAN: "), EventKind.KASAN),
    (re.compile(r"soft lockup - CPU#|self-detected stall|hard LOCKUP"), EventKind.LOCKUP),
    (re.compile(r"Corrupted page table at address"), EventKind.PAGE_TABLE),
    (re.compile(r"list_(?:add|del) corruption"), EventKind.LIST),
    (re.compile(r"general protection fault"), EventKind.GENERAL_PROTECTION),
    (
        re.compile(
            r"[Uu]nable to handle (?:kernel|page fault)|kernel NULL pointer dereference, address"
        ),
        EventKind.FAULT,
    ),
    (re.compile(r"\bkernel BUG at \S{1,120}:\d{1,6}!"), EventKind.BUG),
    (re.compile(r"\bWARNING: (?:CPU: \d|\S{1,120}:\d{1,6} at )"), EventKind.WARNING),
)
# Every heading contains one of these: skip other lines quickly.
_WORDS = (
    "BUG",
    "nable to",
    "WARNING: ",
    "fault",
    "corruption",
    "lockup",
    "stall",
    "LOCKUP",
    "Corrupted",
    "NULL",
)
_END = re.compile(r"---\[ end (?:trace|Kernel panic)")
_FUNCTION = re.compile(r"(\? )?\b([A-Za-z_][\w.]{1,100})\+0x[0-9a-f]{1,6}/0x[0-9a-f]{1,6}")
_AT = re.compile(r"\bRIP: |\bpc : |\bepc ?: |\bNIP \[|\bKrnl PSW|\bWARNING: ")
_CONDITION = re.compile(r"page dumped because: (.{1,200})")

# A trace has at most this many lines.
_MOST_LINES = 200


def events(lines: Sequence[LogLine]) -> Iterator[Event]:
    """Find every event in the lines of a boot."""
    found: list[tuple[EventKind, list[LogLine]]] = []
    current: list[LogLine] | None = None
    for line in lines:
        kind = _heading(line.text)
        if kind is not None and not _belongs(found, current, kind, line):
            current = [line]
            found.append((kind, current))
        elif current is not None:
            if line.number - current[0].number > _MOST_LINES:
                current = None
                continue
            current.append(line)
            if "end" in line.text and _END.search(line.text):
                current = None
    for kind, event_lines in found:
        yield _event(kind, event_lines)


def _heading(text: str) -> EventKind | None:
    if not any(word in text for word in _WORDS):
        return None
    return next((kind for pattern, kind in _HEADINGS if pattern.search(text)), None)


def _belongs(
    found: Sequence[tuple[EventKind, list[LogLine]]],
    current: list[LogLine] | None,
    kind: EventKind,
    line: LogLine,
) -> bool:
    # Both lines of a kernel that reports twice, and the BUG() that follows the report of a list.
    if not found or current is None:
        return False
    last, near = found[-1][0], line.number - current[0].number < 12
    if last is EventKind.LIST and kind in (EventKind.BUG, EventKind.WARNING):
        return near
    twice = (EventKind.FAULT, EventKind.GENERAL_PROTECTION)
    return (
        near
        and last in twice
        and kind in twice
        and not any(_AT.search(line.text) for line in current)
    )


def _event(kind: EventKind, lines: Sequence[LogLine]) -> Event:
    function: str | None = None
    condition: str | None = None
    trace: list[str] = []
    for line in lines:
        text = line.text
        if condition is None and "because" in text and (match := _CONDITION.search(text)):
            condition = match[1].strip()
        if "+0x" not in text:
            continue
        for match in _FUNCTION.finditer(text):
            if match[1]:
                continue
            if function is None and _AT.search(text):
                function = match[2]
            elif not trace or trace[-1] != match[2]:
                trace.append(match[2])
    return Event(
        kind=kind,
        line=lines[0].number,
        last_line=lines[-1].starts[-1][1],
        function=function,
        trace=tuple(trace),
        condition=condition,
    )
