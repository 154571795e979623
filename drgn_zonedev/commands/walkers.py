# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev walkers``"""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING

from drgn_zonedev.commands.base import (
    Command,
    DrgnCode,
    Outcome,
    Session,
    Status,
    output_arguments,
    print_result,
)
from drgn_zonedev.commands.drgn_code import print_rendered_code, write_code
from drgn_zonedev.util.parser import Argument

if TYPE_CHECKING:
    from drgn.commands import DrgnCodeBuilder

__all__ = ("WALKERS_COMMAND",)


def _names() -> list[str]:
    from drgn_zonedev.pfn_walkers import WALKERS

    return [walker.name for walker in WALKERS]


def _name(text: str) -> str:
    if text not in _names():
        raise argparse.ArgumentTypeError(
            f"unknown walker {text!r}: choose from {', '.join(_names())}"
        )
    return text


_ARGUMENTS = (
    *output_arguments(),
    Argument(
        "--walker",
        metavar="NAME",
        type=_name,
        action="append",
        help="show only this walker (may be given more than once)",
        candidates=_names,
    ),
)


def _walkers(session: Session, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.commands.progress import progress_bar
    from drgn_zonedev.pfn_walkers import walkers
    from drgn_zonedev.render.walkers import walkers_document, walkers_text

    with progress_bar() as progress:
        report = walkers(session.prog, progress=progress)
    if args.walker:
        chosen = tuple(j for j in report.walkers if j.walker.name in args.walker)
        report = dataclasses.replace(report, walkers=chosen)
    print_result(
        args,
        lambda screen: walkers_text(report, screen=screen),
        lambda: walkers_document(report),
    )
    return Outcome(report, Status.NOT_JUDGED if report.nothing_judged else Status.OK)


def _walkers_code(builder: DrgnCodeBuilder, args: argparse.Namespace) -> None:
    write_code(builder, "report = walkers()\n", "drgn_zonedev:walkers")
    if args.walker:
        write_code(
            builder,
            f"chosen = [j for j in report.walkers if j.walker.name in {args.walker!r}]\n"
            "report = replace(report, walkers=tuple(chosen))\n",
            "dataclasses:replace",
        )
    print_rendered_code(builder, args, "walkers")


WALKERS_COMMAND = Command(
    "walkers",
    "show which PFN walkers of the kernel would touch uninitialised or stale struct pages",
    _ARGUMENTS,
    _walkers,
    DrgnCode(_walkers_code, frozenset({"walker"})),
)
