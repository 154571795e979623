# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Explanation
-----------

Everything that is known of one PFN, and the reason for each answer, in terms
that can be checked by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from drgn import FaultError, Object, Program
from drgn.helpers.common.prog import takes_program_or_default
from drgn.helpers.linux.mm import decode_page_flags_value
from drgn.helpers.linux.mmzone import (
    early_section,
    online_section,
    pfn_to_section,
    valid_section,
)

from drgn_zonedev.classify import classify_pfn
from drgn_zonedev.contents import Contents, page_contents
from drgn_zonedev.kernel.memmap import Pages, UnreadablePages, page_layout, read_pages
from drgn_zonedev.kernel.memremap import (
    dev_pagemap_ranges,
    find_dev_pagemap,
    pgmap_is_alive,
    pgmap_pfn_first,
    pgmap_pfn_valid,
)
from drgn_zonedev.kernel.mmzone import (
    online_device_section,
    pfn_section_valid,
    pfn_to_online_page,
    pfn_valid,
    section_flags,
    sparsemem_geometry,
    subsection_map_index,
)
from drgn_zonedev.model import Case, Finding, Memmap, Range
from drgn_zonedev.snapshot import Snapshot, take_snapshot
from drgn_zonedev.verify import verify_pfn

__all__ = ("Explanation", "PageWords", "Predicate", "explain", "resolve_pfn")


@dataclass(frozen=True)
class Predicate:
    """One of the kernel's predicates, with its answer for this PFN and the reason."""

    name: str
    answer: bool | str
    because: str


@dataclass(frozen=True)
class PageWords:
    """A ``struct page``, raw and decoded."""

    words: tuple[int, ...]
    flags: tuple[str, ...]
    zone: str
    node: int
    refcount: int
    mapcount: int
    contents: str


@dataclass(frozen=True)
class Explanation:
    """
    What is known of one PFN.

    ``range`` is ``None`` where there is no memory. ``page`` is ``None`` if the
    struct page could not be read, and ``page_error`` says why.
    """

    pfn: int
    physical_address: int
    section_nr: int
    page_address: int
    range: Range | None
    predicates: tuple[Predicate, ...]
    page: PageWords | None
    page_error: str | None
    findings: tuple[Finding, ...]
    verdict: str


@takes_program_or_default
def resolve_pfn(prog: Program, value: int, kind: str | None = None) -> tuple[int, str]:
    """
    Find out which PFN a number means.

    An address inside vmemmap is a ``struct page *`` or ``struct folio *``. Any
    other number is a PFN if there is memory at that PFN, and else a physical
    address if there is memory at that address.

    :param kind: ``pfn``, ``phys`` or ``page`` to leave nothing to guess.
    :return: Tuple of (PFN, how the number was understood).
    :raises ValueError: if the number cannot be what *kind* says
    """
    geometry, layout = sparsemem_geometry(prog), page_layout(prog)
    if kind is None:
        if value >= layout.vmemmap:
            kind = "page"
        elif not _is_memory(prog, value) and _is_memory(prog, value >> geometry.page_shift):
            kind = "phys"
        else:
            kind = "pfn"
    pfn = {
        "pfn": value,
        "phys": value >> geometry.page_shift,
        "page": (value - layout.vmemmap) // layout.size,
    }[kind]
    if not 0 <= pfn < geometry.max_pfn:
        raise ValueError(f"{value:#x} is not a {_KINDS[kind]} on this machine")
    return pfn, _KINDS[kind]


_KINDS = {"pfn": "PFN", "phys": "physical address", "page": "struct page pointer"}


def _is_memory(prog: Program, pfn: int) -> bool:
    if not 0 <= pfn < sparsemem_geometry(prog).max_pfn:
        return False
    return valid_section(pfn_to_section(prog, pfn)) or bool(find_dev_pagemap(prog, pfn))


@takes_program_or_default
def explain(prog: Program, pfn: int) -> Explanation:
    """
    Explain a PFN.

    :raises LookupError: if the debugging information lacks what is needed
    """
    geometry, layout = sparsemem_geometry(prog), page_layout(prog)
    snapshot = take_snapshot(prog)
    range_ = classify_pfn(prog, snapshot, pfn)
    page, error = _read_page(prog, snapshot, pfn, range_)
    return Explanation(
        pfn=pfn,
        physical_address=pfn << geometry.page_shift,
        section_nr=pfn // geometry.pages_per_section,
        page_address=layout.page_address(pfn),
        range=range_,
        predicates=tuple(_predicates(prog, pfn)),
        page=page,
        page_error=error,
        findings=verify_pfn(prog, snapshot, range_, pfn) if range_ and page else (),
        verdict=_verdict(range_, page),
    )


def _read_page(
    prog: Program, snapshot: Snapshot, pfn: int, range_: Range | None
) -> tuple[PageWords | None, str | None]:
    part = next(read_pages(prog, pfn, pfn + 1))
    if isinstance(part, UnreadablePages):
        return None, part.reason
    live = frozenset(p.address for p in snapshot.pgmaps)
    pgmap = range_.pgmap if range_ else None
    contents = list(Contents)[page_contents(prog, part, pgmap, live)[0]]
    return _decode_page(prog, part, contents), None


