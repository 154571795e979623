# SPDX-License-Identifier: LGPL-2.1-or-later

"""
What each variant of pfn_zone_device(), and some walkers, must get wrong: arithmetic on
the ranges that a scenario arranges, without any of the code under test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

SECTION_PAGES = (128 << 20) >> 12

# (start PFN, end PFN, case)
Arranged = tuple[int, int, str]
Mistakes = dict[str, Counter[str]]

# A flag that says that a section has something to do with a device.
_DEVICE = ("device", "initializing", "reserved", "metadata", "teardown", "orphan", "ghost")
_CLAIMED = ("initializing", "reserved", "metadata")


def _sections(start_pfn: int, end_pfn: int) -> range:
    return range(start_pfn // SECTION_PAGES, (end_pfn - 1) // SECTION_PAGES + 1)


def _in_sections(arranged: Iterable[Arranged], sections: set[int]) -> Counter[str]:
    found: Counter[str] = Counter()
    for start, end, case in arranged:
        for nr in _sections(start, end):
            if nr in sections:
                first, last = nr * SECTION_PAGES, (nr + 1) * SECTION_PAGES
                found[case] += min(end, last) - max(start, first)
    return found


def _only(pages: Counter[str], cases: Iterable[str]) -> Counter[str]:
    return Counter({case: pages[case] for case in cases if pages[case]})


def _sections_with(arranged: Iterable[Arranged], cases: Iterable[str]) -> set[int]:
    return {nr for start, end, case in arranged if case in cases for nr in _sections(start, end)}


def false_yes(arranged: list[Arranged]) -> Mistakes:
    """
    Pages by case that each variant takes for valid device memory. None of them misses
    any, on a namespace that begins and ends, and has its data, at whole subsections.
    """
    pages: Counter[str] = Counter()
    for start, end, case in arranged:
        pages[case] += end - start
    flagged = _in_sections(arranged, _sections_with(arranged, _DEVICE))
    del flagged["device"]
    in_flight = bool(pages["initializing"])
    head = ("reserved", "metadata")
    return {
        "section-flag": flagged,
        "section-flag+pgmap": _only(pages, _CLAIMED),
        "taint+pgmap": _only(pages, _CLAIMED),
        "early-bit": _only(pages, (*_CLAIMED, "teardown", "orphan")),
        "late-bit": _only(pages, ("teardown",) if in_flight else (*head, "teardown")),
        "late-bit-data": Counter(),
        "two-bits": Counter(),
        "pgmap+range": Counter(),
    }


def online_by_section(arranged: list[Arranged]) -> Counter[str]:
    """Pages that a kernel without taint takes for online: all in a section that has RAM."""
    pages = _in_sections(arranged, _sections_with(arranged, ("online",)))
    del pages["online"], pages["device"]
    return pages


def valid(arranged: list[Arranged]) -> Counter[str]:
    """Pages that have a struct page, promised by nobody: all but those in no subsection."""
    pages: Counter[str] = Counter()
    early = _sections_with(arranged, ("online", "ghost"))
    for start, end, case in arranged:
        if case not in ("online", "device", "partial"):
            pages[case] += end - start
    holes = _in_sections([a for a in arranged if a[2] == "partial"], early)
    return pages + holes
