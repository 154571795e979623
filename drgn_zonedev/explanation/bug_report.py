# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Bug Reports
-----------

Describes one finding for a mailing list or a bug tracker, without private data.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from drgn import Program
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.classification.reading import take_snapshot
from drgn_zonedev.explanation.explain import Explanation, explain, explain_subject
from drgn_zonedev.explanation.exposed_walkers import ExposedWalker
from drgn_zonedev.explanation.resolve import Subject, UnknownNameError
from drgn_zonedev.findings import KINDS
from drgn_zonedev.model import Evidence, EvidenceKind, Finding, KernelFacts
from drgn_zonedev.report import check
from drgn_zonedev.util.handles import Result
from drgn_zonedev.verification.patterns import Contents

__all__ = ("REPRODUCED_BY", "BugReport", "NothingToReportError", "bug_report")


class NothingToReportError(ValueError):
    """There is no finding of this kind, or none about this page."""


REPRODUCED_BY = {
    "device-page-uninitialized": "devdax-collision",
    "orphan-section": "orphan",
    "collision-untainted": "fsdax-collision",
    "case3-partial": "nvdimm-partial",
    "case4-initializing": "init-in-flight",
    "case5-reserved": "fsdax-collision",
    "ghost-pages": "ghost",
    "teardown": "teardown",
}
"""For each finding, a lab scenario that reproduces it on kernels that have the bug."""


@dataclass(frozen=True, repr=False)
class BugReport(Result):
    """
    A finding, and everything to report about it. ``evidence`` does not contain names of
    devices or files. ``words`` are those of the first struct page, or ``None`` if they may be
    private data. ``walkers`` would touch that page; if they cannot be judged,
    ``walkers_error`` says why. ``scenario`` is the lab scenario that reproduces the finding.
    """

    kernel: KernelFacts
    finding: Finding
    contents: str | None
    words: tuple[int, ...] | None
    evidence: tuple[Evidence, ...]
    pgmap_type: str | None
    walkers: tuple[ExposedWalker, ...]
    walkers_error: str | None
    scenario: str | None

    def __repr__(self) -> str:
        return f"<BugReport of {self.finding!r}>"


@takes_program_or_default
def bug_report(prog: Program, what: str | int | None = None) -> BugReport:
    """
    Report a finding.

    :param what: A slug, for the first finding of that kind; or a PFN, or anything else that
        :func:`~drgn_zonedev.explanation.explain.explain` takes, for the worst finding there.
        The default is the worst finding of all.
    :raises NothingToReportError: if there is no such finding
    :raises ValueError: if there is no such page
    """
    if what is None or what in KINDS:
        finding = _first(prog, None if what is None else str(what))
        subject = Subject(finding.start_pfn, "PFN")
        explanation = explain_subject(prog, take_snapshot(prog), subject)
    else:
        explanation = _explanation(prog, what)
        finding = _worst_here(explanation)
    return _report(prog, finding, explanation)


def _explanation(prog: Program, what: str | int) -> Explanation:
    try:
        return explain(prog, what)
    except UnknownNameError as e:
        like = difflib.get_close_matches(str(what), KINDS, n=1) or sorted(KINDS)[:1]
        raise UnknownNameError(
            f"{what!r} is neither a finding nor a page: give a finding that check shows, such as "
            f"{like[0]}, or a PFN"
        ) from e


def _first(prog: Program, slug: str | None) -> Finding:
    # check() puts the worst findings first.
    found = [f for f in check(prog).findings if slug in (None, f.slug)]
    if not found:
        kind = f"no {slug}" if slug else "nothing"
        raise NothingToReportError(f"check finds {kind}: give a PFN that has a finding")
    return found[0]


def _worst_here(explanation: Explanation) -> Finding:
    if not explanation.findings:
        raise NothingToReportError(
            f"PFN {explanation.pfn:#x} has no findings: see zonedev pfn {explanation.pfn:#x}, or "
            "give another PFN, or none for the worst finding of all"
        )
    return min(explanation.findings, key=lambda finding: finding.severity.rank)


def _report(prog: Program, finding: Finding, explanation: Explanation) -> BugReport:
    page = explanation.page
    contents = page.contents if page else None
    # The previous contents of a device are private data of its owner.
    private = contents in (None, Contents.MEDIA.value, Contents.OTHER.value)
    pgmaps = {p.address: p for p in take_snapshot(prog).pgmaps}
    pgmap = pgmaps.get(finding.pgmap) if finding.pgmap is not None else None
    return BugReport(
        kernel=explanation.kernel,
        finding=finding,
        contents=contents,
        words=page.words if page and not private else None,
        evidence=tuple(_public(fact) for fact in finding.evidence if _is_public(fact)),
        pgmap_type=pgmap.type if pgmap else None,
        walkers=explanation.walkers,
        walkers_error=explanation.walkers_error,
        scenario=REPRODUCED_BY.get(finding.slug),
    )


def _is_public(fact: Evidence) -> bool:
    return fact.kind is not EvidenceKind.STRUCT_PAGE and fact.value is not None


def _public(fact: Evidence) -> Evidence:
    # Notes contain names of resources, devices and modules.
    return Evidence(fact.what, fact.address, fact.value, fact.expected, "", fact.kind)
