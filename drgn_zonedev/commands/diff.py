# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev diff``"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from drgn_zonedev.commands.base import (
    Command,
    DrgnCode,
    Opener,
    Outcome,
    Session,
    Status,
    UsageError,
    output_arguments,
    print_result,
)
from drgn_zonedev.commands.drgn_code import print_code
from drgn_zonedev.commands.jobs import jobs_argument
from drgn_zonedev.commands.known_reports import known_report_of, known_report_of_session

if TYPE_CHECKING:
    from drgn.commands import DrgnCodeBuilder

    from drgn_zonedev.comparison.known_report import KnownReport

__all__ = ("DIFF",)


def _diff_arguments(parser: argparse.ArgumentParser) -> None:
    output_arguments(parser)
    jobs_argument(parser)
    parser.add_argument(
        "old", metavar="OLD", help="what check --format json wrote, a core dump or an export"
    )
    parser.add_argument(
        "new", metavar="NEW", nargs="?", help="the same; default: the program that is selected"
    )


def _diff(session: Session, args: argparse.Namespace) -> Outcome:
    if args.new is not None:
        raise UsageError(f"{args.new} is compared with {args.old}: select no program, or omit NEW")
    old = known_report_of(args.old, session.opener)
    return _print(args, old, known_report_of_session(session), "this program")


def _diff_alone(args: argparse.Namespace, opener: Opener) -> Outcome:
    if args.new is None:
        raise UsageError("give NEW, or select a program to compare with: -k, -c or --qemu")
    old = known_report_of(args.old, opener)
    return _print(args, old, known_report_of(args.new, opener), args.new)


def _print(args: argparse.Namespace, old: KnownReport, new: KnownReport, name: str) -> Outcome:
    from drgn_zonedev.comparison.differences import report_differences
    from drgn_zonedev.render.differences import (
        CompareSide,
        differences_document,
        differences_text,
    )

    if old.scope != new.scope:
        raise UsageError("the reports are of different parts of memory: check both alike")
    sides = CompareSide(args.old, old), CompareSide(name, new)
    found = report_differences(old, new)
    print_result(
        args,
        lambda screen: differences_text(*sides, found, screen=screen),
        lambda: differences_document(*sides, found),
    )
    return Outcome(found, Status.FINDINGS if found else Status.OK)


def _diff_code(builder: DrgnCodeBuilder, args: argparse.Namespace) -> None:
    known = "drgn_zonedev.comparison.known_report"
    builder.add_from_import("drgn_zonedev", "check")
    builder.add_from_import("drgn_zonedev.commands.known_reports", "known_report_of_file")
    builder.add_from_import("drgn_zonedev.comparison.differences", "report_differences")
    builder.add_from_import(known, "known_report")
    builder.add_from_import("drgn_zonedev.render.as_json", "report_document")
    builder.append(
        f"old = known_report_of_file({args.old!r})\n"
        "new = known_report(report_document(check()))\n"
        "found = report_differences(old, new)\n"
    )
    builder.add_from_import("drgn_zonedev.render.differences", "CompareSide")
    sides = f"CompareSide({args.old!r}, old), CompareSide('this program', new), found"
    module = "drgn_zonedev.render.differences"
    print_code(
        builder, args, (module, "differences_text", sides), (module, "differences_document", sides)
    )


DIFF = Command(
    "diff",
    "show what came, went or changed between two reports, dumps or kernels",
    _diff_arguments,
    _diff,
    DrgnCode(_diff_code, frozenset({"old"})),
    _diff_alone,
)
