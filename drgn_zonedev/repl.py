# SPDX-License-Identifier: LGPL-2.1-or-later

"""
``%zonedev`` in drgn's REPL, with drgn's pipes and redirections.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from drgn import Program
from drgn.commands import CommandArgumentError, CommandError, argument, parse_shell_command
from drgn.commands.linux import linux_kernel_custom_command

__all__ = ("register",)

_COMMANDS = "check, ranges, sections, pgmaps, pfn, export"


class _HelpShown(Exception):
    """Help was asked for, and printed."""


class _Parser(argparse.ArgumentParser):
    """A parser that returns to the REPL instead of leaving it."""

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        if message is None:
            raise _HelpShown
        raise CommandArgumentError(message.rstrip("\n"))


def register() -> None:
    """Register ``%zonedev``. Doing so again changes nothing."""
    linux_kernel_custom_command(
        name="zonedev",
        description="ZONE_DEVICE memory: whose it is, and whether its struct pages are initialised",
        arguments=(
            argument("command", metavar="COMMAND", help=_COMMANDS),
            argument("args", metavar="ARG", nargs="...", help="see %zonedev COMMAND --help"),
        ),
        parse=parse_shell_command,
    )(_run)


def _run(prog: Program, name: str, words: Sequence[str], **kwargs: Any) -> Any:
    from drgn_zonedev.command import UsageError
    from drgn_zonedev.commands import add_commands

    parser = _Parser(prog="%zonedev", allow_abbrev=False)
    add_commands(parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser))
    try:
        args = parser.parse_args(words)
        return args.run(prog, args).value
    except _HelpShown:
        return None
    except UsageError as e:
        raise CommandError(str(e)) from e
