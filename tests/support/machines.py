# SPDX-License-Identifier: LGPL-2.1-or-later

"""Reports of machines that nobody here has: what is on them follows from arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

from drgn_zonedev.census.counting import CHUNK_PAGES
from drgn_zonedev.census.kind_spans import KindsByPlace, KindSpan
from drgn_zonedev.census.kinds import PageKind
from drgn_zonedev.findings import KINDS
from drgn_zonedev.model import (
    Altmap,
    Case,
    Coverage,
    Evidence,
    EvidenceKind,
    Finding,
    KernelFacts,
    Memmap,
    Pgmap,
    PgmapDevice,
    PgmapRange,
    Range,
    RefState,
    Report,
    Unjudged,
)

MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40


def kernel(section_size: int = 128 * MIB, page_size: int = 4096) -> KernelFacts:
    """x86_64, unless the sizes are those of another machine."""
    return KernelFacts(
        release="6.1.0-test",
        architecture="x86_64",
        live=False,
        page_size=page_size,
        section_size=section_size,
        subsection_size=2 * MIB,
        sizeof_page=64,
        vmemmap=0xFFFFEA0000000000,
        highest_present_section_nr=0,
        features={},
    )


def range_(start_pfn: int, end_pfn: int, case: Case, pgmap: int | None = None) -> Range:
    """A range, for no particular reason."""
    memmap = Memmap.UNMAPPED if case is Case.PARTIAL else Memmap.MAPPED
    return Range(start_pfn, end_pfn, case, memmap, "because", pgmap)


def pgmap(
    address: int, start_pfn: int, end_pfn: int, *, name: str = "dax0.0", in_progress: bool = False
) -> Pgmap:
    """A device-dax pgmap with its memmap on the device."""
    return Pgmap(
        address=address,
        type="MEMORY_DEVICE_GENERIC",
        nr_range=0 if in_progress else 1,
        ranges=(PgmapRange(start_pfn, end_pfn),),
        in_progress=in_progress,
        vmemmap_shift=0,
        flags=0,
        altmap=Altmap(start_pfn, end_pfn - 1, 2, 510, 0, 0),
        ref=RefState("live", "percpu", 1),
        ops=None,
        ops_address=0,
        owner=None,
        owner_address=0,
        device=PgmapDevice(name, "dax", address + 0x100),
    )


def finding(slug: str, case: Case, start_pfn: int, end_pfn: int, pgmap: int | None) -> Finding:
    """A finding with as much evidence as real ones have."""
    kind = EvidenceKind.STRUCT_PAGE
    evidence = tuple(
        Evidence(f"struct page of PFN {start_pfn:#x}", 1, i, kind=kind) for i in range(3)
    )
    return Finding(
        slug,
        KINDS[slug].severity,
        case,
        start_pfn,
        end_pfn,
        end_pfn - start_pfn,
        KINDS[slug].message,
        pgmap,
        evidence,
    )


def report(
    ranges: Sequence[Range],
    pgmaps: Sequence[Pgmap] = (),
    findings: Sequence[Finding] = (),
    unjudged: Sequence[Unjudged] = (),
    facts: KernelFacts | None = None,
) -> Report:
    """All of it together."""
    return Report(
        facts or kernel(),
        tuple(pgmaps),
        tuple(ranges),
        tuple(sorted(findings, key=lambda f: (f.severity.rank, f.start_pfn))),
        tuple(unjudged),
        Coverage(),
    )


def many_pgmaps(count: int) -> Report:
    """
    A machine with RAM below *count* GiB and a device of 256 MiB at every GiB behind it.

    Each device has a reserve of 2 pages and 510 pages of metadata. The last one is in
    flight; the one before it has a page that nobody initialised.
    """
    gib, size = GIB // 4096, 256 * MIB // 4096
    ranges = [range_(0, count * gib, Case.ONLINE)]
    pgmaps, findings, unjudged = [], [], []
    for i in range(count):
        start, address = (count + i) * gib, 0xFFFF888000000000 + i * 0x1000
        in_progress = i == count - 1
        case = Case.INITIALIZING if in_progress else Case.DEVICE
        pgmaps.append(
            pgmap(address, start, start + size, name=f"dax{i}.0", in_progress=in_progress)
        )
        ranges += [
            range_(start, start + 2, Case.RESERVED, address),
            range_(start + 2, start + 512, Case.METADATA, address),
            range_(start + 512, start + size, case, address),
        ]
        findings.append(finding("case5-reserved", Case.RESERVED, start, start + 2, address))
        unjudged.append(Unjudged(start + 2, start + 512, "not in the dump"))
        if in_progress:
            findings.append(
                finding("case4-initializing", Case.INITIALIZING, start + 512, start + size, address)
            )
        elif i == count - 2:
            findings.append(
                finding("device-page-uninitialized", Case.DEVICE, start + 600, start + 601, address)
            )
    return report(ranges, pgmaps, findings, unjudged)


def sampled_kinds(pages: int) -> KindsByPlace:
    """As many kinds of pages as a map shows of much RAM: 8 of each of 2048 chunks."""
    every, part = pages // (2048 * CHUNK_PAGES), CHUNK_PAGES // 8
    kinds = (PageKind.ANON, PageKind.FREE, PageKind.SLAB)
    starts = (
        (chunk * every + every // 2) * CHUNK_PAGES + i * part
        for chunk in range(2048)
        for i in range(8)
    )
    spans = [
        KindSpan(start, start + part, kinds[start // part % 3], part - start // part % 7)
        for start in starts
    ]
    return KindsByPlace(spans, every)
