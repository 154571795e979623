# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Misplaced Options
-----------------

Says where an option belongs that was given before its command, or after another one.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

__all__ = ("given_options", "hint_of_rest", "option_before_its_command")

# More commands than that have it: no hint.
_MANY = 4


def option_before_its_command(parser: argparse.ArgumentParser, words: Sequence[str]) -> str | None:
    """Get the complaint about the first option before the command that is one of commands."""
    left = iter(words)
    for word in left:
        if not word.startswith("-") or word in ("-", "--"):
            return None
        option, equals, _ = word.partition("=")
        action = _action(parser, option)
        if action is None:
            owners = _owners(parser, option)
            return f"{option} comes after its command: {_some(owners)}" if owners else None
        if action.nargs is None and not equals and option == word:
            # Its value.
            next(left, None)
    return None


def hint_of_rest(parser: argparse.ArgumentParser, rest: Sequence[str]) -> str:
    """Get what to add to the complaint about words that a command does not know."""
    if "--drgn" in rest:
        return ": it is for %zonedev, in drgn's REPL"
    options = [word.partition("=")[0] for word in rest if word.startswith("-")]
    # A common mistake: `zonedev check -c vmcore`.
    if any(_action(parser, option) for option in options):
        return ": options that select the program come before the command"
    for option in options:
        if owners := _owners(parser, option):
            return f": {option} is an option of {_some(owners)}"
    return ""


def given_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> list[str]:
    """Name the options before the command that were given."""
    return [
        action.option_strings[-1]
        for action in parser._actions
        if action.option_strings
        and action.dest in vars(args)
        and getattr(args, action.dest) != action.default
    ]


def _action(parser: argparse.ArgumentParser, option: str) -> argparse.Action | None:
    action = parser._option_string_actions.get(option)
    if action is None and option[:2] not in ("", "--"):
        # -cPATH
        action = parser._option_string_actions.get(option[:2])
    return action


def _owners(parser: argparse.ArgumentParser, option: str) -> list[str]:
    return [name for name, command in _commands(parser) if option in command._option_string_actions]


def _commands(
    parser: argparse.ArgumentParser, prefix: str = ""
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield f"{prefix}{name}", command
                yield from _commands(command, f"{prefix}{name} ")


def _some(owners: Sequence[str]) -> str:
    return ", ".join(owners[:_MANY]) + (" and others" if len(owners) > _MANY else "")
