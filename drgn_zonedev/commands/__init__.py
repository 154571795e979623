# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The commands, one per module. Each module ends with its :class:`Command`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from drgn_zonedev.util.parser import add_arguments

if TYPE_CHECKING:
    from drgn_zonedev.commands.base import Command

__all__ = ("COMMANDS", "add_commands", "every_command")

# In the order of --help. A process runs one of them, so import each when it is wanted.
_HOME = {
    "check": "CHECK",
    "ranges": "RANGES",
    "sections": "SECTIONS",
    "pgmaps": "PGMAPS",
    "kernel": "KERNEL",
    "pages": "PAGES",
    "pfn": "PFN",
    "pins": "PINS",
    "oops": "OOPS",
    "bugreport": "BUGREPORT",
    "diff": "DIFF",
    "proposal": "PROPOSAL",
    "walkers": "WALKERS_COMMAND",
    "export": "EXPORT",
}

COMMANDS = tuple(_HOME)
"""The names of all commands, in the order of ``--help``."""


def every_command(names: Iterable[str] = COMMANDS) -> tuple[Command, ...]:
    """Import commands, and return them."""
    modules = ((name, importlib.import_module(f"{__name__}.{name}")) for name in names)
    return tuple(getattr(module, _HOME[name]) for name, module in modules)


def add_commands(subparsers: Any, names: Iterable[str] = COMMANDS) -> None:
    """Add commands to the result of ``ArgumentParser.add_subparsers()``."""
    for command in every_command(names):
        parser = subparsers.add_parser(
            command.name, help=command.help, description=command.help, allow_abbrev=False
        )
        add_arguments(parser, command.arguments)
        parser.set_defaults(command=command)
