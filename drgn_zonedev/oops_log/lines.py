# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Lines of a Log
--------------

Restores the lines that the kernel printed from a pasted log: removes time stamps, prefixes of
syslog and dmesg, quoting and colours, and joins the lines that a mailer broke.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ("LogLine", "log_lines")

# Everything that can precede the kernel's text in a line. All repetitions are bounded, and no
# two alternatives begin alike, so that a line takes linear time.
_PREFIX = re.compile(
    r"""(?:
      [ \t]*[>|}](?=[ \t>|}\[<A-Za-z0-9(]|$)                        # quoting
    | \x1b\[[0-9;]{0,12}[A-Za-z]                                    # colours
    | <\d{1,3}>                                                     # printk's level
    | [ \t]{0,8}\[[ \t]{0,6}\d{1,9}\.\d{3,9}\][ \t]?                # seconds since boot
    | [ \t]?\[[ \t]{0,8}[TC]\d{1,9}\][ \t]?                         # CONFIG_PRINTK_CALLER
    | \[[A-Z][a-z]{2}[ ]+[A-Z][a-z]{2}[ ]+\d{1,2}[ ]\d\d:\d\d:\d\d[ ]\d{4}\][ ]?   # dmesg -T
    | \[?\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?\]?[ ]?
    | [A-Z][a-z]{2}[ ]{1,2}\d{1,2}[ ]\d\d:\d\d:\d\d(?:\.\d{1,9})?[ ]  # syslog, and its host
    | (?:\S{1,80}[ ])?kernel(?:\[\d{1,7}\])?:[ ]?
    | (?:kern|user)[ ]*:(?:emerg|alert|crit|err|warn|notice|info|debug)[ ]*:[ ]?  # dmesg -x
    ){1,24}""",
    re.VERBOSE,
)
_COLOUR = re.compile(r"\x1b\[[0-9;]{0,12}[A-Za-z]")

# A line that begins with nothing but words of memory belongs to the one above it.
_WORDS = re.compile(r"[ \t]{0,80}(?:0x)?[0-9a-f]{8,16}(?:[ \t]|$|:[ \t])")
# It says what comes next, and that is missing: the value is on the next line.
_WANTS_VALUE = re.compile(
    r"(?:\b[A-Za-z][A-Za-z0-9]{0,7}[ ]?:|\b(?:address:?|at|offset:|range|was|be|for|virtual"
    r"|non-canonical|(?:read|write))"
    r"|[(,|]|\braw:|\bpage:|\bflags:)[ \t]*$"
)
_VALUE = re.compile(r"[ \t]{0,80}(?:(?:virtual )?address:? ?)?(?:0x)?[0-9a-f]{4,16}\b")
_WANTS_RELEASE = re.compile(r"\b[Nn]ot tainted[ \t]*$|\bTainted: [A-Z ]{1,40}$")
_RELEASE = re.compile(r"[ \t]{0,80}\d{1,3}\.\d{1,4}\.\d")
# A line that begins with one of these continues an unfinished line.
_REST = re.compile(
    r"[ \t]{0,80}(?:(?:mapping|index|pfn|mapcount|refcount|count|order|compound_mapcount"
    r"|entire_mapcount|nr_pages_mapped|pincount|maxorder):\S|\|?[a-z_]{0,24}\|?(?:node|zone|"
    r"lastcpupid|section)=)"
)
_OPEN = re.compile(r"flags: 0x[0-9a-f]{1,16}\([^)]{0,400}$")

_PSW = re.compile(r"Krnl PSW : [0-9a-f]{16} [0-9a-f]{16}[ \t]*$")

# No mailer breaks a line that is shorter.
_SHORT = 40

# No kernel prints a line that breaks into more.
_MOST_PIECES = 24


@dataclass(frozen=True)
class LogLine:
    """
    A line that the kernel printed. ``starts`` has, for each line of the file that it was put
    together from, where its text begins and its number.
    """

    text: str
    starts: tuple[tuple[int, int], ...]

    @property
    def number(self) -> int:
        """Number of the line of the file where it begins."""
        return self.starts[0][1]

    def number_at(self, offset: int) -> int:
        """Number of the line of the file that a character is in."""
        return self.starts[max(bisect.bisect_right(self.starts, (offset, 1 << 62)) - 1, 0)][1]


def log_lines(lines: Iterable[tuple[int, str]]) -> Iterator[LogLine]:
    """Put the kernel's lines together."""
    text, stamped = "", False
    starts: list[tuple[int, int]] = []
    for number, raw in lines:
        piece, stamp = _bare(raw)
        if starts and len(starts) < _MOST_PIECES and _continues(text, piece, stamped, stamp):
            text = text.rstrip()
            piece = piece.lstrip()
            starts.append((len(text) + 1, number))
            text = f"{text} {piece}"
            continue
        if starts:
            yield LogLine(text, tuple(starts))
        text, starts, stamped = piece, [(0, number)], stamp
    if starts:
        yield LogLine(text, tuple(starts))


def _bare(raw: str) -> tuple[str, bool]:
    # The line without its prefix, and whether that says when the kernel printed it.
    match = _PREFIX.match(raw)
    if not match:
        return _without_colours(raw), False
    prefix = match[0]
    return _without_colours(raw[match.end() :]), "[" in prefix or "kernel" in prefix


def _without_colours(text: str) -> str:
    return _COLOUR.sub("", text) if "\x1b" in text else text


def _continues(above: str, piece: str, stamped: bool, stamp: bool) -> bool:
    if not piece.strip():
        return False
    if _WORDS.match(piece):
        return True
    if stamped:
        # What has no stamp among lines that have one was broken off.
        return not stamp and len(above) > _SHORT
    if _VALUE.match(piece) and _WANTS_VALUE.search(above[-40:]):
        return True
    if _RELEASE.match(piece) and _WANTS_RELEASE.search(above[-60:]):
        return True
    if piece.lstrip().startswith("(") and _PSW.search(above[-60:]):
        return True
    return bool(_REST.match(piece) or _OPEN.search(above[-500:]))
