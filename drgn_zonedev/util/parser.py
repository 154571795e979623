# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Parser
------

Arguments of commands are data, as those of drgn's own commands are.

:class:`argparse.ArgumentParser` lets the last of several values of an option win. That is right for
one that overrides a default, but with two dumps, or two ranges of PFNs, one is silently ignored.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import Any

__all__ = ("Argument", "CommandParser", "add_arguments", "offered")


class Argument:
    """
    What ``ArgumentParser.add_argument()`` takes. ``candidates`` gives completion the values.
    ``choices`` would list all of them in errors, and would need them whenever the parser is made.
    """

    def __init__(
        self, *names: str, candidates: Callable[[], Iterable[str]] | None = None, **options: Any
    ) -> None:
        self.names = names
        self.candidates = candidates
        self.options = options


def add_arguments(parser: argparse._ActionsContainer, arguments: Iterable[Argument]) -> None:
    """Add arguments to a parser, or to a group of one."""
    for argument in arguments:
        action = parser.add_argument(*argument.names, **argument.options)
        if argument.candidates is not None:
            action.candidates = argument.candidates  # type: ignore[attr-defined]


def offered(action: argparse.Action) -> list[str]:
    """Return the known values of an argument."""
    candidates = getattr(action, "candidates", lambda: action.choices or ())
    return [str(candidate) for candidate in candidates()]


class _StoreOnce(argparse.Action):
    """Stores a value. Without a default to override, a second, other one is an error."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest, None)
        if self.default is None and before not in (None, values):
            raise argparse.ArgumentError(self, "it is given more than once: give one of them")
        setattr(namespace, self.dest, values)


class CommandParser(argparse.ArgumentParser):
    """A parser that refuses to ignore a value that was given; its subparsers do the same."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # For add_argument() without an action.
        self.register("action", None, _StoreOnce)