def _decode_page(prog: Program, pages: Pages, contents: Contents) -> PageWords:
    return PageWords(
        words=tuple(pages.words[0].tolist()),
        flags=_flag_names(prog, int(pages.flags[0])),
        zone=_zone_name(prog, int(pages.zone[0])),
        node=int(pages.node[0]),
        refcount=int(pages.refcount[0]),
        mapcount=int(pages.mapcount[0]),
        contents=contents.value,
    )


def _flag_names(prog: Program, flags: int) -> tuple[str, ...]:
    # drgn decodes "no flags" as "0".
    text = decode_page_flags_value(prog, flags)
    return () if text == "0" else tuple(text.split("|"))


def _zone_name(prog: Program, zone: int) -> str:
    zones = prog.constant("__MAX_NR_ZONES").type_
    for name, value in zones.enumerators or ():
        if value == zone and name.startswith("ZONE_"):
            return str(name)
    return f"{zone}, which is no zone"


def _predicates(prog: Program, pfn: int) -> Iterator[Predicate]:
    section = pfn_to_section(prog, pfn)
    has_section = valid_section(section)
    early = has_section and early_section(section)
    populated = has_section and _try(pfn_section_valid, prog, pfn)
    bit = subsection_map_index(prog, pfn)
    yield Predicate(
        "valid_section", has_section, "SECTION_HAS_MEM_MAP" if has_section else "no such section"
    )
    yield Predicate(
        "early_section", early, "the memmap of the whole section is mapped" if early else ""
    )
    yield Predicate("pfn_section_valid", populated, f"bit {bit} of subsection_map")
    valid = _try(pfn_valid, prog, pfn)
    how = "the section is early" if early else "follows the subsection"
    yield Predicate("pfn_valid", valid, how if has_section else "")
    yield _online_page(prog, pfn)
    pgmap = find_dev_pagemap(prog, pfn)
    alive = bool(pgmap) and pgmap_is_alive(pgmap)
    yield Predicate(
        "get_dev_pagemap",
        f"{pgmap.value_():#x}" if alive else "NULL",
        "" if alive else ("the reference is dead" if pgmap else "nothing in pgmap_array"),
    )
    if alive:
        yield Predicate("pgmap_pfn_valid", *_pgmap_pfn_valid(pgmap, pfn))


def _pgmap_pfn_valid(pgmap: Object, pfn: int) -> tuple[bool, str]:
    if pgmap_pfn_valid(pgmap, pfn):
        return True, "in an initialised range, behind the altmap's head"
    nr_range = pgmap.nr_range.value_()
    if any(r.start_pfn <= pfn < r.end_pfn for r in dev_pagemap_ranges(pgmap)[0][:nr_range]):
        return False, f"before {pgmap_pfn_first(pgmap, 0):#x}, the end of the altmap's head"
    return False, f"not in one of the {nr_range} ranges that are initialised"


def _online_page(prog: Program, pfn: int) -> Predicate:
    page = _try(pfn_to_online_page, prog, pfn)
    if isinstance(page, str):
        return Predicate("pfn_to_online_page", page, "")
    if not online_section(pfn_to_section(prog, pfn)):
        because = "the section is not online"
    elif not section_flags(prog).taint:
        because = "this kernel asks the section only, not the subsection or the pgmap"
    elif online_device_section(pfn_to_section(prog, pfn)):
        because = "the section is tainted, so it asks get_dev_pagemap()"
    else:
        because = "the section is not tainted, so it does not ask get_dev_pagemap()"
    return Predicate("pfn_to_online_page", f"{page.value_():#x}" if page else "NULL", because)


def _try(f: Any, prog: Program, pfn: int) -> Any:
    try:
        return f(prog, pfn)
    except FaultError as e:
        return f"cannot be read: {e}"


_VERDICTS = {
    Case.ONLINE: "RAM, online. A walker may read the struct page.",
    Case.OFFLINE: "Case 1: RAM that is not online. The struct page holds garbage.",
    Case.DEVICE: "Case 2: device memory. The struct page is promised to be initialised.",
    Case.PARTIAL: "Case 3: not covered by the device or the RAM that has the rest of the section.",
    Case.INITIALIZING: "Case 4: device memory whose struct page is not initialised yet.",
    Case.RESERVED: "Case 5: reserved for the driver. The struct page is never initialised.",
    Case.METADATA: "Part of the memmap of a device. The struct page is initialised, "
    "but what looks like its pgmap is none.",
    Case.TEARDOWN: "Device memory on its way out. The struct page is not to be trusted.",
    Case.ORPHAN: "Left behind by a failed memremap_pages(). The struct page is not initialised.",
    Case.GHOST: "Left behind by a device that is gone. The struct page points to a freed pgmap.",
    Case.UNKNOWN: "It could not be decided what this is.",
}


def _verdict(range_: Range | None, page: PageWords | None) -> str:
    if range_ is None:
        return "No memory here: no present section and no pgmap."
    verdict = _VERDICTS[range_.case]
    if range_.memmap is Memmap.UNMAPPED:
        return f"{verdict} There is no struct page: reading it faults."
    if page is None:
        return f"{verdict} The struct page is not readable here."
    if range_.case not in (Case.ONLINE, Case.DEVICE, Case.METADATA):
        return f"{verdict} It holds: {page.contents}."
    return verdict
