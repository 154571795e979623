# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Screen
------

No command prints more than a screen unless it is asked to. What there is no room
for is counted, and what matters most is shown.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

__all__ = (
    "SHOW_ALL",
    "Screen",
    "chosen",
    "current_screen",
    "cut",
    "fitting",
    "height",
    "is_folded",
    "left_out",
    "more",
    "share",
)

T = TypeVar("T")

SHOW_ALL = "(--all shows them)"
# A pipe has no height; whoever reads it does.
_PIPE_LINES = 40
# So many kinds of what is left out are named; the others are counted together.
_MAX_KINDS = 5


@dataclass(frozen=True)
class Screen:
    """Room for ``lines`` lines, which wrap after ``columns`` characters, or not if ``None``."""

    lines: int
    columns: int | None = None


def current_screen() -> Screen:
    """Get the room on standard output: the terminal's, or a fixed number of lines in a pipe."""
    if not sys.stdout.isatty():
        return Screen(_PIPE_LINES)
    size = shutil.get_terminal_size()
    return Screen(size.lines - 1, size.columns)  # the shell's prompt comes below


def height(text: str, screen: Screen) -> int:
    """Get the number of lines that text takes on a screen."""
    width = screen.columns
    if width is None:
        return text.count("\n") + 1
    return sum(max(1, -(-len(line) // width)) for line in text.split("\n"))


def cut(text: str, screen: Screen) -> str:
    """Get text whose lines do not wrap on a screen."""
    width = screen.columns
    if width is None:
        return text
    return "\n".join(
        line if len(line) <= width else f"{line[: max(width - 3, 0)]}..."
        for line in text.split("\n")
    )


def share(lines: int, wanted: Sequence[int], weights: Sequence[int], least: int) -> list[int]:
    """
    Divide lines among those who want some.

    Everybody gets *least*, or less if that is all that is wanted, and the rest is divided by
    weight: whoever wants less than that gets it, and the others share what is left.
    """
    shares = [min(n, least) for n in wanted]
    lines = max(lines - sum(shares), 0)
    left = sum(weights)
    for i in sorted(range(len(wanted)), key=lambda i: (wanted[i] - shares[i]) / weights[i]):
        extra = min(wanted[i] - shares[i], lines * weights[i] // left)
        shares[i] += extra
        lines -= extra
        left -= weights[i]
    return shares


def chosen(kinds: Sequence[Hashable], ranks: Sequence[int], room: int) -> list[int]:
    """
    Choose what to show of many things: the first one of each kind, then the most important.

    :param kinds: what each of them is
    :param ranks: how important each of them is, 0 being the most
    :return: at most *room* indices, ascending
    """
    seen: set[Hashable] = set()
    first: list[int] = []
    rest: list[int] = []
    for i in sorted(range(len(kinds)), key=ranks.__getitem__):
        (rest if kinds[i] in seen else first).append(i)
        seen.add(kinds[i])
    best = first + rest
    return sorted(best[:room])


def left_out(items: Sequence[T], shown: Iterable[int]) -> list[T]:
    """Get what :func:`chosen` did not choose."""
    indices = frozenset(shown)
    return [item for i, item in enumerate(items) if i not in indices]


def fitting(blocks: Sequence[str], lines: int, screen: Screen) -> int:
    """Get how many of the first blocks, each with a blank line above it, have room in *lines*."""
    for n, block in enumerate(blocks):
        lines -= 1 + height(block, screen)
        if lines < 0:
            return n
    return len(blocks)


def more(things: str, rest: Sequence[T], kind: Callable[[T], str], screen: Screen) -> str:
    """Get the line that counts what there was no room for, by kind as far as that fits."""
    counts = Counter(map(kind, rest)).most_common()
    for n in range(min(len(counts), _MAX_KINDS), 0, -1):
        named = [f"{count:,} {name}" for name, count in counts[:n]]
        others = sum(count for _, count in counts[n:])
        if others:
            named.append(f"{others:,} others")
        line = f"... {len(rest):,} more {things}: {', '.join(named)} {SHOW_ALL}"
        if height(line, screen) == 1:
            return line
    line = f"... {len(rest):,} more {things} {SHOW_ALL}"
    return line if height(line, screen) == 1 else f"... {len(rest):,} more {SHOW_ALL}"


def is_folded(text: str) -> bool:
    """Return whether something was left out of a text."""
    return f"{SHOW_ALL}\n" in f"{text}\n"
