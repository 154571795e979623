# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Completion of %zonedev
----------------------

drgn's REPL completes Python, and has no hook for commands. So the first ``%zonedev``
of a session installs a completer that handles lines that begin with ``%zonedev``, and
passes all others to drgn's.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from drgn_zonedev.commands.base import offered

__all__ = ("candidates", "complete_commands")

_PREFIX = "%zonedev "


def candidates(parser: argparse.ArgumentParser, line: str) -> list[str]:
    """
    Get the possible completions of the last word of a line.

    :param line: From ``%zonedev`` to the cursor.
    """
    *words, last = line[len(_PREFIX) :].lstrip().split(" ")
    commands = _commands(parser)
    words = [word for word in words if word]
    if not words:
        return sorted(name for name in commands if name.startswith(last))
    command = commands.get(words[0])
    if command is None:
        return []
    before = _option(command, words[-1]) if len(words) > 1 else None
    if before is not None and offered(before):
        return sorted(c for c in offered(before) if c.startswith(last))
    if before is not None and before.nargs != 0:
        return []
    options = [name for action in command._actions for name in action.option_strings]
    return sorted(name for name in options if last and name.startswith(last))


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _option(command: argparse.ArgumentParser, word: str) -> argparse.Action | None:
    return next((a for a in command._actions if word in a.option_strings), None)


def complete_commands(parser: argparse.ArgumentParser) -> None:
    """Install the completer, if this is drgn's REPL and it is not installed yet."""
    # drgn's REPL may use another readline than the standard library.
    repl: Any = sys.modules.get("drgn.internal.repl")
    if repl is None:
        return
    readline = repl.readline
    before = readline.get_completer()
    if before is None or hasattr(before, "zonedev"):
        return

    def complete(text: str, state: int) -> str | None:
        line = readline.get_line_buffer()[: readline.get_endidx()]
        if not line.startswith(_PREFIX):
            found: str | None = before(text, state)
            return found
        # The word of readline may be the end of the real one: "for" for "--for".
        skip = len(line.rsplit(" ", 1)[-1]) - len(text)
        words = [word[skip:] for word in candidates(parser, line)]
        return words[state] if state < len(words) else None

    complete.zonedev = True  # type: ignore[attr-defined]
    readline.set_completer(complete)
