# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Shell completion
----------------

``zonedev completion SHELL`` prints a completion script for the shell. ``scripts/dist``
puts the scripts into the package; otherwise shtab generates them from the argument parser, or,
without shtab, they ask ``zonedev completion words``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import resources
from typing import Any

from drgn_zonedev.commands.base import Outcome, ShellCommand, print_text
from drgn_zonedev.util.parser import offered

__all__ = ("SHELLS", "add_completion_command", "completion_script", "words_for")

SHELLS = ("bash", "fish", "zsh")

_USE = """
To enable completion, write the script to a file that the shell reads at its start:
  bash: zonedev completion bash > ~/.local/share/bash-completion/completions/zonedev
  fish: zonedev completion fish > ~/.config/fish/completions/zonedev.fish
  zsh:  zonedev completion zsh > ~/.zfunc/_zonedev   (with ~/.zfunc in fpath)
"""


# What a generated script asks for.
_WORDS = "words"
_ASKING = {
    "bash": """_zonedev() {
    local IFS=$'\\n'
    COMPREPLY=($(zonedev completion words "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _zonedev zonedev
""",
    "fish": """complete -c zonedev -a \
'(zonedev completion words (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'
""",
    "zsh": """#compdef zonedev
compadd -- ${(f)"$(zonedev completion words ${words[2,CURRENT]} 2>/dev/null)"}
_files
""",
}


def words_for(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """Get what the last of some words of a command line can become."""
    *before, last = words or [""]
    for i, word in enumerate(before):
        commands = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        if commands and word in commands[0].choices:
            return words_for(commands[0].choices[word], [*before[i + 1 :], last])
    option = parser._option_string_actions.get(before[-1]) if before else None
    if option is not None and option.nargs != 0:
        found = offered(option)
    elif last.startswith("-"):
        found = list(parser._option_string_actions)
    else:
        found = [w for a in parser._actions if not a.option_strings for w in offered(a)]
    return sorted(word for word in found if word.startswith(last))


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
    command.add_argument(
        "shell", metavar="SHELL", choices=(*SHELLS, _WORDS), help=", ".join(SHELLS)
    )
    words = command.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    # argparse would name them where SHELL is missing.
    words.required = False

    def run(args: argparse.Namespace) -> Outcome:
        if args.shell == _WORDS:
            print_text("\n".join(words_for(parser, args.words)))
            return Outcome(None)
        if args.words:
            command.error(f"unrecognized arguments: {' '.join(args.words)}")
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

    Without shtab, it asks zonedev itself for the words, each time.

    :param shell: One of :data:`SHELLS`.
    """
    try:
        import shtab
    except ImportError:
        return _ASKING[shell]
    _choose_offered(parser)
    script: str = shtab.complete(parser, shell)
    return script.rstrip("\n") + "\n"
