# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Where a guest's kernel is wrong by its own answers, so that ``error`` findings are right.

Debian's kernels are healthy but for one bug: struct pages of reserved memory that no zone spans may
have a zone that does not exist (see the scenario ``acpi-hole``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from drgn import Program
from drgn.helpers.linux.printk import get_dmesg

from drgn_zonedev.lab.truth.frozen import Frozen, Is, read_frozen
from drgn_zonedev.lab.truth.guest_facts import Facts
from drgn_zonedev.lab.verdict.disagreement import runs
from drgn_zonedev.model import Finding, Severity
from drgn_zonedev.util.intervals import difference, union

__all__ = ("ProvenErrors", "error_differences", "pages_in_no_zone", "proven_errors")

_Spans = Sequence[tuple[int, int]]
# As e820__print_table() logs it; the second address is the last one of the entry. 7.3 says "device
# reserved", after two spaces.
_E820 = re.compile(
    rb"BIOS-e820: \[mem 0x([0-9a-f]+)-0x([0-9a-f]+)\] +(?:device )?(?:reserved|ACPI)"
)


@dataclass(frozen=True)
class ProvenErrors:
    """
    The PFNs at which the kernel is wrong, if `exact`, and else at which it may be.

    They are sorted and disjoint.
    """

    spans: _Spans
    exact: bool


def proven_errors(prog: Program, facts: Facts) -> ProvenErrors:
    """
    Find out where the kernel is wrong, by its own answers.

    If it was not asked about every struct page, it may be wrong wherever it can have that bug:
    in memory that firmware keeps for itself.
    """
    frozen = read_frozen(prog, facts)
    if frozen is None:
        page = prog["PAGE_SIZE"].value_()
        firmware = _by_iomem(facts) if "iomem" in facts else _by_log(bytes(get_dmesg(prog)))
        spans = union((start // page, -(-end // page)) for start, end in firmware)
        return ProvenErrors(spans, exact=False)
    return ProvenErrors(pages_in_no_zone(frozen), exact=True)


def error_differences(findings: Iterable[Finding], proven: ProvenErrors) -> Iterator[str]:
    """Describe errors where the kernel is right, and what is wrong without an error."""
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    for error in errors:
        span = error.start_pfn, error.end_pfn
        if any(difference(span, proven.spans)):
            yield f"{_pfns(span)}: {error.slug} on a healthy kernel ({error.count} pages)"
    found = union((error.start_pfn, error.end_pfn) for error in errors)
    for wrong in proven.spans if proven.exact else ():
        for missed in difference(wrong, found):
            yield f"{_pfns(missed)}: the kernel is wrong, and no error says so"


def _pfns(span: tuple[int, int]) -> str:
    return f"PFNs {span[0]:#x}-{span[1]:#x}"


def _by_iomem(facts: Facts) -> Iterator[tuple[int, int]]:
    for entry in facts["iomem"]:
        if entry.name == "Reserved" or entry.name.startswith("ACPI"):
            yield entry.start, entry.end


def _by_log(log: bytes) -> Iterator[tuple[int, int]]:
    # A guest that was frozen during boot has no user space to ask.
    for start, last in _E820.findall(log):
        yield int(start, 16), int(last, 16) + 1


def pages_in_no_zone(frozen: Frozen) -> _Spans:
    """
    Return the online PFNs whose struct page says a zone that it cannot be in.

    That is any but a zone that spans the PFN, or, of reserved pages, one of the two that are
    nearest: ``init_unavailable_range()`` takes these for holes.
    """
    pfn = frozen.pfn
    link = _links(frozen.column("nid"), frozen.column("zone"))
    right = ~frozen.yes(Is.ONLINE)
    zones = frozen.zones[frozen.zones["spanned"] > 0]
    start = zones["start_pfn"].astype(np.int64)
    end = start + zones["spanned"].astype(np.int64)
    known = _links(zones["nid"], zones["number"])
    for zone in range(len(zones)):
        right |= (link == known[zone]) & (pfn >= start[zone]) & (pfn < end[zone])
    reserved = frozen.yes(Is.RESERVED)
    for row in np.flatnonzero(~right & reserved).tolist():
        right[row] = link[row] in _nearest(int(pfn[row]), start, end, known)
    wrong = pfn[~right]
    return [(int(wrong[first]), int(wrong[last - 1]) + 1) for first, last in runs(wrong)]


def _links(nid: np.ndarray, zone: np.ndarray) -> np.ndarray:
    return nid.astype(np.int64) << 16 | zone.astype(np.int64)


def _nearest(pfn: int, start: np.ndarray, end: np.ndarray, links: np.ndarray) -> set[int]:
    below, above = np.where(end <= pfn, end, -1), np.where(start > pfn, -start, -(1 << 62))
    found = set()
    if below.max() >= 0:
        found.add(int(links[below.argmax()]))
    if above.max() > -(1 << 62):
        found.add(int(links[above.argmax()]))
    return found
