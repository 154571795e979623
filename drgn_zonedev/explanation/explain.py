# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Explanation
-----------

Explains one PFN: its case, its struct page and the kernel's answers about it, each with a
reason that can be checked by hand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from drgn import Object, Program
from drgn.helpers.common.prog import takes_program_or_default

from drgn_zonedev.classification.classify import classify_snapshot, range_of_pfn
from drgn_zonedev.classification.facts import kernel_facts
from drgn_zonedev.classification.reading import take_snapshot, with_names_if_known
from drgn_zonedev.classification.snapshot import Snapshot
from drgn_zonedev.consistency import inconsistencies_at
from drgn_zonedev.explanation.exposed_walkers import ExposedWalker, exposed_walkers
from drgn_zonedev.explanation.kernel_answers import Predicate, predicates
from drgn_zonedev.explanation.neighbours import Neighbours, neighbours
from drgn_zonedev.explanation.resolve import Subject, resolve
from drgn_zonedev.explanation.struct_page import PageWords, decode_page
from drgn_zonedev.kernel.folio_counts import idle_references
from drgn_zonedev.kernel.memmap import (
    Pages,
    PagesOrGap,
    UnreadablePages,
    page_layout,
    read_pages,
)
from drgn_zonedev.kernel.mmzone import sparsemem_geometry, subsection_map_index
from drgn_zonedev.known_bugs.in_findings import with_known_bugs
from drgn_zonedev.model import Access, Case, Finding, KernelFacts, Memmap, Pgmap, Range, Severity
from drgn_zonedev.util.handles import Result, bind
from drgn_zonedev.verification.compound_links import linked_heads
from drgn_zonedev.verification.page_access import access_of_page
from drgn_zonedev.verification.patterns import Contents, page_contents
from drgn_zonedev.verification.ram_aliases import owner_of_alias
from drgn_zonedev.verification.verify import PageVerdict, divide_holes, verify_pfn

__all__ = ("Explanation", "explain", "explain_subject")


@dataclass(frozen=True, repr=False)
class Explanation(Result):
    """
    The explanation of one PFN.

    ``range`` is ``None`` where there is no memory. If the struct page could not be read,
    ``page`` is ``None``, and ``page_error`` says why. ``access`` says whether its memory may be
    read. ``subsection`` is the bit of the
    section's ``subsection_map``. ``walkers`` are the kernel's PFN walkers that would touch
    the page although it is not promised to be initialised; if they cannot be judged,
    ``walkers_error`` says why. ``pgmap`` is the one that claims the page, with its device.
    """

    kernel: KernelFacts
    subject: Subject
    pfn: int
    page_size: int
    section_nr: int
    subsection: int
    page_address: int
    range: Range | None
    neighbours: Neighbours
    predicates: tuple[Predicate, ...]
    page: PageWords | None
    page_error: str | None
    findings: tuple[Finding, ...]
    walkers: tuple[ExposedWalker, ...]
    walkers_error: str | None
    verdict: str
    access: Access = Access.UNKNOWN
    pgmap: Pgmap | None = None

    def __repr__(self) -> str:
        case = self.range.case.value if self.range else "no memory"
        return f"<Explanation of PFN {self.pfn:#x}: {case}>"

    @property
    def page_object(self) -> Object:
        """``struct page *``, even if it cannot be read."""
        return Object(self.prog, "struct page *", self.page_address)

    @property
    def physical_address(self) -> int:
        """``PFN_PHYS()``"""
        return self.pfn * self.page_size


@takes_program_or_default
def explain(
    prog: Program, what: int | str | Object | Range | Finding | Pgmap, kind: str | None = None
) -> Explanation:
    """
    Explain a page.

    :param what: A PFN; an object (``struct page *``, ``struct folio *``, or an
        integer); a range, finding or pgmap, for its first page; or text, which can also be a
        physical address or the name of a resource in ``/proc/iomem``: see
        :func:`~drgn_zonedev.explanation.resolve.resolve`.
    :param kind: ``pfn``, ``phys`` or ``page``: the kind of the number, instead of a guess.
    :raises LookupError: if a type or symbol is missing in the debugging information
    :raises ValueError: if there is no such page
    """
    snapshot = take_snapshot(prog)
    return explain_subject(prog, snapshot, resolve(prog, what, kind, snapshot.resources))


