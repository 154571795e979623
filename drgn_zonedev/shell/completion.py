# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Shell completion
----------------

``zonedev completion SHELL`` prints a completion script for the shell. ``scripts/dist``
puts the scripts into the package; otherwise shtab generates them from the argument parser.
"""

from __future__ import annotations

import argparse
from importlib import resources
from typing import Any

from drgn_zonedev.commands.base import Outcome, ShellCommand, UsageError, offered, print_text

__all__ = ("SHELLS", "add_completion_command", "completion_script")

SHELLS = ("bash", "fish", "zsh")

_USE = """
To enable completion, write the script to a file that the shell reads at its start:
  bash: zonedev completion bash > ~/.local/share/bash-completion/completions/zonedev
  fish: zonedev completion fish > ~/.config/fish/completions/zonedev.fish
  zsh:  zonedev completion zsh > ~/.zfunc/_zonedev   (with ~/.zfunc in fpath)
"""


def add_completion_command(subparsers: Any, parser: argparse.ArgumentParser) -> None:
    """Add ``completion`` to the result of ``ArgumentParser.add_subparsers()``."""
    command = subparsers.add_parser(
        "completion",
        help="print a completion script for a shell",
        description="Print a completion script for a shell.",
        epilog=_USE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))

    def run(args: argparse.Namespace) -> Outcome:
        print_text(_script(parser, args.shell), end="")
        return Outcome(None)

    command.set_defaults(command=ShellCommand(run))


def _script(parser: argparse.ArgumentParser, shell: str) -> str:
    packaged = resources.files("drgn_zonedev") / "share" / f"zonedev.{shell}"
    try:
        return packaged.read_text(encoding="utf-8")
    except FileNotFoundError:
        return completion_script(parser, shell)


def _choose_offered(parser: argparse.ArgumentParser) -> None:
    # shtab reads only choices. This parser does not parse anything after this.
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _choose_offered(command)
        elif offered(action):
            action.choices = offered(action)


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """
    Generate the completion of a parser.

    :param shell: One of :data:`SHELLS`.
    :raises UsageError: if shtab is not installed
    """
    try:
        import shtab
    except ImportError as e:
        raise UsageError(
            "shtab, which generates the completion, is not installed: pip install shtab"
        ) from e
    _choose_offered(parser)
    script: str = shtab.complete(parser, shell)
    return script.rstrip("\n") + "\n"
