# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev walkers``"""

from __future__ import annotations

import argparse
import dataclasses

from drgn import Program

from drgn_zonedev.commands.base import (
    Command,
    Outcome,
    offer,
    output_arguments,
    print_result,
)

__all__ = ("WALKERS_COMMAND",)


def _names() -> list[str]:
    from drgn_zonedev.pfn_walkers import WALKERS

    return [walker.name for walker in WALKERS]


def _name(text: str) -> str:
    if text not in _names():
        raise argparse.ArgumentTypeError(f"{text!r} is none of: {', '.join(_names())}")
    return text


def _walkers_arguments(parser: argparse.ArgumentParser) -> None:
    output_arguments(parser)
    action = parser.add_argument(
        "--walker",
        metavar="NAME",
        type=_name,
        action="append",
        help="only this one (may be given more than once)",
    )
    offer(action, _names)


def _walkers(prog: Program, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.commands.progress import progress_bar
    from drgn_zonedev.pfn_walkers import walkers
    from drgn_zonedev.render.walkers import walkers_document, walkers_text

    with progress_bar() as progress:
        report = walkers(prog, progress=progress)
    if args.walker:
        chosen = tuple(j for j in report.walkers if j.walker.name in args.walker)
        report = dataclasses.replace(report, walkers=chosen)
    print_result(
        args,
        lambda screen: walkers_text(report, screen=screen),
        lambda: walkers_document(report),
    )
    return Outcome(report)


WALKERS_COMMAND = Command(
    "walkers",
    "tell which PFN walkers of the kernel would touch struct pages that nobody promises",
    _walkers_arguments,
    _walkers,
)
