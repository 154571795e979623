# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The mistakes that each variant of pfn_zone_device(), and some walkers, must make.

This is arithmetic on the ranges that a scenario arranges, without any of the code under test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

__all__ = (
    "SECTION_PAGES",
    "Arranged",
    "Mistakes",
    "false_yes",
    "taken_for_online",
    "taken_for_ram",
    "valid",
)

SECTION_PAGES = (128 << 20) >> 12

Arranged = tuple[int, int, str]
"""First PFN, end PFN (exclusive), and the name of the case."""
Mistakes = dict[str, "Counter[str]"]
"""Pages by case, for each variant."""

# A flag that says that a section has something to do with a device.
_DEVICE = ("device", "initializing", "reserved", "metadata", "teardown", "orphan", "ghost")
_PROMISED = {"online", "device"}
_HEAD = ("reserved", "metadata")
_CLAIMED = ("initializing", *_HEAD)


def _sections(start_pfn: int, end_pfn: int, size: int) -> range:
    return range(start_pfn // size, (end_pfn - 1) // size + 1)


def _clipped(arranged: Iterable[Arranged], sections: set[int], size: int) -> list[Arranged]:
    return [
        (max(start, nr * size), min(end, (nr + 1) * size), case)
        for start, end, case in arranged
        for nr in _sections(start, end, size)
        if nr in sections
    ]


def _counted(arranged: Iterable[Arranged]) -> Counter[str]:
    pages: Counter[str] = Counter()
    for start, end, case in arranged:
        pages[case] += end - start
    return pages


def _in_sections(arranged: Iterable[Arranged], sections: set[int], size: int) -> Counter[str]:
    return _counted(_clipped(arranged, sections, size))


def _only(pages: Counter[str], cases: Iterable[str]) -> Counter[str]:
    return Counter({case: pages[case] for case in cases if pages[case]})


def _sections_with(arranged: Iterable[Arranged], cases: Iterable[str], size: int) -> set[int]:
    found = (_sections(start, end, size) for start, end, case in arranged if case in cases)
    return {nr for sections in found for nr in sections}


def _shared(arranged: Iterable[Arranged], case: str, spans: Iterable[Arranged]) -> int:
    return sum(
        max(0, min(end, last) - max(start, first))
        for start, end, name in arranged
        for first, last, _ in spans
        if name == case
    )


def false_yes(
    arranged: Sequence[Arranged], was: Sequence[Arranged] = (), *, section: int = SECTION_PAGES
) -> Mistakes:
    """
    Count the pages that each variant takes for valid device memory, by case.

    On a namespace whose ends and data are aligned to subsections, no variant misses a page.

    :param was: what the PFNs of a teardown were before; without it, all of them were data
    :param section: pages of a section
    """
    pages = _counted(arranged)
    flagged = _in_sections(arranged, _sections_with(arranged, _DEVICE, section), section)
    del flagged["device"]
    in_flight = bool(pages["initializing"])
    # The altmap was never marked. The bits of the data stay until its sections are removed.
    data = Counter(pages)
    data["teardown"] -= _shared(arranged, "teardown", [r for r in was if r[2] in _HEAD])
    return {
        "section-flag": flagged,
        "section-flag+pgmap": _only(pages, _CLAIMED),
        "taint+pgmap": _only(pages, _CLAIMED),
        "early-bit": _only(pages, (*_CLAIMED, "teardown", "orphan")),
        "late-bit": _only(pages, ("teardown",) if in_flight else (*_HEAD, "teardown")),
        # get_dev_pagemap() fails as soon as the reference is killed.
        "late-bit+reserve": _only(pages, () if in_flight else ("metadata",)),
        "late-bit-data": _only(data, ("teardown",)),
        "two-bits": Counter(),
        "pgmap+range": Counter(),
    }


def taken_for_ram(
    arranged: Sequence[Arranged], was: Sequence[Arranged] = (), *, section: int = SECTION_PAGES
) -> Mistakes:
    """
    Count what pfn_to_online_page() would take for RAM if it asked each variant.

    These are the pages that the variant does not recognise as a device's, in populated
    subsections of sections with RAM. Holes and the rest of removed devices are not populated.

    :param was: what the PFNs of a teardown were before
    """
    beside = _sections_with(arranged, ("online",), section)
    shared = _clipped(arranged, beside, section)
    pages = _counted(shared)
    unset = _CLAIMED if pages["initializing"] else ()
    dead = ("teardown", "orphan")
    head = _counted(shared)
    head["teardown"] = _shared(shared, "teardown", [r for r in was if r[2] in _HEAD])
    return {
        "section-flag": Counter(),
        # As the kernel does: memory of a pgmap with a live reference belongs to a device.
        "section-flag+pgmap": _only(pages, dead),
        "taint+pgmap": _only(pages, dead),
        "early-bit": Counter(),
        "late-bit": _only(pages, (*unset, "orphan")),
        "late-bit+reserve": _only(pages, (*(unset or ("reserved",)), *dead)),
        "late-bit-data": _only(head, (*(unset or _HEAD), *dead)),
        "two-bits": Counter(),
        "pgmap+range": _only(pages, (*(unset or _HEAD), *dead)),
    }


def taken_for_online(
    arranged: Sequence[Arranged],
    *,
    taint: bool,
    claim: bool = False,
    section: int = SECTION_PAGES,
) -> Counter[str]:
    """
    Count the pages that pfn_to_online_page() returns although they are not RAM.

    Without taint, those are all pages in sections with RAM. With it, those for which
    get_dev_pagemap() fails: from the moment that the reference is killed, while
    pfn_section_valid() is true until the sections are removed.

    :param claim: whether it asks a bit that is set for as long as pfn_section_valid() is true
    """
    if claim:
        return Counter()
    pages = _in_sections(arranged, _sections_with(arranged, ("online",), section), section)
    return _only(pages, ("teardown",)) if taint else _only(pages, pages.keys() - _PROMISED)


def valid(arranged: Sequence[Arranged], *, section: int = SECTION_PAGES) -> Counter[str]:
    """Count unpromised pages that have a struct page: all but those in unpopulated subsections."""
    pages: Counter[str] = Counter()
    early = _sections_with(arranged, ("online", "ghost"), section)
    for start, end, case in arranged:
        if case not in ("online", "device", "partial"):
            pages[case] += end - start
    holes = _in_sections([a for a in arranged if a[2] == "partial"], early, section)
    return pages + holes