def explain_subject(prog: Program, snapshot: Snapshot, subject: Subject) -> Explanation:
    """Like :func:`explain`, for a resolved page and an existing snapshot."""
    pfn = subject.pfn
    geometry, layout = sparsemem_geometry(prog), page_layout(prog)
    ranges = _divided_at(prog, snapshot, classify_snapshot(prog, snapshot), pfn)
    range_ = range_of_pfn(prog, snapshot, ranges, pfn)
    judged = verify_pfn(prog, snapshot, range_, pfn) if range_ else None
    here = judged.range if judged else None
    words = next(read_pages(prog, pfn, pfn + 1))
    page = _page(prog, snapshot, words, judged) if isinstance(words, Pages) else None
    exposed = exposed_walkers(prog, snapshot, here, pfn)
    walkers = () if isinstance(exposed, str) else exposed
    kernel = kernel_facts(prog)
    findings = with_known_bugs(
        _findings(prog, snapshot, ranges, judged, pfn), snapshot.pgmaps, kernel
    )
    access = _access(prog, here, page, words)
    if here:
        here = dataclasses.replace(here, access=access)
    explanation = Explanation(
        kernel=kernel,
        subject=subject,
        pfn=pfn,
        page_size=1 << geometry.page_shift,
        section_nr=pfn // geometry.pages_per_section,
        subsection=subsection_map_index(prog, pfn),
        page_address=layout.page_address(pfn),
        range=here,
        neighbours=neighbours(prog, snapshot, ranges, pfn),
        predicates=tuple(predicates(prog, pfn, words)),
        page=page,
        page_error=words.reason if isinstance(words, UnreadablePages) else None,
        findings=findings,
        walkers=walkers,
        walkers_error=exposed if isinstance(exposed, str) else None,
        verdict=_verdict(
            here,
            page,
            findings,
            _of_others(prog, snapshot, ranges, words, judged),
            walkers,
            snapshot.is_online(pfn),
        )
        + _see_pins(prog, snapshot, here, page, pfn),
        access=access,
        pgmap=_pgmap(prog, snapshot, here),
    )
    for part in (explanation.range, *explanation.findings):
        if part is not None:
            bind(prog, part)
    return bind(prog, explanation)


def _pgmap(prog: Program, snapshot: Snapshot, range_: Range | None) -> Pgmap | None:
    found = tuple(p for p in snapshot.pgmaps if range_ and p.address == range_.pgmap)[:1]
    return next(iter(with_names_if_known(prog, found)), None)


def _access(
    prog: Program, range_: Range | None, page: PageWords | None, words: PagesOrGap
) -> Access:
    # The contents of a struct page count only if it is promised to be initialised.
    if range_ is None:
        return Access.NO_MEMORY
    if page is None or range_.case not in _PROMISES or range_.access is not Access.READABLE:
        return range_.access
    if page.poisoned:
        return Access.HWPOISON
    return access_of_page(prog, range_, words) if isinstance(words, Pages) else range_.access


def _divided_at(prog: Program, snapshot: Snapshot, ranges: list[Range], pfn: int) -> list[Range]:
    # Divide a hole in the same way as check().
    first = next((i for i, r in enumerate(ranges) if r.start_pfn <= pfn < r.end_pfn), None)
    if first is None:
        return ranges
    parts = divide_holes(prog, snapshot, ranges[first : first + 1])
    return [*ranges[:first], *parts, *ranges[first + 1 :]]


def _findings(
    prog: Program, snapshot: Snapshot, ranges: list[Range], judged: PageVerdict | None, pfn: int
) -> tuple[Finding, ...]:
    # Findings about this page, and about the structures that it depends on.
    own = judged.findings if judged else ()
    return (*own, *inconsistencies_at(prog, snapshot, ranges, pfn))


def _page(prog: Program, snapshot: Snapshot, pages: Pages, judged: PageVerdict | None) -> PageWords:
    live = frozenset(p.address for p in snapshot.pgmaps)
    range_ = judged.range if judged else None
    contents = page_contents(prog, pages, range_.pgmap if range_ else None, live)[0]
    return decode_page(
        prog,
        pages,
        range_.case if range_ else None,
        judged.promise if judged else None,
        live,
        list(Contents)[contents].value,
    )


_VERDICTS = {
    Case.ONLINE: "RAM, online",
    Case.OFFLINE: "Case 1: RAM that is not online. The struct page holds garbage.",
    Case.DEVICE: "Case 2: device memory",
    Case.PARTIAL: "Case 3: not covered by the device or the RAM that has the rest of the section.",
    Case.INITIALIZING: "Case 4: device memory whose struct page is not initialised yet.",
    Case.RESERVED: "Case 5: reserved for the driver. The struct page is never initialised.",
    Case.METADATA: "Set aside for the memmap of a device",
    Case.TEARDOWN: "Device memory that is being removed. Do not trust the struct page.",
    Case.ORPHAN: "Left behind by a failed memremap_pages(). The struct page is not initialised.",
    Case.GHOST: "Left behind by a device that is gone. The kernel does not update the struct page.",
    Case.UNKNOWN: "The case could not be decided.",
}

# What the kernel promises about the struct page; findings may contradict it.
_PROMISES = {
    Case.ONLINE: "A walker may read the struct page.",
    Case.DEVICE: "The struct page is promised to be initialised.",
    Case.METADATA: "The struct page is initialised, but its pgmap field is not a pgmap.",
}

# For RAM, which no pgmap claims, where the text differs.
_VERDICTS_OF_RAM = {
    Case.INITIALIZING: "Case 4: RAM whose struct page boot has not initialised yet.",
    Case.METADATA: "RAM that stores the memmap of its memory block",
}
_PROMISES_OF_RAM = {
    Case.METADATA: "The struct page is initialised, but its memory holds other struct pages.",
}
_OFFLINE_METADATA = (
    "RAM that stores the memmap of its memory block, which is offline. The struct page of this "
    "page itself holds garbage."
)


