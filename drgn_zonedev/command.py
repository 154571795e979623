# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Commands
--------

What ``zonedev COMMAND`` and ``%zonedev COMMAND`` have in common: the arguments,
the work, the output, and the exit status.
"""

from __future__ import annotations

import argparse
import contextlib
import enum
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TextIO

from drgn import Program

from drgn_zonedev.model import Report, Severity
from drgn_zonedev.render import as_json, as_text

__all__ = ("COMMANDS", "Command", "Outcome", "Status", "UsageError", "add_commands", "failed")


class Status(enum.IntEnum):
    """Exit statuses."""

    OK = 0
    FINDINGS = 1
    USAGE = 2
    NOT_JUDGED = 3


class UsageError(Exception):
    """The arguments do not make sense for this program."""


@dataclass(frozen=True)
class Outcome:
    """What a command returns: a value for whoever called it from Python, and a status."""

    value: Any
    status: Status = Status.OK


@dataclass(frozen=True)
class Command:
    """A subcommand."""

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Program, argparse.Namespace], Outcome]


def add_commands(subparsers: Any) -> None:
    """Add every command to the result of ``ArgumentParser.add_subparsers()``."""
    for command in COMMANDS:
        parser = subparsers.add_parser(
            command.name, help=command.help, description=command.help, allow_abbrev=False
        )
        command.add_arguments(parser)
        parser.set_defaults(run=command.run)


def _output_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="default: %(default)s"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="write there instead of standard output"
    )


@contextlib.contextmanager
def _output(args: argparse.Namespace) -> Iterator[TextIO]:
    if args.output is None:
        # Looked up now: drgn's pipes and redirections replace it.
        yield sys.stdout
        return
    try:
        with open(args.output, "w", encoding="utf-8") as f:
            yield f
    except OSError as e:
        raise UsageError(f"cannot write {args.output}: {e.strerror}") from e


def _print(args: argparse.Namespace, text: Callable[[], str], document: Callable[[], Any]) -> None:
    with _output(args) as f:
        print(as_json.render(document()) if args.format == "json" else text(), file=f)


# --- check ------------------------------------------------------------------------------


def _fail_on(value: str) -> tuple[str, ...]:
    from drgn_zonedev.findings import KINDS

    words = tuple(value.split(","))
    severities = [s.value for s in Severity]
    for word in words:
        if word in severities or re.fullmatch("case[345]", word) or word in KINDS:
            continue
        raise argparse.ArgumentTypeError(
            f"{word!r} is not a severity ({', '.join(severities)}), "
            f"case3, case4, case5 or one of: {', '.join(sorted(KINDS))}"
        )
    return words


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    _output_arguments(parser)
    parser.add_argument(
        "--fail-on",
        metavar="WHAT",
        type=_fail_on,
        default=("error",),
        help="comma-separated severities, case3, case4, case5, or findings that make the exit "
        "status 1; a severity includes what is worse (default: error)",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show all evidence")


def failed(report: Report, fail_on: tuple[str, ...]) -> bool:
    """Return whether a report holds anything that ``--fail-on`` names."""
    ranks = [Severity(word).rank for word in fail_on if word in [s.value for s in Severity]]
    worst = max(ranks, default=-1)
    return any(
        f.severity.rank <= worst or f.slug in fail_on or f"case{f.case.number}" in fail_on
        for f in report.findings
    )


def _check(prog: Program, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.progress import progress_bar
    from drgn_zonedev.report import check

    with progress_bar() as progress:
        report = check(prog, progress=progress)
    _print(
        args,
        lambda: as_text.report_text(report, verbose=args.verbose),
        lambda: as_json.report_document(report),
    )
    if failed(report, args.fail_on):
        return Outcome(report, Status.FINDINGS)
    if _nothing_judged(report):
        return Outcome(report, Status.NOT_JUDGED)
    return Outcome(report)


def _nothing_judged(report: Report) -> bool:
    # There were struct pages to verify, and not one could be read.
    return report.coverage.pages_unreadable > 0 and report.coverage.pages_verified == 0


# --- the others -------------------------------------------------------------------------


def _ranges_arguments(parser: argparse.ArgumentParser) -> None:
    _output_arguments(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="show the evidence")


def _ranges(prog: Program, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.classify import classify
    from drgn_zonedev.report import kernel_facts

    kernel, ranges = kernel_facts(prog), classify(prog)
    _print(
        args,
        lambda: as_text.ranges_text(kernel, ranges, verbose=args.verbose),
        lambda: as_json.ranges_document(kernel, ranges),
    )
    return Outcome(ranges)


def _sections_arguments(parser: argparse.ArgumentParser) -> None:
    _output_arguments(parser)
    parser.add_argument("nr", metavar="NR", type=_number, nargs="*", help="only these sections")


def _sections(prog: Program, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.report import kernel_facts
    from drgn_zonedev.sections import section_rows

    kernel = kernel_facts(prog)
    rows = [row for row in section_rows(prog) if not args.nr or row.nr in args.nr]
    _print(
        args,
        lambda: as_text.sections_text(kernel, rows),
        lambda: as_json.sections_document(kernel, rows),
    )
    return Outcome(rows)


def _pgmaps(prog: Program, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.report import kernel_facts
    from drgn_zonedev.snapshot import take_snapshot, with_devices

    kernel, pgmaps = kernel_facts(prog), with_devices(prog, take_snapshot(prog).pgmaps)
    _print(
        args,
        lambda: as_text.pgmaps_text(kernel, pgmaps),
        lambda: as_json.pgmaps_document(kernel, pgmaps),
    )
    return Outcome(pgmaps)


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number (hexadecimal numbers start with 0x)"
        ) from None


def _pfn_arguments(parser: argparse.ArgumentParser) -> None:
    _output_arguments(parser)
    parser.add_argument(
        "pfn",
        metavar="PFN",
        type=_number,
        help="a PFN, the address of a struct page, or a physical address where there is no "
        "memory at that PFN",
    )
    parser.add_argument(
        "--as",
        dest="kind",
        choices=("pfn", "phys", "page"),
        help="what the number is, instead of guessing",
    )


def _pfn(prog: Program, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.explain import explain, resolve_pfn

    try:
        pfn, kind = resolve_pfn(prog, args.pfn, args.kind)
    except ValueError as e:
        raise UsageError(str(e)) from e
    if args.kind is None and kind != "PFN":
        print(f"zonedev: taking {args.pfn:#x} for a {kind}", file=sys.stderr)
    explanation = explain(prog, pfn)
    _print(
        args,
        lambda: as_text.explanation_text(explanation),
        lambda: as_json.explanation_document(explanation),
    )
    return Outcome(explanation)


# --- export -----------------------------------------------------------------------------


def _pages(text: str) -> int:
    pages = _number(text)
    if pages < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is negative")
    return pages


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", help="the directory to write")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    parser.add_argument(
        "--all-memmap", action="store_true", help="include the struct pages of RAM, too"
    )
    parser.add_argument(
        "--margin",
        metavar="PAGES",
        type=_pages,
        default=512,
        help="struct pages to include on both sides of a device (default: %(default)s)",
    )
    parser.add_argument(
        "--blank-names", action="store_true", help="leave out the names of devices and resources"
    )


def _export(prog: Program, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.export import Options, export, export_text
    from drgn_zonedev.progress import progress_bar

    options = Options(args.all_memmap, args.margin, args.blank_names)
    try:
        with progress_bar() as progress:
            done = export(prog, args.out, options, force=args.force, progress=progress)
    except FileExistsError as e:
        raise UsageError(f"{args.out} exists: choose another name, or use --force") from e
    except OSError as e:
        raise UsageError(f"cannot write {args.out}: {e.strerror or e}") from e
    except ValueError as e:
        raise UsageError(f"cannot export this: {e}") from e
    print(export_text(done.path, done.meta))
    return Outcome(done)


COMMANDS = (
    Command(
        "check",
        "classify all physical memory, verify the struct pages, and report",
        _check_arguments,
        _check,
    ),
    Command(
        "ranges",
        "divide physical memory by what it is, without reading struct pages",
        _ranges_arguments,
        _ranges,
    ),
    Command(
        "sections", "show sections, their flags and subsections", _sections_arguments, _sections
    ),
    Command("pgmaps", "show every struct dev_pagemap", _output_arguments, _pgmaps),
    Command("pfn", "explain a PFN", _pfn_arguments, _pfn),
    Command(
        "export",
        "write what all of this is decided from to a small vmcore of its own",
        _export_arguments,
        _export,
    ),
)
