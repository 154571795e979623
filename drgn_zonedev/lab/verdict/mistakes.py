# SPDX-License-Identifier: LGPL-2.1-or-later

"""
What each variant of pfn_zone_device(), and some walkers, must get wrong.

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


def _sections(start_pfn: int, end_pfn: int) -> range:
    return range(start_pfn // SECTION_PAGES, (end_pfn - 1) // SECTION_PAGES + 1)


def _clipped(arranged: Iterable[Arranged], sections: set[int]) -> list[Arranged]:
    return [
        (max(start, nr * SECTION_PAGES), min(end, (nr + 1) * SECTION_PAGES), case)
        for start, end, case in arranged
        for nr in _sections(start, end)
        if nr in sections
    ]


def _counted(arranged: Iterable[Arranged]) -> Counter[str]:
    pages: Counter[str] = Counter()
    for start, end, case in arranged:
        pages[case] += end - start
    return pages


def _in_sections(arranged: Iterable[Arranged], sections: set[int]) -> Counter[str]:
    return _counted(_clipped(arranged, sections))


def _only(pages: Counter[str], cases: Iterable[str]) -> Counter[str]:
    return Counter({case: pages[case] for case in cases if pages[case]})


def _sections_with(arranged: Iterable[Arranged], cases: Iterable[str]) -> set[int]:
    return {nr for start, end, case in arranged if case in cases for nr in _sections(start, end)}


def _shared(arranged: Iterable[Arranged], case: str, spans: Iterable[Arranged]) -> int:
    return sum(
        max(0, min(end, last) - max(start, first))
        for start, end, name in arranged
        for first, last, _ in spans
        if name == case
    )


def false_yes(arranged: Sequence[Arranged], was: Sequence[Arranged] = ()) -> Mistakes:
    """
    Count the pages that each variant takes for valid device memory, by case.

    None of them misses any, on a namespace that begins and ends, and has its data, at whole
    subsections.

    :param was: what the PFNs of a teardown were before; without it, all of them were data
    """
    pages = _counted(arranged)
    flagged = _in_sections(arranged, _sections_with(arranged, _DEVICE))
    del flagged["device"]
    in_flight = bool(pages["initializing"])
    # The head was never marked. The data's bit stays as long as its sections do.
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


def taken_for_ram(arranged: Sequence[Arranged], was: Sequence[Arranged] = ()) -> Mistakes:
    """
    Count what pfn_to_online_page() would take for RAM if it asked each variant.

    That is what the variant does not know for a device's, of all that is beside RAM in a section,
    and in a populated subsection: not holes, nor what a device has left.

    :param was: what the PFNs of a teardown were before
    """
    beside = _sections_with(arranged, ("online",))
    shared = _clipped(arranged, beside)
    pages = _counted(shared)
    unset = _CLAIMED if pages["initializing"] else ()
    dead = ("teardown", "orphan")
    head = _counted(shared)
    head["teardown"] = _shared(shared, "teardown", [r for r in was if r[2] in _HEAD])
    return {
        "section-flag": Counter(),
        # The kernel's own way: whatever has a pgmap whose reference is alive is a device's.
        "section-flag+pgmap": _only(pages, dead),
        "taint+pgmap": _only(pages, dead),
        "early-bit": Counter(),
        "late-bit": _only(pages, (*unset, "orphan")),
        "late-bit+reserve": _only(pages, (*(unset or ("reserved",)), *dead)),
        "late-bit-data": _only(head, (*(unset or _HEAD), *dead)),
        "two-bits": Counter(),
        "pgmap+range": _only(pages, (*(unset or _HEAD), *dead)),
    }


def taken_for_online(arranged: Sequence[Arranged], *, taint: bool) -> Counter[str]:
    """
    Count pages that are no RAM, and pfn_to_online_page() has them all the same.

    Without taint, those are all that are in a section which has RAM. With it, those that
    get_dev_pagemap() still had to tell from RAM: it fails from the moment on that the reference is
    killed, and pfn_section_valid() holds until the sections are gone.
    """
    pages = _in_sections(arranged, _sections_with(arranged, ("online",)))
    return _only(pages, ("teardown",)) if taint else _only(pages, pages.keys() - _PROMISED)


def valid(arranged: Sequence[Arranged]) -> Counter[str]:
    """Count pages that have a struct page, promised by nobody: all but those in no subsection."""
    pages: Counter[str] = Counter()
    early = _sections_with(arranged, ("online", "ghost"))
    for start, end, case in arranged:
        if case not in ("online", "device", "partial"):
            pages[case] += end - start
    holes = _in_sections([a for a in arranged if a[2] == "partial"], early)
    return pages + holes
