# SPDX-License-Identifier: LGPL-2.1-or-later

"""
``%zonedev`` in drgn's REPL, with drgn's pipes and redirections.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from drgn import Program
from drgn.commands import CommandArgumentError, CommandError, argument, parse_shell_command
from drgn.commands.linux import linux_kernel_custom_command

from drgn_zonedev.repl.completer import complete_commands
from drgn_zonedev.util.parser import CommandParser

__all__ = ("COMMAND_NAMES", "register")

# Listed here so that the commands are imported only when one of them runs.
COMMAND_NAMES = (
    "check, ranges, sections, pgmaps, kernel, pages, pfn, pins, "
    "oops, bugreport, diff, proposal, walkers, export"
)
_CALLED = "%zonedev"
_OF_THE_SHELL = ("completion", "demo", "lab", "survey")
_DESCRIPTION = "ZONE_DEVICE memory: what it is, and whether its struct pages are initialised"
_LONG = """
Find the case of every page frame, and whether its struct page is initialised. See {called}
COMMAND --help for each command. {called} COMMAND --drgn prints Python code that gets the
same answer. The value of a command is in _.
"""


class _HelpShown(Exception):
    """Help was requested, and has been printed."""


class _Parser(CommandParser):
    """A parser that returns to the REPL instead of exiting."""

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        if message is None:
            raise _HelpShown
        raise CommandArgumentError(message.rstrip("\n"))


def register() -> None:
    """
    Register ``%zonedev``, and ``zonedev`` with drgn's crash commands if drgn has them.
    Repeated calls change nothing.
    """
    linux_kernel_custom_command(**_registration(_CALLED))(functools.partial(_run, _CALLED))
    complete_commands(_parser)
    # A private module, which is not there if its plugin is disabled.
    crash = sys.modules.get("drgn.commands._crash.common")
    if crash is not None and hasattr(crash, "crash_custom_command"):
        called = "zonedev"
        crash.crash_custom_command(**_registration(called))(functools.partial(_run, called))


def _registration(called: str) -> dict[str, Any]:
    return {
        "name": "zonedev",
        "description": _DESCRIPTION,
        "long_description": _LONG.format(called=called),
        "arguments": (
            argument("command", metavar="COMMAND", help=COMMAND_NAMES),
            argument("args", metavar="ARG", nargs="...", help=f"see {called} COMMAND --help"),
        ),
        "parse": parse_shell_command,
    }


def _run(called: str, prog: Program, name: str, words: Sequence[str], **kwargs: Any) -> Any:
    from drgn_zonedev.commands.base import Session, UsageError
    from drgn_zonedev.commands.inputs import refuse_overwriting
    from drgn_zonedev.opening.failures import CannotJudgeError
    from drgn_zonedev.opening.program_files import program_files

    parser = _parser(called)
    if not words:
        raise CommandArgumentError(f"give a command: {COMMAND_NAMES}")
    if words[0] in _OF_THE_SHELL:
        raise CommandArgumentError(
            f"zonedev {words[0]} does not read this program: run it in the shell"
        )
    try:
        args = parser.parse_args(_as_option(words))
        if args.drgn:
            from drgn_zonedev.commands.drgn_code import python_code

            print(python_code(prog, args.command, args, words), end="")
            return None
        refuse_overwriting(args, program_files(prog))
        session = Session(prog, variables=kwargs.get("globals") or {})
        return args.command.run(session, args).value
    except _HelpShown:
        return None
    except UsageError as e:
        raise CommandError(f"{e}{_hint(words)}") from e
    except CannotJudgeError as e:
        raise CommandError(str(e)) from e


def _as_option(words: Sequence[str]) -> Sequence[str]:
    """Take ``help COMMAND``, which the shell's ``zonedev`` knows, for ``COMMAND --help``."""
    if words[0] != "help":
        return words
    if len(words) > 2:
        raise CommandArgumentError(f"unrecognized arguments: {' '.join(words[2:])}")
    return [*words[1:], "--help"]


def _hint(words: Sequence[str]) -> str:
    # Expressions are taken for Python only if their variables exist.
    if words[0] == "pfn" and any(set(word) & set(".[(") for word in words[1:]):
        return "; Python objects go to explain(), from drgn_zonedev"
    return ""


def _parser(called: str = _CALLED) -> _Parser:
    from drgn_zonedev.commands import add_commands

    parser = _Parser(prog=called, allow_abbrev=False)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    add_commands(commands)
    for command in commands.choices.values():
        command.add_argument(
            "--drgn", action="store_true", help="print the Python code that yields the same answer"
        )
    return parser
