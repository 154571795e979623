# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Report
------

Classify, verify, and put everything that is known together.
"""

from __future__ import annotations

import dataclasses

from drgn import Program, ProgramFlags
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.classify import classify_snapshot
from drgn_zonedev.consistency import inconsistencies
from drgn_zonedev.kernel.memmap import page_layout
from drgn_zonedev.kernel.mmzone import section_flags, sparsemem_geometry
from drgn_zonedev.model import (
    Finding,
    KernelFacts,
    Report,
    Severity,
    Unjudged,
)
from drgn_zonedev.scan import Progress
from drgn_zonedev.snapshot import Snapshot, changed_since, take_snapshot, with_devices
from drgn_zonedev.verify import Verification, verify_snapshot

__all__ = ("check", "kernel_facts")

# How often a running kernel may change under the verification before the
# answer is that it could not be judged.
_MAX_TRIES = 3


@takes_program_or_default
def check(prog: Program, *, progress: Progress = lambda pages: None) -> Report:
    """
    Classify all physical memory, verify its struct pages, and report.

    :param progress: Called with the number of struct pages that were just read.
    :raises LookupError: if the debugging information lacks what is needed, or the
        kernel was built without ``CONFIG_SPARSEMEM`` or ``CONFIG_ZONE_DEVICE``
    """
    snapshot, verification = _judge(prog, progress)
    return Report(
        kernel=kernel_facts(prog),
        pgmaps=with_devices(prog, snapshot.pgmaps),
        ranges=verification.ranges,
        findings=tuple(sorted(verification.findings, key=_worst_first)),
        unjudged=snapshot.unjudged + verification.unjudged,
        coverage=verification.coverage,
    )


def _worst_first(finding: Finding) -> tuple[int, int, str]:
    return finding.severity.rank, finding.start_pfn, finding.slug


def _judge(prog: Program, progress: Progress) -> tuple[Snapshot, Verification]:
    for _ in range(_MAX_TRIES):
        snapshot = take_snapshot(prog)
        ranges = classify_snapshot(prog, snapshot)
        verification = verify_snapshot(prog, snapshot, ranges, progress)
        structures = inconsistencies(prog, snapshot, ranges)
        verification = dataclasses.replace(
            verification, findings=(*verification.findings, *structures)
        )
        if not prog.flags & ProgramFlags.IS_LIVE:
            return snapshot, verification
        changed = changed_since(prog, snapshot)
        if not changed:
            return snapshot, verification
    # Nothing may be held against struct pages of a pgmap that came or went
    # while they were read.
    return snapshot, _without_errors(verification, changed)


def _without_errors(verification: Verification, pgmaps: frozenset[int]) -> Verification:
    findings, unjudged = [], list(verification.unjudged)
    for finding in verification.findings:
        if finding.severity is Severity.ERROR and finding.pgmap in pgmaps:
            reason = f"the pgmap changed while it was read ({finding.slug})"
            unjudged.append(Unjudged(finding.start_pfn, finding.end_pfn, reason))
        else:
            findings.append(finding)
    return dataclasses.replace(verification, findings=tuple(findings), unjudged=tuple(unjudged))


@takes_program_or_default
def kernel_facts(prog: Program) -> KernelFacts:
    """
    Get what every answer depends on.

    :raises LookupError: if the debugging information lacks it
    """
    geometry, flags, layout = sparsemem_geometry(prog), section_flags(prog), page_layout(prog)
    assert prog.platform is not None
    return KernelFacts(
        release=prog["UTS_RELEASE"].string_().decode(errors="backslashreplace"),
        architecture=prog.platform.arch.name.lower(),
        live=bool(prog.flags & ProgramFlags.IS_LIVE),
        page_size=1 << geometry.page_shift,
        section_size=1 << geometry.section_size_bits,
        subsection_size=geometry.pages_per_subsection << geometry.page_shift,
        sizeof_page=layout.size,
        vmemmap=layout.vmemmap,
        highest_present_section_nr=prog["__highest_present_section_nr"].value_(),
        features={
            "section_taint_zone_device": bool(flags.taint),
            "section_is_vmemmap_preinit": bool(flags.preinit),
            "vmemmap_shift": prog.type("struct dev_pagemap").has_member("vmemmap_shift"),
            "pgmap_in_folio": layout.pgmap_in_folio,
            "compound_info_is_mask": layout.compound_mask,
        },
    )
