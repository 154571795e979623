# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The Kernel's Answers
--------------------

Evaluates the kernel's predicates for one PFN. Each answer comes with the reason, and the
memory that it was read from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from drgn import FaultError, Object, Program
from drgn.helpers.linux.mmzone import (
    early_section,
    online_section,
    present_section,
    valid_section,
)

from drgn_zonedev.kernel.memmap import Pages, UnreadablePages
from drgn_zonedev.kernel.memremap import (
    dev_pagemap_ranges,
    find_dev_pagemap,
    has_zone_device,
    pgmap_altmap,
    pgmap_is_alive,
    pgmap_pfn_first,
    pgmap_pfn_valid,
    pgmap_range,
    pgmap_records_progress,
    pgmap_ref,
)
from drgn_zonedev.kernel.mmzone import (
    decode_section_word,
    online_device_section,
    pfn_section_valid,
    pfn_to_online_page,
    pfn_valid,
    require_section,
    section_flags,
    section_subsection_map,
    sparsemem_geometry,
    subsection_map_index,
)
from drgn_zonedev.kernel.pgmap_array import pgmap_array_slot
from drgn_zonedev.kernel.zone_device import pfn_zone_device, pfn_zone_device_reserved
from drgn_zonedev.model import Evidence

__all__ = ("Predicate", "predicates")


@dataclass(frozen=True)
class Predicate:
    """
    One of the kernel's predicates, with its answer for a PFN and the reason.

    ``evidence`` is the memory that the answer was read from. If a predicate only combines
    others, they have the evidence.
    """

    name: str
    answer: bool | str
    because: str
    evidence: tuple[Evidence, ...] = ()


def predicates(prog: Program, pfn: int, page: Pages | UnreadablePages) -> Iterator[Predicate]:
    """
    Evaluate every predicate for a PFN. If memory cannot be read, the answer says so.

    :param page: The PFN's ``struct page``.
    """
    section = _Section(prog, pfn)
    yield from section.flags()
    subsection = section.subsection()
    yield subsection
    yield _pfn_valid(prog, pfn, section, subsection)
    pgmap = _try(find_dev_pagemap, prog, pfn)
    claim = _claim(prog, pfn, pgmap)
    yield _online_page(prog, pfn, section, subsection, claim)
    yield claim
    extent: tuple[Evidence, ...] = ()
    if pgmap and claim.answer != "NULL":
        initialised = _pgmap_pfn_valid(pgmap, pfn)
        extent = initialised.evidence
        yield initialised
    yield from _proposed(prog, pfn, section.word + subsection.evidence + claim.evidence + extent)
    yield _zone_device_page(page)


def _try(f: Callable[..., Any], *args: Any) -> Any:
    try:
        return f(*args)
    except (FaultError, OverflowError, ValueError) as e:
        return f"cannot be read: {e}"


