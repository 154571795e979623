# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Compare ``zonedev proposal`` and ``zonedev walkers`` of a guest with the truth.

``mistakes.py`` has the arithmetic; this module compares with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from drgn_zonedev.lab.verdict.mistakes import (
    SECTION_PAGES,
    Arranged,
    false_yes,
    taken_for_online,
    taken_for_ram,
    valid,
)

if TYPE_CHECKING:
    from drgn_zonedev.lab.truth.answers import Answer
    from drgn_zonedev.pfn_proposal import ProposalReport
    from drgn_zonedev.pfn_walkers import WalkersReport

__all__ = ("kernel_differences", "variant_differences", "walker_differences")


def variant_differences(
    report: ProposalReport,
    arranged: Sequence[Arranged],
    was: Sequence[Arranged] = (),
    *,
    section: int = SECTION_PAGES,
) -> Iterator[str]:
    """Describe where variants of pfn_zone_device() do not answer as computed."""
    wanted = false_yes(arranged, was, section=section)
    as_ram = taken_for_ram(arranged, was, section=section)
    verdicts = {v.variant.name: v for v in report.verdicts}
    for name in sorted(verdicts.keys() ^ wanted.keys()):
        yield f"{name}: {'no arithmetic' if name in verdicts else 'not tried'}"
    device = sum(end - start for start, end, case in arranged if case == "device")
    if report.valid != device:
        yield f"proposal: {report.valid} valid pages, not {device}"
    for name, verdict in verdicts.items():
        if name not in wanted:
            continue
        yes = Counter({case.value: n for case, n in verdict.pages(True).items()})
        if yes != wanted[name]:
            yield f"{name}: false yes for {_text(yes)}, not {_text(wanted[name])}"
        if no := {case.value: n for case, n in verdict.pages(False).items()}:
            yield f"{name}: false no for {_text(no)}"
        taken = Counter({case.value: n for case, n in verdict.taken_for_ram.items()})
        if taken != as_ram[name]:
            yield f"{name}: takes {_text(taken)} for RAM, not {_text(as_ram[name])}"
        # A variant that takes RAM for device memory makes pfn_to_online_page() lose it.
        lost = wanted[name]["online"]
        if verdict.lost_ram != lost:
            yield f"{name}: loses {verdict.lost_ram} pages of RAM, not {lost}"
        right = report.judged - sum(wanted[name].values())
        if verdict.right != right:
            yield f"{name}: {verdict.right} pages right, not {right}"


def walker_differences(
    report: WalkersReport,
    arranged: Sequence[Arranged],
    *,
    claim: bool = False,
    section: int = SECTION_PAGES,
) -> Iterator[str]:
    """
    Describe where walkers do not meet the computed pages.

    :param claim: whether the kernel's pfn_to_online_page() asks subsection_dev_map
    """
    taint = report.kernel.features["section_taint_zone_device"]
    expected: dict[str, Counter[str]] = {
        "kpageflags": taken_for_online(arranged, taint=taint, claim=claim, section=section),
        "hwpoison-inject": valid(arranged, section=section),
    }
    spans = [(start, end) for start, end, _ in arranged]
    judged = {judgement.walker.name: judgement for judgement in report.walkers}
    for name, pages in expected.items():
        if name not in judged:
            yield f"{name}: not judged"
            continue
        met: Counter[str] = Counter()
        for exposure in judged[name].exposures:
            if any(a < exposure.end_pfn and exposure.start_pfn < b for a, b in spans):
                met[exposure.case.value] += exposure.touched
        wanted = Counter(pages)
        # Only struct pages distinguish a ghost from a hole, and they are not read here.
        for counts in (met, wanted):
            counts["partial"] += counts.pop("ghost", 0)
        if +met != +wanted:
            yield f"{name} meets {_text(+met)}, not {_text(+wanted)}"


def kernel_differences(
    answers: Sequence[Answer],
    arranged: Sequence[Arranged],
    *,
    taint: bool,
    claim: bool = False,
    section: int = SECTION_PAGES,
) -> Iterator[str]:
    """
    Describe where the arithmetic differs from the answers of the guest's kernel.

    A frozen guest has no answers.

    :param taint: whether the kernel's pfn_to_online_page() knows SECTION_TAINT_ZONE_DEVICE
    :param claim: whether it asks subsection_dev_map
    """
    mistakes = false_yes(arranged, section=section)
    as_online = taken_for_online(arranged, taint=taint, claim=claim, section=section)
    questions: list[tuple[str, Callable[[Answer], bool], Counter[str]]] = [
        ("pfn_valid()", lambda a: a.valid, valid(arranged, section=section)),
        ("pfn_to_online_page()", lambda a: a.online, as_online),
        # Whatever get_dev_pagemap() knows is in a section that has the flag.
        ("get_dev_pagemap()", lambda a: a.pgmap != 0, mistakes["section-flag+pgmap"]),
        ("pgmap_pfn_valid()", lambda a: a.pgmap_valid, mistakes["pgmap+range"]),
    ]
    if taint:
        name = "get_dev_pagemap() of what is valid and not online"
        asked = mistakes["taint+pgmap"]
        questions.append((name, lambda a: a.valid and not a.online and a.pgmap != 0, asked))
    for name, says_yes, wanted in questions:
        answered = _by_case([a for a in answers if says_yes(a)], arranged)
        if answered != +wanted:
            yield f"the kernel's {name} is true for {_text(answered)}, not {_text(+wanted)}"


def _by_case(answers: Sequence[Answer], arranged: Sequence[Arranged]) -> Counter[str]:
    # For RAM and device memory, yes is right.
    found: Counter[str] = Counter()
    for start, end, case in arranged:
        if case not in ("online", "device"):
            found[case] += sum(
                max(0, min(end, a.end_pfn) - max(start, a.start_pfn)) for a in answers
            )
    return +found


def _text(pages: Mapping[str, int]) -> str:
    return " and ".join([f"{n} {case}" for case, n in sorted(pages.items())]) or "none"
