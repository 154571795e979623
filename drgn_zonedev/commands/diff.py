# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev diff``"""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING

from drgn_zonedev.commands.base import (
    Command,
    DrgnCode,
    Opener,
    Outcome,
    Session,
    Status,
    UsageError,
    not_empty,
    output_arguments,
    print_result,
)
from drgn_zonedev.commands.drgn_code import print_rendered_code, write_code
from drgn_zonedev.commands.jobs import JOBS
from drgn_zonedev.commands.known_reports import (
    KnownDocument,
    document_of_file,
    is_json,
    known_census_of_session,
    known_report_of_session,
)
from drgn_zonedev.comparison.known_census import KnownCensus
from drgn_zonedev.comparison.known_report import KnownReport
from drgn_zonedev.util.parser import Argument

if TYPE_CHECKING:
    from drgn.commands import DrgnCodeBuilder

__all__ = ("DIFF",)


_ARGUMENTS = (
    *output_arguments(),
    JOBS,
    Argument(
        "--pages",
        action="store_true",
        help="compare what pages are used for, instead of reports",
    ),
    Argument(
        "old",
        metavar="OLD",
        type=not_empty,
        help="what check --format json or pages --format json wrote, a core dump or an export",
    ),
    Argument(
        "new",
        metavar="NEW",
        type=not_empty,
        nargs="?",
        help="the same; default: the program that is selected",
    ),
)


def _diff(session: Session, args: argparse.Namespace) -> Outcome:
    if args.new is not None:
        raise UsageError(f"{args.new} is compared with {args.old}: select no program, or omit NEW")
    if session.opener is None or is_json(args.old):
        old = document_of_file(args.old)
        return _print(args, old, _known_of(session, old), "this program")
    like = _asked_for(args)
    with session.opener(args.old) as other:
        older = _known_of(other, like)
    return _print(args, older, _known_of(session, like), "this program")


def _asked_for(args: argparse.Namespace) -> KnownDocument | None:
    return KnownCensus(None, {}) if args.pages else None


def _known_of(session: Session, like: KnownDocument | None) -> KnownDocument:
    """Get what is compared of a program."""
    if isinstance(like, KnownCensus):
        return known_census_of_session(session, like.by)
    return known_report_of_session(session)


def _diff_alone(args: argparse.Namespace, opener: Opener) -> Outcome:
    if args.new is None:
        raise UsageError("give NEW, or select a program to compare with: -k, -c or --qemu")
    # Documents say what to compare programs by.
    paths = args.old, args.new
    known = {path: document_of_file(path) for path in paths if is_json(path)}
    like = next(iter(known.values()), _asked_for(args))
    for path in paths:
        if path not in known:
            with opener(path) as session:
                known[path] = _known_of(session, like)
    return _print(args, known[args.old], known[args.new], args.new)


def _print(args: argparse.Namespace, old: KnownDocument, new: KnownDocument, name: str) -> Outcome:
    if isinstance(old, KnownCensus) and isinstance(new, KnownCensus):
        return _print_census(args, old, new, name)
    if isinstance(old, KnownReport) and isinstance(new, KnownReport) and not args.pages:
        return _print_report(args, old, new, name)
    raise UsageError(
        "a report of check cannot be compared with a census of pages: give two of the same kind, "
        "and --pages only for censuses"
    )


def _print_census(
    args: argparse.Namespace, old: KnownCensus, new: KnownCensus, name: str
) -> Outcome:
    from drgn_zonedev.comparison.census_changes import census_changes
    from drgn_zonedev.render.census_changes import (
        CensusSide,
        census_changes_document,
        census_changes_text,
    )

    if old.by != new.by:
        raise UsageError("the censuses group pages differently: give both the same --by")
    sides = CensusSide(args.old, old), CensusSide(name, new)
    found = census_changes(old, new)
    print_result(
        args,
        lambda screen: census_changes_text(*sides, found, screen=screen),
        lambda: census_changes_document(*sides, found),
    )
    return Outcome(found, Status.FINDINGS if found else Status.OK)


def _print_report(
    args: argparse.Namespace, old: KnownReport, new: KnownReport, name: str
) -> Outcome:
    from drgn_zonedev.comparison.differences import report_differences
    from drgn_zonedev.render.differences import (
        CompareSide,
        differences_document,
        differences_text,
    )

    if old.scope != new.scope:
        raise UsageError(
            "the reports are about different parts of memory: check the same part in both"
        )
    sides = CompareSide(args.old, old), CompareSide(name, new)
    found = report_differences(old, new)
    print_result(
        args,
        lambda screen: differences_text(*sides, found, screen=screen),
        lambda: differences_document(*sides, found),
    )
    return Outcome(found, Status.FINDINGS if found else Status.OK)


def _diff_code(builder: DrgnCodeBuilder, args: argparse.Namespace) -> None:
    with contextlib.suppress(UsageError):
        if is_json(args.old) and isinstance(document_of_file(args.old), KnownCensus):
            _census_code(builder, args)
            return
    write_code(
        builder,
        f"old = known_report_of_file({args.old!r})\n"
        "new = known_report(report_document(check()))\n"
        "found = report_differences(old, new)\n",
        "drgn_zonedev:check",
        "drgn_zonedev.commands.known_reports:known_report_of_file",
        "drgn_zonedev.comparison.differences:report_differences",
        "drgn_zonedev.comparison.known_report:known_report",
        "drgn_zonedev.render.as_json:report_document",
        "drgn_zonedev.render.differences:CompareSide",
    )
    sides = f"CompareSide({args.old!r}, old), CompareSide('this program', new), found"
    print_rendered_code(builder, args, "differences", sides)


def _census_code(builder: DrgnCodeBuilder, args: argparse.Namespace) -> None:
    write_code(
        builder,
        f"old = document_of_file({args.old!r})\n"
        "by = old.by and old.by.replace('_', '-')\n"
        "new = known_census(census_document(page_census(by)))\n"
        "found = census_changes(old, new)\n",
        "drgn_zonedev:page_census",
        "drgn_zonedev.commands.known_reports:document_of_file",
        "drgn_zonedev.comparison.census_changes:census_changes",
        "drgn_zonedev.comparison.known_census:known_census",
        "drgn_zonedev.render.census_changes:CensusSide",
        "drgn_zonedev.render.pages:census_document",
    )
    sides = f"CensusSide({args.old!r}, old), CensusSide('this program', new), found"
    print_rendered_code(builder, args, "census_changes", sides)


DIFF = Command(
    "diff",
    "show what came, went or changed between two reports, dumps or kernels",
    _ARGUMENTS,
    _diff,
    DrgnCode(_diff_code, frozenset({"old"})),
    _diff_alone,
)
