# SPDX-License-Identifier: LGPL-2.1-or-later

"""Reports to compare with: JSON files, and whatever else can be opened and checked."""

from __future__ import annotations

import json
import os
from typing import Any, Union

from drgn_zonedev.commands.base import Session, UsageError
from drgn_zonedev.commands.inputs import input_data
from drgn_zonedev.commands.jobs import scanner_of
from drgn_zonedev.comparison.differences import new_findings
from drgn_zonedev.comparison.known_census import CENSUS_SCHEMA, KnownCensus, known_census
from drgn_zonedev.comparison.known_report import (
    SCHEMAS,
    KnownReport,
    NotAReportError,
    known_report,
)
from drgn_zonedev.model import Finding, Report
from drgn_zonedev.opening.failures import CannotJudgeError

__all__ = (
    "KnownDocument",
    "baseline_of_file",
    "compare_with",
    "document_of_file",
    "is_json",
    "known_census_of_session",
    "known_report_of_file",
    "known_report_of_session",
)

_WRITE_ONE = "write one with check --format json -o FILE"


KnownDocument = Union[KnownReport, KnownCensus]
"""What can be compared with another of its kind."""


def is_json(path: str) -> bool:
    """Return whether a file is of JSON, or of nothing at all, rather than a program."""
    if path == "-":
        return True
    if os.path.isdir(path):
        return False
    try:
        with open(path, "rb") as f:
            return f.read(64).lstrip()[:1] in (b"{", b"")
    except OSError:
        # Who opens it says why it cannot be read.
        return False


def document_of_file(path: str) -> KnownDocument:
    """
    Read what ``check --format json`` or ``pages --format json`` wrote, ``-`` for standard input.

    :raises UsageError: if that cannot be done
    """
    document = _document(path)
    is_census = isinstance(document, dict) and document.get("schema") == CENSUS_SCHEMA
    try:
        return known_census(document) if is_census else known_report(document)
    except NotAReportError as e:
        known = f"a report of {' or '.join(SCHEMAS)} or a census of {CENSUS_SCHEMA}"
        raise UsageError(f"{path} is not {known}: {e}") from e


def known_report_of_file(path: str) -> KnownReport:
    """
    Read what ``check --format json`` wrote, ``-`` for standard input.

    :raises UsageError: if that cannot be done
    """
    document = _document(path)
    try:
        return known_report(document)
    except NotAReportError as e:
        raise UsageError(f"{path} is not a report of {' or '.join(SCHEMAS)}: {e}") from e


def _document(path: str) -> Any:
    text = input_data(path, _WRITE_ONE).decode(errors="replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as e:
        what = "is empty" if not isinstance(e, RecursionError) and not text.strip() else None
        raise UsageError(f"{path} {what or 'is not JSON'}: {_WRITE_ONE}") from e


def baseline_of_file(path: str) -> KnownReport:
    """
    Like :func:`known_report_of_file()`. ``/dev/null`` knows of nothing. Any other empty file is
    refused: it is what a check that failed leaves behind.
    """
    if os.path.realpath(path) == os.devnull:
        return KnownReport("", "", (None, None, None), (), (), ())
    return known_report_of_file(path)


def known_report_of_session(session: Session) -> KnownReport:
    """
    Check a program, all of it.

    :raises CannotJudgeError: if nothing of it could be judged
    """
    from drgn_zonedev.commands.progress import progress_bar
    from drgn_zonedev.render.as_json import report_document
    from drgn_zonedev.report import check_with

    with progress_bar() as progress, scanner_of(session, None) as scan_all:
        report = check_with(session.prog, progress, scan_all)
    if report.nothing_judged:
        raise CannotJudgeError("no struct page could be read: check says why")
    return known_report(report_document(report))


def known_census_of_session(session: Session, by: str | None) -> KnownCensus:
    """
    Count the pages of a program.

    :param by: As in JSON.
    """
    from drgn_zonedev.census.grouping import By
    from drgn_zonedev.census.total import take_census
    from drgn_zonedev.commands.progress import progress_bar
    from drgn_zonedev.render.pages import census_document

    grouped = next((each for each in By if each.key == by), None)
    with progress_bar() as progress, scanner_of(session, None) as scan_all:
        census = take_census(session.prog, grouped, progress, scan_all)
    return known_census(census_document(census))


def compare_with(baseline: KnownReport, report: Report) -> frozenset[Finding]:
    """Find out which findings of a report the baseline does not have, or not as bad."""
    from drgn_zonedev.render.as_json import report_document

    are_new = new_findings(baseline, known_report(report_document(report)))
    return frozenset(f for f, is_new in zip(report.findings, are_new) if is_new)
