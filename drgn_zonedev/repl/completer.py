# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Completion of %zonedev
----------------------

drgn's REPL completes Python, and has no hook for commands. So a completer is installed before the
first prompt, and again in crash mode. It handles lines that begin with ``%zonedev``, and passes
all others to drgn's.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
from collections.abc import Callable
from typing import Any

__all__ = ("candidates", "complete_commands")

_NAME = "%zonedev"

# The last is for crash mode; in Python, it is not a statement.
_PREFIXES = ("%zonedev ", "%crash zonedev ", "zonedev ")


def candidates(parser: argparse.ArgumentParser, line: str) -> list[str]:
    """
    Get the possible completions of the last word of a line.

    :param line: From ``%zonedev`` to the cursor.
    """
    # drgn imports this at the start of every session.
    from drgn_zonedev.util.parser import offered

    if _is_beginning(line):
        return [_NAME]
    prefix = _prefix(line)
    *words, last = line[len(prefix) :].lstrip().split(" ")
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
    if not last.startswith("-"):
        options = _resource_names() if words[0] == "pfn" and last else []
    return sorted(name for name in options if last and name.startswith(last))


def _is_beginning(line: str) -> bool:
    # Any shorter one may become another command.
    return _NAME[:2] in line and _NAME.startswith(line)


def _prefix(line: str) -> str:
    return next((prefix for prefix in _PREFIXES if line.startswith(prefix)), "")


def _resource_names() -> list[str]:
    """Get the resources of /proc/iomem that are a word."""
    from drgn import get_default_prog

    from drgn_zonedev.kernel.resource import iomem_resources

    # Whatever is wrong with the program, the line is still there to be typed.
    with contextlib.suppress(Exception):
        names = {r.name for r in iomem_resources(get_default_prog()).found}
        return [name for name in names if name and " " not in name]
    return []


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _option(command: argparse.ArgumentParser, word: str) -> argparse.Action | None:
    return next((a for a in command._actions if word in a.option_strings), None)


def complete_commands(make_parser: Callable[[], argparse.ArgumentParser]) -> None:
    """
    Complete our commands from the first prompt on, if this is drgn's REPL.

    :param make_parser: Called when something is completed for the first time.
    """
    # drgn's REPL may use another readline than the standard library.
    repl: Any = sys.modules.get("drgn.internal.repl")
    if repl is not None and hasattr(repl.readline, "set_startup_hook"):
        # drgn sets its own completer after this, and another one in crash mode.
        install = functools.partial(_install, repl.readline, functools.lru_cache(make_parser))
        repl.readline.set_startup_hook(install)


def _install(readline: Any, make_parser: Callable[[], argparse.ArgumentParser]) -> None:
    before = readline.get_completer()
    if before is None or hasattr(before, "zonedev"):
        return

    def complete(text: str, state: int) -> str | None:
        line = readline.get_line_buffer()[: readline.get_endidx()]
        if not _prefix(line) and not _is_beginning(line):
            found: str | None = before(text, state)
            return found
        # The word of readline may be the end of the real one: "for" for "--for".
        skip = len(line.rsplit(" ", 1)[-1]) - len(text)
        words = [word[skip:] for word in candidates(make_parser(), line)]
        return words[state] if state < len(words) else None

    complete.zonedev = True  # type: ignore[attr-defined]
    readline.set_completer(complete)
