# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev help COMMAND``"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from drgn_zonedev.commands.base import Outcome, ShellCommand

__all__ = ("add_help_command",)


def add_help_command(subparsers: Any, parser: argparse.ArgumentParser) -> None:
    """Add ``help`` to the result of ``ArgumentParser.add_subparsers()``."""
    command = subparsers.add_parser(
        "help",
        help="show the help of a command",
        description="Show the help of a command, as COMMAND --help does.",
        allow_abbrev=False,
    )
    command.add_argument("words", metavar="COMMAND", nargs="*", help="such as check, or lab run")

    def run(args: argparse.Namespace) -> Outcome:
        if rest := _behind_command(parser, args.words):
            command.error(f"unrecognized arguments: {' '.join(rest)}")
        # It prints, and ends the program.
        parser.parse_args([*args.words, "--help"])
        return Outcome(None)

    command.set_defaults(command=ShellCommand(run))


def _behind_command(parser: argparse.ArgumentParser, words: Sequence[str]) -> Sequence[str]:
    """Get the words after the name of a command. A name that is wrong is for argparse."""
    for i, word in enumerate(words):
        commands = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        if not commands:
            return words[i:]
        if word not in commands[0].choices:
            return ()
        parser = commands[0].choices[word]
    return ()