class _Section:
    """The section of a PFN, and the predicates that read it."""

    def __init__(self, prog: Program, pfn: int) -> None:
        self.prog, self.pfn = prog, pfn
        self.nr = pfn // sparsemem_geometry(prog).pages_per_section
        found = _try(require_section, prog, self.nr)
        self.error = found if isinstance(found, str) else ""
        self.section: Object | None = None if self.error or not found else found
        self.word = self._read_word()

    def _read_word(self) -> tuple[Evidence, ...]:
        if self.section is None:
            return ()
        try:
            member = self.section.section_mem_map
            value = member.value_()
        except FaultError as e:
            self.section, self.error = None, f"cannot be read: {e}"
            return ()
        note = "|".join(decode_section_word(self.prog, value))
        what = f"mem_section[{self.nr}].section_mem_map"
        return (Evidence(what, address=member.address_, value=value, note=note),)

    def has(self, predicate: Callable[[Object], bool]) -> bool:
        return self.section is not None and bool(predicate(self.section))

    def flags(self) -> Iterator[Predicate]:
        """The predicates that check a flag of the section."""
        flags = section_flags(self.prog)
        rows: list[tuple[Callable[[Object], bool], str, int]] = [
            (present_section, "SECTION_MARKED_PRESENT", flags.present),
            (valid_section, "SECTION_HAS_MEM_MAP", flags.has_mem_map),
            (online_section, "SECTION_IS_ONLINE", flags.online),
            (early_section, "SECTION_IS_EARLY", flags.early),
        ]
        for predicate, flag, bit in rows:
            yield self._flag(predicate.__name__, self.has(predicate), f"{flag} ({bit:#x})")
        if flags.taint:
            both = f"SECTION_IS_ONLINE and SECTION_TAINT_ZONE_DEVICE ({flags.taint:#x})"
            yield self._flag("online_device_section", self.has(online_device_section), both)

    def _flag(self, name: str, answer: bool, flag: str) -> Predicate:
        if self.error:
            return Predicate(name, self.error, "")
        if self.section is None:
            return Predicate(name, False, f"there is no section {self.nr}")
        return Predicate(name, answer, f"{flag} {'set' if answer else 'not set'}", self.word)

    def subsection(self) -> Predicate:
        """``pfn_section_valid()``"""
        bit = subsection_map_index(self.prog, self.pfn)
        if self.section is None:
            because = "" if self.error else f"there is no section {self.nr}"
            return Predicate("pfn_section_valid", self.error or False, because)
        answer = _try(pfn_section_valid, self.prog, self.pfn)
        if isinstance(answer, str):
            return Predicate("pfn_section_valid", answer, "")
        if section_subsection_map(self.section) is None:
            return Predicate("pfn_section_valid", answer, "this kernel has no subsections")
        state = "set" if answer else "clear"
        return Predicate(
            "pfn_section_valid",
            answer,
            f"bit {bit} of subsection_map is {state}",
            self._subsection_word(bit),
        )

    def _subsection_word(self, bit: int) -> tuple[Evidence, ...]:
        assert self.section is not None
        what, usage = f"mem_section[{self.nr}].usage", self.section.usage
        if not usage:
            return (Evidence(what, address=usage.address_, value=0, note="never populated"),)
        word = usage.subsection_map[bit // 64]
        what = f"{what}->subsection_map"
        return (Evidence(what, address=word.address_, value=word.value_(), note=f"bit {bit}"),)


def _pfn_valid(prog: Program, pfn: int, section: _Section, subsection: Predicate) -> Predicate:
    answer = _try(pfn_valid, prog, pfn)
    if not section.has(valid_section):
        because = "not valid_section()"
    elif section.has(early_section):
        because = "early_section(): the memmap of the whole section is mapped"
    else:
        because = "not early_section(), so pfn_section_valid() decides"
    return Predicate("pfn_valid", answer, because, section.word + subsection.evidence)


def _online_page(
    prog: Program, pfn: int, section: _Section, subsection: Predicate, claim: Predicate
) -> Predicate:
    page = _try(pfn_to_online_page, prog, pfn)
    evidence = section.word
    if isinstance(page, str):
        return Predicate("pfn_to_online_page", page, "")
    if not section.has(online_section):
        because = "not online_section()"
    elif not section_flags(prog).asks_subsection:
        because = "this kernel checks only the section, not the subsection or the pgmap"
    elif subsection.answer is not True:
        because, evidence = "not pfn_section_valid()", evidence + subsection.evidence
    elif section_flags(prog).asks_claim:
        because = "it asks subsection_dev_map whether a device has claimed the subsection"
        evidence += subsection.evidence + claim.evidence
    elif section.has(online_device_section):
        because = "the section is tainted, so it calls get_dev_pagemap()"
        evidence += subsection.evidence + claim.evidence
    else:
        because = "the section is not tainted, so it does not call get_dev_pagemap()"
        evidence += subsection.evidence
    answer = f"{page.value_():#x}" if page else "NULL"
    return Predicate("pfn_to_online_page", answer, because, evidence)


def _claim(prog: Program, pfn: int, pgmap: Object | str) -> Predicate:
    if isinstance(pgmap, str):
        return Predicate("get_dev_pagemap", pgmap, "")
    if not has_zone_device(prog):
        return Predicate("get_dev_pagemap", "NULL", "the kernel has no ZONE_DEVICE")
    slot = _try(pgmap_array_slot, prog, pfn)
    if isinstance(slot, str):
        return Predicate("get_dev_pagemap", slot, "")
    address, value = slot
    stored = Evidence(f"pgmap_array[{pfn:#x}]", address=address, value=value)
    if not pgmap:
        return Predicate("get_dev_pagemap", "NULL", "no entry in pgmap_array", (stored,))
    alive = _try(pgmap_is_alive, pgmap)
    if isinstance(alive, str):
        return Predicate("get_dev_pagemap", alive, "", (stored,))
    because = "its reference is live" if alive else "its reference is dead"
    answer = f"{pgmap.value_():#x}" if alive else "NULL"
    return Predicate("get_dev_pagemap", answer, because, (stored, _reference(pgmap)))


def _reference(pgmap: Object) -> Evidence:
    ref = pgmap_ref(pgmap)
    if not ref:
        return Evidence("pgmap->ref", address=pgmap.ref.address_, value=0)
    word = ref.percpu_count_ptr
    dead = pgmap.prog_["__PERCPU_REF_DEAD"].value_()
    note = "__PERCPU_REF_DEAD" if word.value_() & dead else ""
    what = "pgmap->ref.percpu_count_ptr"
    return Evidence(what, address=word.address_, value=word.value_(), note=note)


def _pgmap_pfn_valid(pgmap: Object | str, pfn: int) -> Predicate:
    if isinstance(pgmap, str):
        return Predicate("pgmap_pfn_valid", pgmap, "")
    try:
        answer = pgmap_pfn_valid(pgmap, pfn)
        ranges, evidence = dev_pagemap_ranges(pgmap)[0], list(_extent(pgmap, pfn))
    except (FaultError, ValueError) as e:
        return Predicate("pgmap_pfn_valid", f"cannot be read: {e}", "")
    nr_range = pgmap.nr_range.value_() if pgmap_records_progress(pgmap) else len(ranges)
    if answer:
        because = "in an initialised range, after the altmap's pages"
    elif any(r.start_pfn <= pfn < r.end_pfn for r in ranges[:nr_range]):
        because = f"before {pgmap_pfn_first(pgmap, 0):#x}, the end of the altmap's pages"
    else:
        because = f"not in one of the {nr_range} initialised ranges"
    return Predicate("pgmap_pfn_valid", answer, because, tuple(evidence))


def _extent(pgmap: Object, pfn: int) -> Iterator[Evidence]:
    records = pgmap_records_progress(pgmap)
    if records:
        yield _member("pgmap->nr_range", pgmap.nr_range)
    for i, range_ in enumerate(dev_pagemap_ranges(pgmap)[0]):
        if range_.start_pfn <= pfn < range_.end_pfn:
            name, found = f"ranges[{i}]" if records else "res", pgmap_range(pgmap, i)
            yield _member(f"pgmap->{name}.start", found.start)
            yield _member(f"pgmap->{name}.end", found.end)
            if i == 0 and pgmap_altmap(pgmap):
                yield _member("pgmap->altmap.reserve", pgmap.altmap.reserve)
                yield _member("pgmap->altmap.free", pgmap.altmap.free)


def _proposed(prog: Program, pfn: int, evidence: tuple[Evidence, ...]) -> Iterator[Predicate]:
    # Proposed only: no kernel has these. kernel/zone_device.py defines the first.
    because = "pfn_section_valid() and pgmap_pfn_valid(); zonedev's definition"
    answer = _try(pfn_zone_device, prog, pfn)
    yield Predicate("pfn_zone_device", answer, because, evidence)
    answer = _try(pfn_zone_device_reserved, prog, pfn)
    because = "in the altmap's reserve; proposed in 2019"
    yield Predicate("pfn_zone_device_reserved", answer, because, evidence)


def _member(what: str, member: Object) -> Evidence:
    return Evidence(what, address=member.address_, value=member.value_())


def _zone_device_page(page: Pages | UnreadablePages) -> Predicate:
    if isinstance(page, UnreadablePages):
        return Predicate(
            "is_zone_device_page", f"cannot be read: {page.reason}", "it reads page->flags"
        )
    layout, zone = page.layout, int(page.zone[0])
    word = Evidence(
        "page->flags",
        address=layout.page_address(page.start_pfn) + layout.flags_word * 8,
        value=int(page.flags[0]),
    )
    because = f"page_zonenum() is {zone}, ZONE_DEVICE is {layout.zone_device}"
    if layout.zone_device >= layout.nr_zones:
        because = "the kernel has no ZONE_DEVICE"
    return Predicate("is_zone_device_page", zone == layout.zone_device, because, (word,))
