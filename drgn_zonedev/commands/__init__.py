# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The commands, one per module. Each module ends with its :class:`Command`.
"""

from __future__ import annotations

from typing import Any

from drgn_zonedev.commands.bugreport import BUGREPORT
from drgn_zonedev.commands.check import CHECK
from drgn_zonedev.commands.diff import DIFF
from drgn_zonedev.commands.export import EXPORT
from drgn_zonedev.commands.kernel import KERNEL
from drgn_zonedev.commands.oops import OOPS
from drgn_zonedev.commands.pages import PAGES
from drgn_zonedev.commands.pfn import PFN
from drgn_zonedev.commands.pgmaps import PGMAPS
from drgn_zonedev.commands.pins import PINS
from drgn_zonedev.commands.proposal import PROPOSAL
from drgn_zonedev.commands.ranges import RANGES
from drgn_zonedev.commands.sections import SECTIONS
from drgn_zonedev.commands.walkers import WALKERS_COMMAND

__all__ = ("COMMANDS", "add_commands")

COMMANDS = (
    CHECK,
    RANGES,
    SECTIONS,
    PGMAPS,
    KERNEL,
    PAGES,
    PFN,
    PINS,
    OOPS,
    BUGREPORT,
    DIFF,
    PROPOSAL,
    WALKERS_COMMAND,
    EXPORT,
)


def add_commands(subparsers: Any) -> None:
    """Add every command to the result of ``ArgumentParser.add_subparsers()``."""
    for command in COMMANDS:
        parser = subparsers.add_parser(
            command.name, help=command.help, description=command.help, allow_abbrev=False
        )
        command.add_arguments(parser)
        parser.set_defaults(command=command)
