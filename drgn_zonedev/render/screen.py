# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Screen
------

Fit text on a terminal. With a pager, lines have to fit, and there may be any number of them.
Without one, no command prints more than a screen unless ``--all`` is given: the most important
items are shown, and the others are counted in their place. Nothing else is ever folded.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

__all__ = (
    "NARROWED",
    "SHOW_ALL",
    "Screen",
    "chosen",
    "current_screen",
    "cut",
    "fitting",
    "has_colour",
    "height",
    "is_folded",
    "more",
    "placed",
    "placed_firsts",
    "share",
    "with_gaps",
    "wrapped",
)

_T = TypeVar("_T")

SHOW_ALL = "(--all shows them)"
NARROWED = f"... more columns {SHOW_ALL}"
# No text has as many lines.
_ENDLESS = sys.maxsize
# The most kinds of left-out items that are counted separately.
_MAX_KINDS = 5


@dataclass(frozen=True)
class Screen:
    """Room for ``lines`` lines. They wrap after ``columns`` characters, if that is not ``None``."""

    lines: int
    columns: int | None = None

    @property
    def is_endless(self) -> bool:
        """Whether there is room for any number of lines."""
        return self.lines == _ENDLESS

    @property
    def endless(self) -> Screen:
        """A screen of the same width that scrolls."""
        return replace(self, lines=_ENDLESS)


def current_screen() -> Screen | None:
    """Get the size of the terminal on standard output, or ``None`` if that is not a terminal."""
    if not sys.stdout.isatty():
        return None
    size = shutil.get_terminal_size()
    return Screen(size.lines - 1, size.columns)  # the shell's prompt comes below


def has_colour(choice: str = "auto") -> bool:
    """
    Return whether text is to be coloured: ``always``, ``never``, or on a terminal that has colours
    and a user who did not refuse them by ``NO_COLOR``.
    """
    if choice != "auto":
        return choice == "always"
    terminal = os.environ.get("TERM", "dumb") != "dumb"
    return sys.stdout.isatty() and terminal and not os.environ.get("NO_COLOR")


