# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Parse the answers of the guest's kernel for each PFN.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from drgn_zonedev.lab.scenarios.arithmetic import PAGE, SECTION

__all__ = (
    "Answer",
    "Kpageflags",
    "Values",
    "Visit",
    "parse_kpageflags",
    "parse_truth",
    "parse_values",
    "parse_visits",
)

_WORD = 8


@dataclass(frozen=True)
class Answer:
    """
    A line of ``/proc/zonedev_truth``: one answer for all PFNs of ``[start_pfn, end_pfn)``.

    A field is None if it was not asked, because the struct page must not be touched.
    """

    start_pfn: int
    end_pfn: int
    valid: bool
    """``pfn_valid()``"""
    online: bool
    """``pfn_to_online_page() != NULL``"""
    pgmap: int
    """``get_dev_pagemap()``"""
    pgmap_valid: bool
    """``pgmap_pfn_valid()`` of that pgmap"""
    zone: int | None
    nid: int | None
    order: int | None
    """Each PFN's head is the PFN rounded down to ``1 << order``; -1 if that is not so."""
    page_pgmap: int | None
    """The pgmap in the head page."""
    zone_device: bool | None = None
    """``pfn_zone_device()``; None, as with the next two: this kernel has no such function."""
    claimed: bool | None = None
    """``pfn_zone_device_claimed()``"""
    reserved: bool | None = None
    """``pfn_zone_device_reserved()``"""


@dataclass(frozen=True)
class Kpageflags:
    """
    A run of ``/proc/kpageflags``.

    `answer` is ``nopage`` (KPF_NOPAGE), ``flags``, or ``zero``. Kernels from 7.x on have no
    KPF_NOPAGE: there, ``zero`` is not an online page, or an online one without any flag.
    """

    start_pfn: int
    end_pfn: int
    answer: str


@dataclass(frozen=True)
class Values:
    """A run of equal words in ``/proc/kpageflags`` or ``/proc/kpagecount``."""

    start_pfn: int
    end_pfn: int
    value: int


@dataclass(frozen=True)
class Visit:
    """The result of a PFN walker that the guest ran on a page."""

    walker: str
    pfn: int | None
    """None: all of memory."""
    said: str
    """``ok``, or the words of an errno."""


def _touched(field: str) -> int | None:
    return None if field == "-" else -1 if field == "x" else int(field, 16)


def parse_truth(text: str) -> tuple[Answer, ...]:
    """Parse ``/proc/zonedev_truth``; its fields are explained in ``zonedev_truth.c``."""
    answers = []
    for line in text.splitlines():
        start, end, valid, online, pgmap, pgmap_valid, *more = line.split()
        zone, nid, order, page_pgmap = (_touched(field) for field in more[:4])
        answers.append(
            Answer(
                int(start, 16),
                int(end, 16),
                valid == "1",
                online == "1",
                int(pgmap, 16),
                pgmap_valid == "1",
                zone,
                nid,
                order,
                page_pgmap,
                *(None if field == "-" else field == "1" for field in more[4:]),
            )
        )
    return tuple(answers)


def parse_kpageflags(text: str) -> tuple[Kpageflags, ...]:
    """Parse the guest script's summary of ``/proc/kpageflags``."""
    runs = (line.split() for line in text.splitlines())
    return tuple(Kpageflags(int(start, 16), int(end, 16), answer) for start, end, answer in runs)


def parse_values(text: str) -> tuple[Values, ...]:
    """Parse the guest script's summary of parts of a file of words (``kpage_values``)."""
    parts = (part.splitlines() for part in text.split("from ")[1:])
    return tuple(run for first, *lines in parts for run in _runs(int(first), lines))


def _runs(section: int, lines: Sequence[str]) -> Iterator[Values]:
    # Offsets count from the section's first word.
    pfn = section * (SECTION // PAGE)
    rows = [line.split() for line in lines]
    ends = [int(row[0]) // _WORD for row in rows[1:]]
    for (offset, halves), end in zip(rows, ends):
        yield Values(pfn + int(offset) // _WORD, pfn + end, int(halves[8:] + halves[:8], 16))


def parse_visits(text: str) -> tuple[Visit, ...]:
    """Parse what the guest script noted of its ``visit`` commands."""
    visits = (line.split("\t") for line in text.splitlines())
    return tuple(
        Visit(walker, None if pfn == "-" else int(pfn, 16), said) for walker, pfn, said in visits
    )
