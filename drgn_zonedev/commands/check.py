# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev check``"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from drgn_zonedev.commands.base import (
    Command,
    DrgnCode,
    Outcome,
    Session,
    Status,
    UsageError,
    not_empty,
    output_arguments,
    pfns,
    print_result,
)
from drgn_zonedev.commands.drgn_code import JSON, TEXT, print_code, print_value_code, write_code
from drgn_zonedev.commands.jobs import JOBS, scanner_of
from drgn_zonedev.commands.map import (
    MAP,
    PICTURES,
    MapSubject,
    check_map_arguments,
    is_map,
    map_code,
    map_text,
)
from drgn_zonedev.model import Finding, MemoryKind, Report, Severity
from drgn_zonedev.render.screen import Screen
from drgn_zonedev.util.parser import Argument

if TYPE_CHECKING:
    from drgn import Program
    from drgn.commands import DrgnCodeBuilder

    from drgn_zonedev.comparison.known_report import KnownReport
    from drgn_zonedev.report import CheckedMemory

__all__ = ("CHECK", "FAIL_ON", "failed", "fails")


def _fail_on(value: str) -> tuple[str, ...]:
    from drgn_zonedev.findings import KINDS

    words, known = tuple(value.split(",")), _words()
    for word in words:
        if word not in known:
            raise argparse.ArgumentTypeError(
                f"{word!r} is not a severity ({', '.join(s.value for s in Severity)}), case3, "
                f"case4, case5 or a finding, such as {_like(word, KINDS)}: docs/findings.md "
                "lists them"
            )
    return words


def _words() -> list[str]:
    from drgn_zonedev.findings import KINDS

    return [*(s.value for s in Severity), "case3", "case4", "case5", *KINDS]


def _like(word: str, names: Iterable[str]) -> str:
    import difflib

    known = sorted(names)
    return (difflib.get_close_matches(word, known, n=1) or known[:1])[0]