# About the memory behind an initialised struct page.
_WARNINGS = {
    Access.HWPOISON: "Its memory is poisoned (PG_hwpoison): reading it may raise a machine check.",
    Access.OFFLINE: "Its memory is logically offline (PageOffline): do not read it.",
    Access.UNACCEPTED: "Its memory is not accepted yet: do not read it.",
    Access.MMIO: "Its memory is that of a PCI device: reading it may disturb the device.",
    Access.NO_MEMORY: "Processors have no memory there: do not read it.",
}


def _verdict(
    range_: Range | None,
    page: PageWords | None,
    findings: Sequence[Finding],
    others: Iterable[tuple[str, Sequence[Finding]]],
    walkers: Sequence[ExposedWalker],
    online: bool,
) -> str:
    # Others are struct pages that those who read this one read, too, and findings about them.
    if range_ is None:
        return "No memory here: no present section and no pgmap."
    verdict, promise = _case_verdict(range_, online)
    broken = _broken(findings)
    of_other = next(((what, slugs) for what, f in others if (slugs := _broken(f))), None)
    if promise and broken:
        verdict += f", but the kernel's promise is broken: {broken}. Do not trust the struct page."
    elif promise and of_other:
        what, broken = of_other
        verdict += (
            f", but {what} breaks the kernel's promise: {broken}. Do not trust either struct page."
        )
    elif promise and page and page.false_zone:
        verdict += ", but the zone in its struct page does not exist."
    elif promise and (page or range_.case is not Case.ONLINE):
        verdict += f". {promise}"
    elif promise:
        # The struct page is not readable, so do not say that a walker may read it.
        verdict += "."
    if range_.memmap is Memmap.UNMAPPED:
        return f"{verdict} There is no struct page: reading it faults."
    if page is None:
        return f"{verdict} The struct page is not readable here."
    if not promise:
        return f"{verdict} It holds: {page.contents}."
    of_memory = _WARNINGS.get(range_.access, "")
    return " ".join(filter(None, [verdict, *_of_page(page, walkers), of_memory]))


def _broken(findings: Sequence[Finding]) -> str:
    return ", ".join(dict.fromkeys(f.slug for f in findings if f.severity is Severity.ERROR))


def _of_others(
    prog: Program,
    snapshot: Snapshot,
    ranges: list[Range],
    words: PagesOrGap,
    judged: PageVerdict | None,
) -> Iterator[tuple[str, Sequence[Finding]]]:
    # What is wrong with the head that a tail in RAM leads to, and with the page that is judged in
    # place of an alias.
    if not isinstance(words, Pages):
        return
    owner = None
    if judged and judged.range.case is Case.ONLINE and not judged.promise:
        owner = owner_of_alias(prog, words.start_pfn)
    if owner is not None:
        what = f"the struct page of PFN {owner:#x}, which is the same memory,"
        yield what, _findings_of_ram(prog, snapshot, ranges, owner)
    head = int(linked_heads(words)[0])
    if head >= 0:
        yield "the head of its compound page", _findings_of_ram(prog, snapshot, ranges, head)


def _findings_of_ram(
    prog: Program, snapshot: Snapshot, ranges: list[Range], pfn: int
) -> tuple[Finding, ...]:
    range_ = range_of_pfn(prog, snapshot, ranges, pfn)
    if range_ is None or range_.case is not Case.ONLINE:
        return ()
    return verify_pfn(prog, snapshot, range_, pfn).findings


def _of_page(page: PageWords, walkers: Sequence[ExposedWalker]) -> Iterator[str]:
    # Warnings about a page whose struct page is promised to be initialised.
    if page.false_zone:
        yield f"page_zone() is not a zone: page->flags say node {page.node}, zone {page.zone}."
    if dying := [f"{w.function}() ({w.name})" for w in walkers if w.dies]:
        yield f"The kernel oopses on it in {', '.join(dying)}."


def _see_pins(
    prog: Program, snapshot: Snapshot, range_: Range | None, page: PageWords | None, pfn: int
) -> str:
    # A hint at pins, where it matters who uses the page.
    if page is None or range_ is None or range_.case not in (Case.DEVICE, Case.TEARDOWN):
        return ""
    pgmap = next((p for p in snapshot.pgmaps if p.address == range_.pgmap), None)
    if pgmap is None or page.refcount <= idle_references(prog, pgmap.type):
        return ""
    return f" It is used; see: zonedev pins {pfn:#x}"


def _case_verdict(range_: Range, online: bool) -> tuple[str, str | None]:
    case = range_.case
    if range_.pgmap is None and case is Case.METADATA and not online:
        return _OFFLINE_METADATA, None
    if range_.pgmap is None and case in _VERDICTS_OF_RAM:
        return _VERDICTS_OF_RAM[case], _PROMISES_OF_RAM.get(case)
    return _VERDICTS[case], _PROMISES.get(case)