def height(text: str, screen: Screen) -> int:
    """Get the number of lines that text takes on a screen."""
    width = screen.columns
    if width is None:
        return text.count("\n") + 1
    return sum(max(1, -(-len(line) // width)) for line in text.split("\n"))


def cut(text: str, screen: Screen) -> str:
    """Cut lines that would wrap on a screen."""
    width = screen.columns
    if width is None:
        return text
    return "\n".join(
        line if len(line) <= width else f"{line[: max(width - 3, 0)]}..."
        for line in text.split("\n")
    )


def wrapped(text: str, screen: Screen, indent: str = "    ") -> str:
    """Wrap text between words to fit on a screen."""
    if screen.columns is None:
        return text
    room = max(screen.columns, len(indent) + 1)
    # A slug or an option that is cut at its hyphen can be neither searched nor copied.
    wrapper = textwrap.TextWrapper(room, subsequent_indent=indent, break_on_hyphens=False)
    return "\n".join(wrapper.fill(line) for line in text.split("\n"))


def share(lines: int, wanted: Sequence[int], weights: Sequence[int], least: int) -> list[int]:
    """
    Divide lines among views.

    Each view gets *least* lines, or as many as it wants if that is less. The rest is divided
    by weight; a view never gets more than it wants, and the others share what is left.
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


def _by_importance(kinds: Sequence[Hashable], ranks: Sequence[int]) -> tuple[list[int], list[int]]:
    """Sort the first item of each kind, and all other items, by rank."""
    seen: set[Hashable] = set()
    first: list[int] = []
    rest: list[int] = []
    for i in sorted(range(len(kinds)), key=ranks.__getitem__):
        (rest if kinds[i] in seen else first).append(i)
        seen.add(kinds[i])
    return first, rest


def chosen(kinds: Sequence[Hashable], ranks: Sequence[int], room: int) -> list[int]:
    """
    Choose the items to show: the first one of each kind, then the most important.

    :param kinds: kind of each item
    :param ranks: rank of each item, 0 being the most important
    :return: at most *room* indices, ascending
    """
    first, rest = _by_importance(kinds, ranks)
    return sorted((first + rest)[:room])


def placed(kinds: Sequence[Hashable], ranks: Sequence[int], room: int) -> list[int]:
    """
    Like :func:`chosen`, but for lines that stay in order: leave room for the lines that count
    left-out items.

    :return: indices, ascending; none if there is no room for the most important item
    """
    if len(kinds) <= room:
        return list(range(len(kinds)))
    first, rest = _by_importance(kinds, ranks)
    return _places(first + rest, len(kinds), room)


def placed_firsts(kinds: Sequence[Hashable], ranks: Sequence[int], room: int) -> list[int]:
    """Like :func:`placed`, but choose only the first item of each kind."""
    first, _ = _by_importance(kinds, ranks)
    return _places(first, len(kinds), room)


def _places(order: Iterable[int], count: int, room: int) -> list[int]:
    # The chosen indices, with sentinels before the first and after the last.
    shown = [-1, count]
    used = 1
    for i in order:
        at = bisect(shown, i)
        below, above = i - shown[at - 1] - 1, shown[at] - i - 1
        # The line that counts the items around it exists already.
        extra = (below > 0) + (above > 0)
        if used + extra <= room:
            shown.insert(at, i)
            used += extra
        elif len(shown) == 2:
            return []
        if used == room:
            break
    # Instead of a line that counts one item, show that item.
    single = [a + 1 for a, b in zip(shown, shown[1:]) if b - a == 2]
    return sorted(shown[1:-1] + single)


def with_gaps(
    lines: Sequence[str],
    shown: Sequence[int],
    items: Sequence[_T],
    things: str,
    kind: Callable[[_T], str],
    screen: Screen,
) -> Iterator[str]:
    """
    Yield the lines of the items that :func:`placed` chose, and lines that count the others.

    :param lines: a line for each index in *shown*
    :param things: noun for the items, in plural
    """
    ends = [-1, *shown, len(items)]
    gaps = [(a + 1, b) for a, b in zip(ends, ends[1:])]
    last = max((gap for gap in gaps if gap[0] < gap[1]), default=None)
    for gap, line in zip(gaps, [*lines, None]):
        if gap[0] < gap[1]:
            hint = SHOW_ALL if gap == last else ""
            yield more(things, items[gap[0] : gap[1]], kind, screen, hint)
        if line is not None:
            yield line


def fitting(blocks: Sequence[str], lines: int, screen: Screen) -> int:
    """Get how many of the first blocks fit into *lines*, each with a blank line above it."""
    for n, block in enumerate(blocks):
        lines -= 1 + height(block, screen)
        if lines < 0:
            return n
    return len(blocks)


def more(
    things: str, rest: Sequence[_T], kind: Callable[[_T], str], screen: Screen, hint: str = SHOW_ALL
) -> str:
    """
    Get the line that counts left-out items, by kind as far as that fits.

    :param hint: how to show them, unless a later line says so
    """
    hint = hint and f" {hint}"
    counts = Counter(map(kind, rest)).most_common()
    for n in range(min(len(counts), _MAX_KINDS), 0, -1):
        named = [f"{count:,} {name}" for name, count in counts[:n]]
        if others := sum(count for _, count in counts[n:]):
            named.append(f"{others:,} others")
        line = f"... {len(rest):,} more {things}: {', '.join(named)}{hint}"
        if height(line, screen) == 1:
            return line
    line = f"... {len(rest):,} more {things}{hint}"
    return line if height(line, screen) == 1 else f"... {len(rest):,} more{hint}"


def is_folded(text: str) -> bool:
    """Return whether something was left out of a text."""
    return f"{SHOW_ALL}\n" in f"{text}\n"