class _Accumulate(argparse.Action):
    """Adds to the values that were given before; the first one replaces the default."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, values if before is self.default else (*before, *values))


FAIL_ON = Argument(
    "--fail-on",
    metavar="WHAT",
    type=_fail_on,
    action=_Accumulate,
    default=("error",),
    help="exit with 1 if there is any of these: a comma-separated list of severities, case3, "
    "case4, case5 and findings; a severity includes all that are worse (may be given more "
    "than once; default: error)",
    candidates=_words,
)
"""``--fail-on``, which :func:`fails()` understands."""


_ARGUMENTS = (
    *output_arguments("jsonl", "junit", *PICTURES),
    MAP,
    Argument(
        "--only",
        choices=[kind.value for kind in MemoryKind],
        help="verify only the memory of devices, or only RAM",
    ),
    Argument(
        "--pfns",
        metavar="START..END",
        type=pfns,
        help="check only these PFNs; END is not included",
    ),
    FAIL_ON,
    Argument(
        "--baseline",
        metavar="FILE",
        type=not_empty,
        help="let --fail-on count only what is not in this report, which check --format json wrote",
    ),
    JOBS,
    Argument("-v", "--verbose", action="store_true", help="show all evidence"),
    Argument("-q", "--quiet", action="store_true", help="print the last line only"),
)


def fails(finding: Finding, fail_on: tuple[str, ...]) -> bool:
    """Return whether ``--fail-on`` names a finding."""
    ranks = [Severity(word).rank for word in fail_on if word in [s.value for s in Severity]]
    return (
        finding.severity.rank <= max(ranks, default=-1)
        or finding.slug in fail_on
        or f"case{finding.case.number}" in fail_on
    )


def failed(report: Report, fail_on: tuple[str, ...]) -> bool:
    """Return whether a report holds anything that ``--fail-on`` names."""
    return any(fails(finding, fail_on) for finding in report.findings)


@dataclass(frozen=True)
class _Answer:
    """``new`` are the findings that a baseline does not have, or not as bad."""

    checked: CheckedMemory
    new: frozenset[Finding] | None

    def is_failure(self, finding: Finding, fail_on: tuple[str, ...]) -> bool:
        """Whether a finding decides the exit status."""
        return (self.new is None or finding in self.new) and fails(finding, fail_on)


def _check(session: Session, args: argparse.Namespace) -> Outcome:
    from drgn_zonedev.render import as_json

    check_map_arguments(args)
    if args.quiet and (is_map(args) or args.format != "text"):
        raise UsageError("--quiet prints a line of text: remove --map and --format")
    answer = _answer(session, args)
    report, new = answer.checked.report, answer.new
    is_failure = functools.partial(answer.is_failure, fail_on=args.fail_on)
    picture = functools.partial(_picture, session.prog, args, answer.checked)
    print_result(
        args,
        picture if args.map else functools.partial(_text, args, answer),
        lambda: as_json.report_document(report, new),
        jsonl=lambda: _lines(report, new),
        junit=lambda: _junit(report, is_failure),
        **dict.fromkeys(PICTURES, picture),
    )
    return Outcome(report, _status(session.prog, report, is_failure))


def _answer(session: Session, args: argparse.Namespace) -> _Answer:
    from drgn_zonedev.commands.progress import progress_bar
    from drgn_zonedev.report import NoMemoryError, check_memory, make_scope

    baseline = None if args.baseline is None else _baseline(args.baseline)
    scope = make_scope(args.only, args.pfns)
    try:
        with progress_bar() as progress, scanner_of(session, args.jobs) as scan_all:
            checked = check_memory(session.prog, progress, scan_all, scope, session.source)
    except NoMemoryError as e:
        raise UsageError(f"{e}: zonedev ranges shows where memory is") from e
    return _Answer(checked, None if baseline is None else _compared(baseline, checked.report))


def _status(prog: Program, report: Report, is_failure: Callable[[Finding], bool]) -> Status:
    from drgn_zonedev.vmcore.contradictions import is_contradictory

    if any(map(is_failure, report.findings)):
        return Status.FINDINGS
    # What the headers of a damaged dump hide may be an error.
    hidden = report.nothing_judged or is_contradictory(prog)
    return Status.NOT_JUDGED if hidden else Status.OK


def _picture(
    prog: Program, args: argparse.Namespace, checked: CheckedMemory, screen: Screen | None = None
) -> str:
    from drgn_zonedev.render.picture.scene import make_scene

    report = checked.report
    scene = make_scene(
        report.kernel, report.ranges, report.pgmaps, report.findings, report.provenance
    )
    return map_text(args, screen, MapSubject(prog, checked.snapshot, scene))


def _text(args: argparse.Namespace, answer: _Answer, screen: Screen | None) -> str:
    from drgn_zonedev.render import as_text

    report = answer.checked.report
    if args.quiet:
        nothing = "nothing could be judged: " if report.nothing_judged else ""
        return nothing + as_text.severities_text(report)
    whole = as_text.report_text(report, verbose=args.verbose, each=args.all, screen=screen)
    if answer.new is None:
        return whole
    from drgn_zonedev.render.differences import baseline_text

    return f"{whole}\n{baseline_text(args.baseline, report, answer.new)}"


# Import these only when asked for: they are rarely used, and slow to import.


def _baseline(path: str) -> KnownReport:
    from drgn_zonedev.commands.known_reports import baseline_of_file

    return baseline_of_file(path)


def _compared(baseline: KnownReport, report: Report) -> frozenset[Finding]:
    from drgn_zonedev.commands.known_reports import compare_with

    return compare_with(baseline, report)


def _lines(report: Report, new: frozenset[Finding] | None) -> str:
    from drgn_zonedev.render.as_lines import report_lines

    return report_lines(report, new)


def _junit(report: Report, is_failure: Callable[[Finding], bool]) -> str:
    from drgn_zonedev.render.as_junit import report_junit

    return report_junit(report, is_failure)


def _check_code(builder: DrgnCodeBuilder, args: argparse.Namespace) -> None:
    options = {
        "only": args.only and repr(args.only),
        "pfns": args.pfns and "({:#x}, {:#x})".format(*args.pfns),
    }
    given = ", ".join(f"{name}={value}" for name, value in options.items() if value)
    write_code(builder, f"report = check({given})\n", "drgn_zonedev:check")
    if is_map(args):
        parts = ("kernel", "ranges", "pgmaps", "findings", "provenance")
        map_code(builder, args, ", ".join(f"report.{part}" for part in parts))
    else:
        _text_code(builder, args)
    if args.fail_on != ("error",):
        code = f'if failed(report, {args.fail_on!r}):\n    print("there are findings")\n'
        write_code(builder, code, "drgn_zonedev.commands.check:failed")


def _text_code(builder: DrgnCodeBuilder, args: argparse.Namespace) -> None:
    wordy = "verbose" if args.verbose else "each" if args.all else ""
    if wordy:
        text = TEXT, "report_text", f"report, {wordy}=True"
        print_code(builder, args, text, (JSON, "report_document", "report"))
    else:
        print_value_code(builder, args, "report", JSON)


CHECK = Command(
    "check",
    "classify all physical memory, verify the struct pages, and report",
    _ARGUMENTS,
    _check,
    DrgnCode(
        _check_code,
        frozenset({"verbose", "fail_on", "only", "pfns", "map"}),
        ("text", "json", *PICTURES),
    ),
)
