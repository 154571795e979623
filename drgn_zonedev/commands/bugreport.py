# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev bugreport``"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING

from drgn_zonedev.commands.base import (
    Command,
    DrgnCode,
    Outcome,
    Session,
    UsageError,
    not_empty,
    output_arguments,
    print_result,
)
from drgn_zonedev.commands.drgn_code import print_rendered_code, write_code
from drgn_zonedev.util.parser import Argument

if TYPE_CHECKING:
    from drgn.commands import DrgnCodeBuilder

__all__ = ("BUGREPORT",)


def _slugs() -> Iterable[str]:
    from drgn_zonedev.findings import KINDS

    return KINDS


_ARGUMENTS = (
    *output_arguments(),
    Argument(
        "subject",
        metavar="FINDING|PFN",
        type=not_empty,
        nargs="?",
        help="the finding to report, such as orphan-section, or a PFN in it (default: the worst "
        "finding)",
        candidates=_slugs,
    ),
)


def _bugreport(session: Session, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.explanation.bug_report import bug_report
    from drgn_zonedev.render.bugreport import bugreport_document, bugreport_text

    try:
        report = bug_report(session.prog, args.subject)
    except ValueError as e:
        raise UsageError(str(e)) from e
    print_result(args, lambda screen: bugreport_text(report), lambda: bugreport_document(report))
    return Outcome(report)


def _bugreport_code(builder: DrgnCodeBuilder, args: argparse.Namespace) -> None:
    write_code(
        builder,
        f"report = bug_report({'' if args.subject is None else repr(args.subject)})\n",
        "drgn_zonedev.explanation.bug_report:bug_report",
    )
    print_rendered_code(builder, args, "bugreport")


BUGREPORT = Command(
    "bugreport",
    "write a finding as a bug report for a mailing list, without private data",
    _ARGUMENTS,
    _bugreport,
    DrgnCode(_bugreport_code, frozenset({"subject"})),
)
